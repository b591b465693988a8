import {
  type JobOptions,
  type JobReport,
  type Progress,
  plan,
  type RotationSource,
  reencrypt,
  retire,
  rewrap,
  verify,
} from '../rotation/index.ts'
import type { CliConfig } from './config.ts'
import { type Context, jobOptions, tablesOf } from './context.ts'
import { incidentCommand } from './incident.ts'
import { type Command, usage } from './options.ts'
import { clockTime, count, duration, grid } from './output.ts'

/** Resolves to whether failures were recorded. */
export type Run = (context: Context) => Promise<boolean>

export const RUN: Readonly<Record<Command, Run>> = {
  status: async ({ keys, out }) => {
    await keys.ready()
    const status = keys.status()
    const versions = status.versions.map(({ id, state, retired, history, destroyAt, promoteAt }) => [
      id,
      `${state}${retired ? ', retired' : ''}${destroyAt ? `, destroyed at ${clockTime(destroyAt)}` : ''}`,
      promoteAt ? `promote from ${clockTime(promoteAt)}` : `since ${clockTime(history.at(-1)?.at)}`,
    ])
    out.say('status', status, [
      `keyring ${status.name}, id ${status.id}, epoch ${status.epoch}`,
      ...grid(versions),
      ...status.due.map(({ action, keyId }) => `due: ${action} ${keyId ?? ''}`),
    ])
    return false
  },

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

  rotate: async ({ keys, given, out }) => {
    const [reason, actor] = [given.text('reason'), given.text('actor')]
    const why = { ...(reason !== undefined && { reason }), ...(actor !== undefined && { actor }) }
    if (given.flag('urgent') && !given.flag('promote')) throw usage('urgent', '--urgent goes with --promote')
    const keyId = await keys.rotate(why)
    const { promoteAt } = keys.status().versions.find(({ id }) => id === keyId) ?? {}
    out.say('staged', { keyId, promoteAt }, [`staged ${keyId}; it may be promoted from ${clockTime(promoteAt)}`])
    if (!given.flag('promote')) return false
    await keys.promote(keyId, { ...why, urgent: given.flag('urgent') })
    out.say('promoted', { keyId }, [`promoted ${keyId}: it is active`])
    return false
  },

  rewrap: (context) => eachTable(context, (job) => rewrap(job)),

  reencrypt: (context) => {
    const from = context.given.list('from')
    return eachTable(context, (job) => reencrypt({ ...job, ...(from.length > 0 && { from }) }))
  },

  verify: (context) => eachTable(context, (job) => verify(job)),

  retire: async ({ keys, tables, given, out }) => {
    const [keyId, reason] = [given.keyId!, given.text('reason')]
    await retire({ keys, keyId, tables, ...(reason !== undefined && { reason }) })
    out.say('retired', { keyId, tables: tables.map(({ name }) => name) }, [
      `retired ${keyId}: no row of ${tables.length} tables refers to it`,
    ])
    return false
  },

  incident: incidentCommand,
}

type Job = JobOptions & Pick<CliConfig, 'keys'> & { readonly table: RotationSource }
type AnyReport = JobReport & {
  readonly remaining?: ReadonlyMap<string, number>
  readonly byVersion?: ReadonlyMap<string, number>
  readonly plaintext?: number
}

const MAX_NAMED = 20

async function eachTable(context: Context, run: (job: Job) => Promise<AnyReport>): Promise<boolean> {
  const { keys, given, out, signal } = context
  let hasFailed = false
  for (const table of tablesOf(context)) {
    if (signal.aborted) break
    const onProgress = (progress: Progress): void => out.progress(table.name, progress)
    const started = performance.now()
    const report = await run({ keys, table, ...jobOptions(context), onProgress })
    const { written, seen, raced, failed, failures, remaining, plaintext, aborted } = report
    if (failed > 0) hasFailed = true
    const did = given.command === 'verify' ? `${count(seen - failed)} rows open` : `${count(written)} rows written`
    out.say(given.command, report, [
      `${table.name}: ${did}, ${count(failed)} failed, ${count(raced)} raced, ${duration(performance.now() - started)}`,
      ...failures.slice(0, MAX_NAMED).map(({ rowId, code }) => `  failed: row ${rowId}: ${code}`),
      ...(failed > MAX_NAMED ? [`  and ${count(failed - MAX_NAMED)} more: see the table waxseal_failure`] : []),
      ...[...(remaining ?? [])].map(([keyId, rows]) => `  left: ${count(rows)} rows under ${keyId}`),
      ...(plaintext ? [`  plaintext: ${count(plaintext)} rows`] : []),
      ...(aborted ? ['  interrupted: run it again to go on'] : []),
    ])
  }
  return hasFailed
}
