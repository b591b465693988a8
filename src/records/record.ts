import { concat, copyBytes } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { createEnvelope, openEnvelope, openValue, reopenEnvelope } from '../envelope/envelope.ts'
import {
  exactHeader,
  FIELD_PREFIX,
  fromStored,
  type Header,
  headerAndBody,
  KINDS,
  malformed,
  type Stored,
  toStored,
} from '../envelope/format.ts'
import type { KeySource, Operation } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import { rowId, type Schema } from './compile.ts'
import { located, type Place } from './located.ts'
import { modeOf } from './migrate.ts'
import { checkColumns, openColumn, PACKED_AAD, packFields, type Row, sealColumns, unpackFields } from './row.ts'

/**
 * The story of a record, untyped: records.ts puts the types around it. Every function is synchronous, takes a row and
 * gives a new one; an error says table, field and row id, and nothing was changed.
 */

type Draft = Record<string, unknown>

/** Whole-row write: a new data key, every field sealed under it. */
export function encryptRow(schema: Schema, keys: KeySource, row: Row, context: Row | undefined): Draft {
  return located(schema, keys, 'encrypt', row, (place) => {
    expectRow(row)
    if (row[schema.envelope] != null) {
      throw new WaxsealError('SCHEMA', `"${schema.envelope}" is set: the row is encrypted already`)
    }
    refuseOrphans(schema, row)
    const canonical = contextBytes(schema, row, context)
    if (modeOf(schema, keys) === 'prepare') return plaintextRow(schema, row, place)

    const { header, key, master } = createEnvelope(keys, schema.kind, canonical)
    const out: Draft = { ...row }
    if (schema.kind === 'columns') {
      for (const column of schema.columns) if (column.stored !== column.name) clear(schema, out, column.name)
      sealColumns(schema, row, out, key, place)
      out[schema.envelope] = toStored(header, KINDS.columns.prefix, schema.encoding)
    } else {
      for (const column of schema.columns) clear(schema, out, column.name)
      out[schema.envelope] = sealPacked(schema, row, header, key, place)
    }
    if (keys.listening) report(schema, keys, 'encrypt', row, master.idText)
    return out
  })
}

/** Opens the columns that are there. Null for the row of a left join that found nothing. */
export function decryptRow(
  schema: Schema,
  keys: KeySource,
  row: Row,
  context: Row | undefined,
  operation: Operation = 'decrypt',
): Draft | null {
  return located(schema, keys, operation, row, (place) => {
    expectRow(row)
    const stored = row[schema.envelope]
    if (stored === undefined) throw notSelected(schema)
    if (stored === null && isAllNull(schema, row)) return null
    const canonical = contextBytes(schema, row, context)
    if (stored === null) return openPlaintext(schema, keys, row)

    const out: Draft = { ...row }
    delete out[schema.envelope]
    let header: Header
    let compromised: boolean
    if (schema.kind === 'columns') {
      header = exactHeader(fromStored(stored, KINDS.columns.prefix), 'columns')
      const { key, master } = openEnvelope(keys, header, 'columns', canonical, operation)
      compromised = master.compromised
      openColumns(schema, row, out, header, key, place)
    } else {
      const parts = headerAndBody(fromStored(stored, KINDS.packed.prefix), 'packed')
      header = parts.header
      const { key, master } = openEnvelope(keys, header, 'packed', canonical, operation)
      compromised = master.compromised
      const packed = openValue(key, parts.body, PACKED_AAD, header.keyId)
      for (const column of schema.columns) delete out[column.name]
      unpackFields(schema, packed, out, place)
      packed.fill(0)
    }
    if (compromised) unauthenticated.add(out)
    if (keys.listening) report(schema, keys, operation === 'reencrypt' ? 'reencrypt' : 'decrypt', row, header.keyId)
    return out
  })
}

function openColumns(schema: Schema, row: Row, out: Draft, header: Header, key: Aead, place: Place): void {
  for (const column of schema.columns) {
    const sealed = row[column.stored]
    if (column.stored !== column.name) {
      delete out[column.stored]
      delete out[column.name]
    }
    if (sealed === undefined) continue
    place.field = column.name
    out[column.name] = openColumn(column, sealed, header.suite, key, header.keyId)
  }
  place.field = undefined
}

const unauthenticated = new WeakSet<object>()

/** True for a decrypted row whose master key is marked compromised: whoever has the key may have written it. */
export const isUnauthenticated = (row: object): boolean => unauthenticated.has(row)

/** What a partial update writes, and what its WHERE must ask for. */
export interface PatchParts {
  readonly set: Draft
  readonly guardValue: Stored | null
}

/** Partial update: the row's own data key, fresh nonces. Valid only while the row's commitment is what it was. */
export function patchRow(
  schema: Schema,
  keys: KeySource,
  row: Row,
  changes: Row,
  context: Row | undefined,
): PatchParts {
  return located(schema, keys, 'patch', row, (place) => {
    expectRow(row)
    const unknown = Object.keys(changes).find((name) => !schema.columns.some((column) => column.name === name))
    if (unknown !== undefined) throw config(`changes.${unknown}`, 'a declared field', changes[unknown])
    const stored = row[schema.envelope]
    if (stored === undefined) throw notSelected(schema)
    const canonical = contextBytes(schema, row, context)
    if (stored === null) return patchPlaintext(schema, keys, changes, place)

    const prefix = KINDS[schema.kind].prefix
    const bytes = fromStored(stored, prefix)
    const set: Draft = {}
    let header: Header
    if (schema.kind === 'columns') {
      header = exactHeader(bytes, 'columns')
      const { key } = reopenEnvelope(keys, header, 'columns', canonical)
      sealColumns(schema, changes, set, key, place)
    } else {
      const parts = headerAndBody(bytes, 'packed')
      header = parts.header
      const { key } = reopenEnvelope(keys, header, 'packed', canonical)
      const packed = openValue(key, parts.body, PACKED_AAD, header.keyId)
      const values: Draft = {}
      unpackFields(schema, packed, values, place)
      packed.fill(0)
      set[schema.envelope] = sealPacked(schema, { ...values, ...defined(changes) }, header.bytes, key, place)
    }
    if (keys.listening) {
      const fields = schema.columns.filter((c) => changes[c.name] !== undefined).map((c) => c.label)
      keys.emit({ type: 'patch', table: schema.label, rowId: rowId(schema.ids, row), fields, keyId: header.keyId })
    }
    return { set, guardValue: guardValue(schema, stored, header) }
  })
}

/**
 * Columns: 30 bytes of the commitment, which a rewrap leaves alone and a new data key changes. Packed: the whole
 * blob, because two patches of different fields overwrite one another.
 */
function guardValue(schema: Schema, stored: unknown, header: Header): Stored {
  if (schema.kind === 'packed') return stored as Stored
  return typeof stored === 'string'
    ? stored.slice(GUARD.textFrom - 1, GUARD.textFrom - 1 + GUARD.textLength)
    : copyBytes(header.commitment.subarray(0, 30))
}

/** Where SQL finds 30 bytes of the commitment: substr(…, from, length), counted from 1. */
export const GUARD = { textFrom: 33, textLength: 40, bytesFrom: 22, bytesLength: 30 } as const

/** A new data key for a row that is read whole: nothing of the old one stays. */
export function reencryptRow(
  schema: Schema,
  keys: KeySource,
  row: Row,
  from: Row | undefined,
  to?: { ids: Row; context: Row | undefined },
): Draft {
  const missing = schema.columns.find((column) => schema.kind === 'columns' && row[column.stored] === undefined)
  if (missing) {
    throw new WaxsealError('SCHEMA', `"${missing.stored}" is missing: select every protected column, or it is lost`, {
      table: schema.label,
      field: missing.name,
    })
  }
  const plain = decryptRow(schema, keys, row, from, 'reencrypt')
  if (!plain) throw new WaxsealError('SCHEMA', 'expected a row, got one of nulls', { table: schema.label })
  return to ? encryptRow(schema, keys, { ...plain, ...to.ids }, to.context) : encryptRow(schema, keys, plain, from)
}

/** The header of a stored row, for rewrapping and for asking which key it is under. */
export function headerOf(schema: Schema, stored: unknown): Header {
  const bytes = fromStored(stored, KINDS[schema.kind].prefix)
  return schema.kind === 'columns' ? exactHeader(bytes, 'columns') : headerAndBody(bytes, 'packed').header
}

export function contextBytes(schema: Schema, row: Row, context: Row | undefined): Uint8Array {
  if (schema.contextNames.length > 0 && (typeof context !== 'object' || context === null)) {
    throw config('context', `an object with ${schema.contextNames.join(', ')}`, context)
  }
  const values: unknown[] = []
  for (const { name } of schema.ids) values.push(row[name])
  for (const name of schema.contextNames) values.push(context![name])
  return schema.context.encode(values)
}

function sealPacked(schema: Schema, row: Row, header: Uint8Array, key: Aead, place: Place): Stored {
  const packed = packFields(schema, row, place)
  const sealed = key.seal(packed, PACKED_AAD)
  packed.fill(0)
  return toStored(concat(header, sealed), KINDS.packed.prefix, schema.encoding)
}

// ── Plaintext rows, while a table migrates ───────────────────────────────────────────────────────────────────────

/** `prepare` writes plaintext: the values are checked as if they were sealed, and no old ciphertext stays behind. */
function plaintextRow(schema: Schema, row: Row, place: Place): Draft {
  const out: Draft = { ...row }
  checkColumns(schema, row, place)
  for (const column of schema.columns) if (column.stored !== column.name) out[column.stored] = null
  out[schema.envelope] = null
  return out
}

function openPlaintext(schema: Schema, keys: KeySource, row: Row): Draft {
  if (modeOf(schema, keys) === 'strict') throw malformed(`"${schema.envelope}" is NULL: the row is not encrypted`)
  const out: Draft = { ...row }
  delete out[schema.envelope]
  for (const column of schema.columns) if (column.stored !== column.name) delete out[column.stored]
  return out
}

function patchPlaintext(schema: Schema, keys: KeySource, changes: Row, place: Place): PatchParts {
  const mode = modeOf(schema, keys)
  if (mode === 'strict') throw malformed(`"${schema.envelope}" is NULL: the row is not encrypted`)
  if (mode === 'encrypt') {
    throw new WaxsealError('SCHEMA', 'the row is still plaintext: encrypt the whole row instead of patching it')
  }
  const { [schema.envelope]: _, ...set } = plaintextRow(schema, defined(changes), place)
  return { set, guardValue: null }
}

/** Where a plaintext column exists beside the ciphertext only during a migration, it is emptied; later it is gone. */
function clear(schema: Schema, out: Draft, name: string): void {
  if (schema.migrate) out[name] = null
  else delete out[name]
}

// ── Guards and errors ────────────────────────────────────────────────────────────────────────────────────────────

function expectRow(row: unknown): void {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw config('row', 'an object', row)
}

/** A whole-row write changes the data key: a ciphertext of a field that is not declared here would be lost for ever. */
function refuseOrphans(schema: Schema, row: Row): void {
  if (schema.kind !== 'columns') return
  for (const name in row) {
    const value = row[name]
    if (typeof value === 'string' && value.startsWith(FIELD_PREFIX) && !schema.isProtected.has(name)) {
      throw new WaxsealError('SCHEMA', `"${name}" holds a sealed field that this schema does not declare`, {
        field: name,
      })
    }
  }
}

function isAllNull(schema: Schema, row: Row): boolean {
  return schema.ids.every(({ name }) => row[name] === null)
}

function notSelected(schema: Schema): WaxsealError {
  return new WaxsealError('SCHEMA', `"${schema.envelope}" is missing: select the envelope with the row`)
}

function defined(row: Row): Row {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined))
}

function report(
  schema: Schema,
  keys: KeySource,
  type: 'encrypt' | 'decrypt' | 'reencrypt',
  row: Row,
  keyId: string,
): void {
  const packed = schema.kind === 'packed' && type !== 'encrypt'
  const fields = schema.columns
    .filter((c) => packed || row[type === 'encrypt' ? c.name : c.stored] !== undefined)
    .map((c) => c.label)
  keys.emit({ type, table: schema.label, rowId: rowId(schema.ids, row), fields, keyId })
}
