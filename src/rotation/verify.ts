import { expectInteger } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import { TABLES } from './books.ts'
import { mostBroken } from './bound.ts'
import { type JobReport, runJob } from './job.ts'
import { activeOf, nameOf, type TableJob } from './jobs.ts'
import type { Census, RotationSource } from './source.ts'
import { verifyWork, type Work } from './work.ts'

export interface VerifyJob extends TableJob {
  /**
   * Open about this many rows, drawn at random by the database, in place of all: 1 to 10,000,000. The whole table is read, so what
   * is saved is opening, and sending, the rest.
   */
  readonly sample?: number
  /**
   * A verification that stopped longer ago than this, in ms, begins anew: 86,400,000 (a day) by default; 0: whenever nobody
   * works on it.
   */
  readonly resumeWithinMs?: number
}

export interface SampleReport {
  /** Rows that were drawn and opened, or failed to open. */
  readonly drawn: number
  /** Rows with an envelope that the table has. */
  readonly of: number
  readonly broken: number
  /** With 95 % confidence at most this part of them is broken (Clopper and Pearson); exact when all were drawn. */
  readonly atMost: number
  /** The same in rows. */
  readonly atMostRows: number
}

export interface VerifyReport extends JobReport {
  /** Rows of the table: `sealed` + `plaintext`, counted at one instant after the last row was opened. */
  readonly total: number
  /** Rows with an envelope: those of all versions, and the unclaimed ones. */
  readonly sealed: number
  /** Rows without an envelope. */
  readonly plaintext: number
  readonly byVersion: ReadonlyMap<string, number>
  /** Rows with an envelope that no version of the keyring claims; at most 100 of them are named. */
  readonly unclaimed: { readonly rows: number; readonly rowIds: readonly string[] }
  /** Of a sample; undefined when all rows were opened. */
  readonly sample: SampleReport | undefined
}

const DAY_MS = 86_400_000
const MOST_NAMED = 100
/** Rows that a page reads past, so that a statement does not take for ever. */
const READ_PAST = 200_000

/**
 * Opens every row of a table, commitments included, or a random sample of them, and changes none. `failures` has what does not
 * open. A call that resumes keeps what was opened before: `startedAt` says since when.
 *
 * A sample is uniform over the rows with an envelope, and drawn anew each time: every row has the same chance, so `drawn` is near
 * `sample` and not equal to it.
 *
 * Errors: CONFIG (also: row-level security may hide rows), KEY_STATE (no version is active), LIMIT_EXCEEDED (more than `maxFailures`
 * broken rows), and what the database client throws.
 *
 * @example
 * ```ts
 * import type { Keyring } from 'waxseal'
 * import { type RotationSource, verify } from 'waxseal/rotation'
 *
 * export async function check(keys: Keyring, table: RotationSource): Promise<string> {
 *   const { failed, unclaimed, sample } = await verify({ keys, table, sample: 10_000 })
 *   return `${failed + unclaimed.rows} broken; at most ${sample!.atMostRows} of ${sample!.of} in all, with 95 % confidence`
 * }
 * ```
 */
export async function verify(options: VerifyJob): Promise<VerifyReport> {
  const { keys, table, sample, resumeWithinMs = DAY_MS, ...job } = options
  if (sample !== undefined) expectInteger('sample', sample, 1, 10_000_000)
  expectInteger('resumeWithinMs', resumeWithinMs, 0)
  const active = await activeOf(keys, table)
  await table.books.prepare()
  const all = await nameOf('verify', table, active)
  const abandon = (name: string): Promise<void> => abandonStale(table, name, resumeWithinMs, job.leaseMs)
  if (sample === undefined) {
    await abandon(all)
    const work = verifyWork(keys, table)
    return told(keys, table, work, (await runJob(table, work, all, job)).report)
  }
  const drawn = await drawing(table, active, sample, abandon)
  const work = verifyWork(keys, table, drawn.chance)
  const batchSize = Math.max(1, Math.min(job.batchSize ?? 1_000, Math.ceil(drawn.chance * READ_PAST)))
  const { report: drew } = await runJob(table, work, drawn.name, { ...job, batchSize })
  const report = await told(keys, table, work, drew)
  return { ...report, sample: sampleOf(report, drawn.chance) }
}

function sampleOf({ seen, failed, sealed }: VerifyReport, chance: number): SampleReport {
  const isAll = chance === 1 && seen >= sealed
  const atMost = isAll ? failed / Math.max(1, seen) : mostBroken(failed, seen)
  return { drawn: seen, of: sealed, broken: failed, atMost, atMostRows: Math.floor(atMost * sealed) }
}

/**
 * The chance of each row, and the job that draws with it. Whoever joins or resumes draws with the chance that it began with,
 * also when the table has grown: it is part of the job's name.
 */
async function drawing(
  table: RotationSource,
  active: string,
  sample: number,
  abandon: (name: string) => Promise<void>,
): Promise<{ name: string; chance: number }> {
  // In front: the end of a long name is cut off.
  const named = async (chance: number) => ({ name: await nameOf(`sample ${sample} ${chance}`, table, active), chance })
  const running = async () => {
    const jobs = await table.books.query<{ name: string }>(`select name from ${TABLES.job} where finished_at is null`)
    const chances = jobs.flatMap(({ name }) => new RegExp(`^sample ${sample} ([\\d.e-]+) `).exec(name)?.[1] ?? [])
    const known = new Set(jobs.map(({ name }) => name))
    return (await Promise.all(chances.map((chance) => named(Number(chance))))).filter(({ name }) => known.has(name))
  }
  for (const { name } of await running()) await abandon(name)
  const [joined] = await running()
  if (joined) return joined
  const rows = await table.count('sealed')
  // Two digits, so that workers who begin at the same time, and count a row more or less, draw for the same job.
  const share = rows > sample ? sample / rows : 1
  const unit = 10 ** (Math.floor(Math.log10(share)) - 1)
  const chance = Number(Math.min(1, Math.ceil(share / unit) * unit).toPrecision(2))
  return named(chance)
}

/** Ends a job that nobody has worked on for a while, so that the next call begins anew. Behind its last range it is about to end. */
async function abandonStale(table: RotationSource, name: string, withinMs: number, leaseMs = 30_000): Promise<void> {
  const { books } = table
  await books.run(
    `update ${TABLES.job} set finished_at = ${books.now} where name = ? and finished_at is null
      and started_at + ? <= ${books.now} and not exists (
        select 1 from ${TABLES.range} r where r.job = ${TABLES.job}.job and (r.lease_until + ? > ${books.now}
          or ((r.owner is not null or r.is_done = 1) and r.lease_until > ${books.now})))`,
    [name, withinMs, withinMs - leaseMs],
  )
}

/** The report with counts of one instant, and the rows that no version claims. */
async function told(keys: Keyring, table: RotationSource, work: Work, report: JobReport): Promise<VerifyReport> {
  let counts = await countAll(keys, table)
  let rowIds: string[] = []
  if (counts.unclaimed > 0) {
    rowIds = await unclaimedIds(keys, table, work)
    // A version that another instance made meanwhile is none that is not there.
    counts = await countAll(keys, table)
    if (counts.unclaimed === 0) rowIds = []
  }
  const { total, sealed, byKey, unclaimed } = counts
  return {
    ...report,
    total,
    sealed,
    plaintext: total - sealed,
    byVersion: byKey,
    unclaimed: { rows: unclaimed, rowIds },
    sample: undefined,
  }
}

const versionsOf = (keys: Keyring): string[] => keys.status().versions.map(({ id }) => id)

async function countAll(keys: Keyring, table: RotationSource): Promise<Census & { readonly unclaimed: number }> {
  const census = await table.census(versionsOf(keys))
  const claimed = [...census.byKey.values()].reduce((sum, rows) => sum + rows, 0)
  return { ...census, unclaimed: census.sealed - claimed }
}

/** Opens some of them, so that the keyring learns which versions to look for, and names them. */
async function unclaimedIds(keys: Keyring, table: RotationSource, work: Work): Promise<string[]> {
  const filter = { notKeys: versionsOf(keys) }
  const rows = await table.page(filter, { after: null, upTo: null }, MOST_NAMED, work.extent)
  for (const read of rows) {
    try {
      work.apply(read)
    } catch {
      // Said by the count.
    }
  }
  await work.ready()
  return rows.map(({ row }) => table.rowId(row))
}
