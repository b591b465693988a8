import { ascii, beginsWith, concat, wipe } from '../bytes.ts'

/** Of Transit, requests and answers as bytes: a key in a string could not be wiped. */

const ALPHABET = ascii('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')
const VALUES = new Int8Array(256).fill(-1)
for (let i = 0; i < 64; i++) VALUES[ALPHABET[i]!] = i
const PAD = 0x3d
const QUOTE = 0x22
const COLON = 0x3a
const NAME = ascii('"plaintext"')
const MARK = '*' // no base64

/** Padded base64 (RFC 4648, section 4), as the bytes of its text. */
export function toBase64(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.ceil(bytes.length / 3) * 4).fill(PAD)
  for (let i = 0, at = 0; i < bytes.length; i += 3, at += 4) {
    const group = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0)
    const digits = Math.min(bytes.length - i, 3) + 1
    for (let j = 0; j < digits; j++) out[at + j] = ALPHABET[(group >>> (18 - 6 * j)) & 63]!
  }
  return out
}

/** In its one canonical form; undefined for anything else. */
export function fromBase64(text: Uint8Array): Uint8Array | undefined {
  if (text.length % 4 !== 0) return undefined
  const padding = text.at(-1) !== PAD ? 0 : text.at(-2) !== PAD ? 1 : 2
  const digits = text.length - padding
  const out = new Uint8Array((text.length / 4) * 3) // the padding's too: they must be 0
  for (let i = 0, at = 0, group = 0; i < text.length; i++) {
    const value = i < digits ? VALUES[text[i]!]! : 0
    if (value < 0) return refused(out)
    group = (group << 6) | value
    if (i % 4 !== 3) continue
    out[at++] = group >>> 16
    out[at++] = group >>> 8
    out[at++] = group
    group = 0
  }
  if (out.subarray(out.length - padding).some((byte) => byte !== 0)) return refused(out)
  return out.subarray(0, out.length - padding)
}

function refused(bytes: Uint8Array): undefined {
  wipe(bytes)
}

/** An object of texts and of bytes, which are sent as base64. To be wiped by the caller. */
export function toJson(fields: Readonly<Record<string, string | Uint8Array>>): Uint8Array {
  const parts = Object.entries(fields).map(([name, value]) => {
    const base64 = typeof value === 'string' ? undefined : toBase64(value)
    const json = base64 ? concat(ascii('"'), base64, ascii('"')) : ascii(JSON.stringify(value))
    const part = concat(ascii(`,${JSON.stringify(name)}:`), json)
    if (base64) wipe(base64)
    wipe(json)
    return part
  })
  const joined = concat(...parts, ascii('}'))
  for (const part of parts) wipe(part)
  joined[0] = 0x7b // "{" in the place of the first comma
  return joined
}

/**
 * The `data` of an answer, its `plaintext` as bytes and never in a string: it is cut out before the rest is parsed, which
 * then has to say that it stood where it should. Errors: SyntaxError.
 */
export function dataOfJson(answer: Uint8Array): unknown {
  const [start, end] = locate(answer) ?? []
  const rest = end === undefined ? answer : concat(answer.subarray(0, start), ascii(MARK), answer.subarray(end))
  const { data } = (JSON.parse(new TextDecoder().decode(rest)) ?? {}) as { data?: unknown }
  if (typeof data !== 'object' || data === null || !('plaintext' in data)) return data
  const isThere = end !== undefined && data.plaintext === MARK
  return { ...data, plaintext: isThere ? fromBase64(answer.subarray(start, end)) : undefined }
}

/** Where the first text stands that is the value of a "plaintext" and has the letters of base64 alone. */
function locate(json: Uint8Array): [start: number, end: number] | undefined {
  for (let i = json.indexOf(QUOTE); i >= 0; i = json.indexOf(QUOTE, i + 1)) {
    if (!beginsWith(json.subarray(i), NAME)) continue
    const colon = skipSpace(json, i + NAME.length)
    const start = skipSpace(json, colon + 1) + 1
    if (json[colon] !== COLON || json[start - 1] !== QUOTE) continue
    let end = start
    while (VALUES[json[end] ?? 0]! >= 0 || json[end] === PAD) end++
    if (json[end] === QUOTE) return [start, end]
  }
  return undefined
}

function skipSpace(json: Uint8Array, from: number): number {
  let at = from
  while ([0x20, 0x09, 0x0a, 0x0d].includes(json[at]!)) at++
  return at
}
