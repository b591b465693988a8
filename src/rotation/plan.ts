import { config, expectInteger } from '../errors.ts'
import type { Keyring, VersionStatus } from '../keyring/keyring.ts'
import { type KeyState, STATES } from '../keyring/states.ts'
import type { RotationSource } from './source.ts'
import { reencryptWork, rewrapWork, type Work } from './work.ts'

/** What moves rows away from a version; `blocked`: nothing may, in the state that it is in. */
export type Action = 'rewrap' | 'reencrypt' | 'blocked'

export interface PlannedVersion {
  readonly keyId: string
  readonly state: KeyState
  readonly action: Action
  readonly rows: number
  /** Expected duration of `action`, one worker; undefined where the pace is not known, or nothing may be done. */
  readonly ms: number | undefined
}

export interface PlannedTable {
  readonly table: string
  /** Every version that is not active, in the keyring's order; those without rows as well. */
  readonly versions: readonly PlannedVersion[]
  /** Rows by what would be done to them. */
  readonly rows: Readonly<Record<Action, number>>
  /** Rows per second of one worker. */
  readonly pace: { readonly rewrap: number | undefined; readonly reencrypt: number | undefined }
  readonly ms: number | undefined
}

export interface Plan {
  /** Undefined while no version is active: then no job runs. */
  readonly active: string | undefined
  readonly tables: readonly PlannedTable[]
  readonly rows: Readonly<Record<Action, number>>
  /** All tables one after the other, one worker; undefined when the pace of one that has rows to move is not known. */
  readonly ms: number | undefined
  /** `given`: of `rowsPerSecond`. `sample`: reads and computes, and leaves out the write, so it is a lower bound. */
  readonly basis: 'given' | 'sample'
}

export interface PlanOptions {
  readonly keys: Keyring
  readonly tables: readonly RotationSource[]
  /** What a job of yours did (see {@link Progress.rowsPerSecond}). Without it, a sample of each table is measured. */
  readonly rowsPerSecond?: number
  /** Rows of each table and action that are read, worked on and thrown away: 1 to 10,000, 200 by default; 0: none. */
  readonly sampleRows?: number
}

/**
 * What a rotation would touch: rows per table and version, one indexed count each, what may be done to them, and for
 * how long. It writes nothing: the sample is read and computed alone. Its uses of keys are told to `onEvent` with the
 * purpose `plan`; a version whose destruction is pending is not sampled, since any use would cancel that.
 *
 * Errors: CONFIG (also: row-level security may hide rows), and what the database client throws.
 *
 * @example
 * ```ts
 * import type { Keyring } from 'waxseal'
 * import { plan, type RotationSource } from 'waxseal/rotation'
 *
 * export async function isIdle(keys: Keyring, tables: RotationSource[]): Promise<boolean> {
 *   const { rows } = await plan({ keys, tables, rowsPerSecond: 5_000 })
 *   return rows.rewrap + rows.reencrypt + rows.blocked === 0
 * }
 * ```
 */
export async function plan({ keys, tables, rowsPerSecond, sampleRows = 200 }: PlanOptions): Promise<Plan> {
  if (!Array.isArray(tables) || tables.length === 0) throw config('tables', 'at least one table', tables)
  if (rowsPerSecond !== undefined && !(rowsPerSecond > 0 && Number.isFinite(rowsPerSecond))) {
    throw config('rowsPerSecond', 'a number above 0', rowsPerSecond)
  }
  expectInteger('sampleRows', sampleRows, 0, 10_000)
  await keys.ready()
  const { active, versions } = keys.status()
  const others = versions.filter(({ state }) => state !== 'active')
  const planned: PlannedTable[] = []
  for (const table of tables) {
    await table.assertSeesAll()
    const counts = await table.countByKey(others.map(({ id }) => id))
    const rowsOf = (version: VersionStatus): number => counts.get(version.id) ?? 0
    const measured = async (action: 'rewrap' | 'reencrypt'): Promise<number | undefined> => {
      if (rowsPerSecond !== undefined) return rowsPerSecond
      const from = others.filter((v) => actionOn(v.state) === action && v.destroyAt === undefined && rowsOf(v) > 0)
      if (from.length === 0 || sampleRows === 0 || active === undefined) return undefined
      return measure(keys, table, action, { from: from.map(({ id }) => id), rows: sampleRows })
    }
    const pace = { rewrap: await measured('rewrap'), reencrypt: await measured('reencrypt') }
    planned.push(planOf(table.name, others, rowsOf, pace))
  }
  return {
    active,
    tables: planned,
    rows: sumOf(planned.map(({ rows }) => rows)),
    ms: addUp(planned.map(({ ms }) => ms)),
    basis: rowsPerSecond === undefined ? 'sample' : 'given',
  }
}

/** A rewrap where the state table allows one: it is the cheaper of the two. */
function actionOn(state: KeyState): Action {
  if (STATES[state].rewrap !== 'no') return 'rewrap'
  return STATES[state].reencrypt !== 'no' ? 'reencrypt' : 'blocked'
}

function planOf(
  table: string,
  others: readonly VersionStatus[],
  rowsOf: (version: VersionStatus) => number,
  pace: PlannedTable['pace'],
): PlannedTable {
  const versions = others.map((version): PlannedVersion => {
    const [action, rows] = [actionOn(version.state), rowsOf(version)]
    const perSecond = action === 'blocked' ? undefined : pace[action]
    const ms = rows === 0 && action !== 'blocked' ? 0 : perSecond && (rows / perSecond) * 1000
    return { keyId: version.id, state: version.state, action, rows, ms }
  })
  const none = { rewrap: 0, reencrypt: 0, blocked: 0 }
  const rows = sumOf(versions.map(({ action, rows }) => ({ ...none, [action]: rows })))
  return {
    table,
    versions,
    rows,
    pace,
    ms: addUp(versions.filter(({ action }) => action !== 'blocked').map(({ ms }) => ms)),
  }
}

function sumOf(parts: readonly Readonly<Record<Action, number>>[]): Record<Action, number> {
  const sum = { rewrap: 0, reencrypt: 0, blocked: 0 }
  for (const part of parts)
    for (const action of ['rewrap', 'reencrypt', 'blocked'] as const) sum[action] += part[action]
  return sum
}

const addUp = (parts: readonly (number | undefined)[]): number | undefined =>
  parts.reduce((sum, part) => (sum === undefined || part === undefined ? undefined : sum + part), 0)

/** Rows per second of reading and computing; undefined when no row of the sample opens. */
async function measure(
  keys: Keyring,
  table: RotationSource,
  action: 'rewrap' | 'reencrypt',
  { from, rows }: { readonly from: readonly string[]; readonly rows: number },
): Promise<number | undefined> {
  const handle = keys.as({ purpose: 'plan' })
  const work: Work = (action === 'rewrap' ? rewrapWork : reencryptWork)(handle, table, from)
  const started = performance.now()
  const sample = await table.page(work.filter, { after: null, upTo: null }, rows, work.extent, work.orphans)
  let fine = 0
  for (const read of sample) {
    try {
      work.apply(read)
      fine++
    } catch {
      // A broken row is for the job, or for verify, to name; here it only does not count.
    }
  }
  const ms = performance.now() - started
  return fine > 0 ? (fine / Math.max(ms, 0.001)) * 1000 : undefined
}
