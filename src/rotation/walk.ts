import { config, WaxsealError } from '../errors.ts'
import { applyAll, type Outcome, type Settled, settle } from './batch.ts'
import { TABLES } from './books.ts'
import type { Ledger, Range } from './ledger.ts'
import type { JobControl, Pace, Pacer } from './pace.ts'
import type { RotationSource, Span, Step } from './source.ts'
import type { Work } from './work.ts'

/** How a worker goes along a range: what is read, computed and written at the same time. */

/** A worker's part in a run. */
export interface Part {
  readonly source: RotationSource
  readonly work: Work
  readonly ledger: Ledger
  readonly owner: string
  readonly pace: Pacer
  readonly progress: { batch(seen: number, settled: Settled): Promise<void> } | undefined
  readonly options: {
    readonly leaseMs: number
    readonly maxFailures: number
    readonly pace?: Pace
    readonly control?: JobControl
    readonly signal?: AbortSignal
  }
}

/** A page of a range, and what becomes of it. */
interface Batch {
  readonly outcomes: readonly Outcome[]
  readonly hasFailures: boolean
  /** Nothing is behind it. */
  readonly isLast: boolean
  /** What reading and computing took. */
  readonly ms: number
}

/** A batch that is being written. */
interface Sent {
  readonly batch: Batch
  readonly startedAt: number
  /** Null when it was not: the range, or its far part, is somebody else's, or the batch before was not written. */
  readonly settling: Promise<Settled | null>
}

/**
 * Goes along a range of a pass, to its end or until it is lost to another worker. While a batch is written, the next one is read
 * and sent as well: the database writes it behind the one before, and not at all if that one was not written.
 */
export function walker(part: Part): (range: Range, pass: number) => Promise<void> {
  const { source, work, ledger, owner, pace, progress, options } = part
  const { leaseMs, maxFailures, signal } = options
  const { rowsPerSecond, lag, maxBatchMs } = options.pace ?? {}
  // With a pace to keep, a batch that was read ahead would only grow stale.
  const readsAhead = rowsPerSecond === undefined && lag === undefined
  // One that waits for another says nothing of how long it takes; of a verification, nothing is written that takes any time.
  const sendsAhead = source.isOrdered === true && work.isShrinking && readsAhead && maxBatchMs === undefined
  const isPaused = (): boolean => options.control?.isPaused === true

  /** The next batch; null when this worker is to end. Any wait comes before, so that what is written is fresh. */
  async function read(span: Span): Promise<Batch | null> {
    await pace.turn()
    if (signal?.aborted) return null
    const started = performance.now()
    const limit = pace.batchSize
    const rows = await source.page(work.filter, span, limit, work.extent, work.orphans)
    if (work.orphans && rows.some(({ guard }) => !guard)) {
      throw config('table', 'a source whose pages have a guard where orphans are asked for', undefined)
    }
    const outcomes = await applyAll(source, work, rows)
    const hasFailures = outcomes.some(({ failure }) => failure)
    return { outcomes, hasFailures, isLast: rows.length < limit, ms: performance.now() - started }
  }

  async function allow(step: Step, pass: number): Promise<void> {
    if ((await ledger.failureCount(pass)) + step.failures.length <= maxFailures) return
    // In the books first, so that they can be looked into.
    await source.write([], { ...step, cursor: null, isDone: false, seen: 0 })
    if ((await ledger.failureCount(pass)) <= maxFailures) return
    const message = `more than ${maxFailures} rows could not be dealt with; ${TABLES.failure} names them`
    throw new WaxsealError('LIMIT_EXCEEDED', message, { table: source.name })
  }

  return async (first, pass) => {
    const sent: Sent[] = []
    let ahead: Promise<Batch | null> | undefined
    /** Batches that were sent while another one was on its way, those of them that were sent once more, and that are now. */
    let [waiting, repeated, repeating] = [0, 0, 0]

    function send(batch: Batch, { n, cursor, span }: Range): void {
      const place = { job: ledger.run, range: n, owner, leaseMs, after: cursor, upTo: span.upTo }
      const write = () => settle(source, place, batch.outcomes, batch.isLast, (step) => allow(step, pass))
      const before = sent.at(-1)?.settling
      const settling = before ? behind(before, write) : write()
      settling.catch(() => undefined) // told when its turn comes, unless the one before fails first
      sent.push({ batch, settling, startedAt: performance.now() })
    }

    /**
     * Sends a batch while the one before is on its way, and once more when that one is written, if it came too early, or failed: of
     * those that wait, one may overtake another, and who waits has less time for its own.
     */
    async function behind(before: Promise<unknown>, write: () => Promise<Settled | null>): Promise<Settled | null> {
      waiting++
      const first = await write().catch(() => null)
      if (first) return first
      repeated++
      repeating++
      try {
        return (await before) ? await write() : null
      } finally {
        repeating--
      }
    }

    /** Whether the next batch is sent while one is on its way: not where more than a quarter of them are sent twice. */
    const sendsNow = (): boolean => sendsAhead && repeating === 0 && (repeated < 4 || repeated * 4 < waiting)

    /** Waits until no more than so many are on their way; false when one was not written. */
    async function written(most: 0 | 1): Promise<boolean> {
      while (sent.length > most) {
        const { batch, settling, startedAt } = sent.shift()!
        const settled = await settling
        if (!settled) return false
        await progress?.batch(batch.outcomes.length, settled)
        await pace.took(batch.outcomes.length, batch.ms + performance.now() - startedAt)
      }
      return true
    }

    /** The range behind its next batch, which may be on its way; null at the end. */
    async function advance({ n, cursor, span }: Range): Promise<Range | 'lost' | null> {
      // With others on their way, reading may lack the time, or a connection; then it is done once more.
      let batch = await (sent.length > 0 ? ahead?.catch(() => undefined) : ahead)
      const isRead = batch !== undefined && !isPaused() // what was read before a pause may be stale after it
      ahead = undefined
      if (!isRead) {
        if (!(await written(0))) return 'lost'
        batch = await read(span)
      }
      if (!batch || signal?.aborted) return (await written(0)) ? null : 'lost'
      // How many have failed is known when the batch before is written.
      if ((batch.hasFailures || !sendsNow()) && !(await written(0))) return 'lost'
      send(batch, { n, cursor, span })
      const at = batch.outcomes.at(-1)?.read.cursor ?? cursor
      const rest: Range = { n, cursor: at, span: { after: at, upTo: span.upTo } }
      const readNext = (): void => {
        if (batch.isLast || !readsAhead || isPaused()) return
        ahead = read(rest.span)
        ahead.catch(() => undefined) // told when its turn comes, unless the write fails first
      }
      const goesAhead = sendsNow() && !batch.isLast && !batch.hasFailures && !isPaused()
      if (!goesAhead) readNext()
      if (!(await written(goesAhead ? 1 : 0))) return 'lost'
      // Only now, so that two batches are in memory; reading takes less time than the write that goes on.
      if (goesAhead) readNext()
      return batch.isLast ? null : rest
    }

    const onTheirWay = () => Promise.allSettled([ahead, ...sent.map(({ settling }) => settling)])
    try {
      for (let range: Range | null = first; range; ) {
        const next: Range | 'lost' | null = await advance(range)
        if (next === 'lost') {
          // The lease ran out and somebody else has the range, or took its far part: then the rest is read again.
          await onTheirWay()
          ahead = undefined
          sent.length = 0
        }
        range = next === 'lost' ? await ledger.held(owner, range.n) : next
      }
    } finally {
      await onTheirWay() // nothing is, when the worker lets go
    }
  }
}
