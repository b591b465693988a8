import { ascii, toHex } from '../../bytes.ts'
import { entryOf, TABLES } from '../books.ts'
import type { Books, Step, Stepped } from '../source.ts'
import type { Connection, Session } from './connection.ts'
import { textOf } from './values.ts'

// In UTC, because an hour of local time may come twice.
const NOW = `(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000)`

const ASCII = 'character set ascii collate ascii_bin'
const OPTIONS = 'engine = InnoDB'

/**
 * The statements that make the tables of the books, for your migrations; they are also run when a job begins. A
 * `row_id` is UTF-8 in bytes, so that ids are told apart whatever the collation.
 */
export const JOB_TABLES: readonly string[] = [
  `create table if not exists ${TABLES.job} (job varchar(512) ${ASCII} primary key, name varchar(512) ${ASCII} not null,
    run int not null, total bigint,
    passes int not null, seen bigint not null, written bigint not null, raced bigint not null, failed bigint not null,
    started_at bigint not null, finished_at bigint) ${OPTIONS}`,
  `create table if not exists ${TABLES.range} (job varchar(512) ${ASCII} not null, n int not null, pass int not null,
    lower_bound text ${ASCII}, upper_bound text ${ASCII}, at_cursor text ${ASCII}, is_done int not null,
    owner varchar(64) ${ASCII}, lease_until bigint, seen bigint not null, written bigint not null,
    raced bigint not null, primary key (job, n)) ${OPTIONS}`,
  `create table if not exists ${TABLES.failure} (job varchar(512) ${ASCII} not null, row_id varbinary(1800) not null,
    code varchar(64) ${ASCII} not null, pass int not null, primary key (job, row_id)) ${OPTIONS}`,
]

/** The books of jobs in the same database. */
export function mysqlBooks({ query, run, transaction }: Connection): Books {
  let prepared: Promise<void> | undefined

  /** Made only where they are missing, so that a user who may not create tables can use those of a migration. */
  async function make(): Promise<void> {
    const names = Object.values(TABLES)
    const made = await query<{ name: unknown }>(
      `select lower(table_name) as name from information_schema.tables
        where table_schema = database() and table_name in (${names.map(() => '?').join(', ')})`,
      names,
    )
    const known = new Set(made.map(({ name }) => textOf(name)))
    for (const [i, name] of names.entries()) if (!known.has(name)) await run(JOB_TABLES[i]!)
  }

  return {
    now: NOW,
    async query<T>(sql: string, params: readonly unknown[] = []) {
      const rows = await query<Record<string, unknown>>(sql, params)
      return rows.map((row) => Object.fromEntries(Object.entries(row).map(([k, v]) => [k, text(v)])) as T)
    },
    run: (sql, params = []) => transaction((session) => session.run(sql, params)),
    prepare() {
      prepared ??= make().catch((error) => {
        prepared = undefined
        throw error
      })
      return prepared
    },
  }
}

const text = (value: unknown): unknown => (value instanceof Uint8Array ? textOf(value) : value)

/** The changes of a batch and its step; null when the worker does not hold the range any more. */
export async function writeStep(
  session: Session,
  step: Step,
  offered: number,
  change: () => Promise<number>,
): Promise<Stepped | null> {
  const { job, range, owner, leaseMs, seen } = step
  const { at, was, end, isDone, broken } = entryOf(step)
  const [held] = await session.query<{ pass: unknown }>(
    `select pass from ${TABLES.range} where job = ? and n = ? and owner = ? and is_done = 0 and upper_bound <=> ?
      and at_cursor <=> ? for update`,
    [job, range, owner, end, was],
  )
  if (!held) return null
  const written = await change()
  const pass = Number(held.pass)
  for (const { row_id, code } of broken) {
    await session.run(
      `insert into ${TABLES.failure} (job, row_id, code, pass) values (?, unhex(?), ?, ?)
        on duplicate key update code = ?, pass = ?`,
      [job, toHex(ascii(row_id)), code, pass, code, pass],
    )
  }
  await session.run(
    `update ${TABLES.range} set at_cursor = coalesce(?, at_cursor), is_done = ?,
      owner = case when ? = 1 then null else owner end, lease_until = ${NOW} + ?,
      seen = seen + ?, written = written + ?, raced = raced + ? where job = ? and n = ?`,
    [at, isDone, isDone, leaseMs, seen, written, offered - written, job, range],
  )
  return { written }
}
