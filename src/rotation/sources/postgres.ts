import { toHex } from '../../bytes.ts'
import { config, WaxsealError } from '../../errors.ts'
import { type Postgres, queryOf } from '../../postgres.ts'
import { rowId } from '../../records/compile.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { keyIdParameter, quoteColumn, quoteName } from '../../records/sql.ts'
import { TABLES } from '../ledger.ts'
import type { Books, Change, Filter, ReadRow, RotationSource, SourceRow, Span, Step } from '../source.ts'
import { columnsOf } from '../work.ts'

export type { Postgres } from '../../postgres.ts'

/** The statements that make the tables of the books, for your migrations; they are also run when a job begins. */
export const JOB_TABLES: readonly string[] = [
  `create table if not exists ${TABLES.job} (job text primary key, total bigint not null, passes int not null,
    seen bigint not null, written bigint not null, raced bigint not null, failed bigint not null,
    started_at bigint not null, finished_at bigint)`,
  `create table if not exists ${TABLES.range} (job text not null, n int not null, pass int not null,
    lower_bound text, upper_bound text, at_cursor text, is_done int not null, owner text, lease_until bigint,
    seen bigint not null, written bigint not null, raced bigint not null, primary key (job, n))`,
  `create table if not exists ${TABLES.failure} (job text not null, row_id text not null, code text not null,
    pass int not null, primary key (job, row_id))`,
]

const NOW = '(extract(epoch from clock_timestamp()) * 1000)::bigint'

export interface TableOptions {
  /** Columns to read besides, that `context` needs. */
  readonly select?: readonly string[]
  /** The values of the record's declared context for a row; needed by all jobs that open rows. */
  readonly context?: (row: SourceRow) => SourceRow
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
  const books = postgresBooks(db)
  let types: Promise<ReadonlyMap<string, string>> | undefined

  /** Text compares as it is; anything else by the text that PostgreSQL makes of it. */
  const isText = (all: ReadonlyMap<string, string>, column: string): boolean => typeOf(all, column) === 'text'

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
    rowId: (row) => rowId(ids, row) ?? 'unknown',
    contextOf: (row) => options.context?.(row),

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
      const columns = [...columnsOf(schema, extent)]
      const selected = [
        ...idText,
        ...columns.flatMap(([column], i) => [
          `t.${quoteColumn(column)} as "c${i}"`,
          ...(isText(all, column) ? [] : [`t.${quoteColumn(column)}::text as "w${i}"`]),
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
          row[property] = found[`c${i}`]
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
      const [row] = first
        ? await query<StepRow>(...withChanges(first, await columnTypes(), changes, step))
        : await query<StepRow>(`with ${HELD}, moved as (select 1 where false), ${STEP}`, stepValues(step, 0))
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
      ...Object.fromEntries(set.map((column, i) => [`s${i}`, asJson(change.set[column])])),
    }))
    const match = [
      ...ids.map((_, i) => `${own[i]} = j."id${i}"`),
      ...expected.map((column, i) => {
        const stored = `t.${quoteColumn(column)}`
        return `${isText(all, column) ? stored : `${stored}::text`} is not distinct from j."w${i}"`
      }),
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

interface StepRow {
  readonly written: string
}

/** Locks the range, so that no two workers write for it; empty when it is, or its far part, somebody else's. */
const HELD = `held as (
    select pass from ${TABLES.range} where job = $1 and n = $2::int and owner = $3 and is_done = 0
      and upper_bound is not distinct from $9::text
    for update
  )`

/** Writes down the failures and how far the range is; says what the batch came to. */
const STEP = `broken as (
    insert into ${TABLES.failure} (job, row_id, code, pass)
    select $1, f.row_id, f.code, held.pass from json_to_recordset($8::text::json) as f(row_id text, code text), held
    on conflict (job, row_id) do update set code = excluded.code, pass = excluded.pass
  ), counted as (select count(*) as n from moved)
  update ${TABLES.range} as r set at_cursor = coalesce($5::text, r.at_cursor), is_done = $6::int,
    owner = case when $6::int = 1 then null else r.owner end,
    lease_until = ${NOW} + $4::int, seen = r.seen + ($7::text::json ->> 'seen')::int,
    written = r.written + counted.n, raced = r.raced + ($7::text::json ->> 'offered')::int - counted.n
  from held, counted where r.job = $1 and r.n = $2::int
  returning counted.n::text as written`

function stepValues(step: Step, offered: number): unknown[] {
  const { job, range, owner, leaseMs, upTo, cursor, isDone, seen, failures } = step
  const codes = new Map(failures.map(({ rowId: id, code }) => [id, code]))
  const broken = Array.from(codes, ([row_id, code]) => ({ row_id, code }))
  const [at, end] = [cursor, upTo].map((place) => place && JSON.stringify(place))
  return [
    job,
    range,
    owner,
    leaseMs,
    at,
    isDone ? 1 : 0,
    JSON.stringify({ seen, offered }),
    JSON.stringify(broken),
    end,
  ]
}

/** Values as json_to_recordset reads them: bytes in PostgreSQL's hexadecimal form, dates as ISO 8601. */
function asJson(value: unknown): unknown {
  if (value instanceof Uint8Array) return `\\x${toHex(value)}`
  if (typeof value === 'bigint') return String(value)
  return value ?? null
}

const hexBytes = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))

/** The books of jobs in the same database. */
export function postgresBooks(db: Postgres): Books {
  const query = queryOf(db)
  const numbered = (sql: string): string => {
    let n = 0
    return sql.replace(/\?/g, () => `$${++n}`)
  }
  let prepared: Promise<void> | undefined

  /** Made only where they are missing, so that a role that may not create tables can use those of a migration. */
  async function make(): Promise<void> {
    for (const [i, table] of Object.values(TABLES).entries()) {
      const exists = async () =>
        (await query<{ there: boolean }>('select to_regclass($1::text) is not null as there', [table]))[0]?.there
      if (await exists()) continue
      try {
        await query(JOB_TABLES[i]!)
      } catch (error) {
        if (!(await exists())) throw error // `if not exists` is not safe against a concurrent creation
      }
    }
  }

  return {
    now: NOW,
    query: (sql, params = []) => query(numbered(sql), params),
    run: async (sql, params = []) => (await query(`${numbered(sql)} returning 1`, params)).length,
    prepare() {
      prepared ??= make().catch((error) => {
        prepared = undefined
        throw error
      })
      return prepared
    },
  }
}
