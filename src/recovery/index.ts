import { config, expectInteger, WaxsealError } from '../errors.ts'
import { readClocks } from '../keyring/clocks.ts'
import { type Keyring, STORED } from '../keyring/keyring.ts'
import { type Loaded, loadWhole, type Origin, wipeLoaded } from '../keyring/load.ts'
import { checkReason, type Reason } from '../keyring/manage.ts'
import { authenticated, claimedId, continues, INTEGRITY, type Manifest, seal } from '../keyring/manifest.ts'
import { openKeyring } from '../keyring/open.ts'
import { clockOf, demandPin, type KeyringOptions, originOf } from '../keyring/options.ts'
import { checkPin } from '../keyring/rollback.ts'
import { logged } from '../keyring/transitions.ts'
import { loadStored, parseStored, type StoredKeyring, saveStored } from '../keystore/keystore.ts'

/**
 * Keyrings outside their key store: losing the store loses everything, even with a healthy KMS, so there has to be a
 * copy elsewhere and a way back. An export is as safe to keep as the key store itself: every key in it is wrapped by the
 * root keys, and the manifest is authenticated.
 */

const FORMAT = 'waxseal keyring export, draft 0'
/** A manifest of at most 1 MiB, and the wraps of its versions. */
const MAX_EXPORT = 64 << 20

/**
 * The whole keyring as JSON text, as this process last read it, so that a process that is still running can save what
 * a lost store took along. Wrapped and authenticated; useless without a root key.
 *
 * @example
 * ```ts
 * import { createKeyring } from 'waxseal'
 * import { exportKeyring, importKeyring } from 'waxseal/recovery'
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { localKms } from 'waxseal/kms/local'
 *
 * const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
 * await using keys = await createKeyring({ name: 'crm', store: memoryKeyStore(), kms })
 * const backup = await exportKeyring(keys)
 * await using back = await importKeyring({ name: 'crm', store: memoryKeyStore(), kms }, backup)
 * console.log(back.status().id === keys.status().id)
 * ```
 */
export async function exportKeyring(keys: Keyring): Promise<string> {
  // As new as can be had; but when the store is lost or was rolled back, what is in memory is what there is to save.
  await keys.ready().catch(() => undefined)
  const text = `${JSON.stringify({ format: FORMAT, name: keys.name, keyring: keys[STORED]() })}\n`
  if (text.length > MAX_EXPORT) throw new WaxsealError('LIMIT_EXCEEDED', 'the export would be over 64 MiB')
  return text
}

/**
 * Puts an exported keyring into a key store and opens it. Everything in it is authenticated first, and every version
 * that rows may refer to is unwrapped.
 * Into a store that holds the same keyring it goes only when it continues what is there, or when that is damaged and at
 * no later epoch: nothing that could still be read is given up.
 *
 * Errors: MALFORMED (not an export, or the store holds no document), DECRYPTION_FAILED (changed, or another root key),
 * CONFIG (another name or keyring is there, another root key), KEY_STATE (older than what is there, or than the pin), CONFLICT (somebody wrote meanwhile).
 */
export async function importKeyring(options: KeyringOptions, exported: string): Promise<Keyring> {
  const origin = originOf(options)
  demandPin(options, origin)
  const { name, store } = origin
  const imported = parseExport(exported, name)
  const there = await loadStored(store, name)
  const loaded = await loadDocument(origin, imported)
  try {
    checkPin(options.pin, loaded.manifest)
    if (!there) await saveStored(store, name, imported, null)
    else if (there.mac === imported.mac) {
      // The same manifest: what differs beside it was damaged, and the export is what was authenticated.
      if (JSON.stringify(there) !== JSON.stringify(imported)) await saveStored(store, name, imported, there.epoch)
    } else {
      const old = manifestThere(origin, loaded, there)
      // What a damaged manifest says of its epoch is all there is to tell whether the export gives something up.
      const isOlder = old ? !continues(old, loaded.manifest) : there.epoch > imported.epoch
      if (isOlder) {
        const found = `the key store is at epoch ${there.epoch}${old ? '' : ', and damaged'}`
        const what = `${found}, the export at ${imported.epoch}, and does not continue it`
        throw new WaxsealError('KEY_STATE', what, { state: 'rolled back' })
      }
      await saveStored(store, name, imported, there.epoch)
    }
  } finally {
    wipeLoaded(loaded)
  }
  return openKeyring(options)
}

/**
 * Accepts a key store that was restored from an older copy, on purpose and on record: writes what it holds under an epoch
 * above `seenEpoch`, the highest that any process has seen (its error says which), and opens it. Processes that saw the
 * lost epochs follow at their next refresh, unless they hold versions that the copy lacks. So look first for a newer copy:
 * {@link exportKeyring} in a process that still runs, then {@link importKeyring} over the restored copy, loses nothing.
 * What was marked compromised since the copy was made has to be marked again. `pin.minEpoch` applies to what is written.
 *
 * Errors: CONFIG when the store is not behind `seenEpoch`, and those of openKeyring.
 */
export async function acceptRollback(
  options: KeyringOptions & Required<Pick<Reason, 'reason'>> & Pick<Reason, 'actor'> & { readonly seenEpoch: number },
): Promise<Keyring> {
  const { seenEpoch, reason, actor, ...rest } = options
  const origin = originOf(rest)
  demandPin(rest, origin)
  const { name, store, engine } = origin
  expectInteger('seenEpoch', seenEpoch, 1, 1e12)
  if (typeof reason !== 'string' || reason.trim() === '') throw config('reason', 'text of 1 to 1000 characters', reason)
  checkReason({ reason, actor })
  const loaded = await loadWhole(origin)
  try {
    const { manifest, stored, integrity } = loaded
    if (manifest.epoch >= seenEpoch) throw notBehind(`${seenEpoch}, and the store is at ${manifest.epoch}`)
    const { now } = await readClocks(store, clockOf(rest))
    const moment = { now, reason, actor }
    const raised = { ...manifest, epoch: seenEpoch }
    const entry = { what: 'rollback accepted', from: manifest.epoch } as const
    const next = { ...logged(raised, entry, moment), epoch: seenEpoch + 1 }
    checkPin(rest.pin, next)
    const sealed = integrity.use((key) => seal(engine, key, next, stored.keys))
    await saveStored(store, name, sealed, manifest.epoch)
  } finally {
    wipeLoaded(loaded)
  }
  return openKeyring(rest)
}

function notBehind(got: string): WaxsealError {
  const message = `"seenEpoch" expected an epoch that the restored key store is behind, got ${got}`
  return new WaxsealError('CONFIG', message, { argument: 'seenEpoch' })
}

/** The manifest that the store holds of the keyring that is `loaded`; undefined when it is damaged. */
function manifestThere({ engine, name }: Origin, loaded: Loaded, there: StoredKeyring): Manifest | undefined {
  try {
    return loaded.integrity.use((key) => authenticated(engine, key, name, there))
  } catch {
    const wrapsOf = ({ keys }: StoredKeyring): string => JSON.stringify(keys[INTEGRITY])
    const isSame = claims(there, loaded.manifest.id) || wrapsOf(there) === wrapsOf(loaded.stored)
    if (isSame) return undefined
    const what = `the key store holds another keyring "${name}", or one that is damaged beyond recognition`
    throw new WaxsealError('CONFIG', what, { argument: 'store' })
  }
}

function claims(there: StoredKeyring, id: string): boolean {
  try {
    return claimedId(there) === id
  } catch {
    return false
  }
}

/** Authenticates and unwraps a document that is in no store. */
function loadDocument(origin: Origin, document: StoredKeyring): Promise<Loaded> {
  return loadWhole({ ...origin, store: { load: async () => document, save: async () => undefined } })
}

function parseExport(text: string, name: string): StoredKeyring {
  const malformed = (what: string) => new WaxsealError('MALFORMED', `keyring export: ${what}`)
  if (typeof text !== 'string' || text.length > MAX_EXPORT) throw malformed('not text of at most 64 MiB')
  let value: { format?: unknown; name?: unknown; keyring?: unknown } | null
  try {
    value = JSON.parse(text)
  } catch {
    throw malformed('torn, or not JSON')
  }
  if (value?.format !== FORMAT) throw malformed(`its format is not "${FORMAT}"`)
  if (value.name !== name) {
    throw new WaxsealError('CONFIG', '"name" expected the name that the keyring was exported under', {
      argument: 'name',
    })
  }
  return parseStored(value.keyring)
}
