import { ascii, fromBase64url, toHex } from '../bytes.ts'
import { defaultEngine } from '../engine/index.ts'
import type { Encoding } from '../envelope/format.ts'
import { headerLength, KEY_ID_BYTES, OFFSET, PREFIX_LENGTH } from '../envelope/format.ts'
import type { KeySource } from '../envelope/keys.ts'
import { SUITES, suiteById } from '../envelope/suites.ts'
import { plaintextBytes } from '../envelope/value.ts'
import { config, expectInteger } from '../errors.ts'
import { GUARD } from './change.ts'
import { MAX_VALUE_BYTES, type Schema } from './compile.ts'

/** A piece of SQL with numbered parameters, as PostgreSQL takes it. */
export interface SqlFragment {
  readonly text: string
  readonly values: readonly (string | Uint8Array | readonly string[])[]
}

/**
 * SQL about the envelope column, for PostgreSQL and SQLite. The key id lies at fixed offsets of the stored form, so
 * these are plain expressions that an index serves.
 */
export interface RecordSql {
  /** The master key id of a row: 20 characters of base64url, or 15 bytes. */
  readonly keyId: string
  /** 30 bytes of the commitment: what the guard of a patch compares. Null in the packed shape, which compares all. */
  readonly guard: string
  /**
   * A statement that makes the index for {@link RecordSql.keyId}, named `<table>_<envelope column>_key_id`. A name of more
   * than 63 bytes, which PostgreSQL would cut, is cut before an end of its own. In an attached schema of SQLite, the
   * schema stands before the index and not the table: write the statement yourself there, and for a name that is taken.
   */
  readonly createIndex: string
  /** True for rows under a version that is not active. Parameters are numbered from `first` (1). */
  needsRotation(keys: KeySource, first?: number): SqlFragment
}

/** `a.b` → `"a"."b"`; a quote inside is doubled. */
export function quoteName(name: string): string {
  return name
    .split('.')
    .map((part) => `"${part.replaceAll('"', '""')}"`)
    .join('.')
}

/** One column's name; a dot in it is part of it. */
export const quoteColumn = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** How a database quotes names. */
export interface Quoting {
  /** Of a table, perhaps behind its schema and a dot. */
  name(name: string): string
  /** Of a column; a dot in it is part of it. */
  column(name: string): string
}

/** As the standard has it, PostgreSQL and SQLite. */
export const STANDARD: Quoting = { name: quoteName, column: quoteColumn }

/** Where the key id stands in the stored text: behind the prefix and 6 bytes, counted from 1. */
const KEY_ID_TEXT = { from: PREFIX_LENGTH + (OFFSET.keyId * 4) / 3 + 1, length: (KEY_ID_BYTES * 4) / 3 }

/** The key id in a stored envelope, of which `column` is the quoted name. */
export function keyIdIn(column: string, encoding: Encoding): string {
  const { from, length } = encoding === 'text' ? KEY_ID_TEXT : { from: OFFSET.keyId + 1, length: KEY_ID_BYTES }
  return `substr(${column}, ${from}, ${length})`
}

export function recordSql(schema: Schema): RecordSql {
  const column = quoteColumn(schema.envelopeColumn)
  const isText = schema.encoding === 'text'
  const keyId = keyIdIn(column, schema.encoding)
  const commitment = isText
    ? `substr(${column}, ${GUARD.textFrom}, ${GUARD.textLength})`
    : `substr(${column}, ${GUARD.bytesFrom}, ${GUARD.bytesLength})`
  return {
    keyId,
    guard: schema.kind === 'columns' ? commitment : column,
    createIndex: `create index ${quoteColumn(indexName(schema))} on ${quoteName(schema.table)} ((${keyId}))`,
    needsRotation(keys, first = 1) {
      const ids = keys.inactive()
      if (ids.length === 0) return { text: 'false', values: [] }
      const places = ids.map((_, i) => `$${first + i}`).join(', ')
      return { text: `${keyId} in (${places})`, values: ids.map((id) => keyIdParameter(id, schema.encoding)) }
    },
  }
}

/** In bytes of UTF-8: what PostgreSQL takes, and no more than MySQL and SQLite take. */
const MAX_NAME = 63

/** The same at every call, so that migrations can name it. Without the table's schema: an index is in that of its table. */
function indexName({ table, envelopeColumn }: Schema): string {
  const name = `${table.slice(table.lastIndexOf('.') + 1)}_${envelopeColumn}_key_id`
  const bytes = ascii(name)
  if (bytes.length <= MAX_NAME) return name
  const end = `_${toHex(defaultEngine().sha512(bytes).subarray(0, 4))}_key_id`
  const begin = bytes.subarray(0, MAX_NAME - end.length)
  return new TextDecoder().decode(begin, { stream: true }) + end // a character that is cut through is left out
}

/** A key id as a parameter that compares with {@link RecordSql.keyId}. */
export function keyIdParameter(keyId: string, encoding: Encoding): string | Uint8Array {
  return encoding === 'text' ? keyId : fromBase64url(keyId)!
}

/**
 * The length that a column needs, in characters (text) or bytes: for the envelope column, or for a field whose values
 * have at most `valueBytes` bytes (its declared `maxBytes` by default). The larger suite's by default.
 */
export function columnLength(schema: Schema, name: string, valueBytes?: number, suite?: 1 | 2): number {
  if (valueBytes !== undefined) expectInteger('valueBytes', valueBytes, 0, MAX_VALUE_BYTES)
  if (suite !== undefined && !suiteById(suite)) throw config('suite', '1 or 2', suite)
  const suites = SUITES.filter((row) => suite === undefined || row.id === suite)
  const stored = (bytes: number) => (schema.encoding === 'text' ? PREFIX_LENGTH + Math.ceil((bytes * 4) / 3) : bytes)
  const largest = (bytes: (row: (typeof SUITES)[number]) => number) =>
    Math.max(...suites.map((row) => stored(bytes(row))))
  if (name === schema.envelope && schema.kind === 'columns') return largest(headerLength)
  if (name === schema.envelope) {
    const packed = schema.columns.reduce(
      (sum, column) => sum + 6 + column.path[0].length + leafBytes(schema, column.name),
      0,
    )
    return largest((row) => headerLength(row) + row.nonceBytes + row.tagBytes + packed)
  }
  if (schema.kind === 'packed')
    throw config('name', `"${schema.envelope}": a packed field has no column of its own`, name)
  return largest((row) => row.nonceBytes + row.tagBytes + leafBytes(schema, name, valueBytes))
}

const FIXED: Record<string, number> = { number: 8, int: 8, date: 8, boolean: 0 }

function leafBytes(schema: Schema, name: string, valueBytes?: number): number {
  const node = schema.columns.find((column) => column.name === name)?.node
  if (node?.type !== 'leaf') throw config('name', 'the envelope or a field that is not nested', name)
  const fixed = FIXED[node.kind]
  if (fixed !== undefined) return plaintextBytes(fixed, node.pad)
  const padTo = node.pad && 'to' in node.pad ? node.pad.to : undefined
  const bytes = valueBytes ?? padTo ?? (node.kind === 'bigint' ? Math.min(node.maxBytes, 512) : node.maxBytes)
  if (bytes === MAX_VALUE_BYTES && valueBytes === undefined) {
    throw config('valueBytes', `the largest value of "${name}" in bytes, or maxBytes in its declaration`, valueBytes)
  }
  return plaintextBytes(bytes, node.pad)
}
