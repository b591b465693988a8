import { WaxsealError } from './errors.ts'

/** The text codecs behind Node's Buffer, which work on any Uint8Array and are an order of magnitude faster than ours. */
interface NativeCodecs {
  utf8Write(this: Uint8Array, text: string, at: number): number
  utf8Slice(this: Uint8Array, start: number, end: number): string
  latin1Slice(this: Uint8Array, start: number, end: number): string
  base64urlSlice(this: Uint8Array, start: number, end: number): string
  base64urlWrite(this: Uint8Array, text: string, at: number): number
}
const NodeBuffer = (globalThis as { Buffer?: typeof Buffer }).Buffer
const prototype = NodeBuffer?.prototype as (Buffer & Partial<NativeCodecs>) | undefined
const native = ['utf8Write', 'utf8Slice', 'latin1Slice', 'base64urlSlice', 'base64urlWrite'].every(
  (name) => typeof prototype?.[name as keyof NativeCodecs] === 'function',
)
  ? (prototype as Buffer & NativeCodecs)
  : undefined
const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A copy of its own. Never `.slice()`: on a Node Buffer that is a view, and wiping the one wipes the other. */
export const copyBytes = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes)

/** Overwrites with zeros. Not `bytes.fill(0)`: a Node Buffer's own fill takes ten times as long for a few bytes. */
export function wipe(bytes: Uint8Array): void {
  fillBytes.call(bytes, 0)
}
const fillBytes = Uint8Array.prototype.fill

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/** Equality of public bytes (cache keys, ids). For secrets and tags use the engine's constant-time `equal`. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Order of unsigned bytes, a prefix first: never a locale's. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length)
  for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return a.length - b.length
}

export const writeU16 = (out: Uint8Array, at: number, value: number): void => {
  out[at] = value >>> 8
  out[at + 1] = value
}

export const writeU32 = (out: Uint8Array, at: number, value: number): void => {
  out[at] = value >>> 24
  out[at + 1] = value >>> 16
  out[at + 2] = value >>> 8
  out[at + 3] = value
}

/** Big-endian, unsigned. The caller has checked the bounds. */
export const readU16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!
export const readU32 = (bytes: Uint8Array, at: number): number => readU16(bytes, at) * 65536 + readU16(bytes, at + 2)

/** UTF-8, or undefined for a string with a lone surrogate, which UTF-8 cannot hold. */
export function utf8(text: string): Uint8Array | undefined {
  return text.isWellFormed() ? encoder.encode(text) : undefined
}

/** UTF-8 of one of our own constants. */
export const ascii = (text: string): Uint8Array => encoder.encode(text)

/** Writes UTF-8 at `at`; `out` must have room for three bytes per UTF-16 unit. Returns the bytes written. */
export const writeUtf8: (out: Uint8Array, text: string, at: number) => number = native
  ? (out, text, at) => native.utf8Write.call(out, text, at)
  : (out, text, at) => encoder.encodeInto(text, out.subarray(at)).written

/** Strict UTF-8 of a part of the bytes; undefined when they are not. */
export function readUtf8(bytes: Uint8Array, start = 0, end = bytes.length): string | undefined {
  if (native) {
    // Buffer replaces what is wrong by U+FFFD; only a text that holds one needs the slower, fatal decoder.
    const text = native.utf8Slice.call(bytes, start, end)
    if (!text.includes('\ufffd')) return text
  }
  try {
    return decoder.decode(bytes.subarray(start, end))
  } catch {
    return undefined
  }
}

/** One character per byte of a part: a map key for public bytes, never for keys. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  if (native) return native.latin1Slice.call(bytes, start, end)
  let out = ''
  for (let i = start; i < end; i++) out += String.fromCharCode(bytes[i]!)
  return out
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const VALUES = new Int8Array(128).fill(-1)
for (let i = 0; i < 64; i++) VALUES[ALPHABET.charCodeAt(i)] = i

/** Unpadded base64url (RFC 4648, section 5) of the bytes from `start` to before `end`. */
export const toBase64url: (bytes: Uint8Array, end?: number, start?: number) => string = native
  ? (bytes, end = bytes.length, start = 0) => native.base64urlSlice.call(bytes, start, end)
  : portableBase64url

/** The portable encoder, exported so that a test holds both to the same answers. */
export function portableBase64url(bytes: Uint8Array, end = bytes.length, start = 0): string {
  let out = ''
  for (let i = start; i < end; i += 3) {
    const left = end - i
    const group = (bytes[i]! << 16) | (left > 1 ? bytes[i + 1]! << 8 : 0) | (left > 2 ? bytes[i + 2]! : 0)
    out += ALPHABET[group >>> 18]! + ALPHABET[(group >>> 12) & 63]!
    if (left > 1) out += ALPHABET[(group >>> 6) & 63]!
    if (left > 2) out += ALPHABET[group & 63]!
  }
  return out
}

/**
 * Unpadded base64url to bytes, canonical only: another alphabet, padding, white space or set trailing bits give
 * undefined, so that no two texts mean the same bytes. Reads `text` from `from` on.
 */
export function fromBase64url(text: string, from = 0): Uint8Array | undefined {
  if (!native) return portableFromBase64url(text, from)
  const out = new Uint8Array(decodedLength(text.length - from))
  return nativeDecode(native, text, from, out) ? out : undefined
}

let shared = new Uint8Array(1024)

/** {@link fromBase64url} into bytes that the next call overwrites: for what is opened at once. */
export function fromBase64urlShared(text: string, from: number): Uint8Array | undefined {
  if (!native) return portableFromBase64url(text, from)
  const length = decodedLength(text.length - from)
  if (length > shared.length) {
    if (length > 65_536) return fromBase64url(text, from)
    shared = new Uint8Array(length)
  }
  const out = shared.subarray(0, length)
  return nativeDecode(native, text, from, out) ? out : undefined
}

const decodedLength = (characters: number): number => Math.floor((characters * 3) / 4)

/** Bits of the last character that must be zero, by length modulo 4. */
const TRAILING = [0, 63, 15, 3] as const

function nativeDecode(codecs: NativeCodecs, text: string, from: number, out: Uint8Array): boolean {
  const body = from === 0 ? text : text.slice(from)
  if (body.length % 4 === 1) return false
  const written = codecs.base64urlWrite.call(out, body, 0)
  if (!dropsForeign(codecs)) return codecs.base64urlSlice.call(out, 0, out.length) === body
  // A decoder that skips what it does not know writes too little then; the other alphabet it does know.
  const last = body.length > 0 ? (VALUES[body.charCodeAt(body.length - 1)] ?? -1) : 0
  if (last < 0) return false
  const isCanonical = (last & TRAILING[(body.length % 4) as 0 | 1 | 2 | 3]) === 0
  return written === out.length && isCanonical && !body.includes('+') && !body.includes('/')
}

let drops: boolean | undefined

/** Whether this runtime's decoder skips every foreign character; where one is misread, encoding again finds it. */
function dropsForeign(codecs: NativeCodecs): boolean {
  drops ??= ['=', ' ', '\n', '.', '\0', '\u00c1', '\u0141', '\u2141', '\ud83d'].every((foreign) =>
    [`${foreign}AAA`, `A${foreign}AA`, `AAA${foreign}`, `AAAA${foreign}AAA`].every((text) => {
      const length = decodedLength(text.length)
      return codecs.base64urlWrite.call(new Uint8Array(length), text, 0) < length
    }),
  )
  return drops
}

/** The portable decoder, exported so that a test holds both to the same answers. */
export function portableFromBase64url(text: string, from = 0): Uint8Array | undefined {
  const length = text.length - from
  const tail = length % 4
  if (tail === 1) return undefined
  const out = new Uint8Array((length - tail) * 0.75 + (tail && tail - 1))
  let at = 0
  let group = 0
  for (let i = 0; i < length; i++) {
    const value = VALUES[text.charCodeAt(from + i)] ?? -1
    if (value < 0) return undefined
    group = (group << 6) | value
    if (i % 4 === 3) {
      out[at++] = group >>> 16
      out[at++] = group >>> 8
      out[at++] = group
      group = 0
    }
  }
  if (tail === 2) {
    if (group & 15) return undefined
    out[at] = group >>> 4
  } else if (tail === 3) {
    if (group & 3) return undefined
    out[at] = group >>> 10
    out[at + 1] = group >>> 2
  }
  return out
}

export function toHex(bytes: Uint8Array): string {
  let out = ''
  for (const byte of bytes) out += byte.toString(16).padStart(2, '0')
  return out
}

export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return undefined
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16))
}

/** Guards an argument that must be bytes of one length; never prints them. */
export function expectBytes(argument: string, value: unknown, length: number): Uint8Array {
  if (value instanceof Uint8Array && value.length === length) return value
  const got = value instanceof Uint8Array ? `length=${value.length}` : typeof value
  throw new WaxsealError('CONFIG', `"${argument}" expected Uint8Array of length ${length}, got ${got}`, { argument })
}
