import { type ErrorCode, expectInteger, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import { STATES } from '../keyring/states.ts'
import type { Checkpoint, RotationSource, Swap } from './source.ts'

/** A row that could not be rewrapped. It was left as it is. */
export interface RowFailure {
  readonly rowId: string
  readonly code: ErrorCode
}

export interface Progress {
  /** Rows that this job has dealt with, resumed ones included: rewrapped and failed. */
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
 * It may be killed at any instant: a batch of compare-and-swaps and its checkpoint are one statement; running it again
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
  expectInteger('batchSize', batchSize, 1, 10_000)
  await keys.ready()
  const { active, versions } = keys.status()
  if (active === undefined) throw new WaxsealError('KEY_STATE', 'no version is active', { state: 'none active' })
  const old = versions.filter((version) => version.id !== active && version.state !== 'destroyed')
  const sources = old.filter((version) => STATES[version.state].rewrap === 'yes').map((version) => version.id)
  const job = `rewrap ${table.name} ${table.envelopeColumn} ${active}`

  /** Broken rows by their ids: a further pass meets them again. */
  const broken = new Map<string, RowFailure>()
  let at: Checkpoint = (await table.loadCheckpoint(job)) ?? { cursor: null, rewrapped: 0, failed: 0, raced: 0 }
  const resumed = at
  // Broken rows are still under their old key, so they are in the count already.
  const total = at.rewrapped + sum(await table.countByKey(sources))
  const started = performance.now()

  const report = (): void => {
    const failed = Math.max(broken.size, at.failed)
    const done = at.rewrapped + failed
    const seconds = (performance.now() - started) / 1000
    const rowsPerSecond = seconds > 0 ? (done - resumed.rewrapped - resumed.failed) / seconds : 0
    onProgress?.({ done, total, rewrapped: at.rewrapped, failed, raced: at.raced, rowsPerSecond })
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
          broken.delete(table.rowId(row)) // somebody may have mended it since an earlier pass
        } catch (error) {
          if (!WaxsealError.is(error) || error.retryable) throw error
          const rowId = table.rowId(row)
          broken.set(rowId, { rowId, code: error.code })
          if (broken.size > maxFailures) {
            throw new WaxsealError('LIMIT_EXCEEDED', `more than ${maxFailures} rows could not be rewrapped`, {
              table: table.name,
            })
          }
        }
      }
      const cursor = table.cursorOf(rows.at(-1)!)
      const failed = Math.max(broken.size, at.failed)
      const written = await table.swap(swaps, job, { ...at, cursor, failed })
      lost ||= written.raced > at.raced
      at = written
      report()
    }
  }

  if (sources.length > 0) {
    report()
    for (let round = 0; round < MAX_PASSES; round++) {
      const again = await pass()
      if (signal?.aborted) break
      // From the start again: for rows that lost a race, or that came behind the cursor of a resumed job.
      const left = sum(await table.countByKey(sources))
      at = { ...at, cursor: null }
      if (left <= broken.size && !again) break
    }
    if (!signal?.aborted) await table.dropCheckpoint(job)
  }
  // Asked again: another version may have become active meanwhile.
  const now = keys.status()
  const inactive = now.versions.filter((version) => version.id !== now.active && version.state !== 'destroyed')
  const counts = await table.countByKey(inactive.map((version) => version.id))
  const remaining = new Map([...counts].filter(([, count]) => count > 0))
  return {
    table: table.name,
    rewrapped: at.rewrapped,
    raced: at.raced,
    failures: [...broken.values()],
    remaining,
    aborted: signal?.aborted === true,
  }
}

const sum = (counts: ReadonlyMap<string, number>): number => [...counts.values()].reduce((a, b) => a + b, 0)
