import { config, WaxsealError } from '../../errors.ts'
import type { Schema } from '../../records/compile.ts'
import { keyIdIn, type Quoting } from '../../records/sql.ts'
import type { Place } from '../dialect.ts'
import { isBinary, isInteger, isText, type SqlColumn } from './column.ts'
import type { Connection } from './connection.ts'
import { base64Of, textOf } from './values.ts'

/** What information_schema says about a table, and how its columns are read and compared, whatever their types. */

const quote = (name: string): string => `\`${name.replaceAll('`', '``')}\``

/** With backticks, whatever the sql_mode. A name may stand behind its database and a dot. */
export const QUOTING: Quoting = { name: (name) => name.split('.').map(quote).join('.'), column: quote }

export interface SqlTable {
  column(name: string): SqlColumn
  readonly all: readonly SqlColumn[]
  readonly isVersioned: boolean
  /** The server takes no writes of its users, as a replica should not. */
  readonly isReadOnly: boolean
  /** Bytes of the largest statement. */
  readonly maxPacket: number
}

/** Bytes that stand for a value and for no other one; so comparing them minds neither collation nor rounding. */
export function exact(column: SqlColumn, own: string): string {
  if (isBinary(column)) return own
  if (isText(column)) return `cast(convert(${own} using utf8mb4) as binary)`
  if (column.type === 'bit') return `cast(cast(${own} + 0 as char) as binary)`
  if (column.type === 'float') return `cast(cast(cast(${own} as double) as char) as binary)`
  // Seconds since 1970: text of it would depend on the time zone of the session.
  if (column.type === 'timestamp') return `cast(cast(unix_timestamp(${own}) as char) as binary)`
  return `cast(convert(cast(${own} as char) using utf8mb4) as binary)`
}

/** NULL is no text. Bytes that are no UTF-8 become NULL in MySQL, and are another text. */
export const differs = (text: string, than: string): string =>
  `${text} is not null and not (cast(convert(${text} using utf8mb4) as binary) <=> ${than})`

/** An id's text as it compares with its column, by the column's own type and collation. `text` is an expression. */
export function typed(column: SqlColumn, text: string): string {
  const { charset, collation, type, isUnsigned } = column
  if (isBinary(column)) return `unhex(${text})`
  if (isText(column)) return `convert(${utf8(text)} using ${charset}) collate ${collation}`
  if (isInteger(column)) return `cast(${text} as ${isUnsigned ? 'unsigned' : 'signed'})`
  if (type === 'decimal') return `cast(${text} as decimal(65, 0))`
  return type === 'uuid' ? `cast(${text} as uuid)` : text
}

/** How an id stands in a statement or a document for {@link typed}: in ASCII, for any character set of a connection. */
export const idParameter = (column: SqlColumn, text: string): string => (isText(column) ? base64Of(text) : text)

export const utf8 = (base64: string): string => `convert(from_base64(${base64}) using utf8mb4)`

/** A text that may be any, as a parameter. */
const nameParameter = (name: string, place: Place): string =>
  // Only where it must be: information_schema is quick for names that it knows before it begins to look.
  /^[\x20-\x7e]*$/.test(name) ? place(name) : utf8(place(base64Of(name)))

/** Fails for what is no table of a transactional engine: a view hides rows, and a batch must be written whole. */
export async function readTable({ query }: Pick<Connection, 'query'>, schema: Schema): Promise<SqlTable> {
  const [name, ...before] = schema.table.split('.').reverse() as [string, ...string[]]
  const values: unknown[] = []
  const place: Place = (value) => {
    values.push(value)
    return '?'
  }
  const database = before.length > 0 ? nameParameter(before.reverse().join('.'), place) : 'database()'
  const here = `t.table_schema = ${database} and t.table_name = ${nameParameter(name, place)}`
  const [table] = await query<Record<string, unknown>>(
    `select t.table_type as kind, (select max(e.transactions) from information_schema.engines e where e.engine = t.engine)
        as transactions, t.engine as engine, cast(@@autocommit + 0 as char) as autocommit,
        cast(@@max_allowed_packet as char) as packet, cast(@@global.read_only as char) as read_only,
        cast(@@global.innodb_read_only as char) as no_writes
      from information_schema.tables t where ${here}`,
    values,
  )
  if (!table) throw config('record', `a table ${schema.table}`, undefined)
  const kind = String(table.kind)
  if (kind !== 'BASE TABLE' && kind !== 'SYSTEM VERSIONED') {
    throw new WaxsealError(
      'CONFIG',
      `"record" expected a table, got a ${kind.toLowerCase()}: name the table behind it`,
      {
        table: schema.table,
        argument: 'record',
      },
    )
  }
  if (table.transactions !== 'YES') {
    throw new WaxsealError('CONFIG', `"record" expected a table of InnoDB, got one of ${table.engine}`, {
      table: schema.table,
      argument: 'record',
    })
  }
  if (Number(table.autocommit) !== 1) throw config('db', 'a client with autocommit', undefined)
  const rows = await query<Record<string, unknown>>(
    `select cast(convert(t.column_name using utf8mb4) as binary) as name, t.data_type as type, t.column_type as full,
        t.character_set_name as charset, t.collation_name as collation,
        cast(t.character_maximum_length as char) as length, t.extra as extra,
        cast(convert(t.generation_expression using utf8mb4) as binary) as expression
      from information_schema.columns t where ${here} order by t.ordinal_position`,
    values,
  )
  const all = rows.map(columnOf)
  const known = new Map(all.map((column) => [column.name.toLowerCase(), column]))
  return {
    all,
    isVersioned: kind === 'SYSTEM VERSIONED',
    isReadOnly: [table.read_only, table.no_writes].some((set) => !/^(0|off)$/i.test(textOf(set))),
    maxPacket: Number(table.packet),
    column(name) {
      const column = known.get(name.toLowerCase())
      if (column) return column
      throw config('record', `a column "${name}" in the table ${schema.table}`, undefined)
    },
  }
}

function columnOf(row: Record<string, unknown>): SqlColumn {
  const word = (value: unknown): string | undefined => (value === null ? undefined : textOf(value).toLowerCase())
  return {
    name: textOf(row.name),
    type: word(row.type)!,
    isUnsigned: / unsigned\b/i.test(textOf(row.full)),
    charset: word(row.charset),
    collation: word(row.collation),
    length: row.length === null ? undefined : Number(row.length),
    isUpdatedByItself: /on update/i.test(textOf(row.extra)),
    expression: row.expression === null ? undefined : textOf(row.expression) || undefined,
  }
}

/** The generated column of {@link keyIdIndex}. */
export const keyIdColumn = ({ envelopeColumn }: Schema): string => `${envelopeColumn.slice(0, 57)}_key_id`

/** Character sets in which ASCII is not the bytes that it is in UTF-8: a key id in one equals no parameter. */
const WIDE = /^(ucs2|utf16(le)?|utf32)$/

/** The key id of a row: the generated column where there is one, because an index serves nothing else everywhere. */
export function keyIdOf(table: SqlTable, schema: Schema): string {
  const { encoding, envelopeColumn } = schema
  const name = keyIdColumn(schema)
  const column = table.all.find((each) => each.expression !== undefined && each.name === name)
  const computed = keyIdIn(`t.${quote(envelopeColumn)}`, encoding)
  const isWide = WIDE.test(table.column(envelopeColumn).charset ?? '')
  if (!column && isWide) return `cast(convert(${computed} using utf8mb4) as binary)`
  if (!column) return encoding === 'text' ? `cast(${computed} as binary)` : computed
  if (isWide)
    throw config('record', `an envelope column of a character set that has ASCII, beside "${name}"`, undefined)
  const bare = (sql: string): string => sql.replace(/[\s`"()]/g, '').toLowerCase()
  // A column that computes something else would count rows wrongly, and a version could be retired that is in use.
  if (bare(column.expression!) === bare(keyIdIn(quote(envelopeColumn), encoding))) return `t.${quote(name)}`
  throw config('record', `a column "${name}" as keyIdIndex() makes it`, undefined)
}

/**
 * A comparison of rows, column by column: MySQL takes `(a, b) > (x, y)`, and reads the whole index for it. What comes
 * first bounds the part of the index that is read.
 */
export function compareExpanded(own: readonly string[], than: 'behind' | 'upTo', bound: (i: number) => string): string {
  const [beyond, last, first] = than === 'behind' ? ['>', '>', '>='] : ['<', '<=', '<=']
  const from = (i: number): string =>
    i === own.length - 1
      ? `${own[i]} ${last} ${bound(i)}`
      : `(${own[i]} ${beyond} ${bound(i)} or ${own[i]} = ${bound(i)} and ${from(i + 1)})`
  return own.length === 1 ? from(0) : `${own[0]} ${first} ${bound(0)} and ${from(0)}`
}
