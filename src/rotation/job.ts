import { config, type ErrorCode, WaxsealError } from '../errors.ts'
import { type Ledger, ledgerOf, type Range, type State, TABLES } from './ledger.ts'
import { type JobControl, type Pace, pacer, sleep } from './pace.ts'
import type { Change, ReadRow, RotationSource, RowFailure, Step } from './source.ts'
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
/** Longer ids are cut in the books: an index of PostgreSQL holds 2,704 bytes. */
const MAX_ROW_ID = 600
const MAX_REPORTED = 10_000
const POLL_MS = 100
const MAX_POLL_MS = 2_000
const ASK_MS = 1_000

/**
 * Works on a job until it is done, whoever else does: holds a range at a time, writes each batch together with how far
 * it came, takes a part of what a slower worker holds when nothing is free, and goes over the table again while rows
 * that lost a race are left. With `once` it does not begin anew a job that is finished.
 */
export async function runJob(
  source: RotationSource,
  work: Work,
  job: string,
  options: JobOptions,
  { once = false }: { readonly once?: boolean } = {},
): Promise<JobReport> {
  const { batchSize = 500, maxFailures = 1_000, ranges = 1, leaseMs = 30_000, signal, onProgress } = options
  checkInteger('batchSize', batchSize, 1, 10_000)
  checkInteger('maxFailures', maxFailures, 0, 1_000_000)
  checkInteger('ranges', ranges, 1, 10_000)
  checkInteger('leaseMs', leaseMs, 100, 3_600_000)
  const pace = pacer(options.pace ?? {}, batchSize, options.control, signal)
  const owner = globalThis.crypto.randomUUID()
  const ledger = ledgerOf(source.books, job)

  const total = await ledger.open(() => source.count(work.filter), once)
  const progress = await reporter(ledger, work, total, onProgress)

  /** One range, to its end or until it is lost to another worker. */
  async function walk(first: Range, pass: number): Promise<void> {
    let range: Range | null = first
    while (range) {
      await pace.turn()
      if (signal?.aborted) return
      const started = performance.now()
      const { n, span } = range
      const limit = pace.batchSize
      const rows = await source.page(work.filter, span, limit, work.extent)
      const { changes, failures } = await applyAll(rows)
      const here: Step = {
        job,
        range: n,
        owner,
        leaseMs,
        upTo: span.upTo,
        cursor: null,
        isDone: false,
        seen: 0,
        failures,
      }
      if (failures.length > 0 && (await ledger.failureCount(pass)) + failures.length > maxFailures) {
        await source.write([], here) // in the books first, so that they can be looked into
        await refuseMoreFailures()
      }
      const cursor = rows.at(-1)?.cursor ?? null
      const isDone = rows.length < limit
      const stepped = await source.write(changes, { ...here, cursor, isDone, seen: rows.length })
      if (!stepped) {
        // The lease ran out and somebody else has the range, or took its far part: then the rest is read again.
        range = await ledger.held(owner, n)
        continue
      }
      await progress.batch(rows.length, stepped.written, changes.length - stepped.written, failures.length > 0)
      if (isDone) return
      range = { n, cursor, span: { after: cursor, upTo: span.upTo } }
      await pace.took(rows.length, performance.now() - started)
    }
  }

  async function refuseMoreFailures(): Promise<void> {
    if ((await ledger.failureCount()) <= maxFailures) return
    const message = `more than ${maxFailures} rows could not be dealt with; ${TABLES.failure} names them`
    throw new WaxsealError('LIMIT_EXCEEDED', message, { table: source.name })
  }

  async function applyAll(rows: readonly ReadRow[]): Promise<{ changes: Change[]; failures: RowFailure[] }> {
    const changes: Change[] = []
    const failures: RowFailure[] = []
    for (const read of rows) {
      try {
        const change = await applyOne(read)
        if (change) changes.push(change)
      } catch (error) {
        // A configuration is wrong for every row; what may be tried again is no fault of the row.
        if (!WaxsealError.is(error) || error.retryable || error.code === 'CONFIG') throw error
        failures.push({ rowId: source.rowId(read.row).slice(0, MAX_ROW_ID), code: error.code satisfies ErrorCode })
      }
    }
    return { changes, failures }
  }

  async function applyOne(read: ReadRow): Promise<Change | null> {
    try {
      return work.apply(read)
    } catch (error) {
      if (!WaxsealError.is(error) || !error.retryable) throw error
      await work.ready()
      return work.apply(read)
    }
  }

  /** What there is to do when no range is free. */
  async function idle({ running, pass }: State): Promise<Range | null> {
    if (running > 0) return takePart(ledger, source, work, { owner, leaseMs, batchSize })
    const left = work.isShrinking && pass < MAX_PASSES ? await source.count(work.filter) : 0
    if (left > (await ledger.failureCount(pass))) await ledger.again(pass)
    else await ledger.finish()
    return null
  }

  try {
    for (let pause = POLL_MS; !signal?.aborted; ) {
      const state = await ledger.state()
      if (state.isFinished) break
      if (state.ranges === 0) {
        await ledger.fill(ranges === 1 ? [] : await source.cut(work.filter, { after: null, upTo: null }, ranges))
        continue
      }
      const range = (await ledger.claim(owner, leaseMs)) ?? (await idle(state))
      if (range) {
        await walk(range, state.pass)
        pause = POLL_MS
      } else if (state.running > 0) {
        await sleep(pause, signal)
        pause = Math.min(pause * 2, MAX_POLL_MS)
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
async function takePart(
  ledger: Ledger,
  source: RotationSource,
  work: Work,
  { owner, leaseMs, batchSize }: { readonly owner: string; readonly leaseMs: number; readonly batchSize: number },
): Promise<Range | null> {
  let most: { left: number; range: Range } | undefined
  for (const range of await ledger.running()) {
    const left = await source.count(work.filter, range.span)
    if (left > (most?.left ?? batchSize * 4)) most = { left, range }
  }
  if (!most) return null
  const [at] = await source.cut(work.filter, most.range.span, 2)
  return at ? ledger.split(most.range, at, owner, leaseMs) : null
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
  const tell = (): void => {
    const done = doneSoFar()
    const ms = performance.now() - started
    const remainingMs = done > atStart ? (Math.max(0, total - done) * ms) / (done - atStart) : undefined
    const { written, failed, raced } = known
    onProgress?.({ done, total, written, failed, raced, rowsPerSecond: ms > 0 ? (mine / ms) * 1000 : 0, remainingMs })
  }
  await ask()
  const atStart = doneSoFar()
  tell()
  return {
    async batch(seen: number, written: number, raced: number, hasFailures: boolean): Promise<void> {
      mine += seen
      if (!onProgress || seen === 0) return
      // Broken rows are asked for: a further pass meets the same ones.
      if (hasFailures || performance.now() - askedAt >= ASK_MS) await ask()
      else known = { ...known, seen: known.seen + seen, written: known.written + written, raced: known.raced + raced }
      tell()
    },
  }
}

function checkInteger(argument: string, value: unknown, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
    throw config(argument, `an integer from ${least} to ${most}`, value)
  }
}
