import type { ContextType } from '../context.ts'
import { config } from '../errors.ts'
import { type Node, rowId } from '../records/compile.ts'
import type { Records } from '../records/records.ts'
import type { Declaration } from '../records/schema.ts'
import { keyIdParameter, quoteColumn, quoteName } from '../records/sql.ts'
import type {
  Books,
  Change,
  Extent,
  Filter,
  ReadRow,
  RotationSource,
  SourceRow,
  Span,
  Step,
  Stepped,
} from './source.ts'
import { hexBytes } from './values.ts'
import { columnsOf } from './work.ts'

/** What the sources share: which rows are read, in which order, and how a row that was read is told apart. */

export interface TableOptions {
  /** Columns to read besides, that `context` or `subject` needs. */
  readonly select?: readonly string[]
  /** Columns of the plaintext of fields that are sealed `into` another, where they are not called as the property. */
  readonly plaintext?: Readonly<Record<string, string>>
  /** The values of the record's declared context for a row; needed by all jobs that open rows. */
  readonly context?: (row: SourceRow) => SourceRow
  /** Whose data a row is, of its ids and the columns of `select`: for the list of an incident. */
  readonly subject?: (row: SourceRow) => string | undefined
}

export type Found = Readonly<Record<string, unknown>>

/** How columns are read. The table is called `t` in every statement. */
export interface Cells {
  /** What to select of a column as number `i`. */
  select(column: string, i: number): readonly string[]
  /** The value of a plaintext field, or of a stored column (no node). */
  value(found: Found, column: string, i: number, node: Node | undefined): unknown
  /** The column as text that the database compares with. */
  was(found: Found, column: string, i: number): string | null
  selectExtra(column: string, i: number): readonly string[]
  extra(found: Found, i: number): unknown
}

/** What differs from database to database. */
export interface Dialect {
  readonly books: Books
  query<T>(sql: string, values: readonly unknown[]): Promise<readonly T[]>
  /** Parameter number `n`, from 1. They stand in the statement in this order, each once. */
  place(n: number): string
  /** The id column as text, for a cursor. */
  idText(own: string, type: ContextType): string
  /** What that text compares as with the id column. */
  bound(text: string, type: ContextType, place: (value: unknown) => string): string
  cells(extent: Extent): Promise<Cells>
  write(changes: readonly Change[], step: Step): Promise<Stepped | null>
  assertSeesAll(): Promise<void>
}

export function tableSource<D extends Declaration>(
  record: Records<D>,
  options: TableOptions,
  dialect: Dialect,
): RotationSource {
  const { schema, sql } = record
  const { ids, encoding } = schema
  const { query, books, idText } = dialect
  const table = quoteName(schema.table)
  const envelope = quoteColumn(schema.envelopeColumn)
  const own = ids.map((id) => `t.${quoteColumn(id.column)}`)
  const extra = options.select ?? []
  const unknown = Object.keys(options.plaintext ?? {}).find(
    (name) => !schema.moved.some((field) => field.name === name),
  )
  if (unknown !== undefined) throw config(`plaintext.${unknown}`, 'a field that is sealed into another column', unknown)

  /** A condition and its parameters. */
  function where(filter: Filter, span: Span): { text: string; values: unknown[] } {
    const values: unknown[] = []
    const place = (value: unknown): string => dialect.place(values.push(value))
    const parts: string[] = []
    if (filter === 'plaintext') parts.push(`t.${envelope} is null`)
    else if (filter === 'sealed') parts.push(`t.${envelope} is not null`)
    else
      parts.push(
        `${sql.keyId} in (${filter.keys.map((id) => place(keyIdParameter(id, encoding))).join(', ') || 'null'})`,
      )
    const bound = (cursor: readonly string[]): string =>
      cursor.map((text, i) => dialect.bound(text, ids[i]!.type, place)).join(', ')
    if (span.after) parts.push(`(${own.join(', ')}) > (${bound(span.after)})`)
    if (span.upTo) parts.push(`(${own.join(', ')}) <= (${bound(span.upTo)})`)
    return { text: parts.join(' and '), values }
  }

  const known = new Map<Extent, ReadonlyMap<string, string>>()
  /** Asked for every row of a job. */
  function columns(extent: Extent): ReadonlyMap<string, string> {
    const found = known.get(extent) ?? columnsOf(schema, extent, options.plaintext)
    known.set(extent, found)
    return found
  }

  const idTexts = ids.map(({ type }, i) => `${idText(own[i]!, type)} as "id${i}"`)
  const cursorIn = (row: Found): string[] => ids.map((_, i) => String(row[`id${i}`]))

  async function countWhere(text: string, values: readonly unknown[]): Promise<number> {
    // As text, because clients give a count as a number, a bigint or text.
    const [row] = await query<{ count: string }>(
      `select cast(count(*) as text) as count from ${table} as t where ${text}`,
      values,
    )
    return Number(row?.count)
  }

  return {
    name: schema.table,
    record,
    books,
    columns,
    rowId: (row) => rowId(ids, row) ?? ids.map(({ name }) => String(row[name])).join(','),
    contextOf: (row) => options.context?.(row),
    subjectOf: (row) => options.subject?.(row),

    async countByKey(keyIds) {
      const counts = new Map<string, number>()
      // One query a key: each is served by the index, and `group by` on an expression would not be.
      for (const id of keyIds) {
        counts.set(id, await countWhere(`${sql.keyId} = ${dialect.place(1)}`, [keyIdParameter(id, encoding)]))
      }
      return counts
    },

    count(filter, span = { after: null, upTo: null }) {
      const { text, values } = where(filter, span)
      return countWhere(text, values)
    },

    async page(filter, span, limit, extent) {
      const cells = await dialect.cells(extent)
      const stored = [...columns(extent)]
      const plain = new Map(extent === 'all' ? schema.columns.map(({ name, node }) => [name, node]) : [])
      const selected = [
        ...idTexts,
        ...stored.flatMap(([column], i) => cells.select(column, i)),
        ...extra.flatMap((column, i) => cells.selectExtra(column, i)),
      ]
      const { text, values } = where(filter, span)
      const rows = await query<Found>(
        `select ${selected.join(', ')} from ${table} as t where ${text} order by ${own.join(', ')}
          limit ${Math.trunc(limit)}`,
        values,
      )
      return rows.map((found): ReadRow => {
        const row: Record<string, unknown> = {}
        const was: Record<string, string | null> = {}
        stored.forEach(([column, property], i) => {
          row[property] = cells.value(found, column, i, plain.get(property))
          was[column] = cells.was(found, column, i)
        })
        extra.forEach((column, i) => {
          row[column] = cells.extra(found, i)
        })
        ids.forEach(({ name, type }, i) => {
          row[name] = type === 'bytes' ? hexBytes(String(found[`id${i}`])) : found[`id${i}`]
        })
        return { row, was, cursor: cursorIn(found) }
      })
    },

    async cut(filter, span, parts) {
      const { text, values } = where(filter, span)
      const names = ids.map((_, i) => `"id${i}"`).join(', ')
      const n = Math.trunc(parts)
      const rows = await query<Found>(
        `select ${names} from (
            select ${idTexts.join(', ')}, row_number() over (order by ${own.join(', ')}) as rn, count(*) over () as n
            from ${table} as t where ${text}) as q
          where rn < n and rn % ((n + ${n} - 1) / ${n}) = 0 order by rn`,
        values,
      )
      return rows.map(cursorIn)
    },

    write: dialect.write,
    assertSeesAll: dialect.assertSeesAll,
  }
}
