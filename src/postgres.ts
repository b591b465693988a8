import { config, expectInteger, WaxsealError } from './errors.ts'

/** Rows of a query, as PGlite and pg wrap them or as postgres.js returns them. */
type Answer = { readonly rows: readonly unknown[] } | readonly unknown[]

/**
 * The part of a PostgreSQL client that is used: `query` of PGlite, `pg` (a pool or a client), or `unsafe` of
 * postgres.js. Nothing of a client package is imported.
 */
export type Postgres =
  | { query(sql: string, params?: unknown[]): PromiseLike<Answer> }
  // biome-ignore lint/suspicious/noExplicitAny: postgres.js types its parameters by its own generics
  | { unsafe(sql: string, params?: any[]): PromiseLike<readonly unknown[]> }

export type Query = <T = Record<string, unknown>>(sql: string, params?: readonly unknown[]) => Promise<readonly T[]>

/** One way to ask, whichever client it is. */
export function queryOf(db: Postgres): Query {
  const ask = (db as { query?: unknown })?.query ?? (db as { unsafe?: unknown })?.unsafe
  if (typeof ask !== 'function') throw config('db', 'a PostgreSQL client with query() or unsafe()', db)
  return async <T>(sql: string, params: readonly unknown[] = []) => {
    const answer: Answer = await ask.call(db, sql, [...params])
    return ('rows' in answer ? answer.rows : answer) as readonly T[]
  }
}

/**
 * Draws `count` ids (1 to 10,000) from a sequence, because a row's id must be known before it is sealed. Insert them
 * with OVERRIDING SYSTEM VALUE where the column is GENERATED ALWAYS.
 *
 * @example
 * ```ts
 * import type { Postgres } from 'waxseal/postgres'
 * import { reserveIds } from 'waxseal/postgres'
 *
 * export async function newId(db: Postgres): Promise<bigint> {
 *   const [id] = await reserveIds(db, 'customers_id_seq', 1)
 *   return id!
 * }
 * ```
 */
export async function reserveIds(db: Postgres, sequence: string, count: number): Promise<bigint[]> {
  expectInteger('count', count, 1, 10_000)
  const rows = await queryOf(db)<{ id: string }>(
    'select nextval($1::text::regclass)::text as id from generate_series(1, $2::int)',
    [sequence, count],
  )
  if (rows.length !== count) throw new WaxsealError('CONFLICT', `expected ${count} ids, got ${rows.length}`)
  return rows.map((row) => BigInt(row.id))
}
