import { config, WaxsealError } from '../../errors.ts'
import { type Postgres, queryOf } from '../../postgres.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { quoteColumn, quoteName, STANDARD } from '../../records/sql.ts'
import { type Cells, compareRows, type IdSql, idValue } from '../dialect.ts'
import { asArrays, asDocuments, type BatchColumn, FIRST_OF_BATCH, holdsText, SEALED } from '../postgres/batch.ts'
import { HELD, postgresBooks, rolledBackOften, STEP, type StepRow, stepValues } from '../postgres/books.ts'
import {
  assertSeesAll,
  locate,
  lookalikes,
  nameOf,
  schemasWith,
  sqlOf,
  suspects,
  type TablePlace,
} from '../postgres/tables.ts'
import { asJson, type LocalTypes, localTypes } from '../postgres/values.ts'
import type { AnyRecord, Change, RotationSource, SourceRow, Step } from '../source.ts'
import { type TableOptions, tableSource } from '../table.ts'
import { fromClient } from '../values.ts'

export type { Postgres } from '../../postgres.ts'
export { JOB_TABLES } from '../books.ts'
export type { TableOptions } from '../table.ts'

export interface PostgresTableOptions extends TableOptions {
  /** The schema of the table, where the record does not name one; by the connection's search_path otherwise. */
  readonly schema?: string
}

export interface PostgresTablesOptions extends Omit<TableOptions, 'context' | 'subject'> {
  /** Names of schemas, each of which must have the table, or what the names of those that have it match. */
  readonly schemas: RegExp | readonly string[]
  /** As {@link TableOptions.context}; the schema may say whose row it is. */
  readonly context?: (row: SourceRow, schema: string) => SourceRow
  readonly subject?: (row: SourceRow, schema: string) => string | undefined
}

/**
 * A PostgreSQL table of a declared record, for jobs. The record's id columns must be the primary key or another
 * unique, not-null key: pages follow them. The index of `records.sql.createIndex` makes finding the rows that are left
 * cheap. A partitioned table is one table, and so is one with inheritance children; a detached partition is another.
 *
 * `db` is PGlite, a `pg` pool or client, or a postgres.js instance. A worker of a job uses up to three connections of a pool at once; one will do.
 *
 * @example
 * ```ts
 * import { int, type Keyring, records, text } from 'waxseal'
 * import type { Postgres } from 'waxseal/postgres'
 * import { rewrap } from 'waxseal/rotation'
 * import { postgresTable } from 'waxseal/rotation/postgres'
 *
 * const customers = records('customers', { id: { id: int() }, fields: { email: text() } })
 * export const rotate = (keys: Keyring, db: Postgres) => rewrap({ keys, table: postgresTable(db, customers) })
 * ```
 */
export function postgresTable<D extends Declaration>(
  db: Postgres,
  record: Records<D>,
  { schema, ...options }: PostgresTableOptions = {},
): RotationSource {
  return tableAt(db, record, options, schema === undefined ? undefined : placeIn(schema, record))
}

/**
 * The same table in many schemas, one per tenant, found by a query: a schema that was added since is among them the next time
 * this is called. The label that is bound into the ciphertext is the same in all of them: bind what tells tenants apart
 * (`context`), or whoever writes to the database can move rows between them.
 *
 * Errors: CONFIG (no schema matches, a named one lacks the table, the record names a schema itself), and what the client throws.
 *
 * @example
 * ```ts
 * import { int, type Keyring, records, text } from 'waxseal'
 * import type { Postgres } from 'waxseal/postgres'
 * import { rewrap } from 'waxseal/rotation'
 * import { postgresTables } from 'waxseal/rotation/postgres'
 *
 * const customers = records('customers', { id: { id: int() }, context: { tenant: text() }, fields: { email: text() } })
 * export async function rotate(keys: Keyring, db: Postgres) {
 *   const context = (_: unknown, schema: string) => ({ tenant: schema })
 *   for (const table of await postgresTables(db, customers, { schemas: /^tenant_/, context })) await rewrap({ keys, table })
 * }
 * ```
 */
export async function postgresTables<D extends Declaration>(
  db: Postgres,
  record: Records<D>,
  { schemas, context, subject, ...options }: PostgresTablesOptions,
): Promise<RotationSource[]> {
  const { table } = placeIn('', record)
  return (await schemasWith(queryOf(db), table, schemas)).map((schema) => {
    const own = {
      ...options,
      ...(context && { context: (row: SourceRow) => context(row, schema) }),
      ...(subject && { subject: (row: SourceRow) => subject(row, schema) }),
    }
    return tableAt(db, record, own, { schema, table })
  })
}

function placeIn(schema: string, record: AnyRecord): TablePlace {
  const table = record.schema?.table
  if (table === undefined) throw config('record', 'what records() returns', record)
  if (typeof schema !== 'string') throw config('schema', 'the name of a schema', schema)
  if (table.includes('.')) throw config('schema', `nothing, since the record names the table ${table}`, schema)
  return { schema, table }
}

function tableAt<D extends Declaration>(
  db: Postgres,
  record: Records<D>,
  options: TableOptions,
  place: TablePlace | undefined,
): RotationSource {
  const query = queryOf(db)
  const { schema } = record
  if (!schema) throw config('record', 'what records() returns', record)
  const { ids } = schema
  const table = place ? sqlOf(place) : quoteName(schema.table)
  const name = place ? nameOf(place) : schema.table
  const own = ids.map((id) => `t.${quoteColumn(id.column)}`)
  let types: Promise<ReadonlyMap<string, string>> | undefined
  let local: Promise<LocalTypes> | undefined

  /** Text compares as it is; anything else by a text that PostgreSQL makes of it, of bytes always the same one. */
  const isText = (all: ReadonlyMap<string, string>, column: string): boolean => typeOf(all, column) === 'text'
  const asText = (all: ReadonlyMap<string, string>, column: string): string => {
    const stored = `t.${quoteColumn(column)}`
    const type = typeOf(all, column)
    if (type === 'text') return stored
    return type === 'bytea' ? `encode(${stored}, 'hex')` : `${stored}::text`
  }

  /** The SQL type of every column, as format_type names it. */
  const columnTypes = (): Promise<ReadonlyMap<string, string>> => {
    types ??= readTypes().catch((error) => {
      types = undefined
      throw error
    })
    return types
  }
  async function readTypes(): Promise<ReadonlyMap<string, string>> {
    const rows = await query<{ name: string; type: string }>(
      `select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute
        where attrelid = $1::text::regclass and attnum > 0 and not attisdropped`,
      [table],
    )
    return new Map(rows.map(({ name, type }) => [name, type]))
  }
  const clock = (): Promise<LocalTypes> => {
    local ??= localTypes(query).catch((error) => {
      local = undefined
      throw error
    })
    return local
  }
  const typeOf = (all: ReadonlyMap<string, string>, column: string): string => {
    const type = all.get(column)
    if (type !== undefined) return type
    throw config('record', `a column "${column}" in the table ${name}`, undefined)
  }

  async function cells(): Promise<Cells> {
    const all = await columnTypes()
    return {
      select: (column, i) => [
        `t.${quoteColumn(column)} as "c${i}"`,
        ...(isText(all, column) ? [] : [`${asText(all, column)} as "w${i}"`]),
      ],
      value: (found, _, i, node) => (node ? fromClient(node, found[`c${i}`]) : found[`c${i}`]),
      was: (found, column, i) => found[isText(all, column) ? `c${i}` : `w${i}`] as string | null,
      selectExtra: (column, i) => [`t.${quoteColumn(column)} as "x${i}"`],
      extra: (found, i) => found[`x${i}`],
    }
  }

  const layout = {
    keyId: record.sql.keyId,
    ids: ids.map(
      ({ type }, i): IdSql => ({
        text: type === 'bytes' ? `encode(${own[i]}, 'hex')` : `${own[i]}::text`,
        // The parameters have no cast: PostgreSQL gives them the types of the columns, whatever those are.
        bound: (text, place) => (type === 'bytes' ? `decode(${place(text)}::text, 'hex')` : place(text)),
        cursor: String,
        value: (text) => idValue(type, text),
      }),
    ),
  }

  return tableSource(record, options, {
    table: { sql: table, name },
    random: 'random()',
    books: postgresBooks(db),
    query: (sql, params) => rolledBackOften(() => query(sql, params)),
    place: (n) => `$${n}`,
    quote: STANDARD,
    countText: (count) => `${count}::text`,
    compare: compareRows,
    differs: (text, than) => `${text} collate "C" <> ${than}`,
    layout: async () => layout,
    cells,
    suspects: (known) => suspects(query, table, schema.encoding, known),

    isOrdered: true,

    async write(changes, step) {
      const [first] = changes
      const statement: [string, unknown[]] = first
        ? withChanges(first, await columnTypes(), await clock(), changes, step)
        : [`with ${HELD}, moved as (select 1 where false), ${STEP}`, stepValues(step, 0)]
      const [row] = await rolledBackOften(() => query<StepRow>(...statement))
      return row ? { written: Number(row.written) } : null
    },

    assertSeesAll: (history) => assertSeesAll(query, table, name, history),
    locate: () => locate(query, table),
    async lookalikes() {
      const { envelopeColumn: column, encoding } = schema
      const places = await lookalikes(query, table, { column, encoding })
      return places.map((other) => tableAt(db, record, options, other))
    },
  })

  /** A text would be read as hexadecimal, or lose its backslashes. */
  function expectBytes(column: string, changes: readonly Change[]): void {
    if (changes.every(({ set }) => (set[column] ?? null) === null || set[column] instanceof Uint8Array)) return
    const message = `"${column}" is a column of bytes, and something else is to be written there`
    throw new WaxsealError('CONFIG', message, { table: name, argument: 'record' })
  }

  function withChanges(
    first: Change,
    all: ReadonlyMap<string, string>,
    isLocal: LocalTypes,
    changes: readonly Change[],
    step: Step,
  ): [string, unknown[]] {
    const set = Object.keys(first.set)
    const expected = Object.keys(first.expect)
    const guards = Object.keys(first.guard ?? {})
    const columns: readonly BatchColumn[] = [
      ...ids.map(({ column, type }, i) => ({
        name: `id${i}`,
        type: typeOf(all, column),
        of: ({ cursor }: Change) => (type === 'bytes' ? `\\x${cursor[i]}` : cursor[i]),
      })),
      ...expected.map((column, i) => ({ name: `w${i}`, type: 'text', of: ({ expect }: Change) => expect[column] })),
      ...guards.map((sql, i) => ({ name: `g${i}`, type: 'text', of: ({ guard }: Change) => guard?.[sql] })),
      ...set.map((column, i) => {
        const type = typeOf(all, column)
        const local = isLocal(type)
        return { name: `s${i}`, type, of: (change: Change) => asJson(change.set[column], local) }
      }),
    ]
    for (const column of set.filter((each) => typeOf(all, each) === 'bytea')) expectBytes(column, changes)
    const isSealed = set.every((column) => SEALED.test(typeOf(all, column)) && holdsText(column, changes))
    const { from, values } = (isSealed ? asArrays : asDocuments)(columns, changes, FIRST_OF_BATCH)
    const match = [
      ...ids.map((_, i) => `${own[i]} = j."id${i}"`),
      ...expected.map((column, i) => `(${asText(all, column)}) collate "C" is not distinct from j."w${i}"`),
      ...guards.map((sql, i) => `(${sql}) collate "C" is not distinct from j."g${i}"`),
    ]
    const assignments = set.map((column, i) => `${quoteColumn(column)} = j."s${i}"`)
    const text = `with ${HELD}, moved as (
        update ${table} as t set ${assignments.join(', ')} from ${from}
        where exists (select 1 from held) and ${match.join(' and ')}
        returning 1
      ), ${STEP}`
    return [text, [...stepValues(step, changes.length), ...values]]
  }
}
