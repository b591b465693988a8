/** Text ↔ bytes in plain JavaScript: all there is in a browser's bundle, and what native.ts is held to. */

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Writes UTF-8 at `at`; `out` must have room for three bytes per UTF-16 unit. Returns the bytes written. */
export function writeUtf8(out: Uint8Array, text: string, at: number): number {
  return encoder.encodeInto(text, out.subarray(at)).written
}

/** Strict UTF-8 of a part of the bytes; undefined when they are not. */
export function readUtf8(bytes: Uint8Array, start = 0, end = bytes.length): string | undefined {
  try {
    return decoder.decode(bytes.subarray(start, end))
  } catch {
    return undefined
  }
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
/** The value of a character by its code; −1 for what is not in the alphabet. */
export const VALUES = new Int8Array(128).fill(-1)
for (let i = 0; i < 64; i++) VALUES[ALPHABET.charCodeAt(i)] = i

/** Unpadded base64url (RFC 4648, section 5) of the bytes from `start` to before `end`. */
export function toBase64url(bytes: Uint8Array, end = bytes.length, start = 0): string {
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

/** The bytes from `from` to before `to`: a view, which is kept for those of {@link fromBase64urlShared}. */
export const partOf = (bytes: Uint8Array, from: number, to: number): Uint8Array => bytes.subarray(from, to)

/** {@link fromBase64url} into bytes that the next call may overwrite: for what is opened at once. */
export const fromBase64urlShared: (text: string, from: number) => Uint8Array | undefined = fromBase64url
