import { WaxsealError } from '../errors.ts'
import type { Wrap } from '../kms/kms.ts'

/**
 * Where wrapped keys live. A store keeps one document per keyring name and knows nothing of what is in it; the
 * keyring authenticates it. `save` is a compare-and-swap: all or nothing, durable when it resolves.
 */
export interface KeyStore {
  /** The stored keyring, or undefined when there is none of that name. MALFORMED when the store is torn or edited. */
  load(name: string): Promise<StoredKeyring | undefined>
  /**
   * Replaces the keyring whose epoch is `expectedEpoch`; null: only if there is none. CONFLICT otherwise, and then
   * nothing was changed.
   */
  save(name: string, next: StoredKeyring, expectedEpoch: number | null): Promise<void>
  /**
   * The clock of the store, in whole ms since the epoch: for a store that several machines share, and that has a clock of its
   * own. A machine whose clock is wrong then neither ends nor shortens a wait (see docs/decisions/0014).
   */
  now?(): Promise<number>
}

export interface StoredKeyring {
  /** A copy of the manifest's epoch, for the compare-and-swap. */
  readonly epoch: number
  /** JSON text, authenticated byte for byte. */
  readonly manifest: string
  /** base64url of 32 bytes. */
  readonly mac: string
  /** Key id → its wraps. The integrity key is under `integrity`. */
  readonly keys: Readonly<Record<string, readonly Wrap[]>>
}

/** Characters of a manifest: room for some thousand versions. */
export const MAX_MANIFEST = 1 << 20
/** Bytes of a document, or of a file of them: what a store reads at most. */
export const MAX_DOCUMENT = 64 << 20

export function conflict(name: string, expectedEpoch: number | null): WaxsealError {
  const what = expectedEpoch === null ? 'exists already' : `is no longer at epoch ${expectedEpoch}`
  return new WaxsealError('CONFLICT', `key store: keyring "${name}" ${what}`)
}

/** Loads and parses strictly, whatever the store is; what its client throws becomes KMS_UNAVAILABLE. */
export async function loadStored(store: KeyStore, name: string): Promise<StoredKeyring | undefined> {
  const stored = await asked('reading', () => store.load(name))
  return stored === undefined ? undefined : parseStored(stored)
}

/** Saves; CONFLICT passes, what the store's client throws becomes KMS_UNAVAILABLE. */
export async function saveStored(
  store: KeyStore,
  name: string,
  next: StoredKeyring,
  expectedEpoch: number | null,
): Promise<void> {
  await asked('writing', () => store.save(name, next, expectedEpoch))
}

/** The store's clock; undefined when it has none. MALFORMED for what is no time. */
export async function storeTime(store: KeyStore): Promise<number | undefined> {
  if (!store.now) return undefined
  const time = await asked('telling the time', () => store.now!())
  if (Number.isSafeInteger(time) && time >= 0) return time
  throw malformed('its clock does not tell whole ms since the epoch')
}

/** A store that hangs must not hold up, for good, whoever comes when it is well again. */
const TIMEOUT_MS = 30_000

async function asked<T>(what: string, request: () => Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    const told = `key store: ${what} took more than ${TIMEOUT_MS} ms; whether it was done is not known`
    timer = setTimeout(() => reject(new WaxsealError('KMS_UNAVAILABLE', told)), TIMEOUT_MS)
  })
  try {
    return await Promise.race([request(), late])
  } catch (cause) {
    if (WaxsealError.is(cause)) throw cause
    throw new WaxsealError('KMS_UNAVAILABLE', `key store: ${what} failed`, { cause })
  } finally {
    clearTimeout(timer)
  }
}

/** Reads what a store gave back, strictly: the shape only, since the keyring authenticates the content. */
export function parseStored(value: unknown): StoredKeyring {
  if (!isRecord(value)) throw malformed('not an object')
  const { epoch, manifest, mac, keys, ...rest } = value
  if (Object.keys(rest).length > 0) throw malformed('unknown properties')
  if (!Number.isSafeInteger(epoch) || (epoch as number) < 1) throw malformed('epoch is not a positive integer')
  if (typeof manifest !== 'string' || manifest.length > MAX_MANIFEST)
    throw malformed('manifest is not text of at most 1 MiB')
  if (typeof mac !== 'string' || mac.length !== 43) throw malformed('mac is not 43 characters')
  if (!isRecord(keys)) throw malformed('keys is not an object')
  for (const wraps of Object.values(keys)) {
    if (!Array.isArray(wraps) || wraps.length < 1 || wraps.length > 16) throw malformed('a key has not 1 to 16 wraps')
    for (const wrap of wraps) {
      if (!isWrap(wrap)) throw malformed('a wrap is not { uri, wrapped } of a sensible size')
    }
  }
  return { epoch, manifest, mac, keys } as StoredKeyring
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isWrap(value: unknown): value is Wrap {
  if (!isRecord(value) || Object.keys(value).length !== 2) return false
  const { uri, wrapped } = value
  return typeof uri === 'string' && typeof wrapped === 'string' && uri.length <= 2048 && wrapped.length <= 21_848
}

export function malformed(what: string): WaxsealError {
  return new WaxsealError('MALFORMED', `key store: ${what}`)
}
