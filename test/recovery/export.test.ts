import { describe, expect, it } from 'vitest'
import { createKeyring, type Keyring } from 'waxseal'
import { localKms } from 'waxseal/kms/local'
import { exportKeyring, importKeyring } from 'waxseal/recovery'
import type { StoredKeyring } from '../../src/keystore/keystore.ts'
import { AWAY, region } from '../keyring/roots.ts'
import {
  DAY,
  MINUTE,
  NOTE,
  notes,
  type Options,
  ROOT,
  refusal,
  rotated,
  setup,
  standing,
  versionOf,
  watchedStore,
} from '../keyring/support.ts'

/** A keyring with a past, its export, and an empty store to import it into. */
async function started() {
  const bench = setup()
  const keys = await bench.create()
  const row = notes.encrypt(keys, { ...NOTE })
  const { old } = await rotated(keys)
  await keys.retire(old, { references: 0, actor: 'ann', reason: 'counted' })
  const exported = await exportKeyring(keys)
  const empty = watchedStore()
  const into = (store = empty, more: Options = {}) => ({
    name: 'crm',
    store,
    kms: bench.kms,
    patience: { attempts: 1 },
    clock: () => bench.clock.now,
    ...more,
  })
  return { ...bench, keys, row, old, exported, empty, into }
}

async function reads(keys: Keyring, row: ReturnType<typeof notes.encrypt>): Promise<void> {
  await refusal(() => notes.decrypt(keys, row)).catch(() => undefined)
  await keys.ready()
  expect(notes.decrypt(keys, row)).toEqual(NOTE)
}

describe('an export', () => {
  it('goes into an empty store whole: versions, states, history, and it goes on from there', async () => {
    const { keys, row, store, exported, empty, into } = await started()
    const back = await importKeyring(into(), exported)
    expect(standing(back)).toEqual(standing(keys))
    expect(empty.document).toEqual(store.document)
    await reads(back, row)
    await rotated(back)
    await reads(await setup({ store: empty }).open(), notes.encrypt(back, { ...NOTE }))
  })

  it('is JSON text that holds wrapped keys, and is the same when nothing has happened', async () => {
    const { keys, exported } = await started()
    const value = JSON.parse(exported)
    expect(Object.keys(value)).toEqual(['format', 'name', 'keyring'])
    expect(exported.endsWith('}\n')).toBe(true)
    expect(await exportKeyring(keys)).toBe(exported)
  })

  it('of a newer keyring goes over an older store, which is then the newer one', async () => {
    const { keys, store, exported, into } = await started()
    const older = watchedStore()
    older.document = structuredClone(store.document)
    await rotated(keys)
    await keys.setPolicy({ cryptoperiodMs: DAY })
    const back = await importKeyring(into(older), await exportKeyring(keys))
    expect([standing(back), older.document]).toEqual([standing(keys), store.document])
    expect(exported).not.toBe(await exportKeyring(back))
  })

  it('that the store holds already is imported without a write', async () => {
    const { store, exported, into } = await started()
    const { saves } = store
    await importKeyring(into(store), exported)
    expect(store.saves).toBe(saves)
  })

  it('of an older keyring over a newer store is refused, and changes nothing', async () => {
    const { keys, store, exported, into } = await started()
    await rotated(keys)
    const before = structuredClone(store.document)
    const error = await refusal(() => importKeyring(into(store), exported))
    expect(error).toMatchObject({ code: 'KEY_STATE', state: 'rolled back', retryable: false })
    expect(store.document).toEqual(before)
  })

  it('of a keyring that went another way from the same past is refused, though its epoch is higher', async () => {
    const { keys, store, into } = await started()
    const fork = watchedStore()
    fork.document = structuredClone(store.document)
    const other = await setup({ store: fork }).open()
    await rotated(keys)
    for (let i = 0; i < 3; i++) await rotated(other)
    const before = structuredClone(store.document)
    const error = await refusal(async () => importKeyring(into(store), await exportKeyring(other)))
    expect(error).toMatchObject({ code: 'KEY_STATE', state: 'rolled back' })
    expect(store.document).toEqual(before)
  })

  it('that lost a line of the log is refused, though it has every version', async () => {
    const { keys, store, into } = await started()
    const fork = watchedStore()
    fork.document = structuredClone(store.document)
    const other = await setup({ store: fork }).open()
    await keys.changeRootKey({ reason: 'the old one leaked' })
    await rotated(other)
    const error = await refusal(async () => importKeyring(into(store), await exportKeyring(other)))
    expect(error).toMatchObject({ code: 'KEY_STATE', state: 'rolled back' })
  })

  it('over a store that somebody writes to meanwhile is CONFLICT, and the other’s write stands', async () => {
    const { keys, store, into } = await started()
    const older = watchedStore()
    older.document = structuredClone(store.document)
    await rotated(keys)
    const exported = await exportKeyring(keys)
    const { save } = older
    older.save = async (...args) => {
      older.save = save
      await (await setup({ store: older }).open()).setPolicy({ propagationMs: 0 })
      return save(...args)
    }
    expect(await refusal(() => importKeyring(into(older), exported))).toMatchObject({ code: 'CONFLICT' })
    expect((await setup({ store: older }).open()).status()).toMatchObject({ propagationMs: 0 })
  })

  it('under another name is refused, whichever of the two is changed', async () => {
    const { exported, into, empty } = await started()
    const renamed = exported.replace('"name":"crm"', '"name":"erp"')
    expect(await refusal(() => importKeyring(into(empty, { name: 'erp' }), exported))).toMatchObject({
      code: 'CONFIG',
      argument: 'name',
    })
    expect((await refusal(() => importKeyring(into(), renamed))).code).toBe('CONFIG')
    expect((await refusal(() => importKeyring(into(empty, { name: 'erp' }), renamed))).code).toBe('MALFORMED')
    expect(empty.document).toBeUndefined()
  })

  it('of another keyring of that name over this one is refused as CONFIG, and changes nothing', async () => {
    const { store, into } = await started()
    const stranger = await setup().create()
    for (let i = 0; i < 5; i++) await rotated(stranger)
    const before = structuredClone(store.document)
    const exported = await exportKeyring(stranger)
    expect(await refusal(() => importKeyring(into(store), exported))).toMatchObject({
      code: 'CONFIG',
      argument: 'store',
    })
    expect(store.document).toEqual(before)
  })

  it.each<[string, () => Options, string]>([
    ['another root key', () => ({ kms: region(9) }), 'CONFIG'],
    [
      'another passphrase',
      () => ({ kms: { ...localKms(new Uint8Array(32)), keyUri: localKms(ROOT).keyUri } }),
      'DECRYPTION_FAILED',
    ],
    ['the pin of another keyring', () => ({ pin: { id: 'A'.repeat(22) } }), 'CONFIG'],
    ['a pin of a later epoch', () => ({ pin: { minEpoch: 99 } }), 'KEY_STATE'],
    ['a suite that it lacks', () => ({ suite: 3 as never }), 'CONFIG'],
  ])('with %s is refused, and nothing is written', async (_, more, code) => {
    const { exported, into, empty } = await started()
    expect((await refusal(() => importKeyring(into(empty, more()), exported))).code).toBe(code)
    expect([empty.saves, empty.document]).toEqual([0, undefined])
  })

  it('with its own pin is imported', async () => {
    const { keys, exported, into, empty } = await started()
    const { id, epoch } = keys.status()
    expect((await importKeyring(into(empty, { pin: { id, minEpoch: epoch } }), exported)).status().epoch).toBe(epoch)
  })

  it('is not imported while the KMS is away: what cannot be unwrapped is not believed', async () => {
    const { exported, into, empty, kms } = await started()
    kms.broken = AWAY
    expect((await refusal(() => importKeyring(into(), exported))).code).toBe('KMS_UNAVAILABLE')
    expect(empty.document).toBeUndefined()
  })
})

describe('a store whose manifest was damaged', () => {
  const DAMAGE: Record<string, (document: StoredKeyring) => unknown> = {
    'in its text': ({ manifest }) => ({ manifest: manifest.replace('pre-active', 'active----') }),
    'so that it is no JSON': ({ manifest }) => ({ manifest: manifest.slice(0, -20) }),
    'in its authentication': () => ({ mac: 'A'.repeat(43) }),
    'in the epoch beside it': () => ({ epoch: 1 }),
    'in every wrapped key': ({ keys }) => ({
      keys: Object.fromEntries(Object.keys(keys).map((id) => [id, [{ uri: 'local:x', wrapped: 'AAAA' }]])),
    }),
    'by leaving out the integrity key': ({ keys: { integrity: _, ...keys } }) => ({ keys }),
  }

  it.each(Object.entries(DAMAGE))('%s is mended by an export of the same epoch', async (_, damage) => {
    const { keys, row, store, exported, into } = await started()
    const whole = structuredClone(store.document)!
    store.document = { ...whole, ...(damage(whole) as object) }
    await refusal(() => setup({ store }).open())
    const back = await importKeyring(into(store), exported)
    expect(store.document).toEqual(whole)
    expect(standing(back)).toEqual(standing(keys))
    await reads(back, row)
  })

  it('is mended from a process that still runs, which goes on', async () => {
    const { keys, store, into, clock } = await started()
    await rotated(keys)
    store.document = { ...store.document!, mac: 'A'.repeat(43) }
    clock.now += 6 * MINUTE
    expect((await refusal(() => keys.ready())).code).toBe('DECRYPTION_FAILED')
    await importKeyring(into(store), await exportKeyring(keys))
    await keys.ready()
    await rotated(keys)
  })

  it('is not replaced by an export of an earlier epoch: KEY_STATE names both', async () => {
    const { keys, store, exported, into } = await started()
    await rotated(keys)
    const { epoch } = store.document!
    const damaged = { ...store.document!, mac: 'A'.repeat(43) }
    store.document = damaged
    const error = await refusal(() => importKeyring(into(store), exported))
    expect(error).toMatchObject({ code: 'KEY_STATE', state: 'rolled back' })
    expect(error.message).toContain(`at epoch ${epoch}, and damaged`)
    expect(store.document).toEqual(damaged)
  })

  it('in its epoch alone, to an earlier one, still shows how new it is', async () => {
    const { keys, store, exported, into } = await started()
    await rotated(keys)
    store.document = { ...store.document!, epoch: 1 }
    expect((await refusal(() => importKeyring(into(store), exported))).code).toBe('KEY_STATE')
  })

  it('beyond recognition is left alone: it may be somebody else’s', async () => {
    const { store, exported, into } = await started()
    const damaged = { ...store.document!, manifest: '{}', mac: 'A'.repeat(43), keys: {} }
    store.document = damaged
    expect(await refusal(() => importKeyring(into(store), exported))).toMatchObject({
      code: 'CONFIG',
      argument: 'store',
    })
    expect(store.document).toEqual(damaged)
  })
})

describe('an export that was changed', () => {
  it('by cutting it off anywhere is refused, and nothing is written', async () => {
    const { exported, into, empty } = await started()
    for (let length = 0; length < exported.length - 2; length += 7) {
      expect((await refusal(() => importKeyring(into(), exported.slice(0, length)))).code).toBe('MALFORMED')
    }
    expect(empty.saves).toBe(0)
  })

  /** Every leaf of the document as a path, the manifest's own text apart. */
  function leaves(value: unknown, path: (string | number)[] = []): (string | number)[][] {
    if (typeof value !== 'object' || value === null) return [path]
    return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]))
  }

  function edited(text: string, path: readonly (string | number)[], change: (value: unknown) => unknown): string {
    const value = JSON.parse(text)
    const parent = path.slice(0, -1).reduce((at, key) => at[key], value)
    parent[path.at(-1)!] = change(parent[path.at(-1)!])
    return JSON.stringify(value)
  }

  const flip = (value: unknown) =>
    typeof value === 'number' ? value + 1 : String(value).replace(/.$/, (last) => (last === 'A' ? 'E' : 'A'))

  it.each<[string, (value: unknown) => unknown]>([
    ['another value', flip],
    ['null', () => null],
    ['an object', () => ({})],
    ['a value less', () => undefined],
  ])('in any field to %s is refused, and nothing is written', async (_, change) => {
    const { exported, into, empty } = await started()
    const paths = leaves(JSON.parse(exported))
    expect(paths.length).toBeGreaterThan(10)
    for (const path of paths) {
      const error = await refusal(() => importKeyring(into(), edited(exported, path, change)))
      expect([path.join('.'), ['MALFORMED', 'CONFIG', 'DECRYPTION_FAILED'].includes(error.code)]).toEqual([
        path.join('.'),
        true,
      ])
    }
    expect([empty.saves, empty.document]).toEqual([0, undefined])
  })

  it('in any field of its manifest is refused, and nothing is written', async () => {
    const { exported, into, empty } = await started()
    const { manifest } = JSON.parse(exported).keyring
    for (const path of leaves(JSON.parse(manifest))) {
      const forged = edited(exported, ['keyring', 'manifest'], () => edited(manifest, path, flip))
      const { code } = await refusal(() => importKeyring(into(), forged))
      expect([path.join('.'), ['MALFORMED', 'DECRYPTION_FAILED'].includes(code)]).toEqual([path.join('.'), true])
    }
    expect([empty.saves, empty.document]).toEqual([0, undefined])
  })

  it.each<[string, unknown]>([
    ['nothing', undefined],
    ['null', 'null'],
    ['a list', '[]'],
    ['an object', '{}'],
    ['a number', 5],
    ['bytes', new Uint8Array(5)],
    ['a store’s document', '{"epoch":1,"manifest":"{}","mac":"","keys":{}}'],
  ])('into %s is MALFORMED', async (_, text) => {
    const { into } = await started()
    expect((await refusal(() => importKeyring(into(), text as string))).code).toBe('MALFORMED')
  })

  it('or is far too large is refused before it is parsed', async () => {
    const { into } = await started()
    const huge = `{"format":"${'x'.repeat(64 << 20)}`
    expect((await refusal(() => importKeyring(into(), huge))).message).toContain('64 MiB')
  })
})

describe('a process that still runs', () => {
  it.each([
    ['at once', MINUTE],
    ['after a refresh was due', 6 * MINUTE],
    ['after hours', 3 * 60 * MINUTE],
  ])('saves a keyring whose store was lost, %s', async (_, later) => {
    const { keys, row, store, clock, empty, into } = await started()
    const document = store.document
    store.document = undefined
    clock.now += later
    const back = await importKeyring(into(), await exportKeyring(keys))
    expect(empty.document).toEqual(document)
    await reads(back, row)
  })

  it('saves what a store lost that was rolled back, and every process goes on', async () => {
    const { keys, open, store, clock, into } = await started()
    const other = await open()
    const before = structuredClone(store.document)
    const { fresh } = await rotated(keys)
    const row = notes.encrypt(keys, { ...NOTE })
    clock.now += 6 * MINUTE
    await other.ready()
    store.document = before
    clock.now += 6 * MINUTE
    for (const process of [keys, other]) {
      expect(await refusal(() => process.ready())).toMatchObject({ code: 'KEY_STATE', state: 'rolled back' })
    }
    const back = await importKeyring(into(store), await exportKeyring(keys))
    expect(versionOf(back, fresh).state).toBe('active')
    for (const process of [keys, other, back]) {
      await process.ready()
      expect(notes.decrypt(process, row)).toEqual(NOTE)
    }
    await rotated(other)
  })

  it('saves it also while its store and KMS are down and its own keys have expired', async () => {
    const { keys, store, kms, clock, exported } = await started()
    store.broken = new Error('away')
    kms.broken = AWAY
    clock.now += 3 * DAY
    expect(await exportKeyring(keys)).toBe(exported)
  })

  it('exports what others have changed, when the store answers', async () => {
    const { keys, open, clock } = await started()
    const other = await open()
    await rotated(other)
    clock.now += 6 * MINUTE
    expect(await exportKeyring(keys)).toBe(await exportKeyring(other))
  })

  it('exports nothing once it was closed', async () => {
    const { keys } = await started()
    await keys.close()
    expect((await refusal(() => exportKeyring(keys))).code).toBe('CONFIG')
  })

  it('does not need the name to be free in the store’s other keyrings', async () => {
    const { exported, into } = await started()
    const store = watchedStore()
    await importKeyring(into(store), exported)
    expect((await refusal(() => createKeyring(into(store)))).code).toBe('CONFIG')
  })
})
