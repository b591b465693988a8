import type { ErrorCode } from '../../errors.ts'
import { jobName, runOf, TABLES } from '../books.ts'
import { insertOnce, ledgerOf } from '../ledger.ts'
import type { Books } from '../source.ts'
import type { JobKind } from './kinds.ts'

/**
 * The books of runs: which run of a job is under way on a table, and who has each of its slots. What was done to the
 * rows is in the books of the job alone; its totals are copied here once nobody can add to them any more.
 */

const RUN = 'waxseal_run'
const SLOT = 'waxseal_slot'

/** The statements that make the tables of the books of runs, for your migrations; they are also run when they are needed. */
export const RUN_TABLES: readonly string[] = [
  `create table if not exists ${RUN} (run text primary key, kind text not null, label text not null, is_active int,
    state text not null, error text, workers int not null, started_at bigint not null, ended_at bigint,
    seen bigint, written bigint, raced bigint, failed bigint, tells int not null, tell_until bigint, told_at bigint,
    unique (kind, label, is_active))`,
  `create table if not exists ${SLOT} (run text not null, slot int not null, holder text, held_until bigint not null,
    died int not null, primary key (run, slot))`,
]

/** `running` and `paused` runs are under way; the others are over. */
export type RunState = 'running' | 'paused' | 'finished' | 'failed' | 'cancelled'

/** Where a run stands. Times are in ms since the epoch, by the clock of the table's database. */
export interface RunStatus {
  readonly run: string
  readonly kind: JobKind
  /** The name under which the table is registered. */
  readonly table: string
  readonly state: RunState
  /** Why it failed: an error code of waxseal, what another error calls itself, or that too many workers died in a row. */
  readonly error?: ErrorCode | 'WORKERS_DIED' | (string & {})
  readonly startedAt: number
  readonly endedAt?: number
  /** Turns that are under way now, on all machines. */
  readonly working: number
  /** Rows that were read, changed, lost to a concurrent writer and read again, and left because they are broken. */
  readonly seen: number
  readonly written: number
  readonly raced: number
  readonly failed: number
  /** Whether the four numbers are final: nobody can add to them any more. */
  readonly isSettled: boolean
}

export interface Active {
  readonly run: string
  readonly state: RunState
  readonly workers: number
}

interface RunRow {
  readonly run: string
  readonly kind: JobKind
  readonly label: string
  readonly is_active: unknown
  readonly state: RunState
  readonly error: string | null
  readonly workers: unknown
  readonly started_at: unknown
  readonly ended_at: unknown
  readonly seen: unknown
  readonly written: unknown
  readonly raced: unknown
  readonly failed: unknown
}

/** Calls of `onEnded` that failed, or whose process died, before it is given up. */
const MAX_TELLS = 10
const SUMS = ['seen', 'written', 'raced'] as const

export type Runs = ReturnType<typeof runsOf>

/** Every change is one statement, and any two of them may run at once, or be followed by the end of the process. */
export function runsOf(books: Books, kind: JobKind, label: string) {
  const { query, run: change, now } = books
  const live = `s.holder is not null and s.held_until >= ${now}`
  const jobOf = (run: string): string => jobName(kind, label, run)
  const ledger = (run: string) => ledgerOf(books, jobOf(run))
  /** What the books of jobs call it in their rows. */
  const entryOf = (run: string): string => runOf(jobOf(run), 1)

  async function numberOf(sql: string, params: readonly unknown[]): Promise<number> {
    return Number((await query<{ n: unknown }>(sql, params))[0]?.n ?? 0)
  }

  async function read(run: string): Promise<RunRow | undefined> {
    return (await query<RunRow>(`select * from ${RUN} where run = ? and kind = ? and label = ?`, [run, kind, label]))[0]
  }

  async function statusOf(row: RunRow): Promise<RunStatus> {
    const isSettled = row.seen !== null
    const totals = isSettled ? row : { ...(await ledger(row.run).totals()), failed: await failureCount(row.run) }
    const [seen, written, raced, failed] = [totals.seen, totals.written, totals.raced, totals.failed].map(Number)
    return {
      run: row.run,
      kind,
      table: label,
      state: row.state,
      ...(row.error === null ? {} : { error: row.error }),
      startedAt: Number(row.started_at),
      ...(row.ended_at === null ? {} : { endedAt: Number(row.ended_at) }),
      working: await numberOf(`select count(*) as n from ${SLOT} s where s.run = ? and ${live}`, [row.run]),
      seen: seen!,
      written: written!,
      raced: raced!,
      failed: failed!,
      isSettled,
    }
  }

  const failureCount = (run: string): Promise<number> => ledger(run).failureCount()

  /** Ends a job that is not done: nobody holds a range any more, so nobody can write for it, and its totals stand. */
  async function abandon(run: string): Promise<void> {
    const job = entryOf(run)
    const sums = SUMS.map(
      (sum) => `${sum} = (select coalesce(sum(s.${sum}), 0) from ${TABLES.range} s where s.job = ?)`,
    )
    const undone = `select 1 from ${TABLES.range} u where u.job = ? and u.is_done = 0`
    await ledger(run).open(true) // a worker that is late finds a job that is over, not one to begin
    const isOpen = `select count(*) as n from ${TABLES.job} where job = ? and finished_at is null`
    while ((await numberOf(isOpen, [job])) > 0) {
      // A worker that just saw the end of a pass may begin the next one in between: then its range is taken as well.
      await change(`update ${TABLES.range} set owner = null, is_done = 1 where job = ?`, [job])
      await change(
        `update ${TABLES.job} set ${sums.join(', ')},
          failed = (select count(*) from ${TABLES.failure} f where f.job = ?), finished_at = ${now}
          where job = ? and finished_at is null and not exists (${undone})`,
        [...SUMS.map(() => job), job, job, job],
      )
    }
    await change(`delete from ${TABLES.range} where job = ?`, [job])
  }

  return {
    jobOf,
    failures: (run: string, limit: number) => ledger(run).failures(limit),

    /** Makes the tables where they are missing; a role that may not create tables uses those of a migration. */
    async prepare(): Promise<void> {
      await books.prepare()
      const isThere = (table: string): Promise<boolean> =>
        query(`select 1 from ${table} where 1 = 0`).then(
          () => true,
          () => false,
        )
      for (const [i, table] of [RUN, SLOT].entries()) {
        if (await isThere(table)) continue
        await query(RUN_TABLES[i]!).catch(async (error) => {
          if (!(await isThere(table))) throw error
        })
      }
    },

    async active(): Promise<Active | undefined> {
      const [row] = await query<RunRow>(`select * from ${RUN} where kind = ? and label = ? and is_active = 1`, [
        kind,
        label,
      ])
      return row && { run: row.run, state: row.state, workers: Number(row.workers) }
    },

    isKnown: async (run: string): Promise<boolean> => (await read(run)) !== undefined,
    isRunning: async (run: string): Promise<boolean> => (await read(run))?.state === 'running',

    /** Begins a run, unless one is under way. Its slots come first: a run without them would never be worked on. */
    async begin(run: string, workers: number): Promise<boolean> {
      const slots = Array.from({ length: workers }, (_, i) => `(?, ${i + 1}, 0, 0)`).join(', ')
      await insertOnce(
        books,
        `insert into ${SLOT} (run, slot, held_until, died) values ${slots}`,
        Array(workers).fill(run),
      )
      return insertOnce(
        books,
        `insert into ${RUN} (run, kind, label, is_active, state, workers, started_at, tells)
          values (?, ?, ?, 1, 'running', ${workers}, ${now}, 0)`,
        [run, kind, label],
      )
    },

    /** Takes a slot that nobody has, in a run that is running. */
    async claim(run: string, slot: number, holder: string, leaseMs: number): Promise<boolean> {
      const taken = await change(
        `update ${SLOT} set holder = ?, held_until = ${now} + ?
          where run = ? and slot = ? and (holder is null or held_until < ${now})
          and exists (select 1 from ${RUN} r where r.run = ${SLOT}.run and r.kind = ? and r.label = ? and r.state = 'running')`,
        [holder, leaseMs, run, slot, kind, label],
      )
      return taken > 0
    },

    /** A sign of life; false when the slot, or the run, is not to be worked on any more. */
    async beat(run: string, slot: number, holder: string, leaseMs: number): Promise<boolean> {
      const held = await change(
        `update ${SLOT} set held_until = ${now} + ? where run = ? and slot = ? and holder = ?
          and exists (select 1 from ${RUN} r where r.run = ${SLOT}.run and r.state = 'running')`,
        [leaseMs, run, slot, holder],
      )
      return held > 0
    },

    /** Lets go of a slot. Nobody looks after it for `ms`: its next turn is in the queue. */
    async release(run: string, slot: number, holder: string, ms: number, hasFailed = false): Promise<void> {
      await change(
        `update ${SLOT} set holder = null, held_until = ${now} + ?, died = ${hasFailed ? 'died' : '0'}
          where run = ? and slot = ? and holder = ?`,
        [Math.trunc(ms), run, slot, holder],
      )
    },

    /** Slots whose turn is overdue, and how often in a row the worker of each died: its lease ran out. */
    async overdue(run: string): Promise<readonly { readonly slot: number; readonly died: number }[]> {
      await change(
        `update ${SLOT} set holder = null, died = died + 1 where run = ? and holder is not null and held_until < ${now}`,
        [run],
      )
      const sql = `select slot, died from ${SLOT} where run = ? and held_until < ${now} order by slot`
      const rows = await query<{ slot: unknown; died: unknown }>(sql, [run])
      return rows.map(({ slot, died }) => ({ slot: Number(slot), died: Number(died) }))
    },

    /** The time by the clock that leases are measured with. */
    time: (): Promise<number> => numberOf(`select ${now} as n`, []),

    async end(run: string, state: 'finished' | 'failed' | 'cancelled', error: string | null = null): Promise<boolean> {
      const ended = await change(
        `update ${RUN} set state = ?, error = ?, is_active = null, ended_at = ${now}
          where run = ? and kind = ? and label = ? and is_active = 1`,
        [state, error, run, kind, label],
      )
      return ended > 0
    },

    async move(from: 'running' | 'paused', to: 'running' | 'paused'): Promise<boolean> {
      const sql = `update ${RUN} set state = ? where kind = ? and label = ? and is_active = 1 and state = ?`
      return (await change(sql, [to, kind, label, from])) > 0
    },

    /** Writes the totals of a run that is over down, once nobody can add to them; true when they are. */
    async settle(run: string): Promise<boolean> {
      const row = await read(run)
      if (!row || row.is_active !== null) return false
      if (row.seen !== null) return true
      const working = `select count(*) as n from ${SLOT} s where s.run = ? and ${live}`
      if (row.state !== 'finished' && (await numberOf(working, [run])) > 0) return false
      await abandon(run)
      const { seen, written, raced } = await ledger(run).totals()
      await change(`update ${RUN} set seen = ?, written = ?, raced = ?, failed = ? where run = ? and seen is null`, [
        seen,
        written,
        raced,
        await failureCount(run),
        run,
      ])
      return true
    },

    /** Runs that are over and that nobody was told of. */
    async untold(): Promise<readonly string[]> {
      const rows = await query<RunRow>(
        `select * from ${RUN} where kind = ? and label = ? and is_active is null and told_at is null
          and tells < ${MAX_TELLS} order by ended_at`,
        [kind, label],
      )
      return rows.map(({ run }) => run)
    },

    /** The right to tell of a run, for `ms`. */
    async claimTelling(run: string, ms: number): Promise<boolean> {
      const claimed = await change(
        `update ${RUN} set tells = tells + 1, tell_until = ${now} + ? where run = ? and seen is not null
          and told_at is null and tells < ${MAX_TELLS} and (tell_until is null or tell_until < ${now})`,
        [ms, run],
      )
      return claimed > 0
    },

    async told(run: string): Promise<void> {
      await change(`update ${RUN} set told_at = ${now} where run = ? and told_at is null`, [run])
    },

    /** Drops earlier runs that everything was done about, and what the books of jobs have of them. */
    async forget(): Promise<void> {
      const rows = await query<RunRow>(
        `select * from ${RUN} where kind = ? and label = ? and is_active is null and seen is not null
          and (told_at is not null or tells >= ${MAX_TELLS})`,
        [kind, label],
      )
      for (const { run } of rows) {
        for (const table of Object.values(TABLES)) await change(`delete from ${table} where job = ?`, [entryOf(run)])
        await change(`delete from ${SLOT} where run = ?`, [run])
        await change(`delete from ${RUN} where run = ?`, [run])
      }
    },

    /** The run that is under way, or the last one. */
    async status(run?: string): Promise<RunStatus | undefined> {
      const [row] = await query<RunRow>(
        `select * from ${RUN} where kind = ? and label = ? ${run === undefined ? '' : 'and run = ?'}
          order by coalesce(is_active, 0) desc, started_at desc limit 1`,
        [kind, label, ...(run === undefined ? [] : [run])],
      )
      return row && statusOf(row)
    },
  }
}
