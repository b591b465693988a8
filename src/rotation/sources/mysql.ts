import { fromHex, toHex } from '../../bytes.ts'
import { FIELD_PREFIX } from '../../envelope/format.ts'
import { config, WaxsealError } from '../../errors.ts'
import type { Node } from '../../records/compile.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { keyIdIn } from '../../records/sql.ts'
import { type Cells, type IdSql, idValue, type Layout } from '../dialect.ts'
import { mysqlBooks, writeStep } from '../mysql/books.ts'
import { isBinary, isInteger, isText, type SqlColumn } from '../mysql/column.ts'
import {
  compareExpanded,
  differs,
  exact,
  idParameter,
  keyIdColumn,
  keyIdOf,
  QUOTING,
  readTable,
  type SqlTable,
  typed,
  utf8,
} from '../mysql/columns.ts'
import { connectionOf, type Mysql, type Session } from '../mysql/connection.ts'
import { base64Of, CLOCK_SQL, type Clock, clockOf, kept, plaintextOf, textOf } from '../mysql/values.ts'
import type { Change, RotationSource } from '../source.ts'
import { type TableOptions, tableSource } from '../table.ts'
import { columnsOf } from '../work.ts'

export { JOB_TABLES } from '../mysql/books.ts'
export type { Mysql, MysqlConnection, Statement } from '../mysql/connection.ts'
export type { TableOptions } from '../table.ts'

export interface MysqlTableOptions extends TableOptions {
  /**
   * Whether columns with ON UPDATE CURRENT_TIMESTAMP change when a job writes a row. `false` by default: a rotation is
   * no edit.
   */
  readonly touch?: boolean
}

/**
 * A MySQL (8.0.19 or later) or MariaDB (10.6 or later) table of a declared record, for jobs; InnoDB. The record's id
 * columns must be the primary key or another unique, not-null key: pages follow them. The index of {@link keyIdIndex}
 * makes finding the rows that are left cheap. A partitioned table is one table.
 *
 * `db` is a pool of `mysql2/promise` or `mariadb`, or one connection that nothing else uses while a job runs. A batch is
 * one transaction, READ COMMITTED, in strict mode, whatever the session is set to. Columns are compared byte by byte.
 *
 * @example
 * ```ts
 * import { int, type Keyring, records, text } from 'waxseal'
 * import { rewrap } from 'waxseal/rotation'
 * import { type Mysql, mysqlTable } from 'waxseal/rotation/mysql'
 *
 * const customers = records('customers', { id: { id: int() }, fields: { email: text() } })
 * export const rotate = (keys: Keyring, db: Mysql) => rewrap({ keys, table: mysqlTable(db, customers) })
 * ```
 */
export function mysqlTable<D extends Declaration>(
  db: Mysql,
  record: Records<D>,
  options: MysqlTableOptions = {},
): RotationSource {
  const { schema } = record ?? {}
  if (!schema) throw config('record', 'what records() returns', record)
  const { touch = false } = options
  if (typeof touch !== 'boolean') throw config('touch', 'a boolean', touch)
  const { ids } = schema
  const connection = connectionOf(db)
  const { query, transaction } = connection
  const name = QUOTING.name(schema.table)
  const own = (column: string): string => `t.${QUOTING.column(column)}`
  const all = columnsOf(schema, 'all', options.plaintext)
  const nodes = new Map(schema.columns.map(({ name, node }) => [name, node]))
  /** What is JSON also when it is sealed: each of its leaves is a ciphertext. */
  const nested = new Map(
    schema.columns.flatMap(({ column, node }) => (node.type === 'leaf' ? [] : [[column, node] as const])),
  )
  const read = onceDone(() => readTable(connection, schema))
  const clock = onceDone(async (): Promise<Clock> => clockOf(await connection.asClient(CLOCK_SQL)))

  async function layout(): Promise<Layout> {
    const table = await read()
    return {
      keyId: keyIdOf(table, schema),
      ids: ids.map(({ column, type }): IdSql => {
        const sql = table.column(column)
        if (type === 'bytes' && !isBinary(sql))
          throw config('record', `a binary column "${column}" for bytes()`, undefined)
        const text = isBinary(sql) ? `lower(hex(${own(column)}))` : exact(sql, own(column))
        return {
          text: sql.type === 'timestamp' ? `cast(${own(column)} as char)` : text,
          bound: (cursor, place) => typed(sql, place(idParameter(sql, cursor))),
          cursor: textOf,
          value: (cursor) => (isBinary(sql) && type !== 'bytes' ? unpacked(type, cursor) : idValue(type, cursor)),
        }
      }),
    }
  }

  async function cells(): Promise<Cells> {
    const table = await read()
    const zone = await clock()
    return {
      select: (column, i) => [`${exact(table.column(column), own(column))} as c${i}`],
      value(found, column, i, plain) {
        const sql = table.column(column)
        const value = cellOf(sql, found[`c${i}`])
        const node = plain ?? nested.get(column)
        return node ? plaintextOf(node, sql, value, zone) : value
      },
      was(found, column, i) {
        const value = cellOf(table.column(column), found[`c${i}`])
        return value instanceof Uint8Array ? base64Of(value) : value
      },
      selectExtra: (column, i) => [`${exact(table.column(column), own(column))} as x${i}`],
      extra(found, i) {
        const sql = table.column(options.select![i]!)
        return given(sql, cellOf(sql, found[`x${i}`]))
      },
    }
  }

  async function change(session: Session, table: SqlTable, zone: Clock, changes: readonly Change[]): Promise<number> {
    const [first] = changes as [Change]
    const set = Object.keys(first.set).map((named) => ({ named, column: table.column(named) }))
    const expected = Object.keys(first.expect).map((named) => ({ named, column: table.column(named) }))
    const guards = Object.keys(first.guard ?? {})
    const idColumns = ids.map(({ column }) => table.column(column))
    const fields = [
      ...idColumns.map((_, i) => `i${i}`),
      ...expected.map((_, i) => `w${i}`),
      ...guards.map((_, i) => `g${i}`),
      ...set.map((_, i) => `s${i}`),
    ]
    const match = [
      ...idColumns.map((column, i) => `${own(column.name)} = ${typed(column, `j.i${i}`)}`),
      ...expected.map(({ column }, i) => `${exact(column, own(column.name))} <=> from_base64(j.w${i})`),
      ...guards.map((sql, i) => `${sql} <=> from_base64(j.g${i})`),
    ]
    const kept = touch
      ? []
      : table.all.filter((each) => each.isUpdatedByItself && !set.some(({ column }) => column === each))
    const assignments = [
      ...set.map(({ column }, i) => `${own(column.name)} = ${stored(column, `j.s${i}`)}`),
      ...kept.map(({ name }) => `${own(name)} = ${own(name)}`),
    ]
    const sql = `update json_table(convert(? using utf8mb4), '$[*]' columns (
        ${fields.map((field) => `${field} longtext path '$.${field}'`).join(', ')})) as j
      straight_join ${name} as t on ${match.join(' and ')} set ${assignments.join(', ')}`
    const documents = changes.map((each) => {
      // What is left out is NULL.
      const document: Record<string, string> = {}
      for (const [i, column] of idColumns.entries()) document[`i${i}`] = idParameter(column, each.cursor[i]!)
      for (const [i, { named, column }] of expected.entries()) {
        const was = each.expect[named]
        if (was !== null && was !== undefined) document[`w${i}`] = isBinary(column) ? was : base64Of(was)
      }
      for (const [i, sql] of guards.entries()) {
        const was = each.guard?.[sql] as Uint8Array | null
        if (was !== null) document[`g${i}`] = base64Of(was)
      }
      const isPlain = each.set[schema.envelopeColumn] === null
      for (const [i, { named, column }] of set.entries()) {
        const value = each.set[named]
        if (value === null || value === undefined) continue
        const node = isPlain ? nodes.get(all.get(named)!) : undefined
        document[`s${i}`] = base64Of(fitting(column, keptAs(node, column, value, zone)))
      }
      return JSON.stringify(document)
    })
    if (documents.some(({ length }) => length > table.maxPacket - PACKET_OVERHEAD)) {
      const message = `a row needs more than max_allowed_packet, which is ${table.maxPacket} bytes: raise it for jobs`
      throw new WaxsealError('LIMIT_EXCEEDED', message, { table: schema.table })
    }
    let changed = 0
    for (const part of parts(documents, table.maxPacket / 2)) changed += await session.run(sql, [`[${part.join(',')}]`])
    return changed
  }

  function keptAs(node: Node | undefined, column: SqlColumn, value: unknown, zone: Clock): string | Uint8Array {
    const known = kept(node, column, value, zone)
    if (known instanceof Uint8Array === isBinary(column)) return known
    const [holds, comes] = isBinary(column) ? ['bytes', 'text'] : ['text', 'bytes']
    throw new WaxsealError('CONFIG', `"${column.name}" is a column of ${holds}, and ${comes} is to be written there`, {
      table: schema.table,
      argument: 'record',
    })
  }

  /** What does not fit is refused before it is sent, with the name of its column. */
  function fitting(column: SqlColumn, value: string | Uint8Array): string | Uint8Array {
    const { length } = column
    const isTooLong = length !== undefined && value.length > length && [...value].length > length
    const isPadded = column.type === 'binary' && value.length < length!
    if (!isTooLong && !isPadded) return value
    const what = isPadded
      ? 'is padded by its column, which must be a varbinary'
      : `needs ${value.length}, its column takes ${length}`
    throw new WaxsealError('LIMIT_EXCEEDED', `"${column.name}" ${what}: see columnLength()`, {
      table: schema.table,
      argument: column.name,
    })
  }

  return tableSource(record, options, {
    books: mysqlBooks(connection),
    quote: QUOTING,
    random: 'rand()',
    query: (sql, values) =>
      query(
        sql,
        values.map((value) => (value instanceof Uint8Array ? toHex(value) : value)),
      ),
    place: (_, value) => (value instanceof Uint8Array ? 'unhex(?)' : '?'),
    countText: (count) => `cast(${count} as char)`,
    compare: compareExpanded,
    differs,
    layout,
    cells,

    async suspects(known) {
      const names = new Set([...known].map((column) => column.toLowerCase()))
      const holds = (column: SqlColumn): boolean =>
        isText(column) || column.type === 'json' || (schema.encoding === 'bytes' && isBinary(column))
      const { all: now } = await readTable(connection, schema)
      const others = now.filter(
        (column) => holds(column) && column.expression === undefined && !names.has(column.name.toLowerCase()),
      )
      return others.map((column) => {
        const value = exact(column, own(column.name))
        const sql = isBinary(column) ? value : `case when instr(${value}, '${FIELD_PREFIX}') > 0 then ${value} end`
        return {
          column: column.name,
          sql,
          digest: `unhex(sha2(${sql}, 256))`,
          read: (selected) => cellOf(column, selected)!,
        }
      })
    },

    async write(changes, step) {
      const table = await read()
      const zone = await clock()
      return transaction((session) =>
        writeStep(session, step, changes.length, async () =>
          changes.length > 0 ? change(session, table, zone, changes) : 0,
        ),
      )
    },

    async assertSeesAll(history) {
      const table = await readTable(connection, schema)
      keyIdOf(table, schema) // the column may have been replaced since
      if (!history) return
      if (table.isReadOnly) {
        const message = 'the server is read-only, as a replica is, which may lag behind: ask the primary'
        throw new WaxsealError('CONFIG', message, { table: schema.table, argument: 'db' })
      }
      if (!table.isVersioned) return
      const message = 'the history of a table with system versioning keeps rows under old versions: drop it first'
      throw new WaxsealError('CONFIG', message, { table: schema.table, argument: 'record' })
    },
  })
}

/**
 * The statement that adds the index for finding rows by their master key: of a generated column, which is not stored
 * and which `select *` does not show. `mysqlTable` uses the column where it is. Before MySQL 8.0.23, leave out
 * `invisible`.
 *
 * @example
 * ```ts
 * import { int, records, text } from 'waxseal'
 * import { keyIdIndex } from 'waxseal/rotation/mysql'
 *
 * const customers = records('customers', { id: { id: int() }, fields: { email: text() } })
 * console.log(keyIdIndex(customers))
 * ```
 */
export function keyIdIndex<D extends Declaration>(record: Records<D>): string {
  const { schema } = record ?? {}
  if (!schema) throw config('record', 'what records() returns', record)
  const column = QUOTING.column(keyIdColumn(schema))
  const computed = keyIdIn(QUOTING.column(schema.envelopeColumn), schema.encoding)
  // Characters of UTF-8 have up to 4 bytes; whatever stands in the envelope column must be able to stay there.
  const bytes = schema.encoding === 'text' ? 80 : 15
  return `alter table ${QUOTING.name(schema.table)}
  add column ${column} varbinary(${bytes}) generated always as (${computed}) virtual invisible,
  add index ${column} (${column})`
}

/** What was selected of a column: bytes, or text. */
function cellOf(column: SqlColumn, selected: unknown): string | Uint8Array | null {
  if (selected === null || selected === undefined) return null
  return isBinary(column) ? new Uint8Array(selected as Uint8Array) : textOf(selected)
}

/** A column that is read besides: an integer as a number where that keeps its digits. */
function given(column: SqlColumn, value: string | Uint8Array | null): unknown {
  if (typeof value !== 'string' || !isInteger(column)) return value
  return Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value)
}

/** An id that is kept in a binary column: the 16 bytes of a UUID, or text. */
function unpacked(type: string, hex: string): string {
  if (type !== 'uuid') return textOf(fromHex(hex))
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** What a column takes of the base64 of a value. */
function stored(column: SqlColumn, base64: string): string {
  if (isBinary(column)) return `from_base64(${base64})`
  return column.type === 'bit' ? `cast(${utf8(base64)} as unsigned)` : utf8(base64)
}

/** Of a packet, what the statement and its frame take at most. */
const PACKET_OVERHEAD = 16_384

/** In their order, with about `size` characters in each part. */
function parts(documents: readonly string[], size: number): string[][] {
  const all: string[][] = []
  let left = 0
  for (const document of documents) {
    if (all.length === 0 || document.length > left) {
      all.push([])
      left = size
    }
    all.at(-1)!.push(document)
    left -= document.length + 1
  }
  return all
}

/** Runs once; again when it failed. */
function onceDone<T>(work: () => Promise<T>): () => Promise<T> {
  let done: Promise<T> | undefined
  return () => {
    done ??= work().catch((error) => {
      done = undefined
      throw error
    })
    return done
  }
}
