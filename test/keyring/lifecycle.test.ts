import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import {
  activeOf,
  MINUTE,
  NOTE,
  notes,
  type Options,
  refusal,
  rotated,
  START,
  setup,
  standing,
  versionOf,
} from './support.ts'

const PROPAGATION = 30 * MINUTE

describe('creating a keyring', () => {
  it('makes one active version, and every later call opens it', async () => {
    const { create, open } = setup()
    const keys = await create()
    const { active, epoch, versions, name } = keys.status()
    expect({ name, epoch, states: versions.map(({ state }) => state) }).toEqual({
      name: 'crm',
      epoch: 1,
      states: ['active'],
    })
    const row = notes.encrypt(keys, { ...NOTE })
    const opened = await open()
    expect(standing(opened)).toEqual(standing(keys))
    expect(activeOf(opened)).toBe(active)
    expect(notes.decrypt(opened, row)).toEqual(NOTE)
  })

  it('refuses to overwrite, also when two create at once', async () => {
    const { create, store } = setup()
    const results = await Promise.allSettled([create(), create()])
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const before = structuredClone(store.document)
    expect(await refusal(() => create())).toMatchObject({ code: 'CONFIG', argument: 'name' })
    expect(results.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'CONFIG' } })
    expect(store.document).toEqual(before)
  })

  it.each<[string, Options, string]>([
    ['a name with a slash', { name: 'a/b' }, 'name'],
    ['an empty name', { name: '' }, 'name'],
    ['a name of 65 characters', { name: 'a'.repeat(65) }, 'name'],
    ['no store', { store: undefined as never }, 'store'],
    ['a store that cannot save', { store: { load: async () => undefined } as never }, 'store'],
    ['no KMS driver', { kms: undefined as never }, 'kms'],
    ['an unknown suite', { suite: 3 as never }, 'suite'],
    ['a refresh interval of 0', { refreshMs: 0 }, 'refreshMs'],
    ['a refresh interval that is no number', { refreshMs: Number.NaN }, 'refreshMs'],
    ['a negative maximum age', { maxAgeMs: -1 }, 'maxAgeMs'],
    ['a negative propagation time', { propagationMs: -1 }, 'propagationMs'],
    ['a fractional propagation time', { propagationMs: 0.5 }, 'propagationMs'],
    ['a cache without room', { cache: { entries: 0 } }, 'cache.entries'],
    ['a pin of another keyring', { pin: { id: 'AAAAAAAAAAAAAAAAAAAAAA' } }, 'pin.id'],
  ])('refuses %s as CONFIG, and then nothing was written', async (_, options, argument) => {
    const { create, store } = setup()
    expect(await refusal(() => create(options))).toMatchObject({ code: 'CONFIG', argument })
    expect(store.saves).toBe(0)
  })
})

describe('opening a keyring', () => {
  it('never creates one', async () => {
    const { open, store, kms } = setup()
    expect(await refusal(() => open())).toMatchObject({ code: 'CONFIG', argument: 'name' })
    expect([store.saves, store.document, kms.wraps]).toEqual([0, undefined, 0])
  })

  it('asks the KMS once per living version and once for the integrity key', async () => {
    const { create, open, kms } = setup()
    await rotated(await create())
    kms.unwraps = 0
    await open()
    expect(kms.unwraps).toBe(3)
  })

  it('pins a suite for writing and for reading', async () => {
    const { create, open } = setup()
    const keys = await create()
    const pinned = await open({ suite: 2 })
    const row = notes.encrypt(pinned, { ...NOTE })
    expect(pinned.status().suites).toEqual([2])
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    const other = notes.encrypt(keys, { ...NOTE })
    expect(await refusal(() => notes.decrypt(pinned, other))).toMatchObject({ code: 'MALFORMED' })
  })

  it('refuses a suite that the keyring was not created for', async () => {
    const { create, open } = setup()
    await create({ suite: 1 })
    expect(await refusal(() => open({ suite: 2 }))).toMatchObject({ code: 'CONFIG', argument: 'suite' })
  })
})

describe('a store that fails with an error of its own', () => {
  const CALLS: Record<string, (bench: ReturnType<typeof setup>, keys: Keyring) => Promise<unknown>> = {
    'creating another keyring': ({ create }) => create(),
    'opening it': ({ open }) => open(),
    'rotating it': (_, keys) => keys.rotate(),
  }

  it.each(Object.entries(CALLS))('is KMS_UNAVAILABLE for %s, with a reduced cause', async (_, call) => {
    const bench = setup()
    const keys = await bench.create()
    const broken = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED', query: 'select secret' })
    bench.store.broken = broken
    const error = await refusal(() => call(bench, keys))
    expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
    expect(error.cause).toEqual({ name: 'Error', code: 'ECONNREFUSED', message: 'connection refused' })
  })

  it.each(['creating', 'rotating'])('is KMS_UNAVAILABLE also when only writing fails: %s', async (what) => {
    const bench = setup()
    const keys = what === 'rotating' ? await bench.create() : undefined
    bench.store.save = async () => {
      throw new Error('read-only')
    }
    const error = await refusal(() => (keys ? keys.rotate() : bench.create()))
    expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true, cause: { message: 'read-only' } })
  })
})

describe('a staged version', () => {
  it('is known to every instance, for decrypting, before any of them encrypts with it', async () => {
    const { create, open, clock } = setup({ refreshMs: 5 * MINUTE })
    const a = await create()
    const b = await open()
    const staged = await a.rotate()
    clock.now += 6 * MINUTE
    await b.ready()
    expect(versionOf(b, staged)).toMatchObject({ state: 'pre-active', promoteAt: START + PROPAGATION })

    await a.promote(staged, { urgent: true })
    expect(notes.decrypt(b, notes.encrypt(a, { ...NOTE }))).toEqual(NOTE)
    expect(notes.needsRotation(b, notes.encrypt(b, { ...NOTE }))).toBe(false)
  })

  it('is not promoted before its propagation time, unless that is urgent', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const staged = await keys.rotate()
    clock.now += PROPAGATION - 1
    const error = await refusal(() => keys.promote(staged))
    expect(error).toMatchObject({ code: 'KEY_STATE', state: 'pre-active', keyId: staged })
    expect(error.message).toContain(`promote it from ${new Date(clock.now + 1).toISOString()} on`)
    await keys.promote(staged, { urgent: true })
    expect(activeOf(keys)).toBe(staged)
  })

  it('is the answer of every further rotate(), until it is active', async () => {
    const { create } = setup()
    const keys = await create()
    const staged = await keys.rotate()
    const { epoch } = keys.status()
    expect(await keys.rotate()).toBe(staged)
    expect(keys.status().epoch).toBe(epoch)
    await keys.promote(staged, { urgent: true })
    expect(await keys.rotate()).not.toBe(staged)
    expect(keys.status().versions).toHaveLength(3)
  })

  it('is promoted by maintain() when its time has come, and not 1 ms earlier', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const old = activeOf(keys)
    const staged = await keys.rotate()
    clock.now += PROPAGATION - 1
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    clock.now += 1
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [staged], destroyed: [] })
    expect([activeOf(keys), versionOf(keys, old).state]).toEqual([staged, 'deactivated'])
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
  })
})

describe('a compromised version', () => {
  it('that was active is replaced in the same write', async () => {
    const { create, open, store } = setup()
    const keys = await create()
    const leaked = activeOf(keys)
    const saves = store.saves
    const fresh = await keys.markCompromised(leaked, { reason: 'laptop stolen' })
    expect(store.saves).toBe(saves + 1)
    expect(fresh).toBe(activeOf(keys))
    expect(fresh).not.toBe(leaked)
    expect(versionOf(await open(), leaked)).toMatchObject({ state: 'compromised', decrypt: 'report' })
    expect(notes.decrypt(await open(), notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('that was not active is marked, and no version is made', async () => {
    const { create } = setup()
    const keys = await create()
    const { old, fresh } = await rotated(keys)
    expect(await keys.markCompromised(old, { decrypt: 'refuse' })).toBeUndefined()
    expect(keys.status()).toMatchObject({ active: fresh, versions: [{ state: 'compromised', decrypt: 'refuse' }, {}] })
  })

  it('that was not active can be marked while the KMS is away', async () => {
    const { create, kms } = setup()
    const keys = await create()
    const { old } = await rotated(keys)
    kms.broken = new Error('away')
    await keys.markCompromised(old, {})
    expect(versionOf(keys, old).state).toBe('compromised')
  })
})
