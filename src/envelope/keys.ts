import { fromBase64url, fromBase64urlShared } from '../bytes.ts'
import type { Aead, Engine } from '../engine/engine.ts'
import { config } from '../errors.ts'
import type { Occurrence } from '../events.ts'
import type { Header } from './format.ts'
import type { DataKeyWrap, Suite } from './suites.ts'

/** What may be asked of a master key; columns of the state table. */
export type Operation = 'encrypt' | 'decrypt' | 'patch' | 'rewrap' | 'reencrypt' | 'index'

/** One loaded master-key version, as the envelope sees it: an id and a wrap per suite. */
export interface MasterKey {
  readonly id: Uint8Array
  /** base64url of the id, 20 characters. */
  readonly idText: string
  /** True when values under it may have been forged with a leaked key. */
  readonly compromised: boolean
  /** True when a use deserves attention: suspended, compromised, retired, or about to be destroyed. */
  readonly remarkable: boolean
  wrapFor(suite: Suite): DataKeyWrap
}

/** A record key that was opened before, and the master key it was opened with. */
export interface KeptKey {
  readonly keyId: string
}

/** Record keys that were opened before. Never used to encrypt. */
export interface RecordKeyCache {
  /** What was opened under exactly this header and context. Ask its master key's state before {@link use}. */
  find(header: Header, context: Uint8Array): KeptKey | undefined
  /** The key, once more; undefined when it is too old or was used too often. */
  use(kept: KeptKey): Aead | undefined
  keep(header: Header, context: Uint8Array, key: Aead): void
}

/** Where the envelope gets its keys from. The keyring implements it; every call is synchronous. */
export interface KeySource {
  readonly engine: Engine
  readonly writeSuite: Suite
  allowsSuite(id: number): boolean
  /** The active master key; KEY_STATE when there is none, KEY_NOT_LOADED when it is too old to trust. */
  active(): MasterKey
  /** The named master key if its state permits `operation`; UNKNOWN_KEY, KEY_NOT_LOADED or KEY_STATE otherwise. */
  find(keyId: string, operation: Operation): MasterKey
  /**
   * Told after what is under the key was authenticated: a use that deserves attention raises an event, and cancels a
   * pending destruction. A forged header must do neither.
   */
  used(master: MasterKey, operation: Operation): void
  /** Ids of the living versions that are not active: what rows should be moved away from. */
  inactive(): readonly string[]
  readonly recordKeys: RecordKeyCache | undefined
  /** False when nobody listens: callers then skip building the event. */
  readonly listening: boolean
  emit(occurrence: Occurrence): void
  /** ms since the epoch, from the keyring's clock. */
  now(): number
}

/** The property under which a {@link Keys} handle carries its source; not part of the public contract. */
export const SOURCE: unique symbol = Symbol('waxseal.source')

/**
 * A handle to an open keyring: what every encrypt and decrypt takes first. Made by openKeyring, createKeyring and
 * `keys.as(…)`.
 */
export interface Keys {
  /** The keyring's name. */
  readonly name: string
  /** The same keys, with who acts and why on every event. Allocates a small handle; no I/O. */
  as(who: { actor?: string; purpose?: string }): Keys
  /** Resolves when keys are loaded and fresh; no I/O while they are. Await it once per request. */
  ready(): Promise<void>
  readonly [SOURCE]: KeySource
}

/** The source of a handle; CONFIG for what is none. */
export function sourceOf(keys: Keys): KeySource {
  const source = keys?.[SOURCE]
  if (!source) throw config('keys', 'an open keyring, or a handle of one', keys)
  return source
}

/**
 * How to decode an envelope: into shared bytes, unless somebody listens, who may hear of a key's use, and encrypt or
 * decrypt something else, before this envelope was read to its end.
 */
export const decoderOf = (keys: KeySource): typeof fromBase64url => (keys.listening ? fromBase64url : sharedDecode)
const sharedDecode = (text: string, from = 0): Uint8Array | undefined => fromBase64urlShared(text, from)
