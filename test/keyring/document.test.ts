import { describe, expect, it, vi } from 'vitest'
import { localKms } from 'waxseal/kms/local'
import { exportKeyring } from 'waxseal/recovery'
import type { StoredKeyring } from '../../src/keystore/keystore.ts'
import { activeOf, DAY, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, watchedKms } from './support.ts'

const CHANGED = { code: 'DECRYPTION_FAILED' }
const glass = () => localKms(new Uint8Array(32).fill(7))

/** The stored document with other keys beside its manifest. */
function withKeys(
  document: StoredKeyring,
  change: (keys: StoredKeyring['keys']) => StoredKeyring['keys'],
): StoredKeyring {
  return { ...document, keys: change(document.keys) }
}

describe('the wrapped keys beside a manifest', () => {
  type Keys = Record<string, StoredKeyring['keys'][string]>
  it.each<[string, (keys: Keys) => Keys]>([
    [
      'without the break-glass wrap of the integrity key',
      (keys) => ({ ...keys, integrity: keys.integrity!.slice(0, 1) }),
    ],
    [
      'with that wrap changed',
      (keys) => ({ ...keys, integrity: [keys.integrity![0]!, { ...keys.integrity![1]!, wrapped: 'AAAA' }] }),
    ],
    ['with the wraps in another order', (keys) => ({ ...keys, integrity: [...keys.integrity!].reverse() })],
  ])('%s are refused, here and elsewhere', async (_, change) => {
    const { create, open, store, kms } = setup()
    const keys = await create({ kms: [kms, glass()] })
    store.document = withKeys(store.document!, change)
    expect(await refusal(() => open({ kms: [kms, glass()] }))).toMatchObject(CHANGED)
    await keys.setPolicy({ propagationMs: 1 }) // what was checked is what is written again
    await open({ kms: glass() })
  })

  it('are exactly those that it names', async () => {
    const { create, open, store } = setup()
    const keys = await create()
    store.document = withKeys(store.document!, (all) => ({ ...all, ['B'.repeat(20)]: all[activeOf(keys)]! }))
    expect(await refusal(() => open())).toMatchObject({ code: 'MALFORMED' })
    expect(JSON.parse(await exportKeyring(keys)).keyring.keys).not.toHaveProperty('B'.repeat(20))
  })
})

describe('a version that lacks a root key of the keyring', () => {
  it('is not made by rotate(), told of by maintain(), and made only where a key may have leaked', async () => {
    const { create, open, kms, clock, events } = setup()
    const made = await create({ kms: [kms, glass()] })
    await made.setPolicy({ cryptoperiodMs: DAY, propagationMs: 0 })
    const server = await open()
    expect(await refusal(() => server.rotate())).toMatchObject({ code: 'CONFIG', argument: 'kms' })
    clock.now += 2 * DAY
    await server.ready()
    expect(await server.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    expect(events).toContainEqual(expect.objectContaining({ operation: 'rotate', code: 'CONFIG' }))
    const leaked = activeOf(server)
    expect(await server.markCompromised(leaked, { reason: 'leaked' })).toBeDefined()
  })

  it('does not close the others to who holds that one', async () => {
    const { create, open, kms, events } = setup()
    const both = await create({ kms: [kms, glass()] })
    const row = notes.encrypt(both, { ...NOTE })
    const server = await open()
    await server.markCompromised(activeOf(server), { reason: 'leaked' })
    events.length = 0
    const rescued = await open({ kms: glass() })
    expect(notes.decrypt(rescued, row)).toEqual(NOTE)
    expect(events).toContainEqual(
      expect.objectContaining({ type: 'keyring.failure', operation: 'unwrap', code: 'CONFIG' }),
    )
    expect(await refusal(() => notes.encrypt(rescued, { ...NOTE }))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })

  it('is not left behind by a rotation that a change of the root key overtakes', async () => {
    const { create, open, kms, store } = setup()
    const keys = await create()
    const fresh = watchedKms(glass())
    await Promise.all([keys.rotate(), keys.changeRootKey({ kms: fresh }), keys.rotate()])
    const uris = new Set(Object.values(store.document!.keys).flatMap((wraps) => wraps.map((wrap) => wrap.uri)))
    expect([...uris]).toEqual([fresh.keyUri])
    await open({ kms: fresh })
    expect(kms.keyUri).not.toBe(fresh.keyUri)
  })
})

describe('a clock that is set back', () => {
  it('does not make keys last longer', async () => {
    const { create, kms, store, clock } = setup()
    const keys = await create()
    const row = notes.encrypt(keys, { ...NOTE })
    kms.broken = new Error('denied')
    store.broken = new Error('away')
    clock.now -= 30 * DAY
    notes.decrypt(keys, row)
    await quiet()
    clock.now += 241 * MINUTE
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })
})

describe('a store that hangs once', () => {
  it('does not hold up whoever comes when it is well again', async () => {
    const { create, store, clock } = setup()
    const keys = await create()
    const { load } = store
    let hangs = true
    store.load = (name) => (hangs ? new Promise(() => undefined) : load(name))
    clock.now += 6 * MINUTE
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const waiting = keys.ready()
    await vi.advanceTimersByTimeAsync(30_000)
    await waiting // within the grace
    vi.useRealTimers()
    hangs = false
    await rotated(keys)
    await keys.ready()
  })
})
