import {
  briefBytes,
  compareBytes,
  concat,
  copyBytes,
  fromHex,
  toHex,
  utf8,
  writeU16,
  writeU32,
  writeUtf8,
} from './bytes.ts'
import { config, typeName, WaxsealError } from './errors.ts'

/**
 * The encryption context: facts that a ciphertext is bound to (table, row id, tenant, purpose). Never secret, never
 * optional, and only what never changes. This file is the only encoder of it; docs/spec/envelope.md, "Context".
 */

/** The declared type of a context value; it, not the JavaScript type, decides the bytes. */
export type ContextType = 'text' | 'bytes' | 'int' | 'uuid'

/** What a caller may hand in for each declared type. */
export interface ContextInput {
  /** A well-formed string, compared exactly: no Unicode normalisation, no trimming. */
  text: string
  bytes: Uint8Array
  /** A safe integer, a bigint, or a canonical decimal string (as `pg` returns a bigint column). */
  int: number | bigint | string
  /** 8-4-4-4-12 hexadecimal digits, either case. */
  uuid: string
}

/** A context for the envelope functions: strings are text, bigints and numbers are int. */
export type Context = Readonly<Record<string, string | number | bigint | Uint8Array>>

const TYPE_BYTE: Record<ContextType, number> = { text: 1, bytes: 2, int: 3, uuid: 4 }

/** Limits: 16 entries, names of 1–64 bytes, values of at most 1,024 bytes; ints of at most 40 characters. */
export const CONTEXT_LIMITS = { entries: 16, nameBytes: 64, valueBytes: 1024, intLength: 40 } as const

const CANONICAL_INT = /^(?:0|-?[1-9][0-9]*)$/
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** The canonical text of an id, for messages, events and equality. */
export function canonicalId(type: ContextType, value: unknown, argument: string): string {
  switch (type) {
    case 'text':
      if (typeof value === 'string' && value.isWellFormed()) return value
      break
    case 'bytes':
      if (value instanceof Uint8Array) return toHex(value)
      break
    case 'int':
      if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value === 0 ? 0 : value)
      if (typeof value === 'bigint') return String(value)
      if (typeof value === 'string' && CANONICAL_INT.test(value)) return value
      break
    case 'uuid':
      if (typeof value === 'string' && UUID.test(value)) return value.toLowerCase()
      break
  }
  throw badValue(type, value, argument)
}

const EXPECTED: Record<ContextType, string> = {
  text: 'a well-formed string',
  bytes: 'a Uint8Array',
  int: 'a safe integer, a bigint or a canonical decimal string',
  uuid: 'a UUID of 36 characters',
}

function badValue(type: ContextType, value: unknown, argument: string): WaxsealError {
  return new WaxsealError('SCHEMA', `"${argument}" expected ${EXPECTED[type]}, got ${typeName(value)}`, { argument })
}

/** Room for the largest context: contexts are encoded here, then copied out. Calls are synchronous. */
const scratch = new Uint8Array(
  2 + CONTEXT_LIMITS.entries * (2 + CONTEXT_LIMITS.nameBytes + 5 + 3 * CONTEXT_LIMITS.valueBytes),
)

/** What stands in the scratch bytes, in bytes of its own; V8 makes up to 64 of them quickly. */
function copyOut(length: number): Uint8Array {
  if (length <= 64) return scratch.slice(0, length)
  const out = briefBytes(length)
  out.set(scratch.subarray(0, length))
  return out
}

/** Writes the value at `at` of the scratch bytes; returns its length. */
function writeValue(type: ContextType, value: unknown, argument: string, at: number): number {
  const length = value instanceof Uint8Array ? value.length : typeof value === 'string' ? value.length : 0
  if (length > CONTEXT_LIMITS.valueBytes) throw tooLong(argument, CONTEXT_LIMITS.valueBytes, length)
  if (type === 'bytes' && value instanceof Uint8Array) {
    scratch.set(value, at)
    return length
  }
  const text = canonicalId(type, value, argument)
  if (type === 'uuid') {
    scratch.set(fromHex(text.replaceAll('-', ''))!, at)
    return 16
  }
  if (type === 'int' && text.length > CONTEXT_LIMITS.intLength)
    throw tooLong(argument, CONTEXT_LIMITS.intLength, text.length)
  const written = writeUtf8(scratch, text, at)
  if (written > CONTEXT_LIMITS.valueBytes) throw tooLong(argument, CONTEXT_LIMITS.valueBytes, written)
  return written
}

function tooLong(argument: string, limit: number, got: number): WaxsealError {
  return new WaxsealError('LIMIT_EXCEEDED', `"${argument}" expected at most ${limit} bytes, got ${got}`, { argument })
}

/** name length 2 ‖ name ‖ type 1 ‖ value length 4 */
function entryHead(name: Uint8Array, type: ContextType): Uint8Array {
  const head = new Uint8Array(2 + name.length + 5)
  writeU16(head, 0, name.length)
  head.set(name, 2)
  head[2 + name.length] = TYPE_BYTE[type]
  return head
}

function nameBytes(name: string): Uint8Array {
  const bytes = utf8(name)
  if (bytes && bytes.length >= 1 && bytes.length <= CONTEXT_LIMITS.nameBytes) return bytes
  throw config('context', 'names of 1 to 64 bytes of UTF-8', name)
}

/** A context whose names and types are known ahead: `encode(values)` is then a copy per value. */
export interface ContextShape {
  /** Values in the order the shape was declared in. */
  encode(values: readonly unknown[]): Uint8Array
}

/** Bytes are copied before shared ones are in use: a subclass or proxy could run code of its own when it is read. */
function ownBytes(values: readonly unknown[]): readonly unknown[] {
  for (const value of values) {
    if (typeof value === 'object') return values.map((v) => (v instanceof Uint8Array ? copyBytes(v) : v))
  }
  return values
}

/** One declared entry; a `constant` is not asked for at encoding. */
export interface ContextEntry {
  readonly name: string
  readonly type: ContextType
  readonly constant?: string
}

/** Prepares the canonical encoding: entries sorted by the bytes of their names, every part behind its length. */
export function contextShape(entries: readonly ContextEntry[]): ContextShape {
  if (entries.length < 1 || entries.length > CONTEXT_LIMITS.entries) {
    throw config('context', '1 to 16 entries', entries)
  }
  let position = 0
  const prepared = entries.map((entry) => ({
    ...entry,
    bytes: nameBytes(entry.name),
    input: entry.constant === undefined ? position++ : -1,
  }))
  prepared.sort((a, b) => compareBytes(a.bytes, b.bytes))
  prepared.forEach((entry, i) => {
    if (i > 0 && entry.name === prepared[i - 1]!.name)
      throw config('context', `one entry called ${entry.name}`, entries)
  })

  // Runs of bytes that never change are joined once: [fixed, value, fixed, value, …].
  const count = Uint8Array.of(prepared.length >>> 8, prepared.length)
  let fixed: Uint8Array = count
  const pieces: { fixed: Uint8Array; type: ContextType; name: string; input: number }[] = []
  for (const entry of prepared) {
    fixed = concat(fixed, entryHead(entry.bytes, entry.type))
    if (entry.constant === undefined) {
      pieces.push({ fixed, type: entry.type, name: entry.name, input: entry.input })
      fixed = new Uint8Array(0)
    } else {
      const length = writeValue(entry.type, entry.constant, entry.name, 0)
      writeU32(fixed, fixed.length - 4, length)
      fixed = concat(fixed, scratch.subarray(0, length))
    }
  }
  const tail = fixed

  return {
    encode(values) {
      const own = ownBytes(values)
      let at = 0
      for (const { fixed, type, name, input } of pieces) {
        scratch.set(fixed, at)
        at += fixed.length
        const length = writeValue(type, own[input], name, at)
        writeU32(scratch, at - 4, length)
        at += length
      }
      scratch.set(tail, at)
      return copyOut(at + tail.length)
    },
  }
}

/** Encodes an ad-hoc context. An empty or missing one is an error: binding is not optional. */
export function encodeContext(context: Context): Uint8Array {
  if (typeof context !== 'object' || context === null || context instanceof Uint8Array || Array.isArray(context)) {
    throw config('context', 'an object of names to strings, integers or bytes', context)
  }
  const names = Object.keys(context)
  const shape = contextShape(names.map((name) => ({ name, type: typeOf(context[name], name) })))
  return shape.encode(names.map((name) => context[name]))
}

function typeOf(value: unknown, name: string): ContextType {
  if (typeof value === 'string') return 'text'
  if (typeof value === 'bigint' || typeof value === 'number') return 'int'
  if (value instanceof Uint8Array) return 'bytes'
  throw config(`context.${name}`, 'a string, an integer, a bigint or a Uint8Array', value)
}
