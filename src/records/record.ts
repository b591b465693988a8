import { type fromBase64url, wipe } from '../bytes.ts'
import { createEnvelope, openEnvelope, openValue, release } from '../envelope/envelope.ts'
import {
  exactHeader,
  FIELD_PREFIX,
  fromStored,
  type Header,
  headerBeforeBody,
  KINDS,
  sealStored,
  toStored,
} from '../envelope/format.ts'
import { decoderOf, type KeySource, type Operation } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Row, Schema } from './compile.ts'
import { idOf, locate, type Place } from './located.ts'
import { modeOf, openPlaintextRow, plaintextRow } from './migrate.ts'
import { PACKED_AAD, packFields, unpackFields } from './packed.ts'
import { isSealedField, openColumn, type RowKey, sealColumns } from './row.ts'

/**
 * The story of a record, untyped: records.ts puts the types around it, change.ts tells of partial updates and new keys.
 * Every function is synchronous, takes a row and gives a new one; an error says table, field and row id.
 */

export type Draft = Record<string, unknown>

/** Whole-row write: a new data key, every field sealed under it. */
export function encryptRow(schema: Schema, keys: KeySource, row: Row, context: Row | undefined): Draft {
  const place: Place = { field: undefined }
  try {
    expectRow(row)
    if (row[schema.envelope] != null) {
      throw new WaxsealError('SCHEMA', `"${schema.envelope}" is set: the row is encrypted already`)
    }
    // Read once: a getter must neither answer twice nor run while shared bytes are in use.
    const plain = copyOf(row)
    refuseOrphans(schema, plain)
    const canonical = contextBytes(schema, plain, context)
    if (modeOf(schema, keys) === 'prepare') return plaintextRow(schema, plain, place)
    return sealRow(schema, keys, plain, canonical, place)
  } catch (error) {
    throw locate(error, schema, keys, 'encrypt', row, place)
  }
}

/** Seals a row that the caller made for it: the values are replaced where they stand. */
export function sealRow(schema: Schema, keys: KeySource, row: Draft, context: Uint8Array, place: Place): Draft {
  const envelope = createEnvelope(keys, schema.kind, context)
  const { header, suite, key, master } = envelope
  const out = schema.moved.length > 0 ? withoutMoved(schema, row) : row
  try {
    if (schema.kind === 'columns') {
      sealColumns(schema, row, out, envelope, place)
      out[schema.envelope] = toStored(header, KINDS.columns.prefix, schema.encoding)
    } else {
      out[schema.envelope] = packFields(schema, row, place, (packed) =>
        sealStored(key, suite, packed, PACKED_AAD, KINDS.packed.prefix, schema.encoding, header),
      )
    }
  } finally {
    key.destroy()
  }
  if (keys.listening) report(schema, keys, 'encrypt', row, master.idText)
  return out
}

/** A copy without the columns whose ciphertext is elsewhere; in a migrating table, where they still exist, emptied. */
function withoutMoved(schema: Schema, row: Row): Draft {
  const out = copyWithout(row, schema.movedNames)
  if (schema.migrate) for (const { name } of schema.moved) out[name] = null
  return out
}

/** Opens the columns that are there. Null for the row of a left join that found nothing. */
export function decryptRow(schema: Schema, keys: KeySource, row: Row, context: Row | undefined): Draft | null {
  const place: Place = { field: undefined }
  try {
    return openRow(schema, keys, row, context, 'decrypt', place)
  } catch (error) {
    throw locate(error, schema, keys, 'decrypt', row, place)
  }
}

export function openRow(
  schema: Schema,
  keys: KeySource,
  row: Row,
  context: Row | undefined,
  operation: Operation,
  place: Place,
  withKey?: (key: RowKey, packed?: Uint8Array) => void,
): Draft | null {
  expectRow(row)
  const stored = row[schema.envelope]
  if (stored === undefined) throw notSelected(schema)
  if (stored === null && schema.ids.every(({ name }) => row[name] === null)) return null
  const canonical = contextBytes(schema, row, context)
  if (stored === null) return openPlaintextRow(schema, keys, row)

  const out = copyWithout(row, schema.storedNames)
  const header = envelopeOf(schema, stored, decoderOf(keys))
  const opened = openEnvelope(keys, header, schema.kind, canonical, operation)
  const keyId = opened.master.idText
  try {
    const key = { key: opened.key, suite: header.suite }
    if (schema.kind === 'columns') {
      withKey?.(key)
      openColumns(schema, row, out, key, keyId, place)
    } else {
      const packed = openValue(opened.key, header.read, PACKED_AAD, keyId, header.length)
      try {
        withKey?.(key, packed)
        unpackFields(schema, packed, out, place)
      } finally {
        wipe(packed)
      }
    }
  } finally {
    release(keys, opened)
  }
  if (opened.master.compromised) unauthenticated.add(out)
  if (keys.listening) report(schema, keys, operation === 'reencrypt' ? operation : 'decrypt', row, keyId)
  return out
}

function openColumns(schema: Schema, row: Row, out: Draft, key: RowKey, keyId: string, place: Place): void {
  for (const column of schema.columns) {
    const sealed = row[column.stored]
    if (sealed === undefined) continue
    place.field = column.name
    out[column.name] = openColumn(column, sealed, key, keyId)
  }
  place.field = undefined
}

const unauthenticated = new WeakSet<object>()

/** True for a decrypted row whose master key is marked compromised: whoever has the key may have written it. */
export const isUnauthenticated = (row: object): boolean => unauthenticated.has(row)

/** Parses a stored envelope: the header, which in the packed shape all fields follow. */
export function envelopeOf(schema: Schema, stored: unknown, decode?: typeof fromBase64url): Header {
  const bytes = fromStored(stored, KINDS[schema.kind].prefix, decode)
  return schema.kind === 'columns' ? exactHeader(bytes, 'columns') : headerBeforeBody(bytes, 'packed')
}

export function contextBytes(schema: Schema, row: Row, context: Row | undefined): Uint8Array {
  if (schema.contextNames.length > 0 && (typeof context !== 'object' || context === null)) {
    throw config('context', `an object with ${schema.contextNames.join(', ')}`, context)
  }
  const values = new Array<unknown>(schema.ids.length + schema.contextNames.length)
  let i = 0
  for (const { name } of schema.ids) values[i++] = row[name]
  for (const name of schema.contextNames) values[i++] = context![name]
  return schema.context.encode(values)
}

export function expectRow(row: unknown): asserts row is Row {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw config('row', 'an object', row)
}

export function notSelected(schema: Schema): WaxsealError {
  return new WaxsealError('SCHEMA', `"${schema.envelope}" is missing: select the envelope with the row`)
}

/** A whole-row write changes the data key: a ciphertext of a field that is not declared here would be lost for ever. */
function refuseOrphans(schema: Schema, row: Row): void {
  if (schema.kind !== 'columns') return
  for (const name in row) {
    const value = row[name]
    if (typeof value !== 'string' || !value.startsWith(FIELD_PREFIX) || schema.isProtected.has(name)) continue
    if (isSealedField(value)) {
      throw new WaxsealError('SCHEMA', `"${name}" holds a sealed field that this schema does not declare`, {
        field: name,
      })
    }
  }
}

/** Not a spread where that changes nothing: to what it made, V8 takes half a microsecond to add a property. */
function copyOf(row: Row): Draft {
  return Object.hasOwn(row, '__proto__') ? { ...row } : Object.assign({}, row)
}

/** Own properties but some, in their order: `delete` would make the copy slow for whoever gets it. */
function copyWithout(row: Row, left: ReadonlySet<string>): Draft {
  const out: Draft = {}
  for (const name of Object.keys(row)) if (!left.has(name) && name !== '__proto__') out[name] = row[name]
  return out
}

function report(
  schema: Schema,
  keys: KeySource,
  type: 'encrypt' | 'decrypt' | 'reencrypt',
  row: Row,
  keyId: string,
): void {
  const all = schema.kind === 'packed' && type !== 'encrypt'
  const given = schema.columns.filter((c) => all || row[type === 'encrypt' ? c.name : c.stored] !== undefined)
  keys.emit({ type, table: schema.label, rowId: idOf(schema, row), fields: given.map((c) => c.label), keyId })
}
