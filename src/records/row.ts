import { fromBase64url, fromBase64urlShared, wipe } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { openValue } from '../envelope/envelope.ts'
import {
  checkBody,
  type Encoding,
  FIELD_PREFIX,
  fromStored,
  malformed,
  type Stored,
  sealStored,
} from '../envelope/format.ts'
import { SUITES, type Suite } from '../envelope/suites.ts'
import { decodeValue, encodeValue } from '../envelope/value.ts'
import { WaxsealError } from '../errors.ts'
import type { Column, Leaf, Node, Row, Schema } from './compile.ts'
import { mapLeaves } from './leaves.ts'
import type { Place } from './located.ts'

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
  try {
    return valueAt(leaf, plaintext, 0, plaintext.length)
  } finally {
    wipe(plaintext)
  }
}

/** The value of the plaintext at `from`. */
export function valueAt(leaf: Leaf, bytes: Uint8Array, from: number, to: number): unknown {
  const value = decodeValue(leaf.kind, bytes, from, to)
  if (value === null && leaf.nullable === false) {
    throw new WaxsealError('SCHEMA', `declared as ${leaf.kind} that is not nullable, but a null is stored`)
  }
  return value
}

// ── columns: a ciphertext per field ──────────────────────────────────────────────────────────────────────────────

/** True for text that parses as a sealed field of some suite; whose, only a key can tell. */
export function isSealedField(text: string): boolean {
  if (!text.startsWith(FIELD_PREFIX)) return false
  const body = fromBase64url(text, FIELD_PREFIX.length)
  return body !== undefined && body.length > Math.min(...SUITES.map((suite) => suite.nonceBytes + suite.tagBytes))
}

/** A row's record key, and what it seals with. */
export interface RowKey {
  readonly key: Aead
  readonly suite: Suite
}

/** Seals one column: the value itself, or the protected leaves inside it. */
export function sealColumn(schema: Schema, { node, path }: Column, value: unknown, row: RowKey): unknown {
  if (node.type === 'leaf') return sealLeaf(node, value, node.aad!, row, schema.encoding)
  return sealInside(node, path, value, row)
}

function sealInside(node: Node, path: Column['path'], value: unknown, row: RowKey): unknown {
  return mapLeaves(node, value, path, (leaf, inner, aad) => sealLeaf(leaf, inner, aad, row, 'text'))
}

function sealLeaf(
  leaf: Leaf,
  value: unknown,
  aad: Uint8Array,
  { key, suite }: RowKey,
  encoding: Encoding,
): Stored | null {
  if (value === null && leaf.nullable === 'sql') return null
  const plaintext = plaintextOf(leaf, value)
  const sealed = sealStored(key, suite, plaintext, aad, FIELD_PREFIX, encoding)
  wipe(plaintext)
  return sealed
}

export function openColumn({ node, path }: Column, stored: unknown, row: RowKey, keyId: string): unknown {
  if (node.type === 'leaf') return openLeaf(node, stored, node.aad!, row, keyId)
  return openInside(node, path, stored, row, keyId)
}

function openInside(node: Node, path: Column['path'], stored: unknown, row: RowKey, keyId: string): unknown {
  return mapLeaves(node, stored, path, (leaf, inner, aad) => openLeaf(leaf, inner, aad, row, keyId))
}

function openLeaf(leaf: Leaf, stored: unknown, aad: Uint8Array, { key, suite }: RowKey, keyId: string): unknown {
  if (stored === null) {
    if (leaf.nullable === 'sql') return null
    throw malformed('ciphertext: NULL beside a header, where null would be sealed')
  }
  const body = checkBody(fromStored(stored, FIELD_PREFIX, fromBase64urlShared), suite)
  return openedValue(leaf, openValue(key, body, aad, keyId))
}

/** Seals every field that is not undefined into `out`. */
export function sealColumns(schema: Schema, row: Row, out: Draft, key: RowKey, place: Place): void {
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
    mapLeaves(node, row[name], path, (leaf, value) => wipe(plaintextOf(leaf, value)))
  }
  place.field = undefined
}
