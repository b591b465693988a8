import { ascii, asciiJson, toHex } from '../bytes.ts'
import { defaultEngine } from '../engine/index.ts'
import type { Cursor, Step } from './source.ts'

/** The tables of the books, and how runs, jobs, cursors and steps are called there. */

export const TABLES = { job: 'waxseal_job', range: 'waxseal_range', failure: 'waxseal_failure' } as const

/** The statements that make the tables of the books, for your migrations; they are also run when a job begins. */
export const JOB_TABLES: readonly string[] = [
  `create table if not exists ${TABLES.job} (job text primary key, name text not null, run int not null,
    total bigint, passes int not null, seen bigint not null, written bigint not null, raced bigint not null,
    failed bigint not null, started_at bigint not null, finished_at bigint)`,
  `create table if not exists ${TABLES.range} (job text not null, n int not null, pass int not null,
    lower_bound text, upper_bound text, at_cursor text, is_done int not null, owner text, lease_until bigint,
    seen bigint not null, written bigint not null, raced bigint not null, primary key (job, n))`,
  `create table if not exists ${TABLES.failure} (job text not null, row_id text not null, code text not null,
    pass int not null, primary key (job, row_id))`,
]

/** The name of a run in the books. */
export const runOf = (job: string, run: number): string => `${job} #${run}`

export const cursorOf = (text: string | null): Cursor | null => (text === null ? null : (JSON.parse(text) as Cursor))
export const textOf = (cursor: Cursor | null): string | null => (cursor === null ? null : asciiJson(cursor))

/** What an index of every database takes beside the id of a row. */
const MAX_JOB_NAME = 500

/** The name of a job in the books: what is done, and to what. As JSON, because names may hold whatever stands between. */
export function jobName(kind: string, ...target: readonly string[]): string {
  const name = `${kind} ${asciiJson(target)}`
  if (name.length <= MAX_JOB_NAME) return name
  return `${name.slice(0, MAX_JOB_NAME - 65)} ${toHex(defaultEngine().sha512(ascii(name)).subarray(0, 32))}`
}

/** A step as the books have it; a row that broke is named once. */
export function entryOf({ cursor, after, upTo, isDone, failures }: Step) {
  const codes = new Map(failures.map(({ rowId, code }) => [rowId, code]))
  const broken = Array.from(codes, ([row_id, code]) => ({ row_id, code }))
  return { at: textOf(cursor), was: textOf(after), end: textOf(upTo), isDone: isDone ? 1 : 0, broken }
}
