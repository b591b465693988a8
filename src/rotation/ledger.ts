import { WaxsealError } from '../errors.ts'
import type { Books, Cursor, RowFailure, Span, Step } from './source.ts'

/**
 * The books of jobs: which job, which ranges of its table, who holds each and how far it is. A range is held by lease,
 * by the database's clock; a worker that dies is followed by whoever comes when its lease has run out.
 */

export const TABLES = { job: 'waxseal_job', range: 'waxseal_range', failure: 'waxseal_failure' } as const

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

export interface Totals {
  /** Rows that were read. */
  readonly seen: number
  /** Rows that were changed. */
  readonly written: number
  /** Rows that somebody else changed first; they were read again. */
  readonly raced: number
}

/** A range of the table, and how far its worker is. */
export interface Range {
  readonly n: number
  /** The rows that are left of it. */
  readonly span: Span
  readonly cursor: Cursor | null
}

export interface State {
  readonly isFinished: boolean
  /** 0 until whoever entered the job has cut the table. */
  readonly ranges: number
  readonly running: number
  readonly pass: number
}

export interface Ledger {
  /**
   * Enters a job, or joins the one that is under way. Resolves to the rows that were to be dealt with when it began.
   * With `once`, a job that is finished stays so.
   */
  open(total: () => Promise<number>, once?: boolean): Promise<number>
  /** Enters the ranges between the cuts, all or none: two workers may cut differently at the same time. */
  fill(cuts: readonly Cursor[]): Promise<void>
  state(): Promise<State>
  /** A range that nobody holds. */
  claim(owner: string, leaseMs: number): Promise<Range | null>
  /** The range as it is now, if the worker still holds it. */
  held(owner: string, n: number): Promise<Range | null>
  running(): Promise<readonly Range[]>
  /** Takes the far part of a range that somebody holds: rows behind `at`. Null when it moved on meanwhile. */
  split(range: Range, at: Cursor, owner: string, leaseMs: number): Promise<Range | null>
  /** Begins the pass behind `pass` over the whole table, unless somebody did, or a range is not done. */
  again(pass: number): Promise<void>
  /** Lets go of what a worker holds, so that others need not wait for its lease. */
  release(owner: string): Promise<void>
  totals(): Promise<Totals>
  failures(limit: number): Promise<readonly RowFailure[]>
  /** Of one pass, or of all: a row that broke in an earlier pass may have been mended. */
  failureCount(pass?: number): Promise<number>
  /** Writes the totals down and drops the ranges, unless a range is not done. */
  finish(): Promise<void>
}

interface RangeRow {
  readonly n: number
  readonly lower_bound: string | null
  readonly upper_bound: string | null
  readonly at_cursor: string | null
}

const SUMS = ['seen', 'written', 'raced'] as const
type Sums = Readonly<Record<(typeof SUMS)[number], unknown>>
const RANGES_PER_PASS = 1_000_000

const cursorOf = (text: string | null): Cursor | null => (text === null ? null : (JSON.parse(text) as Cursor))
const textOf = (cursor: Cursor | null): string | null => (cursor === null ? null : JSON.stringify(cursor))

/** A step as the books have it; a row that broke is named once. */
export function entryOf({ cursor, upTo, isDone, failures }: Step) {
  const codes = new Map(failures.map(({ rowId, code }) => [rowId, code]))
  const broken = Array.from(codes, ([row_id, code]) => ({ row_id, code }))
  return { at: textOf(cursor), end: textOf(upTo), isDone: isDone ? 1 : 0, broken }
}

const rangeOf = ({ n, lower_bound, upper_bound, at_cursor }: RangeRow): Range => {
  const cursor = cursorOf(at_cursor)
  return { n: Number(n), cursor, span: { after: cursor ?? cursorOf(lower_bound), upTo: cursorOf(upper_bound) } }
}

/** Every change is one statement, and any two of them may run at once, or be followed by the end of the process. */
export function ledgerOf(books: Books, job: string): Ledger {
  const { query, run, now } = books
  const columns = 'n, lower_bound, upper_bound, at_cursor'
  const free = `job = ? and is_done = 0 and (owner is null or lease_until < ${now})`
  const finished = `select 1 from ${TABLES.job} where job = ? and finished_at is not null`
  const undone = `select 1 from ${TABLES.range} u where u.job = ? and u.is_done = 0`
  const lastPass = `select max(p.pass) from ${TABLES.range} p where p.job = ?`

  /** An insert that somebody else may have made already. */
  async function once(sql: string, params: readonly unknown[]): Promise<boolean> {
    try {
      return (await run(sql, params)) > 0
    } catch (error) {
      if (isDuplicate(error)) return false
      throw error
    }
  }

  async function one<T>(sql: string, params: readonly unknown[] = [job]): Promise<T | undefined> {
    return (await query<T>(sql, params))[0]
  }

  async function held(owner: string, n: number): Promise<Range | null> {
    const row = await one<RangeRow>(
      `select ${columns} from ${TABLES.range} where job = ? and n = ? and owner = ? and is_done = 0`,
      [job, n, owner],
    )
    return row ? rangeOf(row) : null
  }

  return {
    async open(total, isOnce = false) {
      await books.prepare()
      const known = () =>
        one<{ total: unknown; finished_at: unknown }>(`select total, finished_at from ${TABLES.job} where job = ?`)
      const entered = await known()
      if (entered && (isOnce || entered.finished_at === null)) return Number(entered.total)
      const rows = await total()
      if (!entered) {
        await once(
          `insert into ${TABLES.job} (job, total, passes, seen, written, raced, failed, started_at)
            values (?, ?, 1, 0, 0, 0, 0, ${now})`,
          [job, rows],
        )
      } else {
        // Whoever finished the last run may have died before it dropped the ranges.
        await run(`delete from ${TABLES.range} where job = ? and exists (${finished})`, [job, job])
        await run(`delete from ${TABLES.failure} where job = ? and exists (${finished})`, [job, job])
        await run(
          `update ${TABLES.job} set total = ?, passes = 1, seen = 0, written = 0, raced = 0, failed = 0,
            started_at = ${now}, finished_at = null where job = ? and finished_at is not null`,
          [rows, job],
        )
      }
      return Number((await known())?.total ?? rows)
    },

    async fill(cuts) {
      const bounds = [null, ...cuts.map(textOf), null]
      const rows = Array.from(
        { length: bounds.length - 1 },
        (_, i) => `(?, ${RANGES_PER_PASS + i}, 1, ?, ?, 0, 0, 0, 0)`,
      )
      await once(
        `insert into ${TABLES.range} (job, n, pass, lower_bound, upper_bound, is_done, seen, written, raced)
          values ${rows.join(', ')}`,
        rows.flatMap((_, i) => [job, bounds[i], bounds[i + 1]]),
      )
    },

    async state() {
      const row = await one<{ finished_at: unknown; ranges: unknown; running: unknown; pass: unknown }>(
        `select j.finished_at, count(r.n) as ranges, sum(case when r.is_done = 0 then 1 else 0 end) as running,
            max(r.pass) as pass
          from ${TABLES.job} j left join ${TABLES.range} r on r.job = j.job where j.job = ? group by j.job, j.finished_at`,
      )
      if (!row) throw new WaxsealError('CONFLICT', `the job was deleted from ${TABLES.job} while it ran`)
      return {
        isFinished: row.finished_at !== null,
        ranges: Number(row.ranges),
        running: Number(row.running),
        pass: Number(row.pass ?? 1),
      }
    },

    async claim(owner, leaseMs) {
      for (;;) {
        const found = await one<RangeRow>(`select ${columns} from ${TABLES.range} where ${free} order by n limit 1`)
        if (!found) return null
        const taken = await run(
          `update ${TABLES.range} set owner = ?, lease_until = ${now} + ? where ${free} and n = ?`,
          [owner, leaseMs, job, found.n],
        )
        const range = taken > 0 ? await held(owner, found.n) : null
        if (range) return range
      }
    },

    held,

    async running() {
      const rows = await query<RangeRow>(`select ${columns} from ${TABLES.range} where job = ? and is_done = 0`, [job])
      return rows.map(rangeOf)
    },

    async split({ n, span, cursor }, at, owner, leaseMs) {
      // The new range first: whoever dies in between leaves two that overlap, which harms nothing, and no gap.
      let entered: number | undefined
      while (entered === undefined) {
        const last = await one<{ n: unknown; pass: unknown }>(
          `select n, pass from ${TABLES.range} where job = ? order by n desc limit 1`,
        )
        if (!last) return null
        const next = Number(last.n) + 1
        const isMine = await once(
          `insert into ${TABLES.range} (job, n, pass, lower_bound, upper_bound, is_done, seen, written, raced, owner, lease_until)
            values (?, ${next}, ${Number(last.pass)}, ?, ?, 0, 0, 0, 0, ?, ${now} + ?)`,
          [job, textOf(at), textOf(span.upTo), owner, leaseMs],
        )
        if (isMine) entered = next
      }
      const same = cursor === null ? 'at_cursor is null' : 'at_cursor = ?'
      const upper = span.upTo === null ? 'upper_bound is null' : 'upper_bound = ?'
      const known = [cursor, span.upTo].flatMap((value) => (value === null ? [] : [textOf(value)]))
      const cut = await run(
        `update ${TABLES.range} set upper_bound = ? where job = ? and n = ? and is_done = 0 and ${same} and ${upper}`,
        [textOf(at), job, n, ...known],
      )
      if (cut === 1) return { n: entered, cursor: null, span: { after: at, upTo: span.upTo } }
      await run(`delete from ${TABLES.range} where job = ? and n = ? and owner = ?`, [job, entered, owner])
      return null
    },

    async again(pass) {
      // Its number makes it unique: of all workers that see the end of a pass, one begins the next.
      await once(
        `insert into ${TABLES.range} (job, n, pass, is_done, seen, written, raced)
          select j.job, ${(pass + 1) * RANGES_PER_PASS}, ${pass + 1}, 0, 0, 0, 0 from ${TABLES.job} j
          where j.job = ? and j.finished_at is null and not exists (${undone})`,
        [job, job],
      )
    },

    async release(owner) {
      await run(`update ${TABLES.range} set owner = null where job = ? and owner = ?`, [job, owner])
    },

    async totals() {
      const sums = SUMS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')
      const kept = await one<Sums>(
        `select ${SUMS.join(', ')} from ${TABLES.job} where job = ? and finished_at is not null`,
      )
      const row = kept ?? (await one<Sums>(`select ${sums} from ${TABLES.range} where job = ?`))
      return { seen: Number(row?.seen), written: Number(row?.written), raced: Number(row?.raced) }
    },

    async failures(limit) {
      const rows = await query<{ row_id: string; code: string }>(
        `select row_id, code from ${TABLES.failure} where job = ? order by row_id limit ${Math.trunc(limit)}`,
        [job],
      )
      return rows.map(({ row_id, code }) => ({ rowId: row_id, code }))
    },

    async failureCount(pass) {
      const of = pass === undefined ? '' : ` and pass = ${Math.trunc(pass)}`
      return Number((await one<{ n: unknown }>(`select count(*) as n from ${TABLES.failure} where job = ?${of}`))?.n)
    },

    async finish() {
      await run(`delete from ${TABLES.failure} where job = ? and pass < (${lastPass}) and not exists (${undone})`, [
        job,
        job,
        job,
      ])
      const sums = SUMS.map((name) => `${name} = (select sum(s.${name}) from ${TABLES.range} s where s.job = ?)`)
      await run(
        `update ${TABLES.job} set ${sums.join(', ')}, passes = (${lastPass}),
          failed = (select count(*) from ${TABLES.failure} f where f.job = ?), finished_at = ${now}
          where job = ? and finished_at is null and not exists (${undone})
          and exists (select 1 from ${TABLES.range} a where a.job = ?)`,
        [...SUMS.map(() => job), job, job, job, job, job],
      )
      await run(`delete from ${TABLES.range} where job = ? and exists (${finished})`, [job, job])
    },
  }
}

/** A unique index refused, in the words of PostgreSQL, MySQL and SQLite. */
export function isDuplicate(error: unknown): boolean {
  if (WaxsealError.is(error)) return false
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown }
  return (
    code === '23505' ||
    code === 'ER_DUP_ENTRY' ||
    errno === 1062 ||
    /UNIQUE constraint/i.test(String((error as Error)?.message))
  )
}
