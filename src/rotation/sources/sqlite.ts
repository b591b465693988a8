import { FIELD_PREFIX } from '../../envelope/format.ts'
import { config } from '../../errors.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { quoteColumn, quoteName, STANDARD } from '../../records/sql.ts'
import { isSqlite, type Sqlite } from '../../sqlite.ts'
import { type Cells, compareRows, type IdSql, idValue } from '../dialect.ts'
import type { RotationSource } from '../source.ts'
import { connectionOf, type Run, sqliteBooks, writeStep } from '../sqlite/books.ts'
import { cellOf, type Dates, idOf, kept, plaintextOf, selectCell, wasText } from '../sqlite/values.ts'
import { type TableOptions, tableSource } from '../table.ts'
import { hexBytes } from '../values.ts'
import { columnsOf } from '../work.ts'

export type { Sqlite } from '../../sqlite.ts'
export { JOB_TABLES } from '../books.ts'
export type { Dates } from '../sqlite/values.ts'
export type { TableOptions } from '../table.ts'

export interface SqliteTableOptions extends TableOptions {
  /** What plaintext columns of date() hold: text of ISO 8601 (in UTC where it names no zone), by default, or ms or s since 1970. */
  readonly dates?: Dates
}

/**
 * A SQLite table of a declared record, for jobs; SQLite 3.25 or later. The record's id columns must be the primary key
 * or another unique, not-null key: pages follow them. The index of `records.sql.createIndex` makes finding the
 * rows that are left cheap.
 *
 * `db` is a `DatabaseSync` of node:sqlite (Node 22.5 or later) or a database of better-sqlite3. A batch is one transaction
 * that runs without giving way, so `batchSize` says for how long the process does nothing else. While a transaction of
 * the application is open, on this connection or another one, jobs wait, for up to 5 seconds.
 *
 * @example
 * ```ts
 * import { int, type Keyring, records, text } from 'waxseal'
 * import { rewrap } from 'waxseal/rotation'
 * import { type Sqlite, sqliteTable } from 'waxseal/rotation/sqlite'
 *
 * const customers = records('customers', { id: { id: int() }, fields: { email: text() } })
 * export const rotate = (keys: Keyring, db: Sqlite) => rewrap({ keys, table: sqliteTable(db, customers) })
 * ```
 */
export function sqliteTable<D extends Declaration>(
  db: Sqlite,
  record: Records<D>,
  options: SqliteTableOptions = {},
): RotationSource {
  if (!isSqlite(db)) throw config('db', 'a database of node:sqlite or better-sqlite3', db)
  const { schema } = record
  if (!schema) throw config('record', 'what records() returns', record)
  const { dates = 'text' } = options
  if (!['text', 'ms', 's'].includes(dates)) throw config('dates', "'text', 'ms' or 's'", dates)
  const { ids } = schema
  const table = quoteName(schema.table)
  const { query, transaction } = connectionOf(db)
  const all = columnsOf(schema, 'all', options.plaintext)
  const nodes = new Map(schema.columns.map(({ name, node }) => [name, node]))
  /** What is JSON also when it is sealed: each of its leaves is a ciphertext. */
  const nested = new Map(
    schema.columns.flatMap(({ column, node }) => (node.type === 'leaf' ? [] : [[column, node] as const])),
  )

  /** 2 and 3 under `hidden` say that a column is generated. */
  async function readColumns(): Promise<readonly { name: string; hidden: number | bigint }[]> {
    const [name, ...before] = schema.table.split('.').reverse()
    return query(
      `select name, hidden from pragma_table_xinfo(?${before.length > 0 ? ', ?' : ''})`,
      before.length > 0 ? [name, before.reverse().join('.')] : [name],
    )
  }

  /** SQLite may take the name of a column that is not there for a text, and then finds no row. */
  async function checkColumns(columns: Iterable<string>): Promise<void> {
    const found = await readColumns()
    const known = new Set(found.map((column) => column.name.toLowerCase()))
    if (known.size === 0) throw config('record', `a table ${schema.table}`, undefined)
    for (const column of columns) {
      if (!known.has(column.toLowerCase()))
        throw config('record', `a column "${column}" in the table ${schema.table}`, undefined)
    }
  }

  const cells: Cells = {
    select: (column, i) => selectCell(`t.${quoteColumn(column)}`, `c${i}`, `w${i}`),
    value: (found, column, i, plain) => {
      const value = cellOf(found, `c${i}`, `w${i}`)
      const node = plain ?? nested.get(column)
      return node ? plaintextOf(node, value, dates) : value
    },
    was: (found, _, i) => (found[`w${i}`] ?? found[`c${i}`] ?? null) as string | null,
    selectExtra: (column, i) => selectCell(`t.${quoteColumn(column)}`, `x${i}`, `y${i}`),
    extra: (found, i) => cellOf(found, `x${i}`, `y${i}`),
  }

  const layout = {
    keyId: record.sql.keyId,
    ids: ids.map(({ column, type }): IdSql => {
      const own = `t.${quoteColumn(column)}`
      return {
        text: type === 'bytes' ? `lower(hex(${own}))` : `cast(${own} as text)`,
        bound: (text, place) => place(boundId(text, type)),
        cursor: String,
        value: (text) => idValue(type, text),
      }
    }),
  }

  const needed = (columns: Iterable<string>) => [...ids.map(({ column }) => column), ...columns]

  return tableSource(record, options, {
    random: '((random() & 9007199254740991) / 9007199254740992.0)',
    books: sqliteBooks({ query, transaction }),
    async query(sql, values) {
      // The job gives way between its batches: everything else of a synchronous client is done at once.
      await new Promise((done) => setTimeout(done, 0))
      return query(sql, values)
    },
    place: () => '?',
    quote: STANDARD,
    countText: (count) => `cast(${count} as text)`,
    compare: compareRows,
    differs: (text, than) => `${text} <> ${than}`, // the result of a function has no collation
    layout: async () => layout,
    async cells(extent) {
      await checkColumns(needed(columnsOf(schema, extent, options.plaintext).keys()))
      return cells
    },

    async suspects(known) {
      const names = new Set([...known].map((column) => column.toLowerCase()))
      const others = (await readColumns()).filter(
        ({ name, hidden }) => Number(hidden) < 2 && !names.has(name.toLowerCase()),
      )
      return others.map(({ name }) => {
        const own = `t.${quoteColumn(name)}`
        const bytes = schema.encoding === 'bytes' ? ` or typeof(${own}) = 'blob'` : ''
        const sql = `case when typeof(${own}) = 'text' and instr(${own}, '${FIELD_PREFIX}') > 0${bytes} then ${own} end`
        return { column: name, sql, digest: `hex(${sql})`, read: (selected) => selected as string | Uint8Array }
      })
    },

    write(changes, step) {
      const [first] = changes
      if (!first) return transaction((run) => writeStep(run, step, 0, () => 0))
      const set = Object.keys(first.set)
      const expected = Object.keys(first.expect)
      const guards = Object.keys(first.guard ?? {})
      const match = [
        ...ids.map(({ column }) => `t.${quoteColumn(column)} = ?`),
        ...expected.map((column) => `${wasText(`t.${quoteColumn(column)}`)} is ?`),
        ...guards.map((sql) => `${sql} is ?`),
      ]
      const sql = `update ${table} as t set ${set.map((column) => `${quoteColumn(column)} = ?`).join(', ')}
        where ${match.join(' and ')}`
      const changed = (run: Run): number =>
        changes.reduce((sum, { cursor, set: next, expect, guard }) => {
          const isPlain = next[schema.envelopeColumn] === null
          const values = set.map((column) => {
            const node = isPlain ? nodes.get(all.get(column)!) : undefined
            return node ? kept(node, next[column], dates) : next[column]
          })
          const known = [...expected.map((column) => expect[column]), ...guards.map((sql) => guard?.[sql] ?? null)]
          return sum + run(sql, [...values, ...cursor.map((text, i) => boundId(text, ids[i]!.type)), ...known])
        }, 0)
      return transaction((run) => writeStep(run, step, changes.length, () => changed(run)))
    },

    assertSeesAll: () => checkColumns(needed([schema.envelopeColumn])),
  })
}

const boundId = (text: string, type: string): unknown =>
  type === 'bytes' ? hexBytes(text) : type === 'int' ? idOf(text) : text
