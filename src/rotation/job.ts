import { expectInteger } from '../errors.ts'
import type { Settled } from './batch.ts'
import { type Ledger, ledgerOf, MAX_LEASE_MS, type Range, type State } from './ledger.ts'
import { type JobControl, type Pace, type Pacer, pacer, sleep } from './pace.ts'
import type { RotationSource, RowFailure } from './source.ts'
import { walker } from './walk.ts'
import type { Work } from './work.ts'

export interface Progress {
  /** Rows that this run has dealt with, by all workers and however often it was resumed: changed (or verified) and failed. */
  readonly done: number
  /** Rows that the run has to deal with, as counted when a worker first told of its progress; writers may change it meanwhile. */
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
  /**
   * Rows in one transaction: 1 to 10,000, 1,000 by default. Two batches are in memory, the data keys of 500 rows at most.
   */
  readonly batchSize?: number
  /** The job stops after this many rows that are broken or that the database refuses; 1,000 by default. They are left. */
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
  /** Ends this worker after the batches that were sent, two at most; the books stay, and the next call resumes. */
  readonly signal?: AbortSignal
}

export interface JobReport {
  readonly table: string
  /** When this run began, in ms since the epoch by the database's clock: what is said of the rows may be as old as this. */
  readonly startedAt: number
  /** Rows that were changed, by all workers of this run of the job, however often it was stopped and resumed. */
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

/** How a worker's part in a job ended. */
export interface Ended {
  readonly report: JobReport
  /** Rows under the job's filter just before this worker ended the run; undefined when another one did, or nobody yet. */
  readonly left: number | undefined
}

const MAX_PASSES = 10
const MAX_REPORTED = 10_000
const POLL_MS = 100
const MAX_POLL_MS = 2_000
const ASK_MS = 1_000

/**
 * Works on a job until it is done, whoever else does: holds a range at a time, writes each batch together with how far
 * it came, takes a part of what a slower worker holds when nothing is free, and goes over the table again while rows
 * that lost a race are left. It tells of the run that it took part in: the one that is under way, or a new one; with
 * `once`, the first run is the only one.
 */
export async function runJob(
  source: RotationSource,
  work: Work,
  job: string,
  options: JobOptions,
  { once = false }: { readonly once?: boolean } = {},
): Promise<Ended> {
  const { batchSize = 1_000, maxFailures = 1_000, ranges = 1, leaseMs = 30_000 } = options
  expectInteger('batchSize', batchSize, 1, 10_000)
  expectInteger('maxFailures', maxFailures, 0, 1_000_000)
  expectInteger('ranges', ranges, 1, 10_000)
  expectInteger('leaseMs', leaseMs, 100, MAX_LEASE_MS)
  const pace = pacer(options.pace ?? {}, batchSize, options.control, options.signal)
  for (;;) {
    const ended = await takePart(source, work, job, pace, {
      ...options,
      batchSize,
      maxFailures,
      ranges,
      leaseMs,
      once,
    })
    if (ended) return ended
  }
}

type Settings = JobOptions &
  Required<Pick<JobOptions, 'batchSize' | 'maxFailures' | 'ranges' | 'leaseMs'>> & { readonly once: boolean }

/** Takes part in a run; undefined when others ended it before this worker had done, or seen, any of it. */
async function takePart(
  source: RotationSource,
  work: Work,
  job: string,
  pace: Pacer,
  options: Settings,
): Promise<Ended | undefined> {
  const { batchSize, maxFailures, ranges, leaseMs, once, signal, onProgress } = options
  const owner = globalThis.crypto.randomUUID()
  const ledger = ledgerOf(source.books, job)
  const isNew = await ledger.open(once)
  const doubted = work.isShrinking && !isNew ? await passInDoubt(ledger, maxFailures) : undefined
  const progress = await reporter(ledger, work, source, onProgress)
  let tookPart = false
  let left: number | undefined
  let isEndedHere = false
  let isOver = false
  const walk = walker({ source, work, ledger, owner, pace, progress, options })

  /** What there is to do when no range is free. */
  async function idle({ running, pass }: State): Promise<Range | null> {
    if (running > 0) {
      tookPart = true
      return partOfSlowest(ledger, source, work, { owner, leaseMs, batchSize })
    }
    const isCounted = work.isShrinking && pass < MAX_PASSES
    left = isCounted ? await source.countLeft(work.filter) : undefined
    const isAgain = left !== undefined && left > 0 && (pass === doubted || left > (await ledger.failureCount(pass)))
    if (isAgain) await ledger.again(pass)
    else {
      isEndedHere = await ledger.finish(pass)
      if (work.isShrinking) tookPart = true // it has seen for itself that nothing is left
    }
    return null
  }

  try {
    for (let pause = POLL_MS; !signal?.aborted; ) {
      const state = await ledger.state()
      isOver = state.isFinished
      if (isOver) break
      left = undefined // others went on since it was counted
      const isToBeCut = state.ranges === 0
      if (isToBeCut) {
        const parts = state.pass === 1 ? ranges : 1
        await ledger.fill(state.pass, parts === 1 ? [] : await source.cut(work.filter, WHOLE, parts))
      }
      const free = isToBeCut || state.running > 0 ? await ledger.claim(owner, leaseMs) : null
      const range = free ?? (isToBeCut ? null : await idle(state))
      if (range) {
        tookPart = true
        await walk(range, state.pass)
        pause = POLL_MS
      } else if (isEndedHere) {
        isOver = true
        break
      } else if (state.running > 0) {
        await sleep(pause, signal)
        pause = Math.min(pause * 2, MAX_POLL_MS)
      }
    }
  } finally {
    // The lease ends by itself; what went wrong is on its way.
    if (!isOver) await ledger.release(owner).catch(() => undefined)
  }
  if (isOver && !tookPart && !once) return undefined
  const totals = await ledger.totals()
  const failures = await ledger.failures(MAX_REPORTED)
  const failed = failures.length < MAX_REPORTED ? failures.length : await ledger.failureCount()
  const report = { table: source.name, ...totals, failures, failed, aborted: signal?.aborted === true }
  return { report, left: isEndedHere && !report.aborted ? left : undefined }
}

/**
 * The pass of a run that has failures when a worker joins it: their rows may be mended since. Above the limit the job stopped
 * for them, so they count no more. A further pass finds those that are broken still.
 */
async function passInDoubt(ledger: Ledger, maxFailures: number): Promise<number | undefined> {
  const { isFinished, pass } = await ledger.state()
  const failed = isFinished ? 0 : await ledger.failureCount(pass)
  if (failed > maxFailures) await ledger.doubt(pass)
  return failed > 0 ? pass : undefined
}

const WHOLE = { after: null, upTo: null }

/** An idle worker takes the far half of the range that has most left, unless that is hardly worth it. */
async function partOfSlowest(
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
async function reporter(ledger: Ledger, work: Work, source: RotationSource, onProgress: JobOptions['onProgress']) {
  if (!onProgress) return
  const started = performance.now()
  let known = { startedAt: 0, seen: 0, written: 0, raced: 0, failed: 0 }
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
    onProgress({ done, total, written, failed, raced, rowsPerSecond: ms > 0 ? (mine / ms) * 1000 : 0, remainingMs })
  }
  await ask()
  // Rows that broke are under the filter still.
  const total = await ledger.total(
    async () => (await source.count(work.filter)) + (work.isShrinking ? known.written : 0),
  )
  const atStart = doneSoFar()
  tell()
  return {
    async batch(seen: number, { written, raced, failed }: Settled): Promise<void> {
      mine += seen
      if (seen === 0) return
      // Broken rows are asked for: a further pass meets the same ones.
      if (failed > 0 || performance.now() - askedAt >= ASK_MS) await ask()
      else known = { ...known, seen: known.seen + seen, written: known.written + written, raced: known.raced + raced }
      tell()
    },
  }
}
