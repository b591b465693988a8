import { AEAD_SIZES, type AeadName, type Engine, type Unwrapped } from '../engine/engine.ts'

/** Wraps 32-byte data keys under one master-key subkey. `header`, or what begins with it, is bound as far as its wrapped key. */
export interface DataKeyWrap {
  wrap(dataKey: Uint8Array, header: Uint8Array): Uint8Array
  /** null when the integrity check fails. `wrapped` has the suite's exact length. */
  unwrap(wrapped: Uint8Array, header: Uint8Array): Uint8Array | null
  /** Many at once, end to end, in suites whose wrap binds no header. */
  wrapMany?(dataKeys: Uint8Array): Uint8Array
  unwrapMany?(wrapped: Uint8Array): Unwrapped
  /** Forgets the subkey, as far as the engine can. */
  destroy(): void
}

/** The header up to its wrapped key. */
const headOf = (header: Uint8Array): Uint8Array => header.subarray(0, 53)

/** Everything the implementation needs to know about one suite. */
export interface Suite {
  readonly id: number
  readonly name: string
  readonly aead: AeadName
  readonly nonceBytes: number
  readonly tagBytes: 16
  /** Length of the wrapped data key in the header. */
  readonly wrappedBytes: number
  readonly dataKeyWrap: (engine: Engine, key: Uint8Array) => DataKeyWrap
}

/** Suite ids 0 and 255 are invalid; 128–143 are reserved for SM4/SM3; the rest is for later suites. */
export const SUITES: readonly Suite[] = [
  {
    id: 1,
    name: 'AES-256-GCM, AES-256 key wrap, KDF HMAC-SHA-512',
    aead: 'aes-256-gcm',
    nonceBytes: AEAD_SIZES['aes-256-gcm'].nonce,
    tagBytes: AEAD_SIZES['aes-256-gcm'].tag,
    wrappedBytes: 40,
    dataKeyWrap: (engine, key) => engine.keyWrap(key),
  },
  {
    id: 2,
    name: 'XChaCha20-Poly1305 for data and wrap, KDF HMAC-SHA-512',
    aead: 'xchacha20-poly1305',
    nonceBytes: AEAD_SIZES['xchacha20-poly1305'].nonce,
    tagBytes: AEAD_SIZES['xchacha20-poly1305'].tag,
    wrappedBytes: 72,
    dataKeyWrap(engine, key) {
      const aead = engine.aead('xchacha20-poly1305', key)
      return {
        wrap: (dataKey, header) => aead.seal(dataKey, headOf(header)),
        unwrap: (wrapped, header) => aead.open(wrapped, headOf(header)),
        destroy: () => aead.destroy(),
      }
    },
  },
]

/** The row of a suite id; undefined for an id that this version does not know. */
export const suiteById = (id: number): Suite | undefined => SUITES[id - 1]
