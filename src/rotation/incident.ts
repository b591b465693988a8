import { config, type ErrorCode, expectInteger, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import type { DecryptPolicy } from '../keyring/manifest.ts'
import { dropListed, endLine, type Listed, listedBefore, listRows, noteListed } from './affected.ts'
import type { JobOptions, Progress } from './job.ts'
import { reencrypt } from './jobs.ts'
import { sleep } from './pace.ts'
import type { RotationSource, RowFailure } from './source.ts'

export type IncidentProgress =
  /** `wasMarked`: by an earlier call. */
  | { readonly phase: 'marked'; readonly active: string; readonly wasMarked: boolean }
  | { readonly phase: 'listing'; readonly table: string; readonly rows: number }
  /** Waits until every instance has learned of it. */
  | { readonly phase: 'settling'; readonly ms: number }
  | { readonly phase: 'reencrypting'; readonly table: string; readonly progress: Progress }

export interface IncidentOptions extends Omit<JobOptions, 'onProgress'> {
  readonly keys: Keyring
  /** The version that may have leaked. */
  readonly keyId: string
  /** Every table that holds rows under the keyring, the most urgent first. */
  readonly tables: readonly RotationSource[]
  /** Kept in the key's history for good. */
  readonly reason: string
  readonly actor?: string
  /** Whether reading what is under the version is reported (default) or refused from now on. */
  readonly decrypt?: DecryptPolicy
  /** Takes one line of the list, with its line feed; what it returns is awaited before the next line is made. */
  readonly write: (line: string) => unknown
  /** Makes the lines durable; awaited behind the first list, and when the list is complete, before that is noted and the first row is changed. */
  readonly flush?: () => unknown
  /**
   * How long after the marking another instance may still write under the version, in ms: the longest `refreshMs` of
   * any. 300,000 (5 minutes) by default. A list that was made before that is made once more when it is over.
   */
  readonly settleMs?: number
  readonly onProgress?: (progress: IncidentProgress) => void
}

/** All times are in ms since the epoch. */
export interface IncidentTable {
  readonly table: string
  /** Rows on its list; undefined when it was aborted before the list was complete. */
  readonly listed: number | undefined
  readonly listedAt: number | undefined
  /** When no row that can be opened was left under the version; undefined until then. */
  readonly reencryptedAt: number | undefined
  /** Rows that have a new data key, those of earlier calls that were stopped included. */
  readonly reencrypted: number
  /** Of a job that stopped: at least. */
  readonly failed: number
  readonly failures: readonly RowFailure[]
  /** Rows that still are under the version. */
  readonly remaining: number
  /** Why its job stopped; the tables behind it were dealt with. */
  readonly stopped?: ErrorCode
}

export interface IncidentReport {
  readonly keyId: string
  /** The version that rows are moved to. */
  readonly active: string
  readonly markedAt: number
  /** True when it had been marked before this call. */
  readonly wasMarked: boolean
  /** When the lists of all tables were complete, by this call or an earlier one; undefined while they are not. */
  readonly listedAt: number | undefined
  /** In the given order. */
  readonly tables: readonly IncidentTable[]
  readonly endedAt: number
  readonly aborted: boolean
  /** Nothing is left under the version in any table. */
  readonly isDone: boolean
}

const PAGE = 1_000
const MAX_FAILURES = 1_000
const SETTLE_MS = 300_000

/**
 * For a master key that may have leaked. In this order: marks the version compromised, with a new one active in the same
 * write; writes the list of every row under it; waits until every instance has learned of it, and lists again what
 * was written meanwhile; re-encrypts, table by table. Called again after a kill it goes on where it was: a list that was
 * complete is not made again, because rows have left the version since; one that was not begins anew.
 *
 * A line is JSON: `table`, `rowId`, and `subject` where the source says whose row it is. Rows that were listed twice have
 * two equal lines. The last one is `complete`, with `keyId`, `rows` (of all tables, each counted once) and `at`: a list that
 * does not end with it is not whole.
 *
 * Errors: CONFIG (also: row-level security may hide rows; the version is marked by then), UNKNOWN_KEY, KEY_STATE (the version
 * is destroyed), KMS_UNAVAILABLE (nothing was marked: suspend the version), what `write` or the database client throws.
 *
 * @example
 * ```ts
 * import { open } from 'node:fs/promises'
 * import type { Keyring } from 'waxseal'
 * import { incident, type RotationSource } from 'waxseal/rotation'
 *
 * export async function leaked(keys: Keyring, keyId: string, tables: RotationSource[]) {
 *   const list = await open('affected.ndjson', 'a', 0o600)
 *   const write = (line: string) => list.appendFile(line)
 *   return incident({ keys, keyId, tables, reason: 'stolen', write, flush: () => list.sync() }).finally(() => list.close())
 * }
 * ```
 */
export async function incident(options: IncidentOptions): Promise<IncidentReport> {
  const {
    keys,
    keyId,
    tables,
    reason,
    actor,
    decrypt,
    write,
    flush,
    settleMs = SETTLE_MS,
    onProgress,
    ...job
  } = options
  const { signal } = job
  if (!Array.isArray(tables) || tables.length === 0) {
    throw config('tables', 'every table that holds rows under the keyring', tables)
  }
  if (typeof write !== 'function') throw config('write', 'a function that takes a line', write)
  if (typeof reason !== 'string' || reason.trim() === '') throw config('reason', 'why it is marked', reason)
  expectInteger('settleMs', settleMs, 0, 86_400_000)

  const marked = await mark(options)
  onProgress?.({ phase: 'marked', active: marked.active, wasMarked: marked.before })
  for (const table of tables) await table.assertSeesAll('history')

  const lists = new Map<RotationSource, Listed>()
  const list = async (): Promise<void> => {
    for (const table of tables) {
      if (lists.has(table) || signal?.aborted) continue
      const onPage = (rows: number): void => onProgress?.({ phase: 'listing', table: table.name, rows })
      const rows = await listRows(table, keyId, write, { pageSize: PAGE, signal, onPage })
      if (rows !== undefined) lists.set(table, { rows, at: Date.now() })
    }
  }
  const noted = new Map<RotationSource, Listed>()
  for (const table of tables) {
    // Before the marking there was no list: what says so was put there by somebody else.
    if (!marked.before) await dropListed(table, keyId)
    const before = await listedBefore(table, keyId)
    if (before) noted.set(table, before)
  }
  for (const [table, before] of noted) lists.set(table, before)
  const unsettledMs = marked.at + settleMs - Date.now()
  await list()
  if (unsettledMs > 0 && noted.size < tables.length && !signal?.aborted) {
    await flush?.() // for people to begin with
    const ms = Math.max(0, marked.at + settleMs - Date.now())
    onProgress?.({ phase: 'settling', ms })
    await sleep(ms, signal)
    if (!signal?.aborted) {
      for (const table of tables) if (!noted.has(table)) lists.delete(table)
      await list()
    }
  }
  let isListed = noted.size === tables.length
  // Before the first row leaves the version: from then on no list could be complete any more.
  if (!signal?.aborted) {
    if (noted.size < tables.length) await write(endLine(keyId, lists.values()))
    await flush?.()
    for (const [table, made] of lists) if (!noted.has(table)) await noteListed(table, keyId, made)
    isListed = true
  }

  const done: IncidentTable[] = []
  for (const table of tables) {
    const made = lists.get(table)
    const told = { table: table.name, listed: made?.rows, listedAt: made?.at }
    done.push({ ...told, ...(await clear(table, options, job)) })
  }
  return {
    keyId,
    active: marked.active,
    markedAt: marked.at,
    wasMarked: marked.before,
    listedAt: isListed ? Math.max(...[...lists.values()].map(({ at }) => at)) : undefined,
    tables: done,
    endedAt: Date.now(),
    aborted: signal?.aborted === true,
    isDone: done.every(({ remaining }) => remaining === 0),
  }
}

/** Marks the version, unless that was done, and sees to it that one is active. */
async function mark(options: IncidentOptions): Promise<{ at: number; active: string; before: boolean }> {
  const { keys, keyId, reason, actor, decrypt } = options
  const why = { reason, ...(actor !== undefined && { actor }) }
  let before = false
  try {
    await keys.markCompromised(keyId, { ...why, ...(decrypt !== undefined && { decrypt }) })
  } catch (error) {
    if (!WaxsealError.is(error) || error.code !== 'KEY_STATE' || error.state !== 'compromised') throw error
    before = true
  }
  // A version that was suspended first, for want of the KMS, leaves no successor.
  if (keys.status().active === undefined) await keys.promote(await keys.rotate(why), { ...why, urgent: true })
  const { active, versions } = keys.status()
  const at = versions.find(({ id }) => id === keyId)?.history.findLast(({ state }) => state === 'compromised')?.at
  return { at: at!, active: active!, before }
}

type Cleared = Omit<IncidentTable, 'table' | 'listed' | 'listedAt'>

/** Re-encrypts one table. Too many broken rows stop it, and not the tables behind it. */
async function clear(
  table: RotationSource,
  { keys, keyId, onProgress }: IncidentOptions,
  job: Omit<JobOptions, 'onProgress'>,
): Promise<Cleared> {
  const left = async (): Promise<number> => (await table.countByKey([keyId])).get(keyId) ?? 0
  const nothing = { reencryptedAt: undefined, reencrypted: 0, failed: 0, failures: [] }
  if (job.signal?.aborted) return { ...nothing, remaining: await left() }
  try {
    const report = await reencrypt({
      ...job,
      keys,
      table,
      from: [keyId],
      onProgress: (progress) => onProgress?.({ phase: 'reencrypting', table: table.name, progress }),
    })
    const { written: reencrypted, failed, failures, aborted } = report
    const remaining = await left()
    const isThrough = !aborted && remaining <= failed
    return { reencryptedAt: isThrough ? Date.now() : undefined, reencrypted, failed, failures, remaining }
  } catch (error) {
    if (!WaxsealError.is(error) || error.code !== 'LIMIT_EXCEEDED') throw error
    const remaining = await left()
    return { ...nothing, failed: (job.maxFailures ?? MAX_FAILURES) + 1, remaining, stopped: error.code }
  }
}
