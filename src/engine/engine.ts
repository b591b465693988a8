import { config } from '../errors.ts'

/**
 * Who computes. Two engines give byte-identical results: Node's OpenSSL (node.ts) and @noble (noble.ts). A key is
 * prepared once and reused, so that an engine may hold an OpenSSL KeyObject or a copy of the bytes.
 *
 * A failed authentication is `null` ("not mine"); a wrong argument throws.
 */
export interface Engine {
  readonly name: string
  /** The suite that is fast and constant-time here: 1 (AES-256-GCM) or 2 (XChaCha20-Poly1305). */
  readonly preferredSuite: 1 | 2
  /** `length` bytes straight from the system's generator, for keys: a pool may be duplicated by a VM snapshot. */
  randomKey(length: number): Uint8Array
  /** {@link Engine.randomKey} into bytes that the caller has, and wipes. */
  fillKey(out: Uint8Array): void
  /** `length` bytes for nonces and ids, from a pool that is wiped as it is handed out. */
  randomBytes(length: number): Uint8Array
  /** SHA-512 (FIPS 180-4): 64 bytes. */
  sha512(data: Uint8Array): Uint8Array
  /** HMAC-SHA-512 (FIPS 198-1) of the parts, joined: 64 bytes. */
  hmacSha512(key: Uint8Array, parts: readonly Uint8Array[]): Uint8Array
  /** Constant-time equality; false for different lengths. */
  equal(a: Uint8Array, b: Uint8Array): boolean
  /** Prepares a 32-byte key. The bytes are copied: the caller may wipe them. `once`: for a single value, as a hint. */
  aead(name: AeadName, key: Uint8Array, once?: boolean): Aead
  /** Prepares a 32-byte key-encryption key for AES key wrap (RFC 3394). The bytes are copied. */
  keyWrap(key: Uint8Array): KeyWrap
}

export type AeadName = 'aes-256-gcm' | 'xchacha20-poly1305'

/** Bytes of nonce and tag of each AEAD. */
export const AEAD_SIZES: Record<AeadName, { readonly nonce: number; readonly tag: 16 }> = {
  'aes-256-gcm': { nonce: 12, tag: 16 },
  'xchacha20-poly1305': { nonce: 24, tag: 16 },
}

export interface Aead {
  /** nonce ‖ ciphertext ‖ tag, with a fresh random nonce: the caller cannot choose one. */
  seal(plaintext: Uint8Array, aad: Uint8Array): Uint8Array
  /** {@link Aead.seal} into `out` from `at` on, which must have the room. Returns where it ends. */
  sealInto(plaintext: Uint8Array, aad: Uint8Array, out: Uint8Array, at: number): number
  /** The plaintext of nonce ‖ ciphertext ‖ tag, from `at` on (0), or null when it does not authenticate. */
  open(sealed: Uint8Array, aad: Uint8Array, at?: number): Uint8Array | null
  /** Forgets the key, as far as the engine can. */
  destroy(): void
}

export interface KeyWrap {
  /** 32 bytes → 40 bytes. */
  wrap(key: Uint8Array): Uint8Array
  /** 40 bytes → 32 bytes, or null when the integrity check fails. */
  unwrap(wrapped: Uint8Array): Uint8Array | null
  /** Many keys of 32 bytes, end to end → as many of 40. */
  wrapMany(keys: Uint8Array): Uint8Array
  /** Many wrapped keys of 40 bytes, end to end. One that is broken does not spoil the others. The caller wipes the keys. */
  unwrapMany(wrapped: Uint8Array): Unwrapped
  destroy(): void
}

/** What became of many wrapped keys. */
export interface Unwrapped {
  /** 32 bytes each, end to end; zeros where the integrity check failed. */
  readonly keys: Uint8Array
  /** A byte each: 1, or 0 where the integrity check failed. */
  readonly intact: Uint8Array
}

/** {@link Aead.seal} by {@link Aead.sealInto}. */
export function sealNew(
  aead: Pick<Aead, 'sealInto'>,
  name: AeadName,
  plaintext: Uint8Array,
  aad: Uint8Array,
): Uint8Array {
  const { nonce, tag } = AEAD_SIZES[name]
  const out = new Uint8Array(nonce + plaintext.length + tag)
  aead.sealInto(plaintext, aad, out, 0)
  return out
}

/** Fills the bytes it is given: the system's generator, or a seeded one to make test vectors. */
export type FillRandom = (bytes: Uint8Array) => void

/** How many items of `size` bytes stand end to end in an argument; CONFIG for what is no such thing. */
export function countOf(argument: string, items: unknown, size: number): number {
  if (items instanceof Uint8Array && items.length % size === 0) return items.length / size
  throw config(argument, `a Uint8Array of a multiple of ${size} bytes`, items)
}

/** A key that was not destroyed. */
export function alive<T>(key: T | undefined): T {
  if (key === undefined) throw new RangeError('"key" was destroyed')
  return key
}
