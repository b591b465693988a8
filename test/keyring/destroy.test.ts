import { describe, expect, it } from 'vitest'
import type { KeyEvent, Keyring } from 'waxseal'
import { DAY, NOTE, notes, quiet, refusal, rotated, START, setup, versionOf } from './support.ts'

/** A keyring with a deactivated version and a row under it. */
async function started() {
  const bench = setup()
  const keys = await bench.create()
  const row = notes.encrypt(keys, { ...NOTE })
  const { old, fresh } = await rotated(keys)
  return { ...bench, keys, row, old, fresh }
}

/** The same, 10 days before the version is due to be destroyed. */
async function pending() {
  const scene = await started()
  await scene.keys.retire(scene.old, { references: 0 })
  const due = await scene.keys.destroy(scene.old, { backupsExpire: new Date(START + 10 * DAY) })
  scene.events.length = 0
  return { ...scene, due: due.getTime() }
}

const uses = (events: readonly KeyEvent[]) => events.filter(({ type }) => type === 'key.use')

describe('retiring', () => {
  it('is refused while rows refer to the version', async () => {
    const { keys, old, store } = await started()
    const saves = store.saves
    const error = await refusal(() => keys.retire(old, { references: 3 }))
    expect(error).toMatchObject({ code: 'CONFLICT', keyId: old, retryable: true })
    expect(error.message).toContain('3 rows')
    expect([store.saves, versionOf(keys, old).retired]).toEqual([saves, false])
  })

  it.each([-1, 0.5, Number.NaN, undefined, '0', 0n])('is refused for a count of %s', async (references) => {
    const { keys, old } = await started()
    const error = await refusal(() => keys.retire(old, { references: references as never }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'references' })
  })

  it('takes nothing away: the version still opens what it has sealed', async () => {
    const { keys, old, row } = await started()
    await keys.retire(old, { references: 0, reason: 'counted' })
    expect(versionOf(keys, old)).toMatchObject({ state: 'deactivated', retired: true })
    expect(versionOf(keys, old).history.at(-1)).toMatchObject({ state: 'retired', reason: 'counted' })
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })
})

describe('destroying', () => {
  it('waits for the last backup to expire', async () => {
    const { due } = await pending()
    expect(due).toBe(START + 10 * DAY)
  })

  it('waits seven days even when no backup is left, unless told otherwise', async () => {
    const { keys, old } = await started()
    await keys.retire(old, { references: 0 })
    expect(await keys.destroy(old, { backupsExpire: new Date(0) })).toEqual(new Date(START + 7 * DAY))
    expect(await keys.destroy(old, { backupsExpire: new Date(0), pendingMs: DAY })).toEqual(new Date(START + DAY))
    expect(versionOf(keys, old)).toMatchObject({ state: 'deactivated', destroyAt: START + DAY })
  })

  it.each([
    ['no date', { backupsExpire: undefined as never }, 'backupsExpire'],
    ['a time instead of a date', { backupsExpire: START as never }, 'backupsExpire'],
    ['an invalid date', { backupsExpire: new Date(Number.NaN) }, 'backupsExpire'],
    ['a negative time', { backupsExpire: new Date(0), pendingMs: -1 }, 'pendingMs'],
    ['a fraction', { backupsExpire: new Date(0), pendingMs: 0.5 }, 'pendingMs'],
  ])('is refused for %s', async (_, options, argument) => {
    const { keys, old } = await started()
    await keys.retire(old, { references: 0 })
    expect(await refusal(() => keys.destroy(old, options))).toMatchObject({ code: 'CONFIG', argument })
  })

  it('is carried out by maintain(), not 1 ms before its time', async () => {
    const { keys, old, clock, due, store } = await pending()
    clock.now = due - 1
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    expect(store.document!.keys[old]).toBeDefined()
    clock.now = due
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [old] })
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
  })

  it('removes the wrapped key from the store and leaves a tombstone', async () => {
    const { keys, old, fresh, clock, due, store, open } = await pending()
    const { wrapped } = store.document!.keys[old]![0]!
    clock.now = due
    await keys.maintain()
    expect(Object.keys(store.document!.keys)).toEqual(['integrity', fresh])
    expect(JSON.stringify(store.document)).not.toContain(wrapped)
    expect(versionOf(await open(), old)).toMatchObject({ state: 'destroyed', retired: false })
    expect(versionOf(keys, old).history.at(-1)).toMatchObject({ state: 'destroyed', at: due })
  })

  it('is felt by every instance: KEY_STATE names the state', async () => {
    const { keys, row, old, clock, due, open } = await pending()
    const other = await open()
    clock.now = due
    await keys.maintain()
    await keys.ready()
    const gone = { code: 'KEY_STATE', state: 'destroyed', keyId: old, retryable: false }
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject(gone)
    await other.ready()
    expect(await refusal(() => notes.decrypt(other, row))).toMatchObject(gone)
    const reopened = await open()
    expect(await refusal(() => notes.decrypt(reopened, row))).toMatchObject(gone)
  })

  it('by many instances at once happens once', async () => {
    const { keys, old, clock, due, open } = await pending()
    const instances: Keyring[] = [keys, ...(await Promise.all(Array.from({ length: 7 }, () => open())))]
    clock.now = due
    const done = await Promise.all(instances.map((instance) => instance.maintain()))
    expect(done.flatMap(({ destroyed }) => destroyed)).toEqual([old])
  })

  it('of a staged version, which nothing can refer to, needs no retiring', async () => {
    const { keys } = await started()
    const staged = await keys.rotate()
    await keys.destroy(staged, { backupsExpire: new Date(0), pendingMs: 0 })
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [staged] })
  })

  it('can be called off, and the version has to be retired anew', async () => {
    const { keys, old, clock, due } = await pending()
    await keys.cancelDestroy(old, { reason: 'a backup turned up' })
    expect(versionOf(keys, old)).toMatchObject({ state: 'deactivated', retired: false })
    expect(versionOf(keys, old).destroyAt).toBeUndefined()
    clock.now = due
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    const again = () => keys.destroy(old, { backupsExpire: new Date(0) })
    expect(await refusal(again)).toMatchObject({ code: 'KEY_STATE', keyId: old })
  })
})

describe('a use in the pending period', () => {
  it.each([
    ['decrypt', (keys: Keyring, row: never) => notes.decrypt(keys, row)],
    ['patch', (keys: Keyring, row: never) => notes.patch(keys, row, { tag: 'new' })],
    ['rewrap', (keys: Keyring, row: never) => notes.rewrap(keys, row)],
    ['reencrypt', (keys: Keyring, row: never) => notes.reencrypt(keys, row)],
  ])('to %s raises an event and cancels the destruction', async (operation, use) => {
    const { keys, row, old, clock, due, events, open } = await pending()
    use(keys, row as never)
    expect(uses(events)).toEqual([
      expect.objectContaining({ keyId: old, state: 'pending destruction', operation, time: START }),
    ])
    await quiet()
    expect(versionOf(keys, old)).toMatchObject({ state: 'deactivated', retired: false })
    expect(versionOf(await open(), old).destroyAt).toBeUndefined()
    clock.now = due
    expect(await keys.maintain()).toEqual({ staged: [], promoted: [], destroyed: [] })
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('cancels also when maintain() runs in the same instant', async () => {
    const { keys, row, old, clock, due } = await pending()
    clock.now = due
    await keys.ready()
    notes.decrypt(keys, row)
    await keys.maintain()
    await quiet()
    expect(versionOf(keys, old).state).toBe('deactivated')
  })

  it('made by many calls at once is one write', async () => {
    const { keys, row, store, events } = await pending()
    const saves = store.saves
    for (let i = 0; i < 50; i++) notes.decrypt(keys, row)
    await quiet()
    expect([store.saves, uses(events).length]).toEqual([saves + 1, 50])
  })

  it('that could not be written down raises keyring.failure, and the next use tries again', async () => {
    const { keys, row, old, store, events } = await pending()
    store.broken = new Error('away')
    notes.decrypt(keys, row)
    await quiet()
    expect(events).toContainEqual(
      expect.objectContaining({ type: 'keyring.failure', operation: 'cancel destruction', code: 'KMS_UNAVAILABLE' }),
    )
    store.broken = undefined
    notes.decrypt(keys, row)
    await quiet()
    expect(versionOf(keys, old).destroyAt).toBeUndefined()
  })
})
