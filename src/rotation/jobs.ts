import { sourceOf } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import { STATES } from '../keyring/states.ts'
import { modeOf } from '../records/migrate.ts'
import { expectMovable } from '../records/move.ts'
import { jobName } from './books.ts'
import { type Ended, type JobOptions, type JobReport, runJob } from './job.ts'
import type { AnyRecord, RotationSource } from './source.ts'
import { decryptWork, encryptWork, moveWork, reencryptWork, rewrapWork } from './work.ts'

/** What all jobs take. */
export interface TableJob extends JobOptions {
  readonly keys: Keyring
  readonly table: RotationSource
}

export interface RotationReport extends JobReport {
  /** Rows that still are under each version that is not active; empty when nothing is left. */
  readonly remaining: ReadonlyMap<string, number>
}

/**
 * Moves every row of a table whose master key may be rewrapped from under the active one. Ciphertext is not touched.
 * It may be killed at any instant: a batch of compare-and-swaps and the books are written together; running it again
 * resumes, running it twice is harmless, running it in many processes at once shares the work, and a concurrent edit
 * is never overwritten.
 *
 * Rows under a compromised, suspended or staged version are left: see `remaining`. A broken row is reported and left.
 *
 * Errors: CONFIG (also: row-level security may hide rows), KEY_STATE (no version is active), LIMIT_EXCEEDED (more than `maxFailures` broken rows), and what the
 * database client throws.
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
export async function rewrap({ keys, table, ...options }: TableJob): Promise<RotationReport> {
  const active = await activeOf(keys, table)
  const from = versionsThat(keys, 'rewrap', active)
  const work = rewrapWork(keys, table, from)
  return rotated(keys, table, from, await runJob(table, work, await nameOf('rewrap', table, active), options))
}

export interface Reencryption extends TableJob {
  /** The versions to leave; all that are not active by default, compromised ones included. */
  readonly from?: readonly string[]
  /**
   * Another record of the same table, for rows that get another shape, label or column: same id columns, envelope column
   * and encoding, and every field of the table's record by the same name. The table's own by default.
   */
  readonly to?: AnyRecord
}

/**
 * Gives every row that is under an old version a new data key under the active one: on suspicion that data keys or a
 * master key leaked, or to move between suites (see `writeSuite` of openKeyring) or storage shapes. Each column that is
 * overwritten is compared, so an edit or a patch that comes in between wins, and its row is read again. To give rows of
 * the active version new keys, rotate first.
 *
 * Errors: as for {@link rewrap}.
 */
export async function reencrypt({ keys, table, from, to, ...options }: Reencryption): Promise<RotationReport> {
  const active = await activeOf(keys, table)
  const allowed = versionsThat(keys, 'reencrypt', active)
  const wrong = from?.find((id) => !allowed.includes(id))
  if (wrong !== undefined) {
    const state = keys.status().versions.find(({ id }) => id === wrong)?.state ?? 'not of this keyring'
    throw new WaxsealError(
      'CONFIG',
      `"from" expected versions that are deactivated or compromised, got one that is ${state}`,
      {
        argument: 'from',
      },
    )
  }
  const versions = from ?? allowed
  const target = [active, ...(from ?? []).toSorted()]
  if (!to) {
    const work = reencryptWork(keys, table, versions)
    return rotated(
      keys,
      table,
      versions,
      await runJob(table, work, await nameOf('reencrypt', table, ...target), options),
    )
  }
  const moving = movingTo(table, to)
  const name = await nameOf('move', table, to.schema.label, to.schema.kind, ...target)
  return rotated(keys, table, versions, await runJob(moving, moveWork(keys, moving, to, versions), name, options))
}

/**
 * Encrypts the rows of a table that is still plaintext, online, in the `encrypt` phase of its record's `migrate`. Rows
 * that somebody changes meanwhile are read again. It ends when no row without an envelope is left that it could encrypt;
 * {@link proveEncrypted} says whether plaintext remains.
 */
export async function encryptInPlace({
  keys,
  table,
  ...options
}: TableJob): Promise<JobReport & { readonly plaintext: number }> {
  const active = await activeOf(keys, table)
  expectEncrypting(keys, table)
  const name = await nameOf('encrypt', table, active)
  const { report } = await runJob(table, encryptWork(keys, table), name, options)
  return { ...report, plaintext: await table.count('plaintext') }
}

/** The way back: turns the rows of a table into plaintext, for people who leave. The record must be in its `prepare` phase. */
export async function decryptInPlace({
  keys,
  table,
  ...options
}: TableJob): Promise<JobReport & { readonly sealed: number }> {
  const active = await activeOf(keys, table)
  expectPreparing(keys, table)
  const name = await nameOf('decrypt', table, active)
  const { report } = await runJob(table, decryptWork(keys, table), name, options)
  return { ...report, sealed: await table.count('sealed') }
}

/** What the books call a job: the table with its schema, since a name alone may lead to another table on another connection. */
export async function nameOf(kind: string, table: RotationSource, ...target: readonly string[]): Promise<string> {
  return jobName(kind, ...(await table.locate()), table.record.schema.envelopeColumn, ...target)
}

function movingTo(table: RotationSource, to: AnyRecord): RotationSource {
  if (!to?.schema) throw config('to', 'what records() returns', to)
  expectMovable(table.record.schema, to.schema)
  if (!table.movingTo) throw config('table', 'a source that reads rows under two records', table)
  return table.movingTo(to)
}

export function expectEncrypting(keys: Keyring, table: RotationSource): void {
  if (modeOf(table.record.schema, sourceOf(keys)) !== 'prepare') return
  const what = `"${table.name}" is in phase 'prepare', which still writes plaintext: deploy phase 'encrypt' first`
  throw new WaxsealError('CONFIG', what, { argument: 'table' })
}

export function expectPreparing(keys: Keyring, table: RotationSource): void {
  const mode = modeOf(table.record.schema, sourceOf(keys))
  if (mode === 'prepare') return
  throw config('table', "a record in its 'prepare' phase, which reads and writes plaintext", mode)
}

/** The active version, for a job over a table of which all rows can be seen: its counts would say too little otherwise. */
export async function activeOf(keys: Keyring, table: RotationSource): Promise<string> {
  await keys.ready()
  await table.assertSeesAll()
  const { active } = keys.status()
  if (active !== undefined) return active
  throw new WaxsealError('KEY_STATE', 'no version is active', { state: 'none active' })
}

/** Versions that a job may move rows away from. */
export function versionsThat(keys: Keyring, operation: 'rewrap' | 'reencrypt', active: string): string[] {
  const { versions } = keys.status()
  return versions.filter(({ id, state }) => id !== active && STATES[state][operation] !== 'no').map(({ id }) => id)
}

/** The report, with what is left under each version; `from` are those that the job has left already. */
async function rotated(
  keys: Keyring,
  table: RotationSource,
  from: readonly string[],
  { report, left }: Ended,
): Promise<RotationReport> {
  // Asked again: another version may have become active meanwhile.
  const now = keys.status()
  const inactive = now.versions.filter((version) => version.id !== now.active && version.state !== 'destroyed')
  const ids = inactive.map(({ id }) => id).filter((id) => left !== 0 || !from.includes(id))
  const counts = await table.countByKey(ids)
  return { ...report, remaining: new Map([...counts].filter(([, count]) => count > 0)) }
}
