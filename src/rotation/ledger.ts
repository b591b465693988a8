import { WaxsealError } from '../errors.ts'
import type { Books, Cursor, RowFailure, Span } from './source.ts'

/**
 * The books of jobs: which job, which ranges of its table, who holds each and how far it is. A range is held by lease,
 * by the database's clock; a worker that dies is followed by whoever comes when its lease has run out.
 */

export const TABLES = { job: 'waxseal_job', range: 'waxseal_range', failure: 'waxseal_failure' } as const

export interface Totals {
  /** Rows that were read. */
  readonly seen: number
  /** Rows that were changed. */
  readonly written: number
  /** Rows that somebody else changed first; they were read again. */
  readonly raced: number
}

export interface Claim {
  readonly range: number
  readonly span: Span
}

export interface Ledger {
  /** Enters a job, or joins the one that is under way. Resolves to the rows that were to be dealt with when it began. */
  open(total: () => Promise<number>, cuts: () => Promise<readonly Cursor[]>): Promise<number>
  /** A range that nobody holds. */
  claim(owner: string, leaseMs: number): Promise<Claim | null>
  /** Takes the far part of a range that somebody holds: rows behind `at`. False when it moved on meanwhile. */
  split(range: Running, at: Cursor): Promise<boolean>
  running(): Promise<readonly Running[]>
  /** True once the totals stand and the ranges are gone. */
  isFinished(): Promise<boolean>
  /** Begins another pass over the whole table once every range is done; false when one is not. */
  again(pass: number): Promise<boolean>
  isDone(): Promise<boolean>
  /** Lets go of what a worker holds, so that others need not wait for its lease. */
  release(owner: string): Promise<void>
  totals(): Promise<Totals>
  failures(limit: number): Promise<readonly RowFailure[]>
  failureCount(): Promise<number>
  passes(): Promise<number>
  finish(): Promise<void>
}

export interface Running {
  readonly range: number
  readonly span: Span
  readonly cursor: Cursor | null
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
const running = ({ n, lower_bound, upper_bound, at_cursor }: RangeRow): Running => {
  const cursor = cursorOf(at_cursor)
  return { range: n, cursor, span: { after: cursor ?? cursorOf(lower_bound), upTo: cursorOf(upper_bound) } }
}

export function ledgerOf(books: Books, job: string): Ledger {
  const { query, run, now } = books
  const free = `job = ? and is_done = 0 and (owner is null or lease_until < ${now})`
  const columns = 'n, lower_bound, upper_bound, at_cursor'
  const done = 'job = ? and finished_at is not null'
  const finished = `select 1 from ${TABLES.job} where ${done}`

  const insertRange = (n: number, pass: number, after: Cursor | null, upTo: Cursor | null): Promise<boolean> =>
    once(
      `insert into ${TABLES.range} (job, n, pass, lower_bound, upper_bound, is_done, seen, written, raced)
        values (?, ?, ?, ?, ?, 0, 0, 0, 0)`,
      [job, n, pass, textOf(after), textOf(upTo)],
    )

  async function insertRanges(pass: number, cuts: readonly Cursor[]): Promise<void> {
    const bounds = [null, ...cuts, null]
    for (let i = 0; i + 1 < bounds.length; i++) {
      await insertRange(pass * RANGES_PER_PASS + i, pass, bounds[i]!, bounds[i + 1]!)
    }
  }

  /** An insert that somebody else may have made already. */
  async function once(sql: string, params: readonly unknown[]): Promise<boolean> {
    try {
      await run(sql, params)
      return true
    } catch (error) {
      if (isDuplicate(error)) return false
      throw error
    }
  }

  async function one<T>(sql: string, params: readonly unknown[] = [job]): Promise<T | undefined> {
    return (await query<T>(sql, params))[0]
  }

  const count = async (what: string): Promise<number> =>
    Number((await one<{ n: unknown }>(`select count(*) as n from ${what}`))?.n)

  return {
    async open(total, cuts) {
      await books.prepare()
      const known = () =>
        one<{ total: unknown; ranges: unknown; finished_at: unknown }>(
          `select total, finished_at, (select count(*) from ${TABLES.range} r where r.job = j.job) as ranges
            from ${TABLES.job} j where job = ?`,
        )
      let entered = await known()
      if (!entered || entered.finished_at !== null) {
        const rows = await total()
        if (!entered) {
          await once(
            `insert into ${TABLES.job} (job, total, passes, seen, written, raced, failed, started_at)
              values (?, ?, 1, 0, 0, 0, 0, ${now})`,
            [job, rows],
          )
        } else {
          await run(`delete from ${TABLES.failure} where job = ? and exists (${finished})`, [job, job])
          await run(
            `update ${TABLES.job} set total = ?, passes = 1, seen = 0, written = 0, raced = 0, failed = 0,
              started_at = ${now}, finished_at = null where job = ? and finished_at is not null`,
            [rows, job],
          )
        }
        entered = await known()
      }
      // Whoever entered the job may have died before it made the ranges.
      if (Number(entered?.ranges) === 0) await insertRanges(1, await cuts())
      return Number(entered?.total)
    },

    async claim(owner, leaseMs) {
      for (;;) {
        const found = await one<RangeRow>(`select ${columns} from ${TABLES.range} where ${free} order by n limit 1`)
        if (!found) return null
        const taken = await run(
          `update ${TABLES.range} set owner = ?, lease_until = ${now} + ? where ${free} and n = ?`,
          [owner, leaseMs, job, found.n],
        )
        if (taken === 0) continue
        const held = await one<RangeRow>(`select ${columns} from ${TABLES.range} where job = ? and n = ?`, [
          job,
          found.n,
        ])
        const { range, span } = running(held!)
        return { range: Number(range), span }
      }
    },

    async running() {
      const rows = await query<RangeRow>(`select ${columns} from ${TABLES.range} where job = ? and is_done = 0`, [job])
      return rows.map(running)
    },

    async split({ range, span, cursor }, at) {
      // The new range first: whoever dies in between leaves two that overlap, which harms nothing, and no gap.
      let entered: number | undefined
      while (entered === undefined) {
        const last = await one<{ n: unknown; pass: unknown }>(
          `select n, pass from ${TABLES.range} where job = ? order by n desc limit 1`,
        )
        if (!last) return false
        const n = Number(last.n) + 1
        if (await insertRange(n, Number(last.pass), at, span.upTo)) entered = n
      }
      const same = cursor === null ? 'at_cursor is null' : 'at_cursor = ?'
      const upper = span.upTo === null ? 'upper_bound is null' : 'upper_bound = ?'
      const known = [cursor, span.upTo].flatMap((value) => (value === null ? [] : [textOf(value)]))
      const cut = await run(
        `update ${TABLES.range} set upper_bound = ? where job = ? and n = ? and is_done = 0 and ${same} and ${upper}`,
        [textOf(at), job, range, ...known],
      )
      if (cut === 0) await run(`delete from ${TABLES.range} where job = ? and n = ? and owner is null`, [job, entered])
      return cut === 1
    },

    async again(pass) {
      const begun = await run(
        `update ${TABLES.job} set passes = ? where job = ? and passes = ? and finished_at is null
          and not exists (select 1 from ${TABLES.range} r where r.job = ? and is_done = 0)`,
        [pass + 1, job, pass, job],
      )
      if (begun === 0) return false
      await run(`delete from ${TABLES.failure} where job = ?`, [job]) // what is still broken is met again
      await insertRanges(pass + 1, [])
      return true
    },

    isFinished: async () => (await query(finished, [job])).length > 0,

    isDone: async () => (await count(`${TABLES.range} where job = ? and is_done = 0`)) === 0,

    async release(owner) {
      await run(`update ${TABLES.range} set owner = null where job = ? and owner = ?`, [job, owner])
    },

    async totals() {
      const sums = SUMS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')
      const [job_] = await query<Sums>(`select ${SUMS.join(', ')} from ${TABLES.job} where ${done}`, [job])
      const row = job_ ?? (await one<Sums>(`select ${sums} from ${TABLES.range} where job = ?`))
      return { seen: Number(row?.seen), written: Number(row?.written), raced: Number(row?.raced) }
    },

    async failures(limit) {
      const rows = await query<{ row_id: string; code: string }>(
        `select row_id, code from ${TABLES.failure} where job = ? order by row_id limit ${Math.trunc(limit)}`,
        [job],
      )
      return rows.map(({ row_id, code }) => ({ rowId: row_id, code }))
    },

    failureCount: () => count(`${TABLES.failure} where job = ?`),

    async passes() {
      return Number((await one<{ passes: unknown }>(`select passes from ${TABLES.job} where job = ?`))?.passes ?? 0)
    },

    async finish() {
      const sums = SUMS.map(
        (name) => `${name} = (select coalesce(sum(${name}), 0) from ${TABLES.range} r where r.job = ?)`,
      )
      await run(
        `update ${TABLES.job} set ${sums.join(', ')}, failed = (select count(*) from ${TABLES.failure} f where f.job = ?),
          finished_at = ${now} where job = ? and finished_at is null
          and not exists (select 1 from ${TABLES.range} u where u.job = ? and is_done = 0)`,
        [...SUMS.map(() => job), job, job, job],
      )
      await run(`delete from ${TABLES.range} where job = ? and exists (${finished})`, [job, job])
    },
  }
}

/** A unique index refused, in the words of PostgreSQL, MySQL and SQLite. */
function isDuplicate(error: unknown): boolean {
  if (WaxsealError.is(error)) return false
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown }
  return (
    code === '23505' ||
    code === 'ER_DUP_ENTRY' ||
    errno === 1062 ||
    /UNIQUE constraint/i.test(String((error as Error)?.message))
  )
}
