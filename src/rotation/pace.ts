import { config } from '../errors.ts'

/** How fast a job may go. Any limit that is reached makes it wait; none is exceeded for longer than one batch. */
export interface Pace {
  /** For each worker. */
  readonly rowsPerSecond?: number
  /** The batch is halved while one takes longer than this, in ms, and grows again while it takes less than half. */
  readonly maxBatchMs?: number
  /** Replication lag in ms, asked once a second; the job waits while it is above `maxLagMs`. */
  readonly lag?: () => Promise<number>
  readonly maxLagMs?: number
}

/** Stops a job for a while, from another place of the program. */
export interface JobControl {
  pause(): void
  resume(): void
  readonly isPaused: boolean
  /** Resolves when the job may go on. */
  whenRunning(): Promise<void>
}

export function jobControl(): JobControl {
  let held: { promise: Promise<void>; go: () => void } | undefined
  return {
    pause() {
      if (held) return
      let go = (): void => undefined
      const promise = new Promise<void>((resolve) => {
        go = resolve
      })
      held = { promise, go }
    },
    resume() {
      held?.go()
      held = undefined
    },
    get isPaused() {
      return held !== undefined
    },
    whenRunning: () => held?.promise ?? Promise.resolve(),
  }
}

const LAG_EVERY_MS = 1_000
const MIN_BATCH = 10

/** Says how many rows the next batch may have, and waits between batches. */
export interface Pacer {
  readonly batchSize: number
  /** Before a batch. */
  turn(): Promise<void>
  /** After one of `rows` that took `ms`. */
  took(rows: number, ms: number): Promise<void>
}

export function pacer(
  pace: Pace,
  batchSize: number,
  control: JobControl | undefined,
  signal: AbortSignal | undefined,
): Pacer {
  for (const key of ['rowsPerSecond', 'maxBatchMs', 'maxLagMs'] as const) {
    const value = pace[key]
    if (value !== undefined && !(value > 0)) throw config(`pace.${key}`, 'a number above 0', value)
  }
  if ((pace.lag === undefined) !== (pace.maxLagMs === undefined)) {
    throw config('pace.maxLagMs', 'lag and maxLagMs together', pace.maxLagMs)
  }
  // A second's worth of rows at most, so that a lease does not end while the worker waits for its turn.
  const most = Math.max(1, Math.min(batchSize, Math.ceil(pace.rowsPerSecond ?? batchSize)))
  const least = Math.min(MIN_BATCH, most)
  let size = most
  let lagWasFineAt = Number.NEGATIVE_INFINITY

  async function whileLagging(lag: () => Promise<number>, maxLagMs: number): Promise<void> {
    while (performance.now() - lagWasFineAt >= LAG_EVERY_MS && !signal?.aborted) {
      const ms = await lag()
      if (typeof ms !== 'number' || Number.isNaN(ms)) throw config('pace.lag', 'a number of ms', ms)
      if (ms <= maxLagMs) lagWasFineAt = performance.now()
      else await sleep(LAG_EVERY_MS, signal)
    }
  }

  return {
    get batchSize() {
      return size
    },
    async turn() {
      while (control?.isPaused && !signal?.aborted) await unlessAborted(control.whenRunning(), signal)
      if (pace.lag && pace.maxLagMs !== undefined) await whileLagging(pace.lag, pace.maxLagMs)
    },
    async took(rows, ms) {
      if (pace.maxBatchMs !== undefined) {
        if (ms > pace.maxBatchMs) size = Math.max(least, Math.ceil(size / 2))
        else if (ms < pace.maxBatchMs / 2) size = Math.min(most, size + Math.ceil(most / 10))
      }
      if (pace.rowsPerSecond !== undefined) await sleep((rows / pace.rowsPerSecond) * 1000 - ms, signal)
    },
  }
}

async function unlessAborted(wait: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return wait
  if (signal.aborted) return
  let done = (): void => undefined
  const aborted = new Promise<void>((resolve) => {
    done = resolve
    signal.addEventListener('abort', done, { once: true })
  })
  await Promise.race([wait, aborted])
  signal.removeEventListener('abort', done)
}

/** Waits, or until the signal is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (ms <= 0 || signal?.aborted) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done, { once: true })
  })
}
