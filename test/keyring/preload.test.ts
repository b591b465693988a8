import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import { deferred } from '../kms/requests.ts'
import { AWAY, region } from './roots.ts'
import { activeOf, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, versionOf } from './support.ts'

const loadedOf = (keys: Keyring) => keys.status().versions.map(({ loaded }) => loaded)

/** A keyring of `count` versions, the last active, and a row under each. */
async function started(count: number) {
  const kms = region(1)
  const bench = setup({ kms })
  const maker = await bench.create()
  const rows = [notes.encrypt(maker, { ...NOTE })]
  while (rows.length < count) {
    await rotated(maker)
    rows.push(notes.encrypt(maker, { ...NOTE }))
  }
  const ids = maker.status().versions.map(({ id }) => id)
  kms.unwraps = kms.most = 0
  return { ...bench, kms, maker, rows, ids }
}

describe('what is unwrapped at opening', () => {
  it('is every version that rows may refer to, by default', async () => {
    const { open, kms } = await started(4)
    expect(loadedOf(await open())).toEqual([true, true, true, true])
    expect(kms.unwraps).toBe(5)
  })

  it('is the active and the staged one, by `preload: active`', async () => {
    const { open, kms, maker } = await started(4)
    await maker.rotate()
    kms.unwraps = 0
    const keys = await open({ preload: 'active' })
    expect(loadedOf(keys)).toEqual([false, false, false, true, true])
    expect(kms.unwraps).toBe(3)
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('is no retired version, nor a destroyed one', async () => {
    const { open, kms, maker, ids } = await started(4)
    await maker.retire(ids[0]!, { references: 0 })
    await maker.retire(ids[1]!, { references: 0 })
    await maker.destroy(ids[1]!, { backupsExpire: new Date(0), pendingMs: 0 })
    await maker.maintain()
    kms.unwraps = 0
    expect(loadedOf(await open())).toEqual([false, false, true, true])
    expect(kms.unwraps).toBe(3)
  })

  it.each(['live', 'active'] as const)(
    'is one whose destruction is pending, so that a use of it cancels that: preload %s',
    async (preload) => {
      const { open, maker, ids, rows, clock } = await started(3)
      await maker.retire(ids[0]!, { references: 0 })
      await maker.destroy(ids[0]!, { backupsExpire: new Date(clock.now + MINUTE) })
      const keys = await open({ preload })
      expect(versionOf(keys, ids[0]!).loaded).toBe(true)
      expect(notes.decrypt(keys, rows[0]!)).toEqual(NOTE)
      await quiet()
      expect(versionOf(keys, ids[0]!)).toMatchObject({ state: 'deactivated', retired: false })
    },
  )

  it.each(['all', '', null, 1])('refuses %j as CONFIG', async (preload) => {
    const { open } = await started(1)
    expect(await refusal(() => open({ preload: preload as never }))).toMatchObject({
      code: 'CONFIG',
      argument: 'preload',
    })
  })
})

describe('a version that was not unwrapped', () => {
  it('is KEY_NOT_LOADED when asked for, and loaded by ready(), with one request for that one alone', async () => {
    const { open, kms, rows, ids } = await started(4)
    const keys = await open({ preload: 'active' })
    kms.unwraps = 0
    const error = await refusal(() => notes.decrypt(keys, rows[1]!))
    expect(error).toMatchObject({ code: 'KEY_NOT_LOADED', retryable: true, keyId: ids[1] })
    await keys.ready()
    expect(notes.decrypt(keys, rows[1]!)).toEqual(NOTE)
    expect([kms.unwraps, loadedOf(keys)]).toEqual([1, [false, true, false, true]])
    await keys.ready()
    expect(kms.unwraps).toBe(1)
  })

  it('stays loaded over refreshes', async () => {
    const { open, kms, rows, maker, clock } = await started(3)
    const keys = await open({ preload: 'active' })
    await refusal(() => notes.decrypt(keys, rows[0]!))
    await keys.ready()
    await rotated(maker)
    kms.unwraps = 0
    clock.now += 6 * MINUTE
    await keys.ready()
    expect([kms.unwraps, notes.decrypt(keys, rows[0]!)]).toEqual([1, NOTE])
  })

  it('is asked for by 1,000 requests at once and unwrapped once', async () => {
    const { open, kms, store, rows } = await started(3)
    const keys = await open({ preload: 'active' })
    kms.unwraps = store.loads = 0
    const requests = Array.from({ length: 1000 }, async (_, i) => {
      const row = rows[i % 2]!
      await refusal(() => notes.decrypt(keys, row)).catch(() => undefined)
      await keys.ready()
      return notes.decrypt(keys, row)
    })
    expect(new Set((await Promise.all(requests)).map((row) => row.body))).toEqual(new Set([NOTE.body]))
    expect([kms.unwraps, store.loads <= 2]).toEqual([2, true])
  })

  it('while the KMS is away stays KEY_NOT_LOADED, harms no other call, and is told of once per try', async () => {
    const { open, kms, rows, clock, events } = await started(3)
    const keys = await open({ preload: 'active' })
    kms.down = AWAY
    events.length = 0
    await refusal(() => notes.decrypt(keys, rows[0]!))
    await keys.ready()
    expect(await refusal(() => notes.decrypt(keys, rows[0]!))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
    const told = () => events.filter(({ type }) => type === 'keyring.failure').length
    expect(told()).toBe(1)
    await keys.ready() // for the second time that it was asked for
    expect(told()).toBe(2)
    clock.now += 6 * MINUTE
    await keys.ready() // nobody asked for it: nothing is tried, and nothing told
    expect(told()).toBe(2)
    kms.down = undefined
    await refusal(() => notes.decrypt(keys, rows[0]!))
    await keys.ready()
    expect(notes.decrypt(keys, rows[0]!)).toEqual(NOTE)
  })

  it('and becomes active here, by reinstate(), is loaded by ready()', async () => {
    const { open, maker } = await started(2)
    await maker.suspend(activeOf(maker))
    const keys = await open({ preload: 'active' })
    expect(loadedOf(keys)).toEqual([false, false])
    const id = keys.status().versions[1]!.id
    await keys.reinstate(id)
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({
      code: 'KEY_NOT_LOADED',
      retryable: true,
    })
    await keys.ready()
    expect(notes.decrypt(await open(), notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('whose wraps were taken out of the store meanwhile is still loaded, by those that were read before', async () => {
    const { open, store, rows, ids } = await started(3)
    const keys = await open({ preload: 'active' })
    const { [ids[0]!]: _, ...rest } = store.document!.keys
    store.document = { ...store.document!, keys: rest }
    await refusal(() => notes.decrypt(keys, rows[0]!))
    await keys.ready()
    expect(notes.decrypt(keys, rows[0]!)).toEqual(NOTE)
    await keys.rotate()
    expect(Object.keys(store.document.keys)).toContain(ids[0]) // and the next write mends the store
  })
})

describe('a keyring of 100 versions', () => {
  it('has at most 8 requests to the KMS under way at once: opening, loading on demand, confirming', async () => {
    const { open, kms, rows, clock } = await started(100)
    kms.slow = () => new Promise((done) => setImmediate(done))
    const keys = await open()
    expect([kms.unwraps, kms.most]).toEqual([101, 8])
    for (const row of rows) expect(notes.decrypt(keys, row)).toEqual(NOTE)

    kms.unwraps = kms.most = 0
    const lazy = await open({ preload: 'active' })
    expect([kms.unwraps, kms.most]).toEqual([2, 1])
    for (const row of rows.slice(0, -1)) await refusal(() => notes.decrypt(lazy, row))
    await lazy.ready()
    expect([kms.unwraps, kms.most]).toEqual([101, 8])

    kms.unwraps = kms.most = 0
    clock.now += 61 * MINUTE
    await keys.ready()
    while (kms.unwraps < 101) await quiet()
    await quiet()
    expect([kms.unwraps, kms.most, kms.now]).toEqual([101, 8, 0])
  })

  it('is opened with nothing under way when the KMS is silent for the integrity key', async () => {
    const { open, kms } = await started(100)
    const held = deferred<void>()
    kms.slow = () => held.promise
    const opening = open()
    await quiet()
    expect(kms.unwraps).toBe(1)
    held.resolve()
    await opening
    expect(kms.unwraps).toBe(101)
  })
})
