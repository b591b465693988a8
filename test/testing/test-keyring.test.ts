import { afterEach, describe, expect, it, vi } from 'vitest'
import { createKeyring, type KeyEvent, WaxsealError } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { testKeyring } from 'waxseal/testing'
import { SOURCE } from '../../src/envelope/keys.ts'
import { activeOf, countingEngine, DAY, NOTE, notes, refusal, rotated, START, versionOf } from '../keyring/support.ts'

afterEach(() => void vi.useRealTimers())

const realKeyring = () => createKeyring({ name: 'crm', store: memoryKeyStore(), kms: localKms(new Uint8Array(32)) })

describe('a test keyring', () => {
  it('is open at once, without a promise', () => {
    const keys = testKeyring()
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
    expect(keys.status()).toMatchObject({ name: 'test', epoch: 1, versions: [{ state: 'active' }] })
  })

  it('takes name, suite, engine, listener and cache as a real one does', () => {
    const events: KeyEvent[] = []
    const engine = countingEngine()
    const onEvent = (event: KeyEvent) => void events.push(event)
    const keys = testKeyring({ name: 'crm', suite: 1, engine, onEvent, cache: { entries: 5 } })
    const row = notes.encrypt(keys, { ...NOTE })
    for (let i = 0; i < 3; i++) notes.decrypt(keys, row)
    expect(keys.status()).toMatchObject({ name: 'crm', suites: [1] })
    expect(engine.unwraps).toBe(1)
    expect(events.map(({ type, keyring }) => [type, keyring])).toEqual([
      ['encrypt', 'crm'],
      ...Array(3).fill(['decrypt', 'crm']),
    ])
  })

  it.each([1, 2] as const)('writes suite %d when it is pinned', (suite) => {
    const keys = testKeyring({ suite })
    expect(keys[SOURCE].writeSuite.id).toBe(suite)
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('differs from every other', async () => {
    const [a, b] = [testKeyring(), testKeyring()]
    expect([a.status().id === b.status().id, activeOf(a) === activeOf(b)]).toEqual([false, false])
    const row = notes.encrypt(a, { ...NOTE })
    expect(await refusal(() => notes.decrypt(b, row))).toMatchObject({ code: 'UNKNOWN_KEY' })
    expect(notes.decrypt(a, row)).toEqual(NOTE)
  })

  it('changes states like a real one', async () => {
    const now = { ms: START }
    const keys = testKeyring({ clock: () => now.ms })
    const row = notes.encrypt(keys, { ...NOTE })
    const { old } = await rotated(keys)
    expect(notes.rewrap(keys, row)).not.toBeNull()
    await keys.retire(old, { references: 0 })
    await keys.destroy(old, { backupsExpire: new Date(START + DAY), pendingMs: 0 })
    now.ms += DAY
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [old] })
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'destroyed' })
    expect(versionOf(keys, old).history.map(({ state }) => state)).toEqual([
      'pre-active',
      'active',
      'deactivated',
      'retired',
      'destroying',
      'destroyed',
    ])
  })

  it('is closed like a real one', async () => {
    const keys = testKeyring()
    await keys.close()
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({ code: 'CONFIG' })
  })
})

describe('the clock of a test keyring', () => {
  it('is injected: it dates events and histories', () => {
    const events: KeyEvent[] = []
    const now = { ms: START }
    const keys = testKeyring({ clock: () => now.ms, onEvent: (event) => void events.push(event) })
    now.ms += 5
    notes.encrypt(keys, { ...NOTE })
    expect(events.map(({ time }) => time)).toEqual([START + 5])
    expect(keys.status().versions[0]!.history.at(-1)!.at).toBe(START)
  })

  it('makes a staged version wait as long as a test wants', async () => {
    const now = { ms: START }
    const keys = testKeyring({ clock: () => now.ms, propagationMs: 1000 })
    const staged = await keys.rotate()
    now.ms += 999
    expect((await keys.maintain()).promoted).toEqual([])
    now.ms += 1
    expect((await keys.maintain()).promoted).toEqual([staged])
  })

  it('never makes the keys too old, however far it is put ahead', () => {
    const now = { ms: START }
    const keys = testKeyring({ clock: () => now.ms })
    const row = notes.encrypt(keys, { ...NOTE })
    now.ms += 1000 * DAY
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('is the one that fake timers set, when none is injected', () => {
    const events: KeyEvent[] = []
    const keys = testKeyring({ onEvent: (event) => void events.push(event) })
    vi.useFakeTimers({ now: START })
    notes.encrypt(keys, { ...NOTE })
    expect(events[0]!.time).toBe(START)
  })
})

describe('under fake timers', () => {
  it('everything that is awaited comes to its end, and no timer is left', async () => {
    vi.useFakeTimers({ now: START })
    const keys = testKeyring()
    const rows = Array.from({ length: 250 }, (_, id) => ({ ...NOTE, id }))
    const sealed = await notes.encryptMany(keys, rows)
    expect(await notes.decryptMany(keys, sealed)).toEqual(rows)
    expect((await notes.settled.decryptMany(keys, sealed)).every(({ ok }) => ok)).toBe(true)

    await keys.ready()
    const staged = await keys.rotate()
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [staged], destroyed: [] })
    await keys.suspend(staged)
    await keys.reinstate(staged)
    const fresh = await keys.markCompromised(staged, { reason: 'test' })
    expect(activeOf(keys)).toBe(fresh)
    expect(notes.decrypt(keys, sealed[0]!)).toEqual(rows[0])
    expect(vi.getTimerCount()).toBe(0)
    await keys.close()
  })

  it('with every function of time faked, too', async () => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'Date', 'performance'],
    })
    const keys = testKeyring()
    const rows = Array.from({ length: 250 }, (_, id) => ({ ...NOTE, id }))
    expect(await notes.decryptMany(keys, await notes.encryptMany(keys, rows))).toEqual(rows)
    await rotated(keys)
  })
})

describe('a real keyring', () => {
  it('refuses what a test keyring wrote, at once and for good', async () => {
    const real = await realKeyring()
    const test = testKeyring()
    const row = notes.encrypt(test, { ...NOTE })
    const refused = { code: 'UNKNOWN_KEY', retryable: false, keyId: activeOf(test) }
    expect(await refusal(() => notes.decrypt(real, row))).toMatchObject(refused)
    await real.ready()
    const error = await refusal(() => notes.decrypt(real, row))
    expect(error).toMatchObject(refused)
    expect(error.message).toContain('test keyring')
  })

  it('refuses it also after the test keyring was rotated, or a version of it compromised', async () => {
    const real = await realKeyring()
    const test = testKeyring()
    await rotated(test)
    const rows = [notes.encrypt(test, { ...NOTE })]
    await test.markCompromised(activeOf(test), {})
    rows.push(notes.encrypt(test, { ...NOTE }))
    for (const row of rows) {
      expect(await refusal(() => notes.decrypt(real, row))).toMatchObject({ code: 'UNKNOWN_KEY' })
      expect(await refusal(() => notes.rewrap(real, row))).toMatchObject({ code: 'UNKNOWN_KEY' })
    }
  })

  it('writes what a test keyring refuses', async () => {
    const real = await realKeyring()
    const row = notes.encrypt(real, { ...NOTE })
    const test = testKeyring()
    const error = await refusal(() => notes.decrypt(test, row))
    expect(error).toBeInstanceOf(WaxsealError)
    expect(['UNKNOWN_KEY', 'KEY_NOT_LOADED']).toContain(error.code)
    await test.ready()
    expect(await refusal(() => notes.decrypt(test, row))).toMatchObject({ code: 'UNKNOWN_KEY' })
  })
})
