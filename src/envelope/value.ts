import { copyBytes, readUtf8, utf8, wipe, writeUtf8 } from '../bytes.ts'
import { typeName, WaxsealError } from '../errors.ts'
import { MAX_PLAINTEXT_BYTES, malformed } from './format.ts'

/**
 * Values ↔ plaintext bytes: type tag 1 ‖ canonical value ‖ padding (docs/spec/envelope.md, "Plaintext"). The tag makes
 * every value come back as it went in; a padded plaintext says so itself, so a changed declaration loses nothing.
 */
export type ValueKind = 'text' | 'bytes' | 'number' | 'int' | 'bigint' | 'boolean' | 'date' | 'json'

/** `multiple`: value and its end mark fill whole multiples. `to`: every value takes the room of `to` bytes. */
export type Padding = { readonly multiple: number } | { readonly to: number }

const TAG = { null: 1, false: 2, true: 3, text: 4, bytes: 5, number: 6, bigint: 7, date: 8, json: 9 } as const
const PADDED = 0x80
const END_MARK = 0x80
/** A null takes the room of the kind's own values where those have one length. */
const FIXED_BYTES: Partial<Record<ValueKind, number>> = { number: 8, int: 8, date: 8 }
const MAX_BIGINT_BYTES = 512
const MAX_JSON_DEPTH = 100
const LARGEST_DATE = 8.64e15
const NAN_BITS = 0x7ff8000000000000n

const scratch = new Uint8Array(4096)
const view = new DataView(scratch.buffer)

/** Beginnings of the shared buffer, by length: a view takes longer to make than a short value to write. */
const beginnings: Uint8Array[] = []

function beginning(out: Uint8Array, end: number): Uint8Array {
  if (out !== scratch || end > 1024) return out.subarray(0, end)
  beginnings[end] ??= scratch.subarray(0, end)
  return beginnings[end]
}

/** Makes room in the shared buffer; a rare large value gets one of its own, which is not kept. */
function room(bytes: number): Uint8Array {
  if (bytes <= scratch.length) return scratch
  return new Uint8Array(bytes)
}

/**
 * The plaintext of `value`. The bytes are shared: seal them at once, then wipe them, before the next call.
 *
 * Throws SCHEMA for a value that is not of the kind, LIMIT_EXCEEDED for one over `maxBytes` or the padding.
 */
export function encodeValue(
  kind: ValueKind,
  value: unknown,
  padding: Padding | undefined,
  maxBytes: number = MAX_PLAINTEXT_BYTES - 1,
): Uint8Array {
  let out: Uint8Array = scratch
  let end = 1
  if (value === null) {
    out[0] = TAG.null
    const like = 1 + (FIXED_BYTES[kind] ?? 0)
    if (padding) return pad(out, 1, paddedEnd(like, padding, out))
    if (like > 1) return pad(out, 1, like)
  } else {
    switch (kind) {
      case 'text': {
        if (typeof value !== 'string') throw mismatch(kind, value)
        if (!value.isWellFormed()) throw new WaxsealError('SCHEMA', 'expected well-formed text, got a lone surrogate')
        if (value.length > maxBytes) throw tooLarge(value.length, maxBytes)
        out = room(1 + value.length * 3)
        out[0] = TAG.text
        end = 1 + writeUtf8(out, value, 1)
        break
      }
      case 'json': {
        const text = JSON.stringify(plainJson(value, 0)) // read once, so that what was checked is what is written
        const bytes = utf8(text)
        if (!bytes) throw new WaxsealError('SCHEMA', 'expected well-formed text in JSON, got a lone surrogate')
        out = copyIn(TAG.json, bytes)
        end = 1 + bytes.length
        break
      }
      case 'bytes': {
        if (!(value instanceof Uint8Array)) throw mismatch(kind, value)
        if (value.length > maxBytes) throw tooLarge(value.length, maxBytes)
        const bytes = copyBytes(value) // whatever a subclass or proxy answers, before shared bytes are in use
        out = copyIn(TAG.bytes, bytes)
        end = 1 + bytes.length
        wipe(bytes)
        break
      }
      case 'boolean':
        if (typeof value !== 'boolean') throw mismatch(kind, value)
        out[0] = value ? TAG.true : TAG.false
        break
      case 'int':
        if (!Number.isSafeInteger(value)) throw mismatch(kind, value)
        end = writeNumber(value as number)
        break
      case 'number':
        if (typeof value !== 'number') throw mismatch(kind, value)
        end = writeNumber(value)
        break
      case 'bigint': {
        if (typeof value !== 'bigint') throw mismatch(kind, value)
        const bytes = signedBytes(value)
        out = copyIn(TAG.bigint, bytes)
        end = 1 + bytes.length
        break
      }
      case 'date': {
        if (!(value instanceof Date)) throw mismatch(kind, value)
        const ms = value.getTime()
        if (Number.isNaN(ms)) throw new WaxsealError('SCHEMA', 'expected a valid Date, got an invalid one')
        out[0] = TAG.date
        view.setBigInt64(1, BigInt(ms))
        end = 9
        break
      }
    }
  }
  if (end - 1 > maxBytes) {
    out.fill(0, 0, end)
    throw tooLarge(end - 1, maxBytes)
  }
  return padding ? pad(out, end, paddedEnd(end, padding, out)) : beginning(out, end)
}

/** NaN has many bit patterns; one is written. −0 and the infinities stay themselves. */
function writeNumber(value: number): number {
  scratch[0] = TAG.number
  if (Number.isNaN(value)) view.setBigUint64(1, NAN_BITS)
  else view.setFloat64(1, value)
  return 9
}

function copyIn(tag: number, bytes: Uint8Array): Uint8Array {
  const out = room(1 + bytes.length)
  out[0] = tag
  out.set(bytes, 1)
  return out
}

/** Where a padded plaintext ends. */
function paddedEnd(end: number, padding: Padding, out: Uint8Array): number {
  const total = plaintextBytes(end - 1, padding)
  const limit = 'to' in padding ? padding.to : MAX_PLAINTEXT_BYTES
  if (end - 1 <= limit && total <= MAX_PLAINTEXT_BYTES) return total
  out.fill(0, 0, end)
  throw tooLarge(end - 1, limit)
}

/** ISO/IEC 7816-4: a byte 80, then zeros. */
function pad(from: Uint8Array, end: number, total: number): Uint8Array {
  let out = from
  if (total > out.length) {
    out = new Uint8Array(total)
    out.set(from.subarray(0, end))
    from.fill(0, 0, end)
  }
  out[0]! |= PADDED
  out[end] = END_MARK
  out.fill(0, end + 1, total)
  return out.subarray(0, total)
}

/** Bytes of plaintext that a value of `valueBytes` bytes takes. */
export function plaintextBytes(valueBytes: number, padding: Padding | undefined): number {
  if (!padding) return 1 + valueBytes
  if ('to' in padding) return 2 + padding.to
  return 1 + Math.ceil((valueBytes + 1) / padding.multiple) * padding.multiple
}

/**
 * The value of an authenticated plaintext. SCHEMA when its tag is of another kind than declared, MALFORMED when the
 * bytes are not canonical (a writer's bug: the bytes were authentic). Of a part of the bytes, if one is named.
 */
export function decodeValue(kind: ValueKind, plaintext: Uint8Array, from = 0, to = plaintext.length): unknown {
  if (from === to) throw malformed('plaintext: empty')
  const first = plaintext[from]!
  const tag = first & ~PADDED
  const start = from + 1
  const end = (first & PADDED) === 0 ? to : unpaddedEnd(plaintext, from, to)
  if (tag === TAG.text) {
    expectKind(kind, 'text')
    return text(plaintext, start, end)
  }
  const body = plaintext.subarray(start, end)
  switch (tag) {
    case TAG.null:
      exactly(body, 0)
      return null
    case TAG.false:
    case TAG.true:
      expectKind(kind, 'boolean')
      exactly(body, 0)
      return tag === TAG.true
    case TAG.bytes:
      expectKind(kind, 'bytes')
      return copyBytes(body)
    case TAG.number: {
      if (kind !== 'int') expectKind(kind, 'number')
      exactly(body, 8)
      const bits = new DataView(body.buffer, body.byteOffset, 8)
      const number = bits.getFloat64(0)
      if (Number.isNaN(number) && bits.getBigUint64(0) !== NAN_BITS) throw malformed('plaintext: another NaN')
      if (kind === 'int' && !Number.isSafeInteger(number)) throw stored('int', 'number')
      return number
    }
    case TAG.bigint:
      expectKind(kind, 'bigint')
      return fromSignedBytes(body)
    case TAG.date: {
      expectKind(kind, 'date')
      exactly(body, 8)
      const ms = Number(new DataView(body.buffer, body.byteOffset, 8).getBigInt64(0))
      if (Math.abs(ms) > LARGEST_DATE) throw malformed('plaintext: date out of range')
      return new Date(ms)
    }
    case TAG.json:
      expectKind(kind, 'json')
      return parseJson(text(plaintext, start, end))
    default:
      throw malformed('plaintext: unknown type tag')
  }
}

/** {@link decodeValue}, and the plaintext is wiped whether it could be read or not. */
export function decodeAndWipe(kind: ValueKind, plaintext: Uint8Array): unknown {
  try {
    return decodeValue(kind, plaintext)
  } finally {
    wipe(plaintext)
  }
}

function unpaddedEnd(plaintext: Uint8Array, from: number, to: number): number {
  let end = to - 1
  while (end > from && plaintext[end] === 0) end--
  if (end === from || plaintext[end] !== END_MARK) throw malformed('plaintext: padding without its mark')
  return end
}

function exactly(body: Uint8Array, length: number): void {
  if (body.length !== length) throw malformed(`plaintext: expected ${length} bytes of value, got ${body.length}`)
}

function text(plaintext: Uint8Array, start: number, end: number): string {
  const decoded = readUtf8(plaintext, start, end)
  if (decoded === undefined) throw malformed('plaintext: not UTF-8')
  return decoded
}

function parseJson(source: string): unknown {
  try {
    const value: unknown = JSON.parse(source)
    if (value === null) throw malformed('plaintext: null as JSON')
    plainJson(value, 0) // what could not have been written is not read: it could not be written again
    return value
  } catch {
    throw malformed('plaintext: not JSON as it is written here') // never the parser's message: it quotes its input
  }
}

/** Two's complement, big-endian, as short as can be; zero is one byte. */
function signedBytes(value: bigint): Uint8Array {
  const magnitude = value < 0n ? -value - 1n : value
  const hex = magnitude.toString(16)
  const bytes = Math.floor((hex.length * 4 - leadingZeroBits(hex)) / 8) + 1 // one bit more, for the sign
  if (bytes > MAX_BIGINT_BYTES) throw tooLarge(bytes, MAX_BIGINT_BYTES)
  const digits = BigInt.asUintN(bytes * 8, value)
    .toString(16)
    .padStart(bytes * 2, '0')
  return Uint8Array.from({ length: bytes }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16))
}

const leadingZeroBits = (hex: string): number => Math.clz32(Number.parseInt(hex[0]!, 16)) - 28

function fromSignedBytes(body: Uint8Array): bigint {
  if (body.length === 0 || body.length > MAX_BIGINT_BYTES) throw malformed('plaintext: bigint of a wrong length')
  let hex = '0x'
  for (const byte of body) hex += byte.toString(16).padStart(2, '0')
  const value = BigInt.asIntN(body.length * 8, BigInt(hex))
  if (signedBytes(value).length !== body.length) throw malformed('plaintext: bigint is not as short as can be')
  return value
}

/** A copy of what JSON can give back: plain objects, arrays, well-formed text, finite numbers, booleans and null. */
function plainJson(value: unknown, depth: number): unknown {
  if (depth > MAX_JSON_DEPTH) throw new WaxsealError('LIMIT_EXCEEDED', `JSON deeper than ${MAX_JSON_DEPTH} levels`)
  if (value === null || typeof value === 'boolean') return value
  if (typeof value === 'string') {
    if (value.isWellFormed()) return value
    throw new WaxsealError('SCHEMA', 'expected well-formed text in JSON, got a lone surrogate')
  }
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value
  } else if (Array.isArray(value) && isPlain(value, Array.prototype)) {
    return Array.from(value, (element) => plainJson(element, depth + 1)) // holes count as undefined
  } else if (typeof value === 'object' && (isPlain(value, Object.prototype) || isPlain(value, null))) {
    const copy: Record<string, unknown> = Object.create(null)
    for (const [name, member] of Object.entries(value)) {
      if (!name.isWellFormed()) throw new WaxsealError('SCHEMA', 'expected well-formed names in JSON')
      if (member !== undefined) copy[name] = plainJson(member, depth + 1) // left out, as JSON.stringify does
    }
    return copy
  }
  throw new WaxsealError('SCHEMA', `expected a JSON value, got ${typeName(value)}`)
}

/** Without a class or a toJSON of its own, which would write something else than was checked. */
function isPlain(value: object, prototype: object | null): boolean {
  return Object.getPrototypeOf(value) === prototype && typeof (value as { toJSON?: unknown }).toJSON !== 'function'
}

function expectKind(declared: ValueKind, found: ValueKind): void {
  if (declared !== found) throw stored(declared, found)
}

function stored(declared: ValueKind, found: ValueKind): WaxsealError {
  return new WaxsealError('SCHEMA', `declared as ${declared}, but a ${found} is stored`)
}

function mismatch(kind: ValueKind, value: unknown): WaxsealError {
  const wanted = kind === 'int' ? 'a safe integer' : kind === 'date' ? 'a Date' : kind
  return new WaxsealError('SCHEMA', `expected ${wanted}, got ${typeName(value)}`)
}

function tooLarge(got: number, limit: number): WaxsealError {
  return new WaxsealError('LIMIT_EXCEEDED', `expected at most ${limit} bytes, got ${got}`)
}
