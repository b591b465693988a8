import { WaxsealError } from '../index.ts'
import {
  decryptInPlace,
  encryptInPlace,
  type JobOptions,
  type JobReport,
  type Progress,
  plan,
  proveEncrypted,
  type RotationSource,
  reencrypt,
  rewrap,
  type VerifyReport,
  verify,
} from '../rotation/index.ts'
import type { CliConfig } from './config.ts'
import { type Context, jobOptions, tablesOf } from './context.ts'
import { incidentCommand } from './incident.ts'
import { destroy, maintain, retireCommand, rotate, status, suspend } from './keys.ts'
import type { Command } from './options.ts'
import { clockTime, count, duration, grid, percent } from './output.ts'

/** Resolves to whether failures were recorded. */
export type Run = (context: Context) => Promise<boolean>

export const RUN: Readonly<Record<Command, Run>> = {
  status,

  plan: async (context) => {
    const { keys, given, out } = context
    const rowsPerSecond = given.number('rows-per-second')
    const sampleRows = given.number('sample')
    const made = await plan({
      keys,
      tables: tablesOf(context),
      ...(rowsPerSecond !== undefined && { rowsPerSecond }),
      ...(sampleRows !== undefined && { sampleRows }),
    })
    const rows = made.tables.flatMap(({ table, versions }) =>
      versions.map(({ keyId, state, action, rows, ms }) => {
        return [table, keyId, state, count(rows), rows === 0 ? '' : action, ms ? duration(ms) : '']
      }),
    )
    const { rewrap, reencrypt, blocked } = made.rows
    const lowerBound = made.basis === 'sample' ? ' at least (measured without writing)' : ''
    out.say('plan', made, [
      ...grid([['table', 'key id', 'state', 'rows', 'action', 'time'], ...rows]),
      `to rewrap ${count(rewrap)}, to re-encrypt ${count(reencrypt)}, blocked ${count(blocked)}`,
      made.ms === undefined ? 'time: not known' : `time: ${duration(made.ms)}${lowerBound}, one process`,
    ])
    return false
  },

  rotate,
  maintain,
  rewrap: (context) => eachTable(context, (job: Job) => rewrap(job), movedLines),

  reencrypt: (context) => {
    const from = context.given.list('from')
    return eachTable(context, (job: Job) => reencrypt({ ...job, ...(from.length > 0 && { from }) }), movedLines)
  },

  verify: (context) => {
    const sample = context.given.number('sample')
    const anew = context.given.flag('anew')
    const options = { ...(sample !== undefined && { sample }), ...(anew && { resumeWithinMs: 0 }) }
    const isUnclaimed = ({ unclaimed }: VerifyReport): boolean => unclaimed.rows > 0
    return eachTable(context, (job: Job) => verify({ ...job, ...options }), verifiedLines, isUnclaimed)
  },

  encrypt: (context) =>
    eachTable(
      context,
      encryptAndProve,
      ({ plaintextRemains }) => [`  ${plaintextRemains ?? 'no plaintext remains'}`],
      ({ plaintextRemains }) => plaintextRemains !== undefined,
    ),

  decrypt: (context) =>
    eachTable(
      context,
      (job: Job) => decryptInPlace(job),
      ({ sealed }) => [`  left encrypted: ${count(sealed)} rows`],
      ({ sealed }) => sealed > 0,
    ),
  suspend,
  retire: retireCommand,
  destroy,
  incident: incidentCommand,
}

type Job = JobOptions & Pick<CliConfig, 'keys'> & { readonly table: RotationSource }

const MAX_NAMED = 20

/**
 * Runs a job over the tables, one after the other. `lines` says what is particular to it, `isUnfinished` whether rows are not
 * as they should be though none failed.
 */
async function eachTable<R extends JobReport>(
  context: Context,
  run: (job: Job) => Promise<R>,
  lines: (report: R) => readonly string[],
  isUnfinished: (report: R) => boolean = () => false,
): Promise<boolean> {
  const { keys, given, out, signal } = context
  let hasFailed = false
  for (const table of tablesOf(context)) {
    if (signal.aborted) break
    const onProgress = (progress: Progress): void => out.progress(table.name, progress)
    const started = performance.now()
    const report = await run({ keys, table, ...jobOptions(context), onProgress })
    const { written, seen, raced, failed, failures, aborted } = report
    if (failed > 0 || isUnfinished(report)) hasFailed = true
    const did = given.command === 'verify' ? `${count(seen - failed)} rows open` : `${count(written)} rows written`
    out.say(given.command, report, [
      `${table.name}: ${did}, ${count(failed)} failed, ${count(raced)} raced, ${duration(performance.now() - started)}`,
      ...failures.slice(0, MAX_NAMED).map(({ rowId, code }) => `  failed: row ${rowId}: ${code}`),
      ...(failed > MAX_NAMED ? [`  and ${count(failed - MAX_NAMED)} more: see the table waxseal_failure`] : []),
      ...lines(report),
      ...(aborted ? ['  interrupted: run it again to go on'] : []),
    ])
  }
  return hasFailed
}

const movedLines = ({ remaining }: { readonly remaining: ReadonlyMap<string, number> }): string[] =>
  [...remaining].map(([keyId, rows]) => `  left: ${count(rows)} rows under ${keyId}`)

type Encrypted = Awaited<ReturnType<typeof encryptInPlace>> & {
  /** What stands in the way of a strict declaration; undefined when no plaintext remains. */
  readonly plaintextRemains: string | undefined
}

async function encryptAndProve(job: Job): Promise<Encrypted> {
  const report = await encryptInPlace(job)
  try {
    await proveEncrypted(job.table)
    return { ...report, plaintextRemains: undefined }
  } catch (error) {
    if (!WaxsealError.is(error) || error.code !== 'CONFLICT') throw error
    return { ...report, plaintextRemains: error.message }
  }
}

function verifiedLines({ total, sealed, plaintext, byVersion, unclaimed, startedAt, sample }: VerifyReport): string[] {
  const versions = [...byVersion].filter(([, rows]) => rows > 0).map(([keyId, rows]) => `${count(rows)} under ${keyId}`)
  return [
    `  ${count(total)} rows: ${count(plaintext)} plaintext, ${count(sealed)} encrypted: ${versions.join(', ') || 'none'}`,
    ...(unclaimed.rows > 0 ? [`  ${count(unclaimed.rows)} rows are under no version of this keyring`] : []),
    ...unclaimed.rowIds.slice(0, MAX_NAMED).map((rowId) => `  unclaimed: row ${rowId}`),
    ...(sample
      ? [
          `  sample: ${count(sample.drawn)} of ${count(sample.of)} rows, drawn at random; ${count(sample.broken)} of them broken`,
          `  with 95 % confidence at most ${percent(sample.atMost)} of all are broken: ${count(sample.atMostRows)} rows`,
        ]
      : []),
    `  as of ${clockTime(startedAt)}`,
  ]
}
