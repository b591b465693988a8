import { config, type ErrorCode, WaxsealError } from '../errors.ts'
import { type Ledger, ledgerOf } from './ledger.ts'
import { type JobControl, type Pace, pacer, sleep } from './pace.ts'
import type { Change, Cursor, ReadRow, RotationSource, RowFailure, Span } from './source.ts'
import type { Work } from './work.ts'

export interface Progress {
  /** Rows that this job has dealt with, in all runs and by all workers: changed (or verified) and failed. */
  readonly done: number
  /** Rows that were to be dealt with when the job began; writers may change it meanwhile. */
  readonly total: number
  readonly written: number
  readonly failed: number
  readonly raced: number
  /** Of this worker. */
  readonly rowsPerSecond: number
  /** Until the end at the pace of all workers since this one began; undefined before the first batch. */
  readonly remainingMs: number | undefined
}

export interface JobOptions {
  /** Rows in one transaction: 1 to 10,000, 500 by default. Data keys are in memory for one row at a time. */
  readonly batchSize?: number
  /** The job stops after this many broken rows; 1,000 by default. They are never written. */
  readonly maxFailures?: number
  /** Ranges that the table is cut into when the job begins: more than there will be workers. 1 by default. */
  readonly ranges?: number
  /**
   * How long a worker holds a range without a sign of life, in ms: 30,000 by default. After a kill, what it held is
   * taken up by others then.
   */
  readonly leaseMs?: number
  readonly pace?: Pace
  readonly control?: JobControl
  readonly onProgress?: (progress: Progress) => void
  /** Ends this worker after the batch that is running; the books stay, and the next call resumes. */
  readonly signal?: AbortSignal
}

export interface JobReport {
  readonly table: string
  /** Rows that were changed, in all runs of this job and by all its workers. */
  readonly written: number
  /** Rows that were read. */
  readonly seen: number
  /** Changes that a concurrent writer won. The row was read again. */
  readonly raced: number
  /** At most 10,000 of them, in the order of the ids. */
  readonly failures: readonly RowFailure[]
  readonly failed: number
  readonly aborted: boolean
}

const MAX_PASSES = 10
const MAX_REPORTED = 10_000
const POLL_MS = 200
const ASK_MS = 1_000

/**
 * Works on a job until it is done, whoever else does: holds a range at a time, writes each batch together with how far
 * it came, takes a part of what a slower worker holds when nothing is free, and goes over the table again while rows
 * that lost a race are left.
 */
export async function runJob(source: RotationSource, work: Work, job: string, options: JobOptions): Promise<JobReport> {
  const { batchSize = 500, maxFailures = 1_000, ranges = 1, leaseMs = 30_000, signal, onProgress } = options
  checkInteger('batchSize', batchSize, 1, 10_000)
  checkInteger('maxFailures', maxFailures, 0, 1_000_000)
  checkInteger('ranges', ranges, 1, 10_000)
  checkInteger('leaseMs', leaseMs, 100, 3_600_000)
  const pace = pacer(options.pace ?? {}, batchSize, options.control, signal)
  const owner = globalThis.crypto.randomUUID()
  const ledger = ledgerOf(source.books, job)
  const whole: Span = { after: null, upTo: null }

  const total = await ledger.open(
    () => source.count(work.filter),
    async () => (ranges === 1 ? [] : source.cut(work.filter, whole, ranges)),
  )
  const progress = await reporter(ledger, work, total, onProgress)
  progress.tell()

  /** One range, to its end or until it is lost to another worker. */
  async function walk(range: number, first: Span): Promise<void> {
    let span = first
    while (!signal?.aborted) {
      await pace.turn()
      if (signal?.aborted) return
      const started = performance.now()
      const limit = pace.batchSize
      const rows = await source.page(work.filter, span, limit, work.extent)
      const { changes, failures } = applyAll(rows)
      const cursor: Cursor | null = rows.at(-1)?.cursor ?? null
      const isDone = rows.length < limit
      const step = { job, range, owner, leaseMs, cursor, isDone, seen: rows.length, failures }
      const stepped = await source.write(changes, step)
      if (!stepped) return // the lease ran out, and somebody else has the range
      if (failures.length > 0 && (await ledger.failureCount()) > maxFailures) {
        throw new WaxsealError('LIMIT_EXCEEDED', `more than ${maxFailures} rows could not be dealt with`, {
          table: source.name,
        })
      }
      await progress.batch(rows.length, stepped.written, changes.length - stepped.written, failures.length)
      if (isDone) return
      span = { after: cursor, upTo: stepped.upTo }
      await pace.took(rows.length, performance.now() - started)
    }
  }

  function applyAll(rows: readonly ReadRow[]): { changes: Change[]; failures: RowFailure[] } {
    const changes: Change[] = []
    const failures: RowFailure[] = []
    for (const read of rows) {
      try {
        const change = work.apply(read)
        if (change) changes.push(change)
      } catch (error) {
        if (!WaxsealError.is(error) || error.retryable) throw error
        failures.push({ rowId: source.rowId(read.row), code: error.code satisfies ErrorCode })
      }
    }
    return { changes, failures }
  }

  try {
    while (!signal?.aborted && !(await ledger.isFinished())) {
      const claim = await ledger.claim(owner, leaseMs)
      if (claim) {
        await walk(claim.range, claim.span)
        continue
      }
      if (await ledger.isDone()) {
        const pass = await ledger.passes()
        const left = work.isShrinking && pass < MAX_PASSES ? await source.count(work.filter) : 0
        if (left > (await ledger.failureCount()) && (await ledger.again(pass))) continue
        await ledger.finish()
      } else if (!(await takePart(ledger, source, work, batchSize))) {
        await sleep(POLL_MS, signal)
      }
    }
  } finally {
    await ledger.release(owner).catch(() => undefined) // the lease ends by itself; what went wrong is on its way
  }
  const totals = await ledger.totals()
  const failed = await ledger.failureCount()
  const failures = await ledger.failures(MAX_REPORTED)
  return { table: source.name, ...totals, failures, failed, aborted: signal?.aborted === true }
}

/** An idle worker takes the far half of the range that has most left, unless that is hardly worth it. */
async function takePart(ledger: Ledger, source: RotationSource, work: Work, batchSize: number): Promise<boolean> {
  let most: { left: number; range: Awaited<ReturnType<Ledger['running']>>[number] } | undefined
  for (const range of await ledger.running()) {
    const left = await source.count(work.filter, range.span)
    if (left > (most?.left ?? batchSize * 4)) most = { left, range }
  }
  if (!most) return false
  const [at] = await source.cut(work.filter, most.range.span, 2)
  return at !== undefined && ledger.split(most.range, at)
}

/** Tells after every batch; what other workers did is asked of the books once a second. */
async function reporter(ledger: Ledger, work: Work, total: number, onProgress: JobOptions['onProgress']) {
  const started = performance.now()
  let known = { seen: 0, written: 0, raced: 0, failed: 0 }
  let askedAt = 0
  let mine = 0
  const ask = async (): Promise<void> => {
    askedAt = performance.now()
    known = { ...(await ledger.totals()), failed: await ledger.failureCount() }
  }
  const doneSoFar = (): number => (work.isShrinking ? known.written + known.failed : known.seen)
  await ask()
  const atStart = doneSoFar()

  const tell = (): void => {
    const done = doneSoFar()
    const ms = performance.now() - started
    const remainingMs = done > atStart ? (Math.max(0, total - done) * ms) / (done - atStart) : undefined
    const { written, failed, raced } = known
    onProgress?.({ done, total, written, failed, raced, rowsPerSecond: ms > 0 ? (mine / ms) * 1000 : 0, remainingMs })
  }
  return {
    tell,
    async batch(seen: number, written: number, raced: number, failed: number): Promise<void> {
      mine += seen
      if (!onProgress) return
      if (performance.now() - askedAt >= ASK_MS) await ask()
      else {
        const { seen: s, written: w, raced: r, failed: f } = known
        known = { seen: s + seen, written: w + written, raced: r + raced, failed: f + failed }
      }
      tell()
    },
  }
}

function checkInteger(argument: string, value: unknown, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
    throw config(argument, `an integer from ${least} to ${most}`, value)
  }
}
