import { describe, expect, it } from 'vitest'
import { type Keyring, WaxsealError } from 'waxseal'
import { AWAY, region } from './roots.ts'
import { activeOf, DAY, MINUTE, refusal, rotated, START, setup, standing, versionOf } from './support.ts'

const YEAR = 365 * DAY
const PROPAGATION = 30 * MINUTE

const dueOf = (keys: Keyring) => keys.status().due
const NOTHING = { staged: [], promoted: [], destroyed: [] }

describe('what is due', () => {
  it('is nothing for a young keyring', async () => {
    const keys = await setup().create()
    expect(dueOf(keys)).toEqual([])
    expect(keys.status()).toMatchObject({ propagationMs: PROPAGATION, cryptoperiodMs: YEAR })
    expect(await keys.maintain()).toEqual(NOTHING)
    expect(keys.status().epoch).toBe(1)
  })

  it('is a successor, in time to be active by the end of the cryptoperiod, and not 1 ms earlier', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const keyId = activeOf(keys)
    clock.now += YEAR - PROPAGATION - 1
    expect(dueOf(keys)).toEqual([])
    expect(await keys.maintain()).toEqual(NOTHING)
    clock.now += 1
    expect(dueOf(keys)).toEqual([{ action: 'rotate', keyId, since: START + YEAR - PROPAGATION }])
    const { staged, promoted } = await keys.maintain()
    expect([staged.length, promoted]).toEqual([1, []])
    expect(dueOf(keys)).toEqual([])
    clock.now += PROPAGATION
    expect(dueOf(keys)).toEqual([{ action: 'promote', keyId: staged[0], since: START + YEAR }])
    expect(await keys.maintain()).toEqual({ ...NOTHING, promoted: staged })
    expect([activeOf(keys), versionOf(keys, keyId).state]).toEqual([staged[0], 'deactivated'])
    expect(dueOf(keys)).toEqual([])
  })

  it('is a promotion, and no second successor, while one is staged', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const staged = await keys.rotate()
    clock.now += 3 * YEAR
    expect(dueOf(keys)).toEqual([{ action: 'promote', keyId: staged, since: START + PROPAGATION }])
    expect(await keys.maintain()).toEqual({ ...NOTHING, promoted: [staged] })
    expect(dueOf(keys)).toEqual([])
  })

  it('counts from when the version became active, not from when it was made', async () => {
    const { create, clock } = setup()
    const keys = await create()
    await keys.rotate()
    clock.now += 100 * DAY
    const [active] = (await keys.maintain()).promoted
    clock.now += YEAR - PROPAGATION - 1
    expect(dueOf(keys)).toEqual([])
    clock.now += 1
    expect(dueOf(keys)).toMatchObject([{ action: 'rotate', keyId: active }])
  })

  it('is a destruction when its time has come', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const { old } = await rotated(keys)
    await keys.retire(old, { references: 0 })
    const at = await keys.destroy(old, { backupsExpire: new Date(0), pendingMs: DAY })
    expect(dueOf(keys)).toEqual([])
    clock.now += DAY
    expect(dueOf(keys)).toEqual([{ action: 'destroy', keyId: old, since: at.getTime() }])
    expect(await keys.maintain()).toEqual({ ...NOTHING, destroyed: [old] })
    expect(dueOf(keys)).toEqual([])
  })

  it('is all of it at once after a long pause, and maintain() does it all in one write', async () => {
    const { create, clock, store } = setup()
    const keys = await create()
    const { old } = await rotated(keys)
    await keys.retire(old, { references: 0 })
    await keys.destroy(old, { backupsExpire: new Date(0), pendingMs: DAY })
    const staged = await keys.rotate()
    clock.now += 2 * DAY
    expect(dueOf(keys).map(({ action }) => action)).toEqual(['promote', 'destroy'])
    const { saves } = store
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [staged], destroyed: [old] })
    expect(store.saves).toBe(saves + 1)
  })

  it('is no rotation without an active version: a suspended one has its own way', async () => {
    const { create, clock } = setup()
    const keys = await create()
    await keys.suspend(activeOf(keys))
    clock.now += 2 * YEAR
    expect([dueOf(keys), await keys.maintain()]).toEqual([[], NOTHING])
  })

  it('and cannot be done while a KMS is away stays due, and the rest of maintain() is told as failed', async () => {
    const kms = region(1)
    const { create, clock, store } = setup({ kms })
    const keys = await create()
    clock.now += YEAR
    kms.down = AWAY
    const { saves } = store
    expect(await refusal(() => keys.maintain())).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
    expect([store.saves, dueOf(keys).length]).toEqual([saves, 1])
    kms.down = undefined
    expect((await keys.maintain()).staged).toHaveLength(1)
  })
})

describe('the policy', () => {
  it('of `cryptoperiodMs: null` rotates only on request', async () => {
    const { create, open, clock } = setup()
    const keys = await create({ cryptoperiodMs: null } as never)
    expect(keys.status().cryptoperiodMs).toBeUndefined()
    clock.now += 100 * YEAR
    expect(await keys.maintain()).toEqual(NOTHING)
    await keys.rotate()
    clock.now += PROPAGATION
    expect((await keys.maintain()).promoted).toHaveLength(1)
    expect((await open()).status().cryptoperiodMs).toBeUndefined()
  })

  it('can be changed, applies to what is active and staged already, and every instance learns it', async () => {
    const { create, open, clock } = setup()
    const keys = await create()
    const other = await open()
    await keys.setPolicy({ cryptoperiodMs: 10 * DAY, propagationMs: DAY })
    clock.now += 9 * DAY
    expect(dueOf(keys)).toMatchObject([{ action: 'rotate' }])
    await other.ready()
    expect(dueOf(other)).toEqual(dueOf(keys))
    const [staged] = (await other.maintain()).staged
    clock.now += DAY - 1
    expect(await refusal(() => other.promote(staged!))).toMatchObject({ code: 'KEY_STATE' })
    await keys.setPolicy({ propagationMs: 0 })
    expect((await other.maintain()).promoted).toEqual([staged])
    expect(standing(await open())).toMatchObject({ cryptoperiodMs: 10 * DAY, propagationMs: 0 })
  })

  it('counts from the first activation: a suspension does not prolong it', async () => {
    const { create, clock } = setup()
    const keys = await create({ cryptoperiodMs: 10 * DAY } as never)
    const first = activeOf(keys)
    clock.now += 5 * DAY
    await keys.suspend(first)
    clock.now += 4 * DAY
    await keys.reinstate(first)
    clock.now += DAY
    expect(dueOf(keys)).toMatchObject([{ action: 'rotate', keyId: first, since: START + 10 * DAY - PROPAGATION }])
  })

  it('asks for nothing while the only version is suspended: a person decides', async () => {
    const { create, clock } = setup()
    const keys = await create({ cryptoperiodMs: 10 * DAY } as never)
    const first = activeOf(keys)
    await keys.suspend(first)
    clock.now += 30 * DAY
    expect([dueOf(keys), keys.status().active]).toEqual([[], undefined])
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    const staged = await keys.rotate()
    clock.now += PROPAGATION
    expect((await keys.maintain()).promoted).toEqual([staged])
  })

  it('keeps what is not mentioned, and null takes the cryptoperiod away', async () => {
    const keys = await setup().create()
    await keys.setPolicy({ propagationMs: MINUTE })
    expect(keys.status()).toMatchObject({ propagationMs: MINUTE, cryptoperiodMs: YEAR })
    await keys.setPolicy({ cryptoperiodMs: null })
    expect(keys.status()).toMatchObject({ propagationMs: MINUTE, cryptoperiodMs: undefined })
    await keys.setPolicy({ propagationMs: 2 * MINUTE })
    expect(keys.status()).toMatchObject({ propagationMs: 2 * MINUTE, cryptoperiodMs: undefined })
    await keys.setPolicy({ cryptoperiodMs: DAY })
    expect(keys.status().cryptoperiodMs).toBe(DAY)
  })

  it('that was changed is in the log, once per change, with actor and reason', async () => {
    const { create, open, clock } = setup()
    const keys = await create()
    clock.now += DAY
    await keys.setPolicy({ cryptoperiodMs: 30 * DAY, actor: 'ann', reason: 'audit' })
    await keys.setPolicy({ propagationMs: 0 })
    expect((await open()).status().log).toEqual([
      { what: 'policy changed', epoch: 2, at: clock.now, actor: 'ann', reason: 'audit' },
      { what: 'policy changed', epoch: 3, at: clock.now },
    ])
  })

  it.each<[string, object, string]>([
    ['a negative propagation time', { propagationMs: -1 }, 'propagationMs'],
    ['a fractional one', { propagationMs: 0.5 }, 'propagationMs'],
    ['one that is no number', { propagationMs: '1' }, 'propagationMs'],
    ['one without end', { propagationMs: Number.POSITIVE_INFINITY }, 'propagationMs'],
    ['null for one', { propagationMs: null }, 'propagationMs'],
    ['a cryptoperiod of 0', { cryptoperiodMs: 0, propagationMs: 0 }, 'cryptoperiodMs'],
    ['one as short as the propagation', { cryptoperiodMs: 5, propagationMs: 5 }, 'cryptoperiodMs'],
    ['one that is shorter by default', { cryptoperiodMs: PROPAGATION }, 'cryptoperiodMs'],
    ['a fractional cryptoperiod', { cryptoperiodMs: DAY + 0.5 }, 'cryptoperiodMs'],
    ['a cryptoperiod without end', { cryptoperiodMs: Number.POSITIVE_INFINITY }, 'cryptoperiodMs'],
    ['a propagation longer than the cryptoperiod', { propagationMs: YEAR }, 'cryptoperiodMs'],
  ])('with %s is refused as CONFIG, at creating and at changing', async (_, policy, argument) => {
    const { create, store } = setup()
    expect(await refusal(() => create(policy))).toMatchObject({ code: 'CONFIG', argument })
    expect(store.saves).toBe(0)
    const keys = await create()
    expect(await refusal(() => keys.setPolicy(policy))).toMatchObject({ code: 'CONFIG', argument })
    expect([store.saves, keys.status().log]).toEqual([1, []])
  })

  it('is decided on what the store holds: two changes at once lose neither', async () => {
    const { create, open, store } = setup()
    const keys = await create()
    const other = await open()
    await Promise.all([keys.setPolicy({ propagationMs: MINUTE }), other.setPolicy({ cryptoperiodMs: DAY })])
    expect(standing(await open())).toMatchObject({ propagationMs: MINUTE, cryptoperiodMs: DAY, epoch: 3 })
    const { save } = store
    store.save = async (...args) => {
      store.save = save
      await other.setPolicy({ cryptoperiodMs: 30 })
      throw new WaxsealError('CONFLICT', args[0])
    }
    // Meanwhile somebody made the cryptoperiod shorter than what is asked for here.
    expect(await refusal(() => keys.setPolicy({ propagationMs: MINUTE * 2 }))).toMatchObject({ code: 'CONFIG' })
  })
})
