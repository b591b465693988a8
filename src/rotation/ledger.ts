import { WaxsealError } from '../errors.ts'
import { cursorOf, runOf, TABLES, textOf } from './books.ts'
import { isDuplicate } from './refusal.ts'
import type { Books, Cursor, RowFailure, Span } from './source.ts'

/**
 * The books of jobs: which run of which job, which ranges of its table, who holds each and how far it is. A range is held
 * by lease, by the database's clock; a worker that dies is followed by whoever comes when its lease has run out.
 */

export interface Totals {
  /** When the run began, in ms since the epoch by the database's clock. */
  readonly startedAt: number
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
  /** From 1. */
  readonly pass: number
  /** Of this pass: 0 until somebody has cut the table. */
  readonly ranges: number
  /** Ranges that are not done. */
  readonly running: number
}

/** One run of a job, once it is open. */
export interface Ledger {
  /** What the run is called in the books, in a {@link Step} too; a later run of the same job is called otherwise. */
  readonly run: string
  /**
   * Begins a run, or joins the one that is under way, which others may have worked on: false. With `once`, a run that is finished is
   * joined as well, and no other begins.
   */
  open(once?: boolean): Promise<boolean>
  /** Rows that the run has to deal with, counted once for all workers: when the first of them tells how far it is. */
  total(count: () => Promise<number>): Promise<number>
  /** Enters the ranges of a pass, between the cuts, all or none: two workers may cut differently at the same time. */
  fill(pass: number, cuts: readonly Cursor[]): Promise<void>
  state(): Promise<State>
  /** A range that nobody holds. */
  claim(owner: string, leaseMs: number): Promise<Range | null>
  /** The range as it is now, if the worker still holds it. */
  held(owner: string, n: number): Promise<Range | null>
  running(): Promise<readonly Range[]>
  /** Takes the far part of a range that somebody holds: rows behind `at`. Null when it moved on meanwhile. */
  split(range: Range, at: Cursor, owner: string, leaseMs: number): Promise<Range | null>
  /** Begins the pass behind `pass` over the whole table, unless somebody did, or ended the run, or a range is not done. */
  again(pass: number): Promise<void>
  /** Lets go of what a worker holds, so that others need not wait for its lease. */
  release(owner: string): Promise<void>
  totals(): Promise<Totals>
  failures(limit: number): Promise<readonly RowFailure[]>
  /** Of one pass, or of all: a row that broke in an earlier pass may have been mended. */
  failureCount(pass?: number): Promise<number>
  /** Counts the failures of a pass to none: they still are named, until they are met again or the run ends. */
  doubt(pass: number): Promise<void>
  /** Ends the run behind `pass`: writes its totals down and drops its ranges, unless somebody began another pass, or a range is not done: false. */
  finish(pass: number): Promise<boolean>
}

interface RangeRow {
  readonly n: number
  readonly lower_bound: string | null
  readonly upper_bound: string | null
  readonly at_cursor: string | null
}

const SUMS = ['seen', 'written', 'raced'] as const
type Sums = Readonly<Record<(typeof SUMS)[number] | 'started_at', unknown>>
const RANGES_PER_PASS = 1_000_000
/** The longest lease that a worker may ask for. */
export const MAX_LEASE_MS = 3_600_000
/** Finished runs of a job whose totals and failures are kept, besides the last. */
const KEPT_RUNS = 10

const rangeOf = ({ n, lower_bound, upper_bound, at_cursor }: RangeRow): Range => {
  const cursor = cursorOf(at_cursor)
  return { n: Number(n), cursor, span: { after: cursor ?? cursorOf(lower_bound), upTo: cursorOf(upper_bound) } }
}

/** Every change is one statement, and any two of them may run at once, or be followed by the end of the process. */
export function ledgerOf(books: Books, name: string): Ledger {
  const { query, run, now } = books
  let job = runOf(name, 1)
  const columns = 'n, lower_bound, upper_bound, at_cursor'
  // A lease that ends later than any may is one from before the clock was set back.
  const finished = `select 1 from ${TABLES.job} where job = ? and finished_at is not null`
  // Whoever cuts late enters ranges in a run that others have ended.
  const free = `job = ? and is_done = 0 and not exists (${finished})
    and (owner is null or lease_until < ${now} or lease_until > ${now} + ${MAX_LEASE_MS})`
  const undone = `select 1 from ${TABLES.range} u where u.job = ? and u.is_done = 0`

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

  const dropRanges = () => run(`delete from ${TABLES.range} where job = ? and exists (${finished})`, [job, job])

  return {
    get run() {
      return job
    },

    async open(isOnce = false) {
      await books.prepare()
      for (;;) {
        const last = await one<{ run: unknown; finished_at: unknown }>(
          `select run, finished_at from ${TABLES.job} where name = ? order by run desc limit 1`,
          [name],
        )
        const number = Number(last?.run ?? 0)
        if (last && (isOnce || last.finished_at === null)) {
          job = runOf(name, number)
          return false
        }
        const next = runOf(name, number + 1)
        const isMine = await insertOnce(
          books,
          `insert into ${TABLES.job} (job, name, run, passes, seen, written, raced, failed, started_at)
            values (?, ?, ?, 1, 0, 0, 0, 0, ${now})`,
          [next, name, number + 1],
        )
        if (!isMine) continue
        if (number > 0) await forget(number)
        job = next
        return true
      }
    },

    async total(count) {
      const known = async (): Promise<unknown> =>
        (await one<{ total: unknown }>(`select total from ${TABLES.job} where job = ?`))?.total ?? null
      const total = await known()
      if (total !== null) return Number(total)
      await run(`update ${TABLES.job} set total = ? where job = ? and total is null`, [await count(), job])
      return Number((await known()) ?? 0)
    },

    async fill(pass, cuts) {
      const bounds = [null, ...cuts.map(textOf), null]
      const rows = Array.from(
        { length: bounds.length - 1 },
        (_, i) => `(?, ${pass * RANGES_PER_PASS + i}, ${pass}, ?, ?, 0, 0, 0, 0)`,
      )
      await insertOnce(
        books,
        `insert into ${TABLES.range} (job, n, pass, lower_bound, upper_bound, is_done, seen, written, raced)
          values ${rows.join(', ')}`,
        rows.flatMap((_, i) => [job, bounds[i], bounds[i + 1]]),
      )
    },

    async state() {
      const row = await one<{ finished_at: unknown; pass: unknown; ranges: unknown; running: unknown; kept: unknown }>(
        `select j.finished_at, j.passes as pass, count(r.n) as kept,
            sum(case when r.pass = j.passes then 1 else 0 end) as ranges,
            sum(case when r.is_done = 0 then 1 else 0 end) as running
          from ${TABLES.job} j left join ${TABLES.range} r on r.job = j.job where j.job = ?
          group by j.job, j.finished_at, j.passes`,
      )
      if (!row) throw new WaxsealError('CONFLICT', `the job was deleted from ${TABLES.job} while it ran`)
      const isFinished = row.finished_at !== null
      if (isFinished && Number(row.kept) > 0) await dropRanges() // of a worker that died, or was late
      return { isFinished, pass: Number(row.pass), ranges: Number(row.ranges), running: Number(row.running) }
    },

    async claim(owner, leaseMs) {
      for (;;) {
        const found = await one<RangeRow>(`select ${columns} from ${TABLES.range} where ${free} order by n limit 1`, [
          job,
          job,
        ])
        if (!found) return null
        const taken = await run(
          `update ${TABLES.range} set owner = ?, lease_until = ${now} + ? where ${free} and n = ?`,
          [owner, leaseMs, job, job, found.n],
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
        const isMine = await insertOnce(
          books,
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
      // Behind what `finish` changes as well, the row of the run: of a worker that goes on and one that ends it, one wins.
      await run(
        `update ${TABLES.job} set passes = ${pass + 1}
          where job = ? and passes = ${pass} and finished_at is null and not exists (${undone})`,
        [job, job],
      )
    },

    async release(owner) {
      await run(`update ${TABLES.range} set owner = null where job = ? and owner = ?`, [job, owner])
    },

    async totals() {
      // One statement: the ranges are dropped when the run ends.
      const sums = SUMS.map(
        (sum) => `case when j.finished_at is not null then j.${sum}
          else (select coalesce(sum(r.${sum}), 0) from ${TABLES.range} r where r.job = j.job) end as ${sum}`,
      )
      const row = await one<Sums>(`select started_at, ${sums.join(', ')} from ${TABLES.job} j where j.job = ?`)
      const numberOf = (value: unknown): number => Number(value ?? 0)
      return {
        startedAt: numberOf(row?.started_at),
        seen: numberOf(row?.seen),
        written: numberOf(row?.written),
        raced: numberOf(row?.raced),
      }
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

    async doubt(pass) {
      await run(`update ${TABLES.failure} set pass = 0 where job = ? and pass = ${Math.trunc(pass)}`, [job])
    },

    async finish(pass) {
      const isOver = `j.job = ? and j.passes = ${pass} and j.finished_at is null and not exists (${undone})`
      await run(
        `delete from ${TABLES.failure} where job = ? and pass < ${pass}
          and exists (select 1 from ${TABLES.job} j where ${isOver})`,
        [job, job, job],
      )
      const sums = SUMS.map((sum) => `${sum} = (select sum(s.${sum}) from ${TABLES.range} s where s.job = ?)`)
      const ended = await run(
        `update ${TABLES.job} as j set ${sums.join(', ')},
          failed = (select count(*) from ${TABLES.failure} f where f.job = ?), finished_at = ${now}
          where ${isOver} and exists (select 1 from ${TABLES.range} a where a.job = ? and a.pass = ${pass})`,
        [...SUMS.map(() => job), job, job, job, job],
      )
      await dropRanges()
      return ended > 0
    },
  }

  /** Runs that are long over. A worker that is late finds its own among those that are kept. */
  async function forget(last: number): Promise<void> {
    const old = `job in (select j.job from ${TABLES.job} j where j.name = ? and j.run <= ?)`
    await run(`delete from ${TABLES.range} where ${old}`, [name, last])
    await run(`delete from ${TABLES.failure} where ${old}`, [name, last - KEPT_RUNS])
    await run(`delete from ${TABLES.job} where name = ? and run <= ?`, [name, last - KEPT_RUNS])
  }
}

/** An insert that somebody else may have made already: false. */
export async function insertOnce(books: Books, sql: string, params: readonly unknown[]): Promise<boolean> {
  try {
    return (await books.run(sql, params)) > 0
  } catch (error) {
    if (isDuplicate(error)) return false
    throw error
  }
}
