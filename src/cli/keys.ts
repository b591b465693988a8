import { type RetireOptions, retire } from '../rotation/index.ts'
import type { Context } from './context.ts'
import { type Given, usage } from './options.ts'
import { clockTime, count, grid } from './output.ts'

/** The commands that change the keyring, or show it, and touch no row. Each resolves to whether something failed. */

const whyOf = (given: Given): { reason?: string; actor?: string } => {
  const [reason, actor] = [given.text('reason'), given.text('actor')]
  return { ...(reason !== undefined && { reason }), ...(actor !== undefined && { actor }) }
}

export async function status({ keys, out }: Context): Promise<boolean> {
  await keys.ready()
  const now = keys.status()
  const versions = now.versions.map(({ id, state, retired, history, destroyAt, promoteAt }) => [
    id,
    `${state}${retired ? ', retired' : ''}${destroyAt ? `, to be destroyed at ${clockTime(destroyAt)}` : ''}`,
    promoteAt ? `promote from ${clockTime(promoteAt)}` : `since ${clockTime(history.at(-1)?.at)}`,
  ])
  out.say('status', now, [
    `keyring ${now.name}, id ${now.id}, epoch ${now.epoch}`,
    ...grid(versions),
    ...now.due.map(({ action, keyId }) => `due: ${action} ${keyId ?? ''}`),
  ])
  return false
}

export async function rotate({ keys, given, out }: Context): Promise<boolean> {
  if (given.flag('urgent') && !given.flag('promote')) throw usage('urgent', '--urgent goes with --promote')
  const why = whyOf(given)
  const keyId = await keys.rotate(why)
  const { promoteAt } = keys.status().versions.find(({ id }) => id === keyId) ?? {}
  out.say('staged', { keyId, promoteAt }, [`staged ${keyId}; it may be promoted from ${clockTime(promoteAt)}`])
  if (!given.flag('promote')) return false
  await keys.promote(keyId, { ...why, urgent: given.flag('urgent') })
  out.say('promoted', { keyId }, [`promoted ${keyId}: it is active`])
  return false
}

export async function maintain({ keys, given, out }: Context): Promise<boolean> {
  const { actor } = whyOf(given)
  const done = await keys.maintain(actor === undefined ? {} : { actor })
  const lines = Object.entries(done).flatMap(([what, ids]) => ids.map((id) => `${what} ${id}`))
  out.say('maintained', done, lines.length > 0 ? lines : ['nothing is due'])
  return false
}

export async function suspend({ keys, given, out }: Context): Promise<boolean> {
  const keyId = given.keyId!
  const decrypt = given.flag('refuse-reads') ? 'refuse' : 'report'
  await keys.suspend(keyId, { ...whyOf(given), decrypt })
  const reads = decrypt === 'refuse' ? 'refused' : 'reported'
  out.say('suspended', { keyId, decrypt }, [
    `suspended ${keyId}: nothing is encrypted under it, reading is ${reads}; in every instance within its refreshMs`,
  ])
  return false
}

export async function retireCommand({ keys, tables, given, out }: Context): Promise<boolean> {
  const [keyId, reason] = [given.keyId!, given.text('reason')]
  const options: RetireOptions = { keys, keyId, tables, except: given.list('except') }
  const report = await retire({ ...options, ...(reason !== undefined && { reason }) })
  const { counted, skipped } = report
  out.say('retired', { ...report, tables: tables.map(({ name }) => name) }, [
    `retired ${keyId}: no row of ${count(counted.length)} tables refers to it: ${counted.join(', ')}`,
    ...(skipped.length > 0 ? [`not asked, at your word: ${skipped.join(', ')}`] : []),
  ])
  return false
}

export async function destroy({ keys, given, out }: Context): Promise<boolean> {
  const [keyId, expire] = [given.keyId!, given.text('backups-expire')]
  if (given.flag('cancel')) {
    if (expire !== undefined) throw usage('cancel', '--cancel and --backups-expire do not go together')
    await keys.cancelDestroy(keyId, whyOf(given))
    out.say('destruction-cancelled', { keyId }, [`${keyId} stays, and is not retired any more`])
    return false
  }
  if (expire === undefined) {
    throw usage('backups-expire', 'destroy takes --backups-expire: the date when the last backup with its rows expires')
  }
  const backupsExpire = new Date(expire)
  if (Number.isNaN(backupsExpire.getTime())) {
    throw usage('backups-expire', `--backups-expire expected a date such as 2027-03-31, got ${expire}`)
  }
  const at = await keys.destroy(keyId, { ...whyOf(given), backupsExpire })
  out.say('destroying', { keyId, destroyAt: at.getTime() }, [
    `${keyId} is destroyed by the first maintain from ${at.toISOString()}; any use until then cancels it`,
  ])
  return false
}
