import type { Keyring } from '../../src/index.ts'
import { int, type Records, records, text } from '../../src/index.ts'
import type { Query } from '../../src/postgres.ts'
import type { Declaration } from '../../src/records/schema.ts'
import { quoteColumn, quoteName } from '../../src/records/sql.ts'

/** A row of any table here. */
export type AnyRow = Record<string, unknown>
/** A record whose declaration a test makes at run time: its rows are untyped. */
// biome-ignore lint/suspicious/noExplicitAny: the declaration is only known at run time
export type AnyRecords = Records<any>

let tables = 0
/** A table name that no other test uses. */
export const freshName = (what = 't'): string => `${what}_${++tables}`

export const declare = (label: string, declaration: Declaration): AnyRecords => records(label, declaration)

/** The table of most tests here: an integer id, two sealed fields and a readable one. */
export const people = (name = freshName('people')): AnyRecords =>
  declare(name, { id: { id: int() }, fields: { email: text(), note: text({ nullable: true }) } })

export const person = (id: number): AnyRow => ({
  id,
  email: `person${id}@example.org`,
  note: id % 3 === 0 ? null : `note ${id}`,
  city: id % 2 === 0 ? 'Oslo' : 'Lima',
})

/** The table of a record, made from its declaration; `idTypes` are the SQL types of its ids, in order. */
export async function createTable(query: Query, record: AnyRecords, idTypes: readonly string[] = ['integer']) {
  const { table, ids, columns, encoding, kind, envelopeColumn, migrate } = record.schema
  const sealed = encoding === 'bytes' ? 'bytea' : 'text'
  const names = [
    ...ids.map((id, i) => `${quoteColumn(id.column)} ${idTypes[i]}`),
    ...(kind === 'columns' ? columns.map((column) => `${quoteColumn(column.column)} ${sealed}`) : []),
    `${quoteColumn(envelopeColumn)} ${sealed}${migrate ? '' : ' not null'}`,
    'city text',
    `primary key (${ids.map((id) => quoteColumn(id.column)).join(', ')})`,
  ]
  await query(`create table ${quoteName(table)} (${names.join(', ')})`)
  await query(record.sql.createIndex)
}

/** The database's name of a property of a row. */
function columnOf(record: AnyRecords, property: string): string {
  const { ids, columns, envelope, envelopeColumn } = record.schema
  if (property === envelope) return envelopeColumn
  return (
    ids.find((id) => id.name === property)?.column ?? columns.find((c) => c.stored === property)?.column ?? property
  )
}

/** As clients take it: a bigint is text. */
const parameter = (value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value)

/** Inserts stored rows, as `record.encrypt` made them. */
export async function insertStored(query: Query, record: AnyRecords, rows: readonly AnyRow[]): Promise<void> {
  for (const row of rows) {
    const names = Object.keys(row)
    const places = names.map((_, i) => `$${i + 1}`).join(', ')
    const columns = names.map((name) => quoteColumn(columnOf(record, name))).join(', ')
    await query(
      `insert into ${quoteName(record.schema.table)} (${columns}) values (${places})`,
      names.map((name) => parameter(row[name])),
    )
  }
}

export async function insert(query: Query, record: AnyRecords, keys: Keyring, rows: readonly AnyRow[]): Promise<void> {
  const stored = rows.map((row) => record.encrypt(keys, row as never) as AnyRow)
  await insertStored(query, record, stored)
}

/** Every row of the table under the record's names, in the order of the ids. */
export async function readStored(query: Query, record: AnyRecords): Promise<AnyRow[]> {
  const { table, ids, columns, envelope, envelopeColumn, kind } = record.schema
  const names = [
    ...ids.map((id) => [id.column, id.name]),
    ...(kind === 'columns' ? columns.map((column) => [column.column, column.stored]) : []),
    [envelopeColumn, envelope],
    ['city', 'city'],
  ]
  const list = names.map(([column, name]) => `t.${quoteColumn(column!)} as ${quoteColumn(name!)}`).join(', ')
  const order = ids.map((id) => `t.${quoteColumn(id.column)}`).join(', ')
  return [...(await query<AnyRow>(`select ${list} from ${quoteName(table)} as t order by ${order}`))]
}

export async function readPlain(query: Query, record: AnyRecords, keys: Keyring): Promise<AnyRow[]> {
  const stored = await readStored(query, record)
  return stored.map((row) => record.decrypt(keys, row as never) as AnyRow)
}

/** Rotates a test keyring at once; resolves to the id of the version that was active before. */
export async function rotate(keys: Keyring): Promise<string> {
  const old = keys.status().active!
  await keys.rotate()
  await keys.maintain()
  return old
}

/** How many rows are under each key that the table knows. */
export async function keyCounts(query: Query, record: AnyRecords, keys: Keyring): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const row of await readStored(query, record)) {
    const moved = record.needsRotation(keys, row)
    counts[moved ? 'old' : 'active'] = (counts[moved ? 'old' : 'active'] ?? 0) + 1
  }
  return counts
}
