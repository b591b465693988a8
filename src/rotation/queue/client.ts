import { config, expectInteger, expectWord } from '../../errors.ts'
import { type JobKind, KINDS } from './kinds.ts'

/** The part of graphile-worker that is used. Nothing of it is imported. */

/** How a job is put into the queue: a subset of graphile-worker's `TaskSpec`. */
export interface QueueSpec {
  readonly jobKey?: string
  readonly jobKeyMode?: 'replace' | 'preserve_run_at'
  readonly runAt?: Date
  readonly maxAttempts?: number
  readonly priority?: number
}

/** `addJob` of graphile-worker: of `makeWorkerUtils`, of a runner, of the helpers of a task; or `quickAddJob`, bound. */
export type AddJob = (identifier: string, payload: unknown, spec?: QueueSpec) => PromiseLike<unknown>

/** What a task gets besides its payload. */
export interface TaskHelpers {
  readonly addJob: AddJob
  readonly abortSignal?: AbortSignal | undefined
  readonly job: { readonly attempts: number; readonly max_attempts: number }
}

/** A task as graphile-worker runs it. */
export type QueueTask = (payload: unknown, helpers: TaskHelpers) => Promise<void>

/** What stands in the queue: names, and nothing of a row or a key. */
export interface Named {
  readonly kind: JobKind
  readonly table: string
}

/** A turn of one worker of a run. */
export interface Turn extends Named {
  readonly run: string
  readonly slot: number
}

export const MAX_WORKERS = 256
const RUN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** What the application registered. */
export interface Registered {
  readonly jobs: readonly JobKind[]
  readonly tables: Readonly<Record<string, unknown>>
}

/** A request that names what is registered, and nothing more. Whoever writes to the queue's tables may write anything. */
export function readNamed(payload: unknown, { jobs, tables }: Registered): Named & { readonly run?: string } {
  const { kind, table, run, ...rest } = membersOf(payload)
  expectWord('kind', kind, ...jobs)
  if (typeof table !== 'string' || !Object.hasOwn(tables, table)) {
    throw config('table', 'the name of a table that is registered', table)
  }
  if (run !== undefined && (typeof run !== 'string' || !RUN.test(run))) throw config('run', 'the id of a run', run)
  expectNothing(rest, ['_cron'])
  return { kind: kind as JobKind, table, ...(run === undefined ? {} : { run: run as string }) }
}

export function readTurn(payload: unknown, registered: Registered): Turn {
  const { slot, ...named } = membersOf(payload)
  const { kind, table, run } = readNamed(named, registered)
  if (run === undefined) throw config('run', 'the id of a run', run)
  expectInteger('slot', slot, 1, MAX_WORKERS)
  return { kind, table, run, slot: slot as number }
}

function membersOf(payload: unknown): Record<string, unknown> {
  if (typeof payload === 'object' && payload !== null && !Array.isArray(payload)) return { ...payload }
  throw config('payload', 'an object', payload)
}

/** graphile-worker adds a member of its own to what cron enters. */
function expectNothing(rest: object, known: readonly string[]): void {
  const other = Object.keys(rest).find((name) => !known.includes(name))
  if (other !== undefined) throw config('payload', "no members but 'kind', 'table', 'run' and 'slot'", rest)
}

/** CONFIG unless `jobs` is a list of kinds, each once. */
export function expectKinds(jobs: unknown): void {
  const isList = Array.isArray(jobs) && jobs.length > 0 && new Set(jobs).size === jobs.length
  if (!isList) throw config('jobs', 'a list of the jobs that may be queued, each once', jobs)
  for (const kind of jobs) expectWord('jobs', kind, ...KINDS)
}
