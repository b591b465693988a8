import { config } from '../../errors.ts'
import { isInTransaction, isLocked, patiently, type Sqlite } from '../../sqlite.ts'
import { entryOf, JOB_TABLES, TABLES } from '../books.ts'
import type { Books, Step, Stepped } from '../source.ts'
import { parameter } from './values.ts'

const NOW = `cast((julianday('now') - 2440587.5) * 86400000 as integer)`

/** One connection that is shared with the application. Each call begins and ends without giving way to anything else. */
export interface Connection {
  query<T>(sql: string, params?: readonly unknown[]): Promise<readonly T[]>
  /** All of `work`, or nothing. */
  transaction<T>(work: (run: Run) => T): Promise<T>
}

/** The number of rows that were changed. */
export type Run = (sql: string, params: readonly unknown[]) => number

/** Calls wait, up to 5 seconds, for a transaction of the application to end, on this connection and on others. */
export function connectionOf(db: Sqlite): Connection {
  function refuseTransaction(): void {
    if (isInTransaction(db)) throw config('db', 'a database that is in no transaction', db)
  }
  const isBusy = (error: unknown): boolean => isLocked(error) || isInTransaction(db)
  function transaction<T>(work: (run: Run) => T): T {
    refuseTransaction()
    db.exec('begin immediate')
    const prepared = new Map<string, ReturnType<Sqlite['prepare']>>()
    const run: Run = (sql, params) => {
      const statement = prepared.get(sql) ?? db.prepare(sql)
      prepared.set(sql, statement)
      return Number(statement.run(...params.map(parameter)).changes)
    }
    try {
      const result = work(run)
      db.exec('commit')
      return result
    } catch (error) {
      try {
        db.exec('rollback')
      } catch {
        // SQLite has rolled back by itself; what went wrong is on its way.
      }
      throw error
    }
  }

  return {
    query: <T>(sql: string, params: readonly unknown[] = []) =>
      patiently(() => {
        refuseTransaction() // what it has not committed may be undone
        return db.prepare(sql).all(...params.map(parameter)) as T[]
      }, isBusy),
    transaction: (work) => patiently(() => transaction(work), isBusy),
  }
}

/** The books of jobs in the same database. */
export function sqliteBooks({ query, transaction }: Connection): Books {
  return {
    now: NOW,
    query,
    run: (sql, params = []) => transaction((run) => run(sql, params)),
    async prepare() {
      const names = Object.values(TABLES)
      const made = await query(
        `select name from sqlite_master where type = 'table' and name in (${names.map(() => '?').join(', ')})`,
        names,
      )
      if (made.length < names.length) await transaction((run) => JOB_TABLES.forEach((sql) => void run(sql, [])))
    },
  }
}

/** The changes of a batch and its step; null when the worker does not hold the range any more. */
export function writeStep(run: Run, step: Step, offered: number, change: () => number): Stepped | null {
  const { job, range, owner, leaseMs, seen } = step
  const { at, was, end, isDone, broken } = entryOf(step)
  const isHeld = run(
    `update ${TABLES.range} set lease_until = ${NOW} + ?
      where job = ? and n = ? and owner = ? and is_done = 0 and upper_bound is ? and at_cursor is ?`,
    [leaseMs, job, range, owner, end, was],
  )
  if (isHeld === 0) return null
  const written = change()
  for (const { row_id, code } of broken) {
    run(
      `insert into ${TABLES.failure} (job, row_id, code, pass)
        select job, ?, ?, pass from ${TABLES.range} where job = ? and n = ?
        on conflict (job, row_id) do update set code = excluded.code, pass = excluded.pass`,
      [row_id, code, job, range],
    )
  }
  run(
    `update ${TABLES.range} set at_cursor = coalesce(?, at_cursor), is_done = ?,
      owner = case when is_done + ? > 0 then null else owner end,
      seen = seen + ?, written = written + ?, raced = raced + ? where job = ? and n = ?`,
    [at, isDone, isDone, seen, written, offered - written, job, range],
  )
  return { written }
}
