import { describe, expect, it } from 'vitest'
import { acceptRollback as accept, exportKeyring, importKeyring } from 'waxseal/recovery'
import {
  activeOf,
  DAY,
  MINUTE,
  NOTE,
  notes,
  quiet,
  refusal,
  rotated,
  setup,
  standing,
  versionOf,
} from '../keyring/support.ts'

const ROLLED_BACK = { code: 'KEY_STATE', state: 'rolled back', retryable: false }

/**
 * A store restored from a copy that is behind. `lost` is what was written since the copy: changes of state, which
 * every process can give up, or a version too, which only those can that never had it.
 */
async function started(lost: 'states' | 'a version') {
  const bench = setup()
  const keys = await bench.create()
  const { old } = await rotated(keys)
  const row = notes.encrypt(keys, { ...NOTE })
  const bystander = await bench.open()
  const copy = structuredClone(bench.store.document!)
  await keys.retire(old, { references: 0 })
  const fresh = lost === 'a version' ? (await rotated(keys)).fresh : activeOf(keys)
  const seenEpoch = keys.status().epoch
  bench.store.document = structuredClone(copy)
  const options = (more: Partial<Parameters<typeof accept>[0]> = {}) => ({
    name: 'crm',
    store: bench.store,
    kms: bench.kms,
    clock: () => bench.clock.now,
    seenEpoch,
    reason: 'disk lost, backup of 3 o’clock',
    actor: 'ann',
    ...more,
  })
  return { ...bench, keys, bystander, row, old, fresh, copy, seenEpoch, options }
}

describe('accepting a rollback', () => {
  it('raises the epoch above all that was seen, and is recorded for good', async () => {
    const { open, copy, seenEpoch, options, clock, store } = await started('a version')
    clock.now += DAY
    const accepted = await accept(options())
    const entry = {
      what: 'rollback accepted',
      from: copy.epoch,
      epoch: seenEpoch + 1,
      at: clock.now,
      actor: 'ann',
      reason: 'disk lost, backup of 3 o’clock',
    }
    expect(accepted.status()).toMatchObject({ epoch: seenEpoch + 1, log: [entry] })
    await rotated(accepted)
    expect((await open()).status().log).toEqual([entry])
    expect(store.document!.epoch).toBe(seenEpoch + 3)
  })

  it('opens by the pin of the epoch that was seen, as everybody pinned it', async () => {
    const { open, seenEpoch, options, row, keys } = await started('a version')
    const pin = { id: keys.status().id, minEpoch: seenEpoch }
    expect(await refusal(() => open({ pin }))).toMatchObject(ROLLED_BACK)
    expect(notes.decrypt(await accept(options({ pin })), row)).toEqual(NOTE)
    expect(notes.decrypt(await open({ pin }), row)).toEqual(NOTE)
  })

  it('is followed by a process that saw the lost epochs, and had no version that is lost', async () => {
    const { keys, options, clock, old, row } = await started('states')
    clock.now += 6 * MINUTE
    expect(await refusal(() => keys.ready())).toMatchObject(ROLLED_BACK)
    const accepted = await accept(options())
    await keys.ready()
    expect(standing(keys)).toEqual(standing(accepted))
    expect(versionOf(keys, old).retired).toBe(false)
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    await rotated(keys)
  })

  it('is followed by a process that never saw them, as any other change', async () => {
    const { bystander, options, clock, row } = await started('a version')
    const accepted = await accept(options())
    clock.now += 6 * MINUTE
    await bystander.ready()
    expect(standing(bystander)).toEqual(standing(accepted))
    expect(notes.decrypt(bystander, row)).toEqual(NOTE)
  })

  it('is not followed by a process that holds a lost version: it goes on with its keys, and writes nothing', async () => {
    const { keys, options, clock, fresh, store, events } = await started('a version')
    await accept(options())
    const after = structuredClone(store.document)
    clock.now += 6 * MINUTE
    events.length = 0
    const error = await refusal(() => keys.ready())
    expect(error).toMatchObject({ ...ROLLED_BACK, keyId: fresh })
    expect(error.message).toContain('exportKeyring')
    for (const work of [() => keys.rotate(), () => keys.maintain(), () => keys.changeRootKey()]) {
      expect(await refusal(work)).toMatchObject(ROLLED_BACK)
    }
    await quiet()
    expect(events).toContainEqual(expect.objectContaining({ type: 'keyring.failure', code: 'KEY_STATE' }))
    expect(store.document).toEqual(after)
    expect(activeOf(keys)).toBe(fresh)
    expect(notes.decrypt(keys, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it('loses nothing that such a process can still export', async () => {
    const { keys, open, options, clock, fresh } = await started('a version')
    const row = notes.encrypt(keys, { ...NOTE })
    await accept(options())
    clock.now += 6 * MINUTE
    const saved = setup()
    await importKeyring({ ...options(), store: saved.store }, await exportKeyring(keys))
    expect(notes.decrypt(await open({ store: saved.store }), row)).toEqual(NOTE)
    expect(versionOf(await open({ store: saved.store }), fresh).state).toBe('active')
  })

  it('gives up no more than was said: a process that saw a later epoch refuses, however much is written since', async () => {
    const { keys, options, clock, copy, fresh } = await started('a version')
    const accepted = await accept(options({ seenEpoch: copy.epoch + 1 }))
    for (let i = 0; i < 3; i++) {
      clock.now += 6 * MINUTE
      expect(await refusal(() => keys.ready())).toMatchObject(ROLLED_BACK)
      await rotated(accepted)
    }
    expect(activeOf(keys)).toBe(fresh)
  })
})

describe('a rollback is not accepted', () => {
  it.each<[string, unknown]>([
    ['nothing', undefined],
    ['empty text', ''],
    ['spaces', '  \n'],
    ['no text', 5],
    ['1,001 characters', 'x'.repeat(1001)],
    ['a lone surrogate', 'a\ud800'],
  ])('with %s for a reason', async (_, reason) => {
    const { options, store, copy } = await started('states')
    const error = await refusal(() => accept(options({ reason: reason as string })))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'reason' })
    expect(store.document).toEqual(copy)
  })

  it.each<[string, unknown]>([
    ['no text', { toString: () => 'ann' }],
    ['1,001 characters', 'x'.repeat(1001)],
    ['a lone surrogate', 'a\ud800'],
  ])('by an actor of %s', async (_, actor) => {
    const { options, store, copy } = await started('states')
    const error = await refusal(() => accept(options({ actor: actor as string })))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'actor' })
    expect(store.document).toEqual(copy)
  })

  it('when the store is not behind: at the epoch that was seen, or above it', async () => {
    const { options, store, copy } = await started('states')
    for (const seenEpoch of [copy.epoch, copy.epoch - 1, 1]) {
      const error = await refusal(() => accept(options({ seenEpoch })))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'seenEpoch' })
    }
    expect(store.document).toEqual(copy)
  })

  it.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5', undefined, null])(
    'with %s for the epoch',
    async (seenEpoch) => {
      const { options, store, copy } = await started('states')
      const error = await refusal(() => accept(options({ seenEpoch: seenEpoch as number })))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'seenEpoch' })
      expect(store.document).toEqual(copy)
    },
  )

  it('of a keyring that is not the pinned one, or ends below the pinned epoch', async () => {
    const { options, store, copy, seenEpoch } = await started('states')
    const pins = [{ id: 'A'.repeat(22) }, { minEpoch: seenEpoch + 2 }]
    for (const pin of pins) {
      expect(['CONFIG', 'KEY_STATE']).toContain((await refusal(() => accept(options({ pin })))).code)
      expect(store.document).toEqual(copy)
    }
  })

  it('of a copy that was edited, or is not there', async () => {
    const { options, store, copy } = await started('states')
    store.document = { ...copy, manifest: copy.manifest.replace('"crm"', '"crn"') }
    expect((await refusal(() => accept(options()))).code).toBe('DECRYPTION_FAILED')
    store.document = undefined
    expect((await refusal(() => accept(options()))).code).toBe('CONFIG')
    expect(store.document).toBeUndefined()
  })

  it('over somebody else’s write', async () => {
    const { options, store, bystander } = await started('states')
    const { save } = store
    store.save = async (...args) => {
      store.save = save
      await bystander.setPolicy({ propagationMs: 0 })
      return save(...args)
    }
    expect((await refusal(() => accept(options()))).code).toBe('CONFLICT')
    expect(store.document!.manifest).toContain('"propagationMs":0')
  })
})

describe('the log', () => {
  it('cannot be edited, shortened or added to in the store', async () => {
    const { options, store, open } = await started('states')
    await accept(options())
    const { manifest, ...rest } = store.document!
    const edit = (change: (log: Record<string, unknown>[]) => void): string => {
      const value = JSON.parse(manifest)
      change(value.log)
      return JSON.stringify(value)
    }
    const edits = [
      edit((log) => log.pop()),
      edit((log) => Object.assign(log[0]!, { reason: 'none' })),
      edit((log) => Object.assign(log[0]!, { from: 1 })),
      edit((log) => Object.assign(log[0]!, { epoch: 1_000 })),
      edit((log) => void log.push({ ...log[0]! })),
    ]
    for (const forged of edits) {
      expect(forged).not.toBe(manifest)
      store.document = { ...rest, manifest: forged }
      expect((await refusal(() => open())).code).toBe('DECRYPTION_FAILED')
    }
    store.document = { ...rest, manifest }
    await open()
  })

  it('that was rolled back is told by a process that saw it, also when the store was written to since', async () => {
    const { open, store, bystander, clock, copy } = await started('states')
    store.document = structuredClone(copy)
    await bystander.setPolicy({ cryptoperiodMs: DAY, reason: 'audit' })
    const seen = await open()
    store.document = structuredClone(copy)
    const misled = await open()
    for (let i = 0; i < 3; i++) await rotated(misled)
    clock.now += 6 * MINUTE
    expect(await refusal(() => seen.ready())).toMatchObject({ code: 'KEY_STATE' })
    expect(seen.status().cryptoperiodMs).toBe(DAY)
  })
})
