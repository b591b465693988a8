import { WaxsealError } from '../../errors.ts'
import type { Keyring } from '../../keyring/keyring.ts'
import { type JobOptions, runJob } from '../job.ts'
import { sleep } from '../pace.ts'
import type { RotationSource } from '../source.ts'
import type { Turn } from './client.ts'
import { workOf } from './kinds.ts'
import type { Runs } from './runs.ts'

/** What one turn of a worker needs. */
export interface TurnOptions {
  readonly turn: Turn
  readonly holder: string
  readonly runs: Runs
  readonly keys: Keyring
  readonly source: RotationSource
  readonly job: JobOptions
  readonly leaseMs: number
  readonly turnMs: number
  /** Any of them ends the turn behind the batch that is running. */
  readonly signals: readonly (AbortSignal | undefined)[]
}

const BEAT_MS = 1_000

/** Works until the job is done (true), or until time is up, the slot is lost, or somebody stops it (false). */
export async function takeTurn(options: TurnOptions): Promise<boolean> {
  const { turn, runs, keys, source, job, turnMs, signals } = options
  const stop = new AbortController()
  const end = (): void => stop.abort()
  const timer = setTimeout(end, turnMs)
  const beat = keepAlive(options, end)
  for (const signal of signals) {
    if (signal?.aborted) end()
    signal?.addEventListener('abort', end, { once: true })
  }
  try {
    const work = await workOf(turn.kind, keys, source)
    const { report } = await runJob(source, work, runs.jobOf(turn.run), { ...job, signal: stop.signal }, { once: true })
    return !report.aborted
  } finally {
    clearTimeout(timer)
    clearInterval(beat)
    for (const signal of signals) signal?.removeEventListener('abort', end)
  }
}

/** Signs of life, which also learn that the run was paused or ended, or that somebody else has the slot. */
function keepAlive({ turn, holder, runs, leaseMs }: TurnOptions, end: () => void): ReturnType<typeof setInterval> {
  let heldAt = performance.now()
  let isAsking = false
  return setInterval(
    async () => {
      if (isAsking) return
      isAsking = true
      const sentAt = performance.now()
      try {
        if (await runs.beat(turn.run, turn.slot, holder, leaseMs)) heldAt = sentAt
        else end()
      } catch {
        if (performance.now() - heldAt >= leaseMs) end() // what is wrong with the database, the batch says as well
      } finally {
        isAsking = false
      }
    },
    Math.min(BEAT_MS, leaseMs / 4),
  )
}

/** How long graphile-worker waits behind a failed attempt: exp(attempts) seconds, of 10 at most. */
export const backOffMs = (attempts: number): number => Math.exp(Math.min(10, attempts)) * 1_000

const PATIENCE_MS = 60_000

/** Waits for a database that is away, for a minute. */
export async function untilAnswered(ask: () => Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  const until = performance.now() + PATIENCE_MS
  for (let pause = 100; performance.now() < until && !signal?.aborted; pause = Math.min(pause * 2, 2_000)) {
    const isThere = await ask().then(
      () => true,
      () => false,
    )
    if (isThere) return
    await sleep(pause, signal)
  }
}

/** What an error is called where values must not be: in the queue's tables, in the books. */
export function codeOf(error: unknown): string {
  if (WaxsealError.is(error)) return error.code
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown }
  const told = [code, name].find((word) => typeof word === 'string' && /^\w{1,40}$/.test(word))
  return typeof told === 'string' ? told : 'Error'
}

/**
 * The error that the queue keeps: a code. The message of a database client may quote the value that did not fit, and one of
 * our own names a root key or a keyring.
 */
export function forQueue(error: unknown): WaxsealError {
  if (WaxsealError.is(error)) return new WaxsealError(error.code, `${error.code}; onError has it`)
  return new WaxsealError('CONFLICT', `something outside waxseal failed with ${codeOf(error)}; onError has it`)
}
