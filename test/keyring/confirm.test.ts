import { describe, expect, it } from 'vitest'
import type { KeyEvent } from 'waxseal'
import { deferred } from '../kms/requests.ts'
import { AWAY, DENIED, region } from './roots.ts'
import {
  activeOf,
  DAY,
  MINUTE,
  NOTE,
  notes,
  type Options,
  quiet,
  refusal,
  rotated,
  setup,
  versionOf,
} from './support.ts'

const MAX_AGE = 60 * MINUTE
const GRACE = 180 * MINUTE

/** An instance under test, with two versions in memory. */
async function started(options: Options = {}) {
  const kms = region(1)
  const bench = setup({ kms })
  const other = await bench.create()
  await rotated(other)
  const events: KeyEvent[] = []
  const keys = await bench.open({ onEvent: (event: KeyEvent) => void events.push(event), ...options })
  const row = notes.encrypt(keys, { ...NOTE })
  events.length = 0
  bench.store.loads = kms.unwraps = 0
  return { ...bench, kms, keys, other, row, events }
}

const failures = (events: readonly KeyEvent[]) =>
  events.flatMap((event) => (event.type === 'keyring.failure' ? [[event.operation, event.code]] : []))

describe('after maxAgeMs', () => {
  it('the KMS confirms every version in memory and the integrity key once, and not 1 ms before', async () => {
    const { keys, kms, clock } = await started()
    clock.now += MAX_AGE
    await keys.ready()
    await quiet()
    expect(kms.unwraps).toBe(0)
    clock.now += 1
    await keys.ready()
    await quiet()
    expect(kms.unwraps).toBe(3)
    await keys.ready()
    await quiet()
    expect(kms.unwraps).toBe(3)
  })

  it('the answers are compared and wiped', async () => {
    const { keys, kms, clock, row } = await started()
    kms.handed.length = 0
    clock.now += MAX_AGE + 1
    await keys.ready()
    await quiet()
    expect(kms.handed).toHaveLength(3)
    expect(kms.handed.flatMap((key) => [...key]).every((byte) => byte === 0)).toBe(true)
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('no call waits for it, synchronous or not', async () => {
    const { keys, kms, clock, row } = await started()
    const held = deferred<void>()
    kms.slow = () => held.promise
    clock.now += MAX_AGE + 1
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    await keys.ready()
    expect([kms.unwraps, kms.now]).toEqual([3, 3])
    held.resolve()
    await quiet()
    expect([kms.unwraps, kms.now]).toEqual([3, 0])
  })

  it('one confirmation is under way at most, however many calls ask', async () => {
    const { keys, kms, clock, row } = await started()
    clock.now += MAX_AGE + 1
    for (let i = 0; i < 1000; i++) notes.decrypt(keys, row)
    await Promise.all(Array.from({ length: 1000 }, () => keys.ready()))
    await quiet()
    expect(kms.unwraps).toBe(3)
  })

  it('nothing happens without a call: there are no timers', async () => {
    const { kms, store, clock } = await started()
    clock.now += DAY
    await quiet()
    expect([kms.unwraps, store.loads]).toEqual([0, 0])
  })

  it('a confirmation that was under way when the keyring was closed harms nobody and tells nothing', async () => {
    const { keys, kms, clock, events } = await started()
    const held = deferred<void>()
    kms.slow = () => held.promise
    clock.now += MAX_AGE + 1
    await keys.ready()
    await quiet()
    await keys.close()
    held.resolve()
    await quiet()
    expect(events).toEqual([])
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'CONFIG' })
  })

  it('a version that is destroyed while it is confirmed is not told of as a failure', async () => {
    const { keys, other, kms, clock, events } = await started()
    const old = other.status().versions[0]!.id
    await other.retire(old, { references: 0 })
    await other.destroy(old, { backupsExpire: new Date(0), pendingMs: 0 })
    const held = deferred<void>()
    clock.now += MAX_AGE + 1
    await keys.ready()
    await quiet()
    await keys.ready()
    kms.slow = () => held.promise
    clock.now += MAX_AGE + 1
    await keys.ready()
    await quiet()
    await keys.maintain()
    expect(versionOf(keys, old).state).toBe('destroyed')
    held.resolve()
    await quiet()
    expect(failures(events)).toEqual([])
  })
})

describe('while the KMS is away', () => {
  it('the keys are used until maxAgeMs + graceMs, then KEY_NOT_LOADED, and ready() brings them back', async () => {
    const { keys, kms, clock, row } = await started()
    kms.down = AWAY
    clock.now += MAX_AGE + GRACE
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    notes.encrypt(keys, { ...NOTE })
    await quiet()
    clock.now += 1
    for (const call of [() => notes.decrypt(keys, row), () => notes.encrypt(keys, { ...NOTE })]) {
      expect(await refusal(call)).toMatchObject({ code: 'KEY_NOT_LOADED', retryable: true })
    }
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
    kms.down = undefined
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('graceMs of 0 is none, and both times can be chosen', async () => {
    const { keys, kms, clock, row } = await started({ maxAgeMs: 10 * MINUTE, graceMs: 0 })
    kms.down = AWAY
    clock.now += 10 * MINUTE
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    clock.now += 1
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })

  it('reading the store does not make the keys younger: only the KMS confirms', async () => {
    const { keys, kms, store, clock, row } = await started()
    kms.down = AWAY
    for (let minutes = 0; minutes < 240; minutes += 5) {
      clock.now += 5 * MINUTE
      await keys.ready()
      await quiet()
    }
    expect(store.loads).toBeGreaterThan(40)
    clock.now += 1
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })

  it('and the store answers, confirming does not make what was read younger either', async () => {
    const { keys, store, kms, clock, row } = await started()
    store.broken = new Error('away')
    for (let minutes = 0; minutes < 240; minutes += 5) {
      clock.now += 5 * MINUTE
      await keys.ready()
      await quiet()
    }
    expect(kms.unwraps).toBe(9)
    clock.now += 1
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })

  it.each([
    ['KMS_UNAVAILABLE', AWAY],
    ['KMS_DENIED', DENIED],
  ] as const)('listeners are told %s once per try, and it is tried every 30 s at most', async (code, down) => {
    const { keys, kms, clock, row, events } = await started()
    kms.down = down
    clock.now += MAX_AGE + 1
    for (let i = 0; i < 100; i++) notes.decrypt(keys, row)
    await quiet()
    expect(failures(events)).toEqual([['confirm', code]])
    clock.now += 29_999
    await keys.ready()
    await quiet()
    expect(failures(events)).toHaveLength(1)
    clock.now += 1
    await keys.ready()
    await quiet()
    expect(failures(events)).toEqual([
      ['confirm', code],
      ['confirm', code],
    ])
    kms.down = undefined
    clock.now += 30_000
    await keys.ready()
    await quiet()
    expect(failures(events)).toHaveLength(2)
  })

  it('a thousand who wait for it past the grace share one try', async () => {
    const { keys, kms, clock } = await started()
    kms.down = AWAY
    clock.now += MAX_AGE + GRACE + 1
    const codes = await Promise.all(Array.from({ length: 1000 }, async () => (await refusal(() => keys.ready())).code))
    expect(new Set(codes)).toEqual(new Set(['KMS_UNAVAILABLE']))
    expect(kms.unwraps).toBeLessThanOrEqual(3)
  })

  it('a version marked compromised elsewhere is acted on here within refreshMs', async () => {
    const { keys, other, kms, clock, row, events } = await started()
    const leaked = activeOf(keys)
    const fresh = (await other.markCompromised(leaked, { decrypt: 'refuse', reason: 'leaked' }))!
    kms.down = AWAY
    clock.now += 5 * MINUTE + 1
    expect((await refusal(() => keys.ready())).code).toBe('KMS_UNAVAILABLE')
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'compromised' })
    expect(events).toContainEqual(expect.objectContaining({ type: 'key.state', keyId: leaked, state: 'compromised' }))
    // Its successor cannot be unwrapped: nothing is encrypted, and above all not with the leaked one.
    expect(versionOf(keys, fresh)).toMatchObject({ state: 'active', loaded: false })
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({
      code: 'KEY_NOT_LOADED',
      retryable: true,
    })
    kms.down = undefined
    await keys.ready()
    expect(notes.decrypt(other, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('an active version that could not be unwrapped is loaded by the upkeep that calls start', async () => {
    const { keys, other, kms, clock } = await started()
    await rotated(other)
    kms.down = AWAY
    clock.now += 5 * MINUTE + 1
    await refusal(() => keys.ready())
    kms.down = undefined
    clock.now += 1_000
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    await quiet()
    expect(notes.decrypt(other, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('ready() does not fail for a version that nothing needs, while the active one is suspended', async () => {
    const { keys, other, kms, store, clock, row } = await started()
    await other.suspend(activeOf(other), { decrypt: 'report' })
    await other.rotate()
    kms.down = AWAY
    clock.now += 5 * MINUTE + 1
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({
      code: 'KEY_STATE',
      state: 'none active',
    })
    const { loads } = store
    for (let i = 0; i < 10; i++) await keys.ready()
    await quiet()
    expect(store.loads).toBe(loads)
  })
})

describe('ready()', () => {
  it('resolves during an outage of the store within the grace, and rejects behind it', async () => {
    const { keys, store, clock, row, events } = await started()
    store.broken = new Error('away')
    clock.now += MAX_AGE + GRACE
    await keys.ready()
    await quiet()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    expect(failures(events)).toContainEqual(['refresh', 'KMS_UNAVAILABLE'])
    clock.now += 1 + MAX_AGE + GRACE
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
  })

  it('does not wait for a store that is known to be away', async () => {
    const { keys, store, clock } = await started()
    store.broken = new Error('away')
    clock.now += 6 * MINUTE
    await keys.ready()
    const { loads } = store
    store.load = () => new Promise(() => undefined)
    clock.now += 6 * MINUTE
    await keys.ready()
    expect(loads).toBe(1)
  })

  it.each<[string, (text: string) => string, string]>([
    ['a state is edited', (text) => text.replace('deactivated', 'active'), 'DECRYPTION_FAILED'],
    ['the manifest is torn', (text) => text.slice(0, -1), 'DECRYPTION_FAILED'],
  ])('rejects at once when %s in the store, also within the grace', async (_, edit, code) => {
    const { keys, store, clock, row } = await started()
    const { manifest, ...rest } = store.document!
    store.document = { ...rest, manifest: edit(manifest) }
    clock.now += 6 * MINUTE
    for (let i = 0; i < 2; i++) expect((await refusal(() => keys.ready())).code).toBe(code)
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('after a process was frozen for days reads and confirms first, and what happened meanwhile counts', async () => {
    const { keys, other, kms, store, clock, row } = await started()
    await other.markCompromised(activeOf(other), { decrypt: 'refuse', reason: 'leaked' })
    kms.unwraps = store.loads = 0
    clock.now += 3 * DAY
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    await keys.ready()
    expect(store.loads).toBe(1)
    expect(kms.unwraps).toBeGreaterThanOrEqual(3)
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'compromised' })
    notes.encrypt(keys, { ...NOTE })
  })

  it('does not take an answer from before the process was frozen for a new one: of the store', async () => {
    const { keys, other, store, clock, row } = await started()
    const held = deferred<void>()
    const { load } = store
    store.load = async (name) => {
      const answer = await load(name)
      await held.promise
      return answer
    }
    clock.now += 4 * MINUTE
    await keys.ready() // begins a read in the background, which is answered, but not heard
    store.load = load
    await other.markCompromised(activeOf(other), { decrypt: 'refuse', reason: 'leaked' })
    clock.now += 2 * 60 * MINUTE
    held.resolve()
    await quiet()
    await keys.ready()
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'compromised' })
  })

  it('does not take an answer from before the process was frozen for a new one: of the KMS', async () => {
    const { keys, kms, clock, row } = await started()
    const held = deferred<void>()
    const { unwrap } = kms
    kms.unwrap = async (...args) => {
      const answer = await unwrap(...args)
      await held.promise
      return answer
    }
    clock.now += MAX_AGE + 1
    await keys.ready()
    await quiet()
    Object.assign(kms, { unwrap, down: DENIED })
    clock.now += MAX_AGE + GRACE + 1
    held.resolve()
    await quiet()
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'KMS_DENIED' })
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })
})
