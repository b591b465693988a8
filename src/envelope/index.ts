import { concat, wipe } from '../bytes.ts'
import { type Context, encodeContext } from '../context.ts'
import { config, WaxsealError } from '../errors.ts'
import { createEnvelope, openEnvelope, openValue, release, rewrapHeader } from './envelope.ts'
import {
  type Encoding,
  exactHeader,
  FIELD_PREFIX,
  fieldAad,
  fromStored,
  type Header,
  headerBeforeBody,
  KINDS,
  type Kind,
  malformed,
  type Stored,
  sealStored,
  toStored,
} from './format.ts'
import { type KeySource, type Keys, sourceOf } from './keys.ts'
import { decodeAndWipe, encodeValue } from './value.ts'

export type { Context } from '../context.ts'
export type { Encoding, Kind, Stored } from './format.ts'
export type { Keys } from './keys.ts'

/** Stand-alone envelopes: one value, its own data key, bound to a context. Records and cells build on the same parts. */
const AAD = fieldAad('cell', [])

function seal(keys: Keys, kind: 'text' | 'bytes', value: unknown, context: Context, encoding: Encoding): Stored {
  const source = sourceOf(keys)
  return told(source, 'encrypt', () => {
    if (value === null) throw new WaxsealError('SCHEMA', `expected ${kind}, got null`)
    const { suite, header, key, master } = createEnvelope(source, 'cell', encodeContext(context))
    let sealed: Stored
    try {
      const plaintext = encodeValue(kind, value, undefined)
      sealed = sealStored(key, suite, plaintext, AAD, KINDS.cell.prefix, encoding, header)
      wipe(plaintext)
    } finally {
      key.destroy()
    }
    if (source.listening) source.emit({ type: 'encrypt', keyId: master.idText })
    return sealed
  })
}

function open(keys: Keys, kind: 'text' | 'bytes', sealed: Stored, context: Context): unknown {
  const source = sourceOf(keys)
  return told(source, 'decrypt', () => {
    const header = headerBeforeBody(fromStored(sealed, KINDS.cell.prefix), 'cell')
    const opened = openEnvelope(source, header, 'cell', encodeContext(context), 'decrypt')
    let value: unknown
    try {
      value = decodeAndWipe(kind, openValue(opened.key, header.read, AAD, header.keyId, header.length))
    } finally {
      release(source, opened)
    }
    if (value === null) throw new WaxsealError('SCHEMA', `expected ${kind}, but a null is stored`)
    if (source.listening) source.emit({ type: 'decrypt', keyId: header.keyId })
    return value
  })
}

/** Listeners learn of failures too. */
function told<T>(source: KeySource, operation: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (WaxsealError.is(error)) source.emit({ type: 'failure', operation, code: error.code, keyId: error.keyId })
    throw error
  }
}

/**
 * Encrypts text under a fresh data key. Returns `wxc:` and base64url: 165 characters and 4/3 of the UTF-8 bytes
 * (suite 1), at most 16 MiB of text.
 *
 * Errors: CONFIG (no context), SCHEMA (a lone surrogate), LIMIT_EXCEEDED, KEY_STATE and KEY_NOT_LOADED.
 *
 * @example
 * ```ts
 * import { decryptText, encryptText } from 'waxseal/envelope'
 * import { testKeyring } from 'waxseal/testing'
 *
 * const keys = testKeyring()
 * const sealed = encryptText(keys, 'a note', { table: 'notes', id: 17 })
 * console.log(decryptText(keys, sealed, { table: 'notes', id: 17 }))
 * ```
 */
export function encryptText(keys: Keys, text: string, context: Context): string {
  return seal(keys, 'text', text, context, 'text') as string
}

/** Encrypts bytes under a fresh data key: 122 bytes more than the plaintext (suite 1), 166 (suite 2). */
export function encryptBytes(keys: Keys, bytes: Uint8Array, context: Context): Uint8Array {
  return seal(keys, 'bytes', bytes, context, 'bytes') as Uint8Array
}

/**
 * The text of {@link encryptText}, given the same context. Errors: MALFORMED, DECRYPTION_FAILED (wrong key, wrong
 * context or changed bytes), UNKNOWN_KEY, KEY_NOT_LOADED, KEY_STATE, SCHEMA when bytes were sealed.
 */
export function decryptText(keys: Keys, sealed: Stored, context: Context): string {
  return open(keys, 'text', sealed, context) as string
}

/** The bytes of {@link encryptBytes}, given the same context. Errors as {@link decryptText}. */
export function decryptBytes(keys: Keys, sealed: Stored, context: Context): Uint8Array {
  return open(keys, 'bytes', sealed, context) as Uint8Array
}

/** What an envelope tells without any key. Sizes in bytes. */
export interface Inspection {
  readonly version: number
  readonly suite: number
  readonly kind: Kind
  readonly wrapType: number
  /** base64url, 20 characters. */
  readonly keyId: string
  readonly headerBytes: number
  readonly wrappedKeyBytes: number
  /** nonce ‖ ciphertext ‖ tag behind the header; 0 for a columns header. */
  readonly bodyBytes: number
}

/**
 * Reads an envelope (a header, a packed blob, a cell) without keys. It authenticates nothing: the answers are what
 * the bytes claim. MALFORMED when they are not an envelope; a single field of a row has no header to inspect.
 *
 * @example
 * ```ts
 * import { encryptText, inspect } from 'waxseal/envelope'
 * import { testKeyring } from 'waxseal/testing'
 *
 * const { suite, keyId } = inspect(encryptText(testKeyring(), 'a note', { id: 17 }))
 * console.log(suite, keyId)
 * ```
 */
export function inspect(stored: Stored): Inspection {
  const { bytes, kind, header } = recognise(stored)
  return {
    version: bytes[0]!,
    suite: header.suite.id,
    kind,
    wrapType: bytes[3]!,
    keyId: header.keyId,
    headerBytes: header.length,
    wrappedKeyBytes: header.wrappedKey.length,
    bodyBytes: bytes.length - header.length,
  }
}

/**
 * Moves an envelope's data key under the active master key; every ciphertext byte stays as it is. Returns what it was
 * given when it already is there. Errors: MALFORMED, DECRYPTION_FAILED, UNKNOWN_KEY, KEY_STATE (a compromised key
 * is never rewrapped: re-encrypt).
 */
export function rewrap<T extends Stored>(keys: Keys, stored: T): T {
  const { bytes, kind, header } = recognise(stored)
  const source = sourceOf(keys)
  const rewrapped = told(source, 'rewrap', () => rewrapHeader(source, header))
  if (!rewrapped) return stored
  if (source.listening) source.emit({ type: 'rewrap', keyId: source.active().idText })
  const moved = concat(rewrapped, bytes.subarray(header.length))
  return toStored(moved, KINDS[kind].prefix, typeof stored === 'string' ? 'text' : 'bytes') as T
}

const ALL_KINDS = Object.keys(KINDS) as Kind[]

/** Parses whichever kind the prefix (text) or the kind byte (bytes) names, and checks what follows the header. */
function recognise(stored: Stored): { bytes: Uint8Array; kind: Kind; header: Header } {
  if (typeof stored !== 'string' && !(stored instanceof Uint8Array)) {
    throw config('stored', 'an envelope as string or Uint8Array', stored)
  }
  const kind = ALL_KINDS.find((name) =>
    typeof stored === 'string' ? stored.startsWith(KINDS[name].prefix) : stored[2] === KINDS[name].byte,
  )
  if (!kind) {
    const isField = typeof stored === 'string' && stored.startsWith(FIELD_PREFIX)
    throw malformed(isField ? 'envelope: a field has no header; give the row’s header' : 'envelope: unknown kind')
  }
  const bytes = fromStored(stored, KINDS[kind].prefix)
  return { bytes, kind, header: kind === 'columns' ? exactHeader(bytes, kind) : headerBeforeBody(bytes, kind) }
}
