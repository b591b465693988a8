import { WaxsealError } from './errors.ts'

export { fromBase64url, fromBase64urlShared, partOf, readUtf8, toBase64url, writeUtf8 } from '#codecs'

const encoder = new TextEncoder()

/** A copy of its own. Never `.slice()`: on a Node Buffer that is a view, and wiping the one wipes the other. */
export const copyBytes = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes)

const PIECE = 8192
let piece = new Uint8Array(PIECE)
let cut = 0

/**
 * Zeros for public bytes that live no longer than a call, cut from a larger piece: more than 64 bytes of their own take
 * V8 ten times as long. Never for keys, and never handed to a caller, who would hold the neighbours' bytes as well.
 */
export function briefBytes(length: number): Uint8Array {
  if (length > PIECE / 8) return new Uint8Array(length)
  if (cut + length > PIECE) {
    piece = new Uint8Array(PIECE)
    cut = 0
  }
  cut += length
  return piece.subarray(cut - length, cut)
}

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
  return a.length === b.length && beginsWith(a, b)
}

/** Whether public bytes begin with `head`. */
export function beginsWith(bytes: Uint8Array, head: Uint8Array): boolean {
  if (bytes.length < head.length) return false
  for (let i = 0; i < head.length; i++) if (bytes[i] !== head[i]) return false
  return true
}

/** Order of unsigned bytes, a prefix first: never a locale's. Of a part of `b`, and of `a`, if one is named. */
export function compareBytes(a: Uint8Array, b: Uint8Array, from = 0, to = b.length, start = 0, end = a.length): number {
  const shared = Math.min(end - start, to - from)
  for (let i = 0; i < shared; i++) if (a[start + i] !== b[from + i]) return a[start + i]! - b[from + i]!
  return end - start - (to - from)
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

/** JSON in ASCII: no character set of a server, a connection or a dump can change it. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
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
