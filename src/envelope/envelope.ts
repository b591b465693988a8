import { briefBytes, wipe } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import { WaxsealError } from '../errors.ts'
import { bindingPrefix, COMMITMENT_BYTES, draftHeader, type Header, type Kind, malformed, OFFSET } from './format.ts'
import type { KeySource, MasterKey, Operation } from './keys.ts'
import type { Suite } from './suites.ts'

/**
 * The story of an envelope. A fresh data key is wrapped by the active master key; the record key and its commitment
 * are derived from the data key and the context; the record key seals values. Numbers in brackets are the steps of
 * docs/spec/envelope.md.
 */

const DATA_KEY_BYTES = 32
const RECORD_KEY_BYTES = 32

/** A new envelope: its header, and the record key to seal values with. */
export interface NewEnvelope {
  readonly suite: Suite
  readonly header: Uint8Array
  readonly master: MasterKey
  readonly key: Aead
}

/** Reused, because calls are synchronous, and wiped after each. */
const dataKey = new Uint8Array(new ArrayBuffer(DATA_KEY_BYTES))

/** Encrypt: draws a data key [E1], derives record key and commitment [E2], wraps the data key [E3]. */
export function createEnvelope(keys: KeySource, kind: Kind, context: Uint8Array): NewEnvelope {
  const { engine, writeSuite: suite } = keys
  const master = keys.active()
  try {
    engine.fillKey(dataKey)
    const derived = deriveRecordKey(keys, suite, kind, dataKey, context)
    const header = draftHeader(suite, kind, master.id, derived.subarray(RECORD_KEY_BYTES))
    header.set(master.wrapFor(suite).wrap(dataKey, header), OFFSET.wrappedKey)
    return { suite, header, master, key: takeRecordKey(keys, suite, kind, derived) }
  } finally {
    wipe(dataKey)
  }
}

/** An opened envelope. */
export interface OpenEnvelope {
  readonly master: MasterKey
  readonly key: Aead
}

/** Decrypt: unwraps the data key [D3], derives again and checks the commitment before anything is opened [D4]. */
export function openEnvelope(
  keys: KeySource,
  header: Header,
  kind: Kind,
  context: Uint8Array,
  operation: Operation,
): OpenEnvelope {
  const cache = keys.recordKeys
  const kept = cache?.find(header, context)
  const master = findMaster(keys, header, operation, kept?.keyId)
  let key = kept && cache?.use(kept)
  if (!key) {
    key = deriveForHeader(keys, master, header, kind, context)
    cache?.keep(header, context, key)
  }
  if (master.remarkable) keys.used(master, operation)
  return { master, key }
}

/** The record key of an existing row, to seal more under it: never from the cache. */
export function reopenEnvelope(keys: KeySource, header: Header, kind: Kind, context: Uint8Array): OpenEnvelope {
  const master = findMaster(keys, header, 'patch')
  const key = deriveForHeader(keys, master, header, kind, context)
  if (master.remarkable) keys.used(master, 'patch')
  return { master, key }
}

/**
 * Rewrap: the same data key under the active master key; version, suite, kind and commitment stay, and so does every
 * ciphertext [R1–R3]. Null when the header already is under the active key. `ready` is what
 * together.ts made for it.
 */
export function rewrapHeader(keys: KeySource, header: Header, ready?: Uint8Array): Uint8Array | null {
  const active = keys.active()
  const { keyId } = header
  if (keyId === active.idText) return null
  const master = findMaster(keys, header, 'rewrap', keyId)
  const rewrapped = ready ?? rewrapAlone(master, active, header)
  if (master.remarkable) keys.used(master, 'rewrap')
  return rewrapped
}

function rewrapAlone(master: MasterKey, active: MasterKey, header: Header): Uint8Array {
  const unwrapped = unwrapDataKey(master, header)
  const rewrapped = underKey(active, header)
  rewrapped.set(active.wrapFor(header.suite).wrap(unwrapped, rewrapped), OFFSET.wrappedKey)
  wipe(unwrapped)
  return rewrapped
}

/** The header under another master key, but for its wrapped key. */
export function underKey(master: MasterKey, header: Header): Uint8Array {
  const moved = briefBytes(header.length)
  moved.set(header.bytes)
  moved.set(master.id, OFFSET.keyId)
  return moved
}

/** The master key of a header, if its suite and state permit `operation`. */
export function findMaster(keys: KeySource, header: Header, operation: Operation, keyId = header.keyId): MasterKey {
  if (!keys.allowsSuite(header.suite.id)) throw malformed(`header: suite ${header.suite.id} is not allowed here`)
  return keys.find(keyId, operation)
}

function deriveForHeader(keys: KeySource, master: MasterKey, header: Header, kind: Kind, context: Uint8Array): Aead {
  const unwrapped = unwrapDataKey(master, header)
  const derived = deriveRecordKey(keys, header.suite, kind, unwrapped, context)
  wipe(unwrapped)
  const commitment = derived.subarray(RECORD_KEY_BYTES, RECORD_KEY_BYTES + COMMITMENT_BYTES)
  if (!keys.engine.equal(commitment, header.commitment)) {
    wipe(derived)
    throw decryptionFailed(header.keyId)
  }
  return takeRecordKey(keys, header.suite, kind, derived)
}

function unwrapDataKey(master: MasterKey, header: Header): Uint8Array {
  const unwrapped = master.wrapFor(header.suite).unwrap(header.wrappedKey, header.read)
  if (unwrapped?.length !== DATA_KEY_BYTES) throw decryptionFailed(header.keyId)
  return unwrapped
}

function deriveRecordKey(keys: KeySource, suite: Suite, kind: Kind, dataKey: Uint8Array, context: Uint8Array) {
  return kdf(keys.engine, dataKey, LABELS.record, bindingPrefix(suite, kind), context)
}

/** Prepares the first half of the derived bytes as record key, and wipes them. */
function takeRecordKey(keys: KeySource, suite: Suite, kind: Kind, derived: Uint8Array): Aead {
  const isForOneValue = kind !== 'columns' && !keys.recordKeys
  const key = keys.engine.aead(suite.aead, derived.subarray(0, RECORD_KEY_BYTES), isForOneValue)
  wipe(derived)
  return key
}

/** The one opaque failure of wrap, tag, context and commitment. */
export function decryptionFailed(keyId: string): WaxsealError {
  return new WaxsealError('DECRYPTION_FAILED', 'wrong key, wrong context or changed bytes', { keyId })
}

/** Forgets the record key of an opened envelope, unless a cache keeps it. */
export function release(keys: KeySource, { key }: OpenEnvelope): void {
  if (!keys.recordKeys) key.destroy()
}

/** Opens one sealed value, which begins at `at`, or throws the opaque failure. */
export function openValue(key: Aead, sealed: Uint8Array, aad: Uint8Array, keyId: string, at = 0): Uint8Array {
  const plaintext = key.open(sealed, aad, at)
  if (plaintext === null) throw decryptionFailed(keyId)
  return plaintext
}
