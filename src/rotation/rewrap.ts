import { config, type ErrorCode, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import { STATES } from '../keyring/states.ts'
import type { Checkpoint, RotationSource, Swap } from './source.ts'

/** A row that could not be rewrapped. It was left as it is. */
export interface RowFailure {
  readonly rowId: string
  readonly code: ErrorCode
}

export interface Progress {
  /** Rows that this job has dealt with, resumed ones included: rewrapped, failed and lost to concurrent writers. */
  readonly done: number
  /** Rows that were under an old key when the job began; writers may change it meanwhile. */
  readonly total: number
  readonly rewrapped: number
  readonly failed: number
  readonly raced: number
  readonly rowsPerSecond: number
}

export interface RewrapOptions {
  readonly keys: Keyring
  readonly table: RotationSource
  /** Rows in one statement: 1 to 10,000, 500 by default. Data keys are in memory for one row at a time. */
  readonly batchSize?: number
  /** The job stops after this many broken rows; 1,000 by default. They are never written. */
  readonly maxFailures?: number
  readonly onProgress?: (progress: Progress) => void
  /** Ends the job after the batch that is running; the checkpoint stays, and the next call resumes. */
  readonly signal?: AbortSignal
}

export interface RewrapReport {
  readonly table: string
  /** Rows moved under the active key, in all runs of this job. */
  readonly rewrapped: number
  /** Swaps that a concurrent writer won. The row was read again. */
  readonly raced: number
  readonly failures: readonly RowFailure[]
  /** Rows that still are under each version that is not active; empty when nothing is left. */
  readonly remaining: ReadonlyMap<string, number>
  readonly aborted: boolean
}

const MAX_PASSES = 10

/**
 * Moves every row of a table whose master key may be rewrapped from under the active one. Ciphertext is not touched.
 * It may be killed at any instant: a batch is one compare-and-swap statement, then the checkpoint; running it again
 * resumes, running it twice is harmless, and a concurrent edit is never overwritten.
 *
 * Rows under a compromised, suspended or staged version are left: see `remaining`. A broken row is reported and left.
 *
 * Errors: CONFIG, LIMIT_EXCEEDED (more than `maxFailures` broken rows), and what the database client throws.
 *
 * @example
 * ```ts
 * import type { Keyring } from 'waxseal'
 * import { rewrap } from 'waxseal/rotation'
 * import type { RotationSource } from 'waxseal/rotation'
 *
 * export async function nightly(keys: Keyring, table: RotationSource): Promise<boolean> {
 *   const report = await rewrap({ keys, table, onProgress: (p) => console.log(`${p.done} of ${p.total}`) })
 *   return report.remaining.size === 0
 * }
 * ```
 */
export async function rewrap(options: RewrapOptions): Promise<RewrapReport> {
  const { keys, table, batchSize = 500, maxFailures = 1_000, onProgress, signal } = options
  if (!Number.isSafeInteger(batchSize) || batchSize < 1 || batchSize > 10_000) {
    throw config('batchSize', 'an integer from 1 to 10000', batchSize)
  }
  await keys.ready()
  const { active, versions } = keys.status()
  if (active === undefined) throw new WaxsealError('KEY_STATE', 'no version is active', { state: 'none active' })
  const old = versions.filter((version) => version.id !== active && version.state !== 'destroyed')
  const sources = old.filter((version) => STATES[version.state].rewrap === 'yes').map((version) => version.id)
  const job = `rewrap ${table.name} ${active}`

  const failures: RowFailure[] = []
  let at: Checkpoint = (await table.loadCheckpoint(job)) ?? { cursor: null, rewrapped: 0, failed: 0, raced: 0 }
  const before = at.rewrapped + at.failed
  const total = before + sum(await table.countByKey(sources))
  const started = performance.now()

  const report = (): void => {
    const done = at.rewrapped + failures.length
    const seconds = (performance.now() - started) / 1000
    const rowsPerSecond = seconds > 0 ? (done - before) / seconds : 0
    onProgress?.({ done, total, rewrapped: at.rewrapped, failed: failures.length, raced: at.raced, rowsPerSecond })
  }

  /** One walk over the table in the order of the ids. Resolves to whether rows were lost to other writers. */
  async function pass(): Promise<boolean> {
    let lost = false
    for (;;) {
      if (signal?.aborted) return false
      const rows = await table.page(sources, at.cursor, batchSize)
      if (rows.length === 0) return lost
      const swaps: Swap[] = []
      for (const row of rows) {
        try {
          const moved = table.rewrap(keys, row)
          if (moved) swaps.push({ row, ...moved })
        } catch (error) {
          if (!WaxsealError.is(error) || error.retryable) throw error
          failures.push({ rowId: table.rowId(row), code: error.code })
          if (failures.length > maxFailures) {
            throw new WaxsealError('LIMIT_EXCEEDED', `more than ${maxFailures} rows could not be rewrapped`, {
              table: table.name,
            })
          }
        }
      }
      const written = swaps.length > 0 ? await table.swap(swaps) : 0
      lost ||= written < swaps.length
      at = {
        cursor: table.cursorOf(rows.at(-1)!),
        rewrapped: at.rewrapped + written,
        failed: failures.length,
        raced: at.raced + swaps.length - written,
      }
      await table.saveCheckpoint(job, at)
      report()
    }
  }

  if (sources.length > 0) {
    report()
    for (let round = 0; round < MAX_PASSES; round++) {
      failures.length = 0 // a further pass meets the broken rows again
      const again = await pass()
      if (signal?.aborted) break
      // From the start again: for rows that lost a race, or that came behind the cursor of a resumed job.
      const left = sum(await table.countByKey(sources))
      at = { ...at, cursor: null }
      if (left <= failures.length && !again) break
    }
    if (!signal?.aborted) await table.dropCheckpoint(job)
  }
  const counts = await table.countByKey(old.map((version) => version.id))
  const remaining = new Map([...counts].filter(([, count]) => count > 0))
  return {
    table: table.name,
    rewrapped: at.rewrapped,
    raced: at.raced,
    failures,
    remaining,
    aborted: signal?.aborted === true,
  }
}

const sum = (counts: ReadonlyMap<string, number>): number => [...counts.values()].reduce((a, b) => a + b, 0)
