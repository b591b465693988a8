import { type FileHandle, open } from 'node:fs/promises'
import { incident, type RotationSource } from '../rotation/index.ts'
import { type Context, jobOptions, tableOf } from './context.ts'
import { usage } from './options.ts'
import { clockTime, count, duration } from './output.ts'

const CHUNK = 64 * 1024

/** Resolves to whether anything is left under the version. */
export async function incidentCommand(context: Context): Promise<boolean> {
  const { keys, given, out } = context
  const [keyId, reason, file, actor] = [given.keyId!, given.text('reason'), given.text('list'), given.text('actor')]
  if (reason === undefined) throw usage('reason', 'incident takes --reason: it is kept in the history')
  if (file === undefined) throw usage('list', 'incident takes --list: the file for the affected rows')
  const first = given.list('priority').map((name) => tableOf(context.tables, name))
  const tables = [...first, ...context.tables.filter((table) => !first.includes(table))]
  if (!given.flag('yes')) return preview(context, tables)

  const settleMs = given.number('settle-ms')
  const list = await listFile(file)
  try {
    const report = await incident({
      ...jobOptions(context),
      keys,
      keyId,
      tables,
      reason,
      ...(actor !== undefined && { actor }),
      ...(settleMs !== undefined && { settleMs }),
      ...(given.flag('refuse-reads') && { decrypt: 'refuse' }),
      write: list.write,
      flush: list.flush,
      onProgress(step) {
        if (step.phase === 'marked') {
          const { active, wasMarked } = step
          const marked = wasMarked ? `${keyId} was marked compromised before` : `marked ${keyId} compromised`
          out.note('marked', { keyId, active, wasMarked }, `${marked}; ${active} is active`)
        } else if (step.phase === 'listing') {
          out.note('listing', step, `listing ${step.table}: ${count(step.rows)} rows`)
        } else if (step.phase === 'settling') {
          out.note('settling', step, `waiting ${duration(step.ms)}, until every instance knows; then listing again`)
        } else out.progress(step.table, step.progress)
      },
    })
    await list.flush()
    const isInFile = await hasEnd(file, keyId)
    out.say('incident', { ...report, list: file, isInFile }, [
      `marked at ${clockTime(report.markedAt)}${report.wasMarked ? ' (before this call)' : ''}`,
      report.listedAt === undefined
        ? `list not complete: run it again with --list ${file}`
        : isInFile
          ? `list complete at ${clockTime(report.listedAt)}: ${file}`
          : `list complete at ${clockTime(report.listedAt)}, in the file of an earlier call: ${file} does not have it`,
      ...report.tables.flatMap(
        ({ table, listed, reencryptedAt, reencrypted, failed, failures, remaining, stopped }) => [
          `${table}: ${listed === undefined ? '–' : count(listed)} listed, ${count(reencrypted)} re-encrypted at ${clockTime(reencryptedAt)}, ${count(failed)} failed, ${count(remaining)} remaining${stopped ? `; stopped: ${stopped}` : ''}`,
          ...failures.slice(0, 20).map(({ rowId, code }) => `  failed: row ${rowId}: ${code}`),
        ],
      ),
      ...(report.aborted ? ['interrupted: run it again to go on'] : []),
      ...(report.isDone ? [`nothing is left under ${keyId}`] : []),
    ])
    return !report.isDone
  } finally {
    await list.close()
  }
}

async function preview({ keys, given, out }: Context, tables: readonly RotationSource[]): Promise<boolean> {
  const keyId = given.keyId!
  await keys.ready()
  const state = keys.status().versions.find(({ id }) => id === keyId)?.state
  if (state === undefined) throw usage('keyId', `no version ${keyId} in this keyring; see waxseal status`)
  const rows: Record<string, number> = {}
  for (const table of tables) rows[table.name] = (await table.countByKey([keyId])).get(keyId) ?? 0
  out.say('preview', { keyId, state, rows }, [
    state === 'compromised'
      ? `${keyId} is compromised; these rows would be listed and re-encrypted:`
      : `${keyId} is ${state}; it would be marked compromised, for good, and these rows listed and re-encrypted:`,
    ...Object.entries(rows).map(([table, n]) => `  ${table}: ${count(n)} rows`),
  ])
  throw usage('yes', 'nothing was changed: add --yes to do it')
}

/** Appends lines in chunks; a line that a killed process wrote half is cut off. */
async function listFile(path: string) {
  const handle = await open(path, 'a+', 0o600)
  await cutHalfLine(handle)
  let pending = ''
  const drain = async (): Promise<void> => {
    const chunk = pending
    pending = ''
    if (chunk !== '') await handle.appendFile(chunk)
  }
  return {
    write: (line: string): Promise<void> | undefined => {
      pending += line
      return pending.length >= CHUNK ? drain() : undefined
    },
    flush: async (): Promise<void> => {
      await drain()
      await handle.sync()
    },
    close: async (): Promise<void> => {
      await drain()
      await handle.close()
    },
  }
}

/** Whether the list ends in this file. Lists of other versions may stand in it too. */
async function hasEnd(path: string, keyId: string): Promise<boolean> {
  const file = await open(path)
  try {
    const end = `{"complete":true,"keyId":${JSON.stringify(keyId)},`
    for await (const line of file.readLines()) if (line.startsWith(end)) return true
    return false
  } finally {
    await file.close()
  }
}

async function cutHalfLine(handle: FileHandle): Promise<void> {
  const { size } = await handle.stat()
  const length = Math.min(size, CHUNK)
  const { buffer } = await handle.read(Buffer.alloc(length), 0, length, size - length)
  await handle.truncate(size - length + buffer.lastIndexOf(10) + 1)
}
