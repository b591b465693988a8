import { config, WaxsealError } from '../../errors.ts'
import { type Postgres, queryOf } from '../../postgres.ts'
import { rowId } from '../../records/compile.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { keyIdParameter, quoteColumn, quoteName } from '../../records/sql.ts'
import { sleep } from '../pace.ts'
import { HELD, postgresBooks, STEP, type StepRow, stepValues } from '../postgres/books.ts'
import { asJson, fromClient, hexBytes, type LocalTypes, localTypes } from '../postgres/values.ts'
import type { Change, Filter, ReadRow, RotationSource, SourceRow, Span, Step } from '../source.ts'
import { columnsOf } from '../work.ts'

export type { Postgres } from '../../postgres.ts'
export { JOB_TABLES } from '../postgres/books.ts'

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

/**
 * A PostgreSQL table of a declared record, for jobs. The record's id columns must be the primary key or another
 * unique, not-null key: pages follow them. The index of `records.sql.createIndex` makes finding the rows that are left
 * cheap. A partitioned table is one table.
 *
 * `db` is PGlite, a `pg` pool or client, or a postgres.js instance; several statements of a job may run at once.
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
  options: TableOptions = {},
): RotationSource {
  const query = queryOf(db)
  const { schema, sql } = record
  if (!schema) throw config('record', 'what records() returns', record)
  const { ids, encoding } = schema
  const table = quoteName(schema.table)
  const envelope = quoteColumn(schema.envelopeColumn)
  const own = ids.map((id) => `t.${quoteColumn(id.column)}`)
  const extra = options.select ?? []
  const unknown = Object.keys(options.plaintext ?? {}).find(
    (name) => !schema.moved.some((field) => field.name === name),
  )
  if (unknown !== undefined) throw config(`plaintext.${unknown}`, 'a field that is sealed into another column', unknown)
  const books = postgresBooks(db)
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
    throw config('record', `a column "${column}" in the table ${schema.table}`, undefined)
  }

  /** A condition and its parameters, numbered from `first`. */
  function where(filter: Filter, span: Span, first: number): { text: string; values: unknown[] } {
    const values: unknown[] = []
    const place = (value: unknown): string => `$${first - 1 + values.push(value)}`
    const parts: string[] = []
    if (filter === 'plaintext') parts.push(`t.${envelope} is null`)
    else if (filter === 'sealed') parts.push(`t.${envelope} is not null`)
    else
      parts.push(
        `${sql.keyId} in (${filter.keys.map((id) => place(keyIdParameter(id, encoding))).join(', ') || 'null'})`,
      )
    // The parameters have no cast: PostgreSQL gives them the types of the columns, whatever those are.
    const bound = (cursor: readonly string[]): string =>
      cursor
        .map((text, i) => (ids[i]!.type === 'bytes' ? `decode(${place(text)}::text, 'hex')` : place(text)))
        .join(', ')
    if (span.after) parts.push(`(${own.join(', ')}) > (${bound(span.after)})`)
    if (span.upTo) parts.push(`(${own.join(', ')}) <= (${bound(span.upTo)})`)
    return { text: parts.join(' and '), values }
  }

  const idText = ids.map(({ type }, i) =>
    type === 'bytes' ? `encode(${own[i]}, 'hex') as "id${i}"` : `${own[i]}::text as "id${i}"`,
  )
  const cursorIn = (row: Readonly<Record<string, unknown>>): string[] => ids.map((_, i) => String(row[`id${i}`]))

  return {
    name: schema.table,
    record,
    books,
    columns: (extent) => columnsOf(schema, extent, options.plaintext),
    rowId: (row) => rowId(ids, row) ?? ids.map(({ name }) => String(row[name])).join(','),
    contextOf: (row) => options.context?.(row),
    subjectOf: (row) => options.subject?.(row),

    async countByKey(keyIds) {
      const counts = new Map<string, number>()
      // One query a key: each is served by the index, and `group by` on an expression would not be.
      for (const id of keyIds) {
        const [row] = await query<{ count: string }>(
          `select count(*)::text as count from ${table} as t where ${sql.keyId} = $1`,
          [keyIdParameter(id, encoding)],
        )
        counts.set(id, Number(row?.count))
      }
      return counts
    },

    async count(filter, span = { after: null, upTo: null }) {
      const { text, values } = where(filter, span, 1)
      const [row] = await query<{ count: string }>(
        `select count(*)::text as count from ${table} as t where ${text}`,
        values,
      )
      return Number(row?.count)
    },

    async page(filter, span, limit, extent) {
      const all = await columnTypes()
      const columns = [...columnsOf(schema, extent, options.plaintext)]
      const plain = new Map(extent === 'all' ? schema.columns.map(({ name, node }) => [name, node]) : [])
      const selected = [
        ...idText,
        ...columns.flatMap(([column], i) => [
          `t.${quoteColumn(column)} as "c${i}"`,
          ...(isText(all, column) ? [] : [`${asText(all, column)} as "w${i}"`]),
        ]),
        ...extra.map((column, i) => `t.${quoteColumn(column)} as "x${i}"`),
      ]
      const { text, values } = where(filter, span, 2)
      const rows = await query<Record<string, unknown>>(
        `select ${selected.join(', ')} from ${table} as t where ${text} order by ${own.join(', ')} limit $1::int`,
        [limit, ...values],
      )
      return rows.map((found): ReadRow => {
        const row: Record<string, unknown> = {}
        const was: Record<string, string | null> = {}
        columns.forEach(([column, property], i) => {
          const node = plain.get(property)
          row[property] = node ? fromClient(node, found[`c${i}`]) : found[`c${i}`]
          was[column] = (isText(all, column) ? found[`c${i}`] : found[`w${i}`]) as string | null
        })
        extra.forEach((column, i) => {
          row[column] = found[`x${i}`]
        })
        ids.forEach(({ name, type }, i) => {
          row[name] = type === 'bytes' ? hexBytes(String(found[`id${i}`])) : found[`id${i}`]
        })
        return { row, was, cursor: cursorIn(found) }
      })
    },

    async cut(filter, span, parts) {
      const { text, values } = where(filter, span, 2)
      const names = ids.map((_, i) => `"id${i}"`).join(', ')
      const rows = await query<Record<string, unknown>>(
        `select ${names} from (
            select ${idText.join(', ')}, row_number() over (order by ${own.join(', ')}) as rn, count(*) over () as n
            from ${table} as t where ${text}) as q
          where rn < n and rn % ((n + $1::int - 1) / $1::int) = 0 order by rn`,
        [parts, ...values],
      )
      return rows.map(cursorIn)
    },

    async write(changes, step) {
      const [first] = changes
      const statement: [string, unknown[]] = first
        ? withChanges(first, await columnTypes(), await clock(), changes, step)
        : [`with ${HELD}, moved as (select 1 where false), ${STEP}`, stepValues(step, 0)]
      const [row] = await rolledBackOften(() => query<StepRow>(...statement))
      return row ? { written: Number(row.written) } : null
    },

    async assertSeesAll() {
      const [row] = await query<{ active: boolean }>('select row_security_active($1::text::regclass) as active', [
        table,
      ])
      if (row?.active === false) return
      throw new WaxsealError('CONFIG', 'row-level security may hide rows from this role: use one that bypasses it', {
        table: schema.table,
        argument: 'db',
      })
    },
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
    const fields = [
      ...ids.map((id, i) => `"id${i}" ${typeOf(all, id.column)}`),
      ...expected.map((_, i) => `"w${i}" text`),
      ...set.map((column, i) => `"s${i}" ${typeOf(all, column)}`),
    ]
    const documents = changes.map((change) => ({
      ...Object.fromEntries(
        ids.map(({ type }, i) => [`id${i}`, type === 'bytes' ? `\\x${change.cursor[i]}` : change.cursor[i]]),
      ),
      ...Object.fromEntries(expected.map((column, i) => [`w${i}`, change.expect[column]])),
      ...Object.fromEntries(
        set.map((column, i) => [`s${i}`, asJson(change.set[column], isLocal(typeOf(all, column)))]),
      ),
    }))
    const match = [
      ...ids.map((_, i) => `${own[i]} = j."id${i}"`),
      ...expected.map((column, i) => `${asText(all, column)} is not distinct from j."w${i}"`),
    ]
    const assignments = set.map((column, i) => `${quoteColumn(column)} = j."s${i}"`)
    const text = `with ${HELD}, moved as (
        update ${table} as t set ${assignments.join(', ')}
        from json_to_recordset($10::text::json) as j(${fields.join(', ')})
        where exists (select 1 from held) and ${match.join(' and ')}
        returning 1
      ), ${STEP}`
    return [text, [...stepValues(step, changes.length), JSON.stringify(documents)]]
  }
}

const ATTEMPTS = 6

/**
 * A transaction of the application may lock the same rows in another order, or the isolation level may be a strict one:
 * then PostgreSQL rolls one of the two back. A batch of compare-and-swaps may simply be sent again.
 */
async function rolledBackOften<T>(send: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send()
    } catch (error) {
      const code = (error as { code?: unknown } | null)?.code
      if (attempt === ATTEMPTS || (code !== '40P01' && code !== '40001')) throw error
      await sleep(Math.random() * 20 * 2 ** attempt)
    }
  }
}
