import { compareBytes, concat, readU16, readU32, sameBytes, writeU16, writeU32 } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { openValue } from '../envelope/envelope.ts'
import {
  checkBody,
  FIELD_PREFIX,
  fieldAad,
  fromStored,
  MAX_LABEL_BYTES,
  MAX_PLAINTEXT_BYTES,
  malformed,
  toStored,
} from '../envelope/format.ts'
import type { Suite } from '../envelope/suites.ts'
import { decodeValue, encodeValue } from '../envelope/value.ts'
import { WaxsealError } from '../errors.ts'
import type { Column, Leaf, Schema } from './compile.ts'
import { mapLeaves } from './leaves.ts'
import type { Place } from './located.ts'

export type Row = Readonly<Record<string, unknown>>
type Draft = Record<string, unknown>

/** The plaintext of one value as its field is declared; shared bytes, see encodeValue. */
export function plaintextOf(leaf: Leaf, value: unknown): Uint8Array {
  if (value === null && leaf.nullable === false) {
    throw new WaxsealError('SCHEMA', `expected ${leaf.kind}, got null (declare the field nullable)`)
  }
  return encodeValue(leaf.kind, value, leaf.pad, leaf.maxBytes)
}

/** The value of an opened plaintext, which is wiped. */
export function openedValue(leaf: Leaf, plaintext: Uint8Array): unknown {
  const value = decodeValue(leaf.kind, plaintext)
  plaintext.fill(0)
  if (value === null && leaf.nullable === false) {
    throw new WaxsealError('SCHEMA', `declared as ${leaf.kind} that is not nullable, but a null is stored`)
  }
  return value
}

// ── columns: a ciphertext per field ──────────────────────────────────────────────────────────────────────────────

/** Seals one column: the value itself, or the protected leaves inside it. */
export function sealColumn(schema: Schema, column: Column, value: unknown, key: Aead): unknown {
  const encoding = column.node.type === 'leaf' ? schema.encoding : 'text'
  return mapLeaves(column.node, value, column.path, (leaf, inner, aad) => {
    if (inner === null && leaf.nullable === 'sql') return null
    const plaintext = plaintextOf(leaf, inner)
    const sealed = key.seal(plaintext, aad)
    plaintext.fill(0)
    return toStored(sealed, FIELD_PREFIX, encoding)
  })
}

export function openColumn(column: Column, stored: unknown, suite: Suite, key: Aead, keyId: string): unknown {
  return mapLeaves(column.node, stored, column.path, (leaf, inner, aad) => {
    if (inner === null) {
      if (leaf.nullable === 'sql') return null
      throw malformed('ciphertext: NULL beside a header, where null would be sealed')
    }
    const body = checkBody(fromStored(inner, FIELD_PREFIX), suite)
    return openedValue(leaf, openValue(key, body, aad, keyId))
  })
}

/** Seals every field that is not undefined into `out`. */
export function sealColumns(schema: Schema, row: Row, out: Draft, key: Aead, place: Place): void {
  for (const column of schema.columns) {
    const value = row[column.name]
    if (value === undefined) continue
    place.field = column.name
    out[column.stored] = sealColumn(schema, column, value, key)
  }
  place.field = undefined
}

/** Fails as sealing would, and seals nothing: for values that a migrating table still stores as plaintext. */
export function checkColumns(schema: Schema, row: Row, place: Place): void {
  for (const { name, node, path } of schema.columns) {
    if (row[name] === undefined) continue
    place.field = name
    mapLeaves(node, row[name], path, (leaf, value) => void plaintextOf(leaf, value).fill(0))
  }
  place.field = undefined
}

// ── packed: every field in one plaintext ─────────────────────────────────────────────────────────────────────────

/**
 * Entries in the order of their labels' bytes: label length 2 ‖ label ‖ plaintext length 4 ‖ plaintext. Fields that
 * are undefined have no entry.
 */
export function packFields(schema: Schema, row: Row, place: Place): Uint8Array {
  const parts: Uint8Array[] = []
  let total = 0
  for (const { name, node, path } of inLabelOrder(schema)) {
    const value = row[name]
    if (value === undefined) continue
    place.field = name
    const plaintext = plaintextOf(node as Leaf, value)
    const label = path[0]
    const entry = new Uint8Array(6 + label.length + plaintext.length)
    writeU16(entry, 0, label.length)
    entry.set(label, 2)
    writeU32(entry, 2 + label.length, plaintext.length)
    entry.set(plaintext, 6 + label.length)
    plaintext.fill(0)
    parts.push(entry)
    total += entry.length
    if (total > MAX_PLAINTEXT_BYTES) throw new WaxsealError('LIMIT_EXCEEDED', 'the packed fields are over 16 MiB')
  }
  place.field = undefined
  const packed = concat(...parts)
  for (const part of parts) part.fill(0)
  return packed
}

/** The declared fields of a packed plaintext; entries of fields that are no longer declared are left out. */
export function unpackFields(schema: Schema, packed: Uint8Array, out: Draft, place: Place): void {
  let at = 0
  let previous: Uint8Array | undefined
  while (at < packed.length) {
    if (packed.length - at < 6) throw malformed('plaintext: a packed entry is cut off')
    const labelEnd = at + 2 + readU16(packed, at)
    if (labelEnd + 4 > packed.length) throw malformed('plaintext: a packed entry is cut off')
    const label = packed.subarray(at + 2, labelEnd)
    if (label.length === 0 || label.length > MAX_LABEL_BYTES)
      throw malformed('plaintext: a packed label of a wrong length')
    const end = labelEnd + 4 + readU32(packed, labelEnd)
    if (end > packed.length) throw malformed('plaintext: a packed entry is cut off')
    if (previous && compareBytes(previous, label) >= 0) throw malformed('plaintext: packed entries are not in order')
    const column = schema.columns.find((c) => sameBytes(c.path[0], label))
    if (column) {
      place.field = column.name
      out[column.name] = openedValue(column.node as Leaf, packed.subarray(labelEnd + 4, end))
      place.field = undefined
    }
    previous = label
    at = end
  }
}

const sorted = new WeakMap<Schema, readonly Column[]>()

function inLabelOrder(schema: Schema): readonly Column[] {
  let columns = sorted.get(schema)
  if (!columns) {
    columns = [...schema.columns].sort((a, b) => compareBytes(a.path[0], b.path[0]))
    sorted.set(schema, columns)
  }
  return columns
}

/** AAD of a packed blob: the kind alone, since its labels are inside. */
export const PACKED_AAD: Uint8Array = fieldAad('packed', [])
