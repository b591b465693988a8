import { type Postgres, queryOf } from '../../postgres.ts'
import { entryOf, JOB_TABLES, TABLES } from '../books.ts'
import { sleep } from '../pace.ts'
import type { Books, Step } from '../source.ts'

const NOW = '(extract(epoch from clock_timestamp()) * 1000)::bigint'

/** What a step answers; no row when the worker does not hold the range any more. */
export interface StepRow {
  readonly written: string
}

/**
 * Locks the range, so that no two write for it; empty when it is, or its far part, somebody else's, or not as far as the step
 * before. That one may be what is waited for: how far it came is read behind the lock.
 */
export const HELD = `locked as (
    select pass, at_cursor from ${TABLES.range} where job = $1 and n = $2::int and owner = $3 and is_done = 0
      and upper_bound is not distinct from $9::text
    for update
  ), held as (select pass from locked where at_cursor is not distinct from $10::text)`

/** Writes down the failures and how far the range is; says what the batch came to. */
export const STEP = `broken as (
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

/** The number of parameters that {@link HELD} and {@link STEP} have. */
export const STEP_VALUES = 10

export function stepValues(step: Step, offered: number): unknown[] {
  const { job, range, owner, leaseMs, seen } = step
  const { at, was, end, isDone, broken } = entryOf(step)
  return [job, range, owner, leaseMs, at, isDone, JSON.stringify({ seen, offered }), JSON.stringify(broken), end, was]
}

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
    const names = Object.values(TABLES)
    const made = async () => {
      const rows = await query<{ name: string }>(
        'select name from unnest($1::text[]) as t(name) where to_regclass(name) is not null',
        [`{${names.join(',')}}`],
      )
      return new Set(rows.map(({ name }) => name))
    }
    const known = await made()
    for (const [i, name] of names.entries()) {
      if (known.has(name)) continue
      try {
        await query(JOB_TABLES[i]!)
      } catch (error) {
        if (!(await made()).has(name)) throw error // `if not exists` is not safe against a concurrent creation
      }
    }
  }

  return {
    now: NOW,
    query: (sql, params = []) => rolledBackOften(() => query(numbered(sql), params)),
    run: async (sql, params = []) =>
      (await rolledBackOften(() => query(`${numbered(sql)} returning 1`, params))).length,
    prepare() {
      prepared ??= make().catch((error) => {
        prepared = undefined
        throw error
      })
      return prepared
    },
  }
}

const ATTEMPTS = 6

/**
 * A transaction of the application may lock the same rows in another order, or the isolation level may be a strict one:
 * then PostgreSQL rolls one of the two back. A statement that was rolled back whole may simply be sent again.
 */
export async function rolledBackOften<T>(send: () => Promise<T>): Promise<T> {
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
