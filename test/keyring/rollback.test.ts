import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import { activeOf, DAY, MINUTE, NOTE, notes, refusal, rotated, setup, versionOf } from './support.ts'

const ROLLED_BACK = { code: 'KEY_STATE', state: 'rolled back', retryable: false }

/** A keyring whose first version was destroyed, and the store as it was before that. */
async function started() {
  const bench = setup()
  const keys = await bench.create()
  const row = notes.encrypt(keys, { ...NOTE })
  const { old } = await rotated(keys)
  await keys.retire(old, { references: 0 })
  const before = structuredClone(bench.store.document!)
  await keys.destroy(old, { backupsExpire: new Date(0), pendingMs: DAY })
  bench.clock.now += DAY
  await keys.ready()
  await keys.maintain()
  return { ...bench, keys, row, old, before, after: structuredClone(bench.store.document!) }
}

/** A write that leaves the keyring much as it was. */
async function suspendOrReinstate(keys: Keyring): Promise<void> {
  const { id, state } = keys.status().versions.at(-1)!
  await (state === 'active' ? keys.suspend(id) : keys.reinstate(id))
}

describe('a store that was rolled back to an older copy', () => {
  it('is refused by a pin of the epoch', async () => {
    const { open, store, before, keys } = await started()
    const { id, epoch } = keys.status()
    await open({ pin: { id, minEpoch: epoch } })
    store.document = before
    expect(await refusal(() => open({ pin: { minEpoch: epoch } }))).toMatchObject(ROLLED_BACK)
    expect((await open({ pin: { minEpoch: before.epoch } })).status().epoch).toBe(before.epoch)
  })

  it('is refused by a process that has seen a newer one, whose keys go on as they were', async () => {
    const { keys, store, before, row, old, clock } = await started()
    store.document = before
    clock.now += 6 * MINUTE
    expect(await refusal(() => keys.ready())).toMatchObject(ROLLED_BACK)
    expect(versionOf(keys, old).state).toBe('destroyed')
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'destroyed' })
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('is not written to by such a process', async () => {
    const { keys, store, before } = await started()
    store.document = structuredClone(before)
    for (const work of [() => keys.rotate(), () => keys.maintain(), () => keys.suspend(activeOf(keys))]) {
      expect(await refusal(work)).toMatchObject(ROLLED_BACK)
    }
    expect(store.document).toEqual(before)
  })

  it.each([
    ['as many', 0],
    ['more', 1],
  ])('and then changed to %s writes is not the one that was seen', async (_, more) => {
    const { keys, open, store, before, after, clock, old } = await started()
    store.document = before
    const misled = await open()
    while (misled.status().epoch < after.epoch + more) await suspendOrReinstate(misled)
    clock.now += 6 * MINUTE
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'KEY_STATE' })
    expect(versionOf(keys, old).state).toBe('destroyed')
  })

  it('when restored is used again, and nothing was lost', async () => {
    const { keys, store, before, after, clock } = await started()
    store.document = before
    clock.now += 6 * MINUTE
    await refusal(() => keys.ready())
    store.document = after
    await keys.ready()
    await keys.rotate()
    expect(keys.status().epoch).toBe(after.epoch + 1)
  })

  it('in parts, an older manifest beside newer wraps, is known by its epoch', async () => {
    const { open, store, before, after, keys } = await started()
    store.document = { ...after, manifest: before.manifest, mac: before.mac }
    expect(await refusal(() => open())).toMatchObject({ code: 'MALFORMED' })
    store.document = { ...before, keys: after.keys }
    expect(await refusal(() => open())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    const { epoch } = keys.status()
    store.document = { ...before, keys: { ...before.keys, ...after.keys } }
    expect(await refusal(() => open({ pin: { minEpoch: epoch } }))).toMatchObject(ROLLED_BACK)
  })
})

describe('a store that was replaced by that of another keyring of the same name and root key', () => {
  async function replaced() {
    const scene = await started()
    const other = setup()
    const impostor = await other.create()
    const document = other.store.document!
    return { ...scene, impostor, document }
  }

  it('is refused by a pin of the id', async () => {
    const { open, store, document, keys, impostor } = await replaced()
    store.document = document
    const error = await refusal(() => open({ pin: { id: keys.status().id } }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect(error.message).toContain(impostor.status().id)
  })

  it('is refused by a process that has the keyring open, and not written to', async () => {
    const { keys, store, document, clock } = await replaced()
    store.document = structuredClone(document)
    clock.now += 6 * MINUTE
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    expect(await refusal(() => keys.rotate())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    expect(store.document).toEqual(document)
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it.each(['integrity', 'manifest', 'mac'] as const)('in its %s alone is not opened', async (part) => {
    const { open, store, document, after } = await replaced()
    store.document =
      part === 'integrity'
        ? { ...after, keys: { ...after.keys, integrity: document.keys.integrity! } }
        : { ...after, [part]: document[part], ...(part === 'manifest' && { epoch: document.epoch }) }
    expect(await refusal(() => open())).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })

  it('is not there any more: a process that has it open goes on for the grace, and tells how to save it', async () => {
    const { keys, store, clock, events } = await replaced()
    store.document = undefined
    clock.now += 6 * MINUTE
    await keys.ready()
    expect(events.at(-1)).toMatchObject({ type: 'keyring.failure', operation: 'refresh', code: 'KMS_UNAVAILABLE' })
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
    clock.now += DAY
    const error = await refusal(() => keys.ready())
    expect(error.code).toBe('KMS_UNAVAILABLE')
    expect(error.message).toContain('exportKeyring')
    expect(store.document).toBeUndefined()
  })
})
