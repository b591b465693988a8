import { briefBytes, copyBytes, fromBase64url, toBase64url, writeU16, writeU32 } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { WaxsealError } from '../errors.ts'
import { SUITES, type Suite, suiteById } from './suites.ts'

/**
 * The strict, bounded codec of docs/spec/envelope.md. A header is
 *
 *     version 1 · suite 1 · kind 1 · wrap type 1 · flags 1 · reserved 1 ‖ key id 15 ‖ commitment 32 ‖ wrapped key
 */
export const VERSION = 0
export const KEY_ID_BYTES = 15
export const COMMITMENT_BYTES = 32
/** Where the parts begin. All are divisible by 3, so that SQL can cut them out of base64url. */
export const OFFSET = { keyId: 6, commitment: 21, wrappedKey: 53 } as const
export const WRAP_MASTER = 1

/** One sealed value: 16 MiB. Larger things belong into a stream. */
export const MAX_PLAINTEXT_BYTES = 1 << 24

export type Kind = 'columns' | 'packed' | 'cell'
export const KINDS: Record<Kind, { readonly byte: number; readonly prefix: string }> = {
  columns: { byte: 1, prefix: 'wxh:' },
  packed: { byte: 2, prefix: 'wxp:' },
  cell: { byte: 3, prefix: 'wxc:' },
}
/** Readable prefix of one sealed field of a row in the columns shape. */
export const FIELD_PREFIX = 'wxf:'
export const PREFIX_LENGTH = 4

/** The string forms are base64url behind a prefix; the native form is bytes. */
export type Encoding = 'text' | 'bytes'
export type Stored = string | Uint8Array

/** A parsed header; its parts are cut out when asked for, so only as long as what was read stands unchanged. */
export class Header {
  constructor(
    readonly suite: Suite,
    /** What begins with the header. */
    readonly read: Uint8Array,
  ) {}

  get length(): number {
    return headerLength(this.suite)
  }

  get bytes(): Uint8Array {
    return this.read.subarray(0, this.length)
  }

  /** base64url, 20 characters. */
  get keyId(): string {
    const { read } = this
    for (let i = 0; i < KEY_ID_BYTES; i++) if (read[OFFSET.keyId + i] !== lastId[i]) return remember(read)
    return lastText
  }

  get commitment(): Uint8Array {
    return this.read.subarray(OFFSET.commitment, OFFSET.wrappedKey)
  }

  get wrappedKey(): Uint8Array {
    return this.read.subarray(OFFSET.wrappedKey, this.length)
  }
}

/** The key id that was asked for last: as a rule the next one is the same, and to compare it takes less than to encode it. */
const lastId = new Uint8Array(KEY_ID_BYTES)
let lastText = 'A'.repeat((KEY_ID_BYTES * 4) / 3)

function remember(read: Uint8Array): string {
  const text = toBase64url(read, OFFSET.commitment, OFFSET.keyId)
  const id = fromBase64url(text)! // not read once more: shared memory may have changed meanwhile
  // Nothing that could throw may stand between these: another key's id would be taken for this one.
  lastText = text
  for (let i = 0; i < KEY_ID_BYTES; i++) lastId[i] = id[i]!
  return text
}

export const headerLength = (suite: Suite): number => OFFSET.wrappedKey + suite.wrappedBytes

export function malformed(what: string): WaxsealError {
  return new WaxsealError('MALFORMED', what)
}

/** A header whose wrapped key is still to be written. */
export function draftHeader(suite: Suite, kind: Kind, keyId: Uint8Array, commitment: Uint8Array): Uint8Array {
  const header = briefBytes(headerLength(suite))
  header[0] = VERSION
  header[1] = suite.id
  header[2] = KINDS[kind].byte
  header[3] = WRAP_MASTER
  header.set(keyId, OFFSET.keyId)
  header.set(commitment, OFFSET.commitment)
  return header
}

/** What the record key is derived for: version ‖ suite ‖ kind ‖ flags ‖ reserved. */
export function bindingPrefix(suite: Suite, kind: Kind): Uint8Array {
  return BINDINGS[suite.id - 1]![kind]
}
const BINDINGS = SUITES.map(({ id }): Record<Kind, Uint8Array> => {
  const binding = (kind: Kind) => Uint8Array.of(VERSION, id, KINDS[kind].byte, 0, 0)
  return { columns: binding('columns'), packed: binding('packed'), cell: binding('cell') }
})

/** Reads the header at the front of `bytes`. What follows it is the caller's; see {@link exactHeader}. */
export function parseHeader(bytes: Uint8Array, kind: Kind): Header {
  if (bytes.length < OFFSET.wrappedKey) throw malformed(`header: expected at least 53 bytes, got ${bytes.length}`)
  if (bytes[0] !== VERSION) throw malformed(`header: unknown version ${bytes[0]}`)
  const suite = suiteById(bytes[1]!)
  if (!suite) throw malformed(`header: unknown suite ${bytes[1]}`)
  if (bytes[2] !== KINDS[kind].byte) throw malformed(`header: expected kind ${kind}, got ${bytes[2]}`)
  if (bytes[3] !== WRAP_MASTER) throw malformed(`header: wrap type ${bytes[3]} is not accepted here`)
  if (bytes[4] !== 0) throw malformed(`header: unknown flags ${bytes[4]}`)
  if (bytes[5] !== 0) throw malformed('header: the reserved byte is set')
  const end = headerLength(suite)
  if (bytes.length < end) throw malformed(`header: expected ${end} bytes, got ${bytes.length}`)
  return new Header(suite, bytes)
}

/** A header with nothing after it. */
export function exactHeader(bytes: Uint8Array, kind: Kind): Header {
  const header = parseHeader(bytes, kind)
  if (header.length !== bytes.length) throw malformed(`header: ${bytes.length - header.length} bytes after its end`)
  return header
}

/** A header with one sealed value (nonce ‖ ciphertext ‖ tag) after it in what was read: the packed and cell kinds. */
export function headerBeforeBody(bytes: Uint8Array, kind: Kind): Header {
  const header = parseHeader(bytes, kind)
  checkBody(bytes, header.suite, header.length)
  return header
}

/** Bounds nonce ‖ ciphertext ‖ tag; an empty plaintext does not exist, since a type tag is always there. */
export function checkBody(sealed: Uint8Array, suite: Suite, at = 0): Uint8Array {
  const overhead = suite.nonceBytes + suite.tagBytes
  const length = sealed.length - at
  if (length < overhead) throw malformed(`ciphertext: expected at least ${overhead} bytes, got ${length}`)
  if (length > overhead + MAX_PLAINTEXT_BYTES) {
    throw new WaxsealError('LIMIT_EXCEEDED', `ciphertext: expected at most ${MAX_PLAINTEXT_BYTES} bytes of plaintext`)
  }
  return sealed
}

const MAX_STORED_BYTES = MAX_PLAINTEXT_BYTES + 256
const MAX_TEXT_LENGTH = PREFIX_LENGTH + Math.ceil((MAX_STORED_BYTES * 4) / 3)

/**
 * The bytes of a stored value in either form; strict about prefix, alphabet and size. With `decode`
 * {@link fromBase64urlShared} they are good until the next call.
 */
export function fromStored(
  value: unknown,
  prefix: string,
  decode: (text: string, from: number) => Uint8Array | undefined = fromBase64url,
): Uint8Array {
  if (typeof value === 'string') {
    if (!value.startsWith(prefix)) throw malformed(`ciphertext: expected text that begins with ${prefix}`)
    if (value.length > MAX_TEXT_LENGTH) throw new WaxsealError('LIMIT_EXCEEDED', 'ciphertext: text is too long')
    const bytes = decode(value, PREFIX_LENGTH)
    if (!bytes) throw malformed('ciphertext: not canonical base64url')
    return bytes
  }
  if (value instanceof Uint8Array) {
    if (value.length > MAX_STORED_BYTES) throw new WaxsealError('LIMIT_EXCEEDED', 'ciphertext: too many bytes')
    return value
  }
  throw malformed('ciphertext: expected text or bytes')
}

/** The stored form of `bytes`, which stay the caller's. */
export function toStored(bytes: Uint8Array, prefix: string, encoding: Encoding): Stored {
  return encoding === 'text' ? prefix + toBase64url(bytes) : copyBytes(bytes)
}

let room = new Uint8Array(4096)

/** Seals a plaintext behind its header, if it has one, and gives the stored form: one buffer, no joining. */
export function sealStored(
  key: Aead,
  suite: Suite,
  plaintext: Uint8Array,
  aad: Uint8Array,
  prefix: string,
  encoding: Encoding,
  header?: Uint8Array,
): Stored {
  const start = header ? header.length : 0
  const length = start + suite.nonceBytes + plaintext.length + suite.tagBytes
  const isText = encoding === 'text'
  if (isText && length > room.length && length <= 65_536) room = new Uint8Array(length)
  const out = isText && length <= room.length ? room : new Uint8Array(length)
  if (header) out.set(header)
  key.sealInto(plaintext, aad, out, start)
  return isText ? prefix + toBase64url(out, length) : out
}

/** One component of a field's path: a stable label, or a place in an array together with the array's length. */
export type PathComponent = Uint8Array | { readonly index: number; readonly count: number }

export const MAX_LABEL_BYTES = 255

/** AAD of every AEAD call: kind 1 ‖ components (length 2 ‖ label, or FFFF ‖ index 4 ‖ count 4). */
export function fieldAad(kind: Kind, path: readonly PathComponent[]): Uint8Array {
  let length = 1
  for (const part of path) length += part instanceof Uint8Array ? 2 + part.length : 10
  const aad = new Uint8Array(length)
  aad[0] = KINDS[kind].byte
  let at = 1
  for (const part of path) {
    if (part instanceof Uint8Array) {
      writeU16(aad, at, part.length)
      aad.set(part, at + 2)
      at += 2 + part.length
    } else {
      writeU16(aad, at, 0xffff)
      writeU32(aad, at + 2, part.index)
      writeU32(aad, at + 6, part.count)
      at += 10
    }
  }
  return aad
}
