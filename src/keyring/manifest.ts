import { ascii, fromBase64url, sameBytes, toBase64url, utf8, wipe } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import { WaxsealError } from '../errors.ts'
import { MAX_MANIFEST, type StoredKeyring } from '../keystore/keystore.ts'
import type { Wrap } from '../kms/kms.ts'
import { type KeyState, STATES } from './states.ts'

/** What decrypting under a suspended or compromised key does. */
export type DecryptPolicy = 'refuse' | 'report'

/** One change of state; kept for good. Times are ms since the epoch. */
export interface StateChange {
  readonly state: KeyState | 'retired' | 'destroying'
  readonly at: number
  readonly actor?: string
  readonly reason?: string
}

/** What happened to the keyring as a whole; kept for good. */
export interface LogEntry {
  readonly what: 'rollback accepted' | 'root key changed' | 'policy changed'
  /** The epoch that this made. */
  readonly epoch: number
  /** For an accepted rollback: the epoch of the restored copy. What was written between the two is given up. */
  readonly from?: number
  readonly at: number
  readonly actor?: string
  readonly reason?: string
}

/** One master-key version. */
export interface Version {
  /** base64url of 15 bytes. */
  readonly id: string
  readonly state: KeyState
  readonly decrypt?: DecryptPolicy
  /** Nothing refers to it any more, as a query has shown. Still reversible. */
  readonly retired?: true
  /** When a pending destruction may be carried out. */
  readonly destroyAt?: number
  /** 32 bytes of the SHA-512 of the wraps, base64url; a destroyed version has none: what stays is its tombstone. */
  readonly wraps?: string
  /** 16 bytes of a KDF output of the key, base64url: a KMS that answers with another key is found out. */
  readonly check?: string
  readonly history: readonly StateChange[]
}

/** Every version and state of a keyring; authenticated whole under the integrity key. */
export interface Manifest {
  readonly format: typeof FORMAT
  readonly name: string
  /** base64url of 16 bytes, derived from the integrity key. */
  readonly id: string
  /** Counts the writes. */
  readonly epoch: number
  readonly suites: readonly number[]
  /** How long a staged version waits before it may become active. */
  readonly propagationMs: number
  /** How long a version stays active until its successor is due; absent: rotated only on request. */
  readonly cryptoperiodMs?: number
  /** Hash of the integrity key's wraps, as `wraps` of a version. */
  readonly integrity: string
  readonly log: readonly LogEntry[]
  readonly versions: readonly Version[]
}

const FORMAT = 'waxseal manifest, draft 0'
export const INTEGRITY = 'integrity'
const MAX_VERSIONS = 10_000

/** The keyring's id, 16 bytes: a function of the integrity key, so that a name alone never stands for a keyring. */
export function keyringId(engine: Engine, integrityKey: Uint8Array): Uint8Array {
  return kdf(engine, integrityKey, LABELS.keyringId).subarray(0, 16)
}

function mac(engine: Engine, integrityKey: Uint8Array, manifest: Uint8Array): Uint8Array {
  const macKey = kdf(engine, integrityKey, LABELS.manifestMac)
  const tag = engine.hmacSha512(macKey, [manifest]).subarray(0, 32)
  wipe(macKey)
  return tag
}

/** Binds a key's wraps to its version: a row of an older copy does not match. */
export function wrapsHash(engine: Engine, keyId: string, wraps: readonly Wrap[]): string {
  const text = JSON.stringify([keyId, ...wraps.map((wrap) => [wrap.uri, wrap.wrapped])])
  return toBase64url(engine.sha512(utf8(text) ?? ascii('')), 32)
}

/** Tells a master key from any other; says nothing about it. */
export function keyCheck(engine: Engine, key: Uint8Array, keyring: string, id: string): string {
  return toBase64url(kdf(engine, key, LABELS.keyCheck, fromBase64url(keyring)!, fromBase64url(id)!), 16)
}

/** Signs a manifest for the store. Wraps of destroyed versions are left behind. */
export function seal(
  engine: Engine,
  integrityKey: Uint8Array,
  manifest: Manifest,
  keys: StoredKeyring['keys'],
): StoredKeyring {
  const text = JSON.stringify(manifest)
  if (text.length > MAX_MANIFEST) throw new WaxsealError('LIMIT_EXCEEDED', 'the manifest would be over 1 MiB')
  parseManifest(text) // never write what could not be read again
  const kept = [INTEGRITY, ...manifest.versions.filter((version) => version.wraps).map((version) => version.id)]
  return {
    epoch: manifest.epoch,
    manifest: text,
    mac: toBase64url(mac(engine, integrityKey, utf8(text)!)),
    keys: Object.fromEntries(kept.map((id) => [id, keys[id]!])),
  }
}

/**
 * Authenticates a stored manifest as read, and parses it; says nothing about what stands beside it. DECRYPTION_FAILED for
 * any edit, MALFORMED beyond that.
 */
export function authenticated(engine: Engine, integrityKey: Uint8Array, name: string, stored: StoredKeyring): Manifest {
  const bytes = utf8(stored.manifest)
  const tag = fromBase64url(stored.mac)
  if (!bytes || !tag || !engine.equal(tag, mac(engine, integrityKey, bytes))) {
    throw new WaxsealError(
      'DECRYPTION_FAILED',
      `key store: the manifest of keyring "${name}" was changed outside waxseal; restore it from a backup`,
    )
  }
  const manifest = parseManifest(stored.manifest)
  if (manifest.name !== name) throw malformed('name is not the stored one')
  const id = fromBase64url(manifest.id)
  if (!id || !sameBytes(id, keyringId(engine, integrityKey))) throw malformed('id is not that of the integrity key')
  return manifest
}

/** The same for all of a stored keyring: its epoch, and every wrapped key, belong to the manifest. */
export function unseal(engine: Engine, integrityKey: Uint8Array, name: string, stored: StoredKeyring): Manifest {
  const manifest = authenticated(engine, integrityKey, name, stored)
  if (manifest.epoch !== stored.epoch) throw malformed('epoch is not the stored one')
  const hashes = new Map([[INTEGRITY, manifest.integrity]])
  for (const version of manifest.versions) if (version.wraps) hashes.set(version.id, version.wraps)
  for (const [id, hash] of hashes) {
    const wraps = Object.hasOwn(stored.keys, id) ? stored.keys[id] : undefined
    if (!wraps || wrapsHash(engine, id, wraps) !== hash) {
      throw new WaxsealError('DECRYPTION_FAILED', 'key store: a wrapped key does not belong to this manifest', {
        keyId: id,
      })
    }
  }
  if (Object.keys(stored.keys).length > hashes.size) throw malformed('there are wrapped keys that it does not name')
  return manifest
}

/** The keyring id that a manifest claims, before it is authenticated: needed as context to unwrap the integrity key. */
export function claimedId(stored: StoredKeyring): string {
  return parseManifest(stored.manifest).id
}

function parseManifest(text: string): Manifest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw malformed('not JSON')
  }
  const m = value as Manifest
  const ok =
    typeof m === 'object' &&
    m !== null &&
    m.format === FORMAT &&
    typeof m.name === 'string' &&
    typeof m.id === 'string' &&
    m.id.length === 22 &&
    fromBase64url(m.id) !== undefined &&
    typeof m.integrity === 'string' &&
    isTime(m.epoch) &&
    isTime(m.propagationMs) &&
    (m.cryptoperiodMs === undefined || isTime(m.cryptoperiodMs)) &&
    Array.isArray(m.log) &&
    m.log.every(isLogEntry) &&
    Array.isArray(m.suites) &&
    m.suites.every(Number.isInteger) &&
    Array.isArray(m.versions) &&
    m.versions.length <= MAX_VERSIONS &&
    m.versions.every(isVersion) &&
    new Set(m.versions.map((version) => version.id)).size === m.versions.length &&
    m.versions.filter((version) => version.state === 'active').length <= 1
  if (!ok) throw malformed(m?.format === FORMAT ? 'a part is missing or wrong' : `format is not "${FORMAT}"`)
  return m
}

function isVersion(v: Version): boolean {
  return (
    typeof v === 'object' &&
    v !== null &&
    typeof v.id === 'string' &&
    v.id.length === 20 &&
    fromBase64url(v.id) !== undefined &&
    Object.hasOwn(STATES, v.state) &&
    (v.decrypt === undefined || v.decrypt === 'refuse' || v.decrypt === 'report') &&
    (v.retired === undefined || v.retired === true) &&
    (v.destroyAt === undefined || isTime(v.destroyAt)) &&
    (v.state === 'destroyed'
      ? v.wraps === undefined && v.check === undefined
      : typeof v.wraps === 'string' && typeof v.check === 'string') &&
    Array.isArray(v.history)
  )
}

function isLogEntry(entry: LogEntry): boolean {
  return (
    typeof entry === 'object' &&
    entry !== null &&
    typeof entry.what === 'string' &&
    isTime(entry.epoch) &&
    (entry.from === undefined || isTime(entry.from))
  )
}

const isTime = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0

function malformed(what: string): WaxsealError {
  return new WaxsealError('MALFORMED', `key store: manifest: ${what}`)
}

/** How long a staged version waits, and how long it is then active. */
export type Policy = Pick<Manifest, 'propagationMs' | 'cryptoperiodMs'>

export function newManifest(of: Pick<Manifest, 'name' | 'id' | 'suites' | 'integrity'>, policy: Policy): Manifest {
  return { format: FORMAT, ...of, epoch: 0, ...policy, log: [], versions: [] }
}

/** True when `next` is `before` with more history: an older copy is not, nor is one that was changed from an older copy. */
export function continues(before: Manifest, next: Manifest): boolean {
  if (next.epoch < before.epoch) return false
  if (next.epoch === before.epoch) return JSON.stringify(next) === JSON.stringify(before)
  if (gaveUp(next, before.epoch)) return true
  const versions = new Map(next.versions.map((version) => [version.id, version]))
  return (
    begins(next.log, before.log) &&
    before.versions.every(({ id, history }) => begins(versions.get(id)?.history, history))
  )
}

const begins = <T>(list: readonly T[] | undefined, start: readonly T[]): boolean =>
  JSON.stringify(list?.slice(0, start.length)) === JSON.stringify(start)

/** True when a rollback behind `epoch` was accepted explicitly. */
function gaveUp(manifest: Manifest, epoch: number): boolean {
  return manifest.log.some((entry) => entry.from !== undefined && entry.from < epoch && epoch < entry.epoch)
}
