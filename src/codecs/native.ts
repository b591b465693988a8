import * as portable from './portable.ts'
import { viewsOf } from './views.ts'

/**
 * Text ↔ bytes by the codecs behind Node's Buffer where there is one: they work on any Uint8Array and are an order of
 * magnitude faster. A browser's bundle has portable.ts in the place of this file (package.json, "imports").
 */

interface NativeCodecs {
  utf8Write(this: Uint8Array, text: string, at: number): number
  utf8Slice(this: Uint8Array, start: number, end: number): string
  base64urlSlice(this: Uint8Array, start: number, end: number): string
  base64urlWrite(this: Uint8Array, text: string, at: number): number
}
const NodeBuffer = (globalThis as { Buffer?: typeof Buffer }).Buffer
const prototype = NodeBuffer?.prototype as (Buffer & Partial<NativeCodecs>) | undefined
const native = ['utf8Write', 'utf8Slice', 'base64urlSlice', 'base64urlWrite'].every(
  (name) => typeof prototype?.[name as keyof NativeCodecs] === 'function',
)
  ? (prototype as Buffer & NativeCodecs)
  : undefined
const isAscii = (text: string): boolean => NodeBuffer?.byteLength(text) === text.length

export const writeUtf8: typeof portable.writeUtf8 = native
  ? (out, text, at) => (writeAscii(out, text, at) ? text.length : native.utf8Write.call(out, text, at))
  : portable.writeUtf8

/** A call of the native codec takes as long as some thirty characters here; false where it is needed. */
function writeAscii(out: Uint8Array, text: string, at: number): boolean {
  if (text.length > 32) return false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127) return false
    out[at + i] = code
  }
  return true
}

export const toBase64url: typeof portable.toBase64url = native
  ? (bytes, end = bytes.length, start = 0) => native.base64urlSlice.call(bytes, start, end)
  : portable.toBase64url

export function readUtf8(bytes: Uint8Array, start = 0, end = bytes.length): string | undefined {
  if (native) {
    // Buffer replaces what is wrong by U+FFFD; only a text that holds one needs the slower, fatal decoder.
    const text = native.utf8Slice.call(bytes, start, end)
    if (!text.includes('\ufffd')) return text
  }
  return portable.readUtf8(bytes, start, end)
}

export function fromBase64url(text: string, from = 0): Uint8Array | undefined {
  if (!native) return portable.fromBase64url(text, from)
  const out = new Uint8Array(decodedLength(text.length - from))
  return decode(native, text, from, out) ? out : undefined
}

const shared = new Uint8Array(1024)
const views = viewsOf(shared)

export const partOf: typeof portable.partOf = views.part

export function fromBase64urlShared(text: string, from: number): Uint8Array | undefined {
  const length = decodedLength(text.length - from)
  if (!native || length > shared.length) return fromBase64url(text, from)
  const out = views.beginning(length)
  return decode(native, text, from, out) ? out : undefined
}

const decodedLength = (characters: number): number => Math.floor((characters * 3) / 4)

/** Bits of the last character that must be zero, by length modulo 4. */
const TRAILING = [0, 63, 15, 3] as const

function decode(codecs: NativeCodecs, text: string, from: number, out: Uint8Array): boolean {
  const body = from === 0 ? text : text.slice(from)
  const tail = body.length % 4
  if (tail === 1) return false
  const written = codecs.base64urlWrite.call(out, body, 0)
  if (!dropsForeign(codecs)) return codecs.base64urlSlice.call(out, 0, out.length) === body
  // A decoder that skips what it does not know writes too little then. The other alphabet it does know, and beyond
  // ASCII it may take one character for another: Node 20 reads U+0141 as the A whose code is its lower byte. The whole
  // text is asked first: a slice keeps V8 from counting without a native call.
  if (written !== out.length || !(isAscii(text) || isAscii(body))) return false
  const last = body.length > 0 ? (portable.VALUES[text.charCodeAt(text.length - 1)] ?? -1) : 0
  const isCanonical = last >= 0 && (last & TRAILING[tail as 0 | 2 | 3]) === 0
  return isCanonical && !text.includes('+', from) && !text.includes('/', from)
}

let drops: boolean | undefined

/** Whether this runtime's decoder skips every foreign ASCII character; where one is misread, encoding again finds it. */
function dropsForeign(codecs: NativeCodecs): boolean {
  drops ??= Array.from({ length: 128 }, (_, code) => String.fromCharCode(code))
    .filter((character) => !/[\w+/-]/.test(character))
    .every((foreign) =>
      [`${foreign}AAA`, `A${foreign}AA`, `AAA${foreign}`, `AAAA${foreign}AAA`].every((text) => {
        const length = decodedLength(text.length)
        return codecs.base64urlWrite.call(new Uint8Array(length), text, 0) < length
      }),
    )
  return drops
}
