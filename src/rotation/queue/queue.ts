import { config, expectInteger, WaxsealError } from '../../errors.ts'
import type { Keyring } from '../../keyring/keyring.ts'
import type { JobOptions, Progress } from '../job.ts'
import type { RotationSource, RowFailure } from '../source.ts'
import {
  type AddJob,
  expectKinds,
  MAX_WORKERS,
  type Named,
  type QueueSpec,
  type QueueTask,
  readNamed,
  readTurn,
  type TaskHelpers,
  type Turn,
} from './client.ts'
import type { JobKind } from './kinds.ts'
import { type RunStatus, type Runs, runsOf } from './runs.ts'
import { backOffMs, codeOf, forQueue, takeTurn, untilAnswered } from './turn.ts'

/** A run that is over. */
export interface RunReport extends RunStatus {
  /** At most 10,000 of them, in the order of the ids. */
  readonly failures: readonly RowFailure[]
}

export interface RotationQueueOptions extends Omit<JobOptions, 'onProgress'> {
  readonly keys: Keyring
  /** The tables that jobs may be queued for, under the names that stand in the queue: letters, digits, `.`, `_`, `-`. */
  readonly tables: Readonly<Record<string, RotationSource>>
  /** The jobs that may be queued. Name no more than you queue: whoever can write to the queue's tables can start them. */
  readonly jobs: readonly JobKind[]
  /** Workers of one run, on all machines together: 1 to 256, 4 by default. */
  readonly workers?: number
  /** 4 a worker by default. */
  readonly ranges?: number
  /** How long a worker has a place of the queue's concurrency before others get it, in ms: 100 to 3,600,000, 30,000 by default. */
  readonly turnMs?: number
  /**
   * Attempts of one turn before the run fails: 1 to 25, 10 by default, which with the queue's back-off are 3.5 hours. Also
   * how many workers may die in one slot in a row.
   */
  readonly attempts?: number
  /** In the queue; a smaller number runs first. 0 by default. */
  readonly priority?: number
  /** Begins the names of tasks and job keys: `waxseal` by default. Two queues in one schema need two. */
  readonly name?: string
  readonly onProgress?: (progress: Progress, job: Named) => void
  /**
   * Told when a run is over and its totals are final: at least once, and once unless the process dies, it throws or it
   * takes longer than `leaseMs`; after 10 failures no more. `run` tells two calls for the same run.
   */
  readonly onEnded?: (report: RunReport) => unknown
  /** What ended a turn, as it came; the queue keeps its code alone. */
  readonly onError?: (error: unknown, job: Named | undefined) => void
}

export interface RotationQueue {
  /** Put these into the task list of every process that shall work. */
  readonly tasks: Readonly<Record<string, QueueTask>>
  /** The task that begins a run, for a crontab: its payload is `{ kind, table }`. */
  readonly task: string
  /**
   * Asks for a run. One that is under way, or asked for already, is not joined by a second. `queue` is `addJob` of
   * graphile-worker, or what has it: its worker utils, a runner, a task's helpers.
   */
  enqueue(queue: AddJob | { readonly addJob: AddJob }, kind: JobKind, table: string): Promise<void>
  /** The run that is under way, or the last one; undefined before the first. */
  status(kind: JobKind, table: string): Promise<RunStatus | undefined>
  /** Workers stop within about a second, behind their batch. False when no run was running. */
  pause(kind: JobKind, table: string): Promise<boolean>
  /** They go on within `leaseMs`. False when no run was paused. */
  resume(kind: JobKind, table: string): Promise<boolean>
  /** Ends the run; what was written stays. False when none was under way. */
  cancel(kind: JobKind, table: string): Promise<boolean>
}

const MAX_REPORTED = 10_000
const LABEL = /^[A-Za-z0-9._-]{1,100}$/
const NAME = /^[A-Za-z_][A-Za-z0-9_-]{0,30}$/

/**
 * Jobs of `waxseal/rotation`, worked on by the machines of a graphile-worker queue (0.17): each run by up to `workers`
 * of them, in turns. Progress, ranges and totals are in the books of the table's database; the queue distributes turns,
 * limits them, and tries failed ones again. The queue holds names alone.
 *
 * Errors: CONFIG. What a run fails of is in its status.
 *
 * @example
 * ```ts
 * import type { Keyring, Records } from 'waxseal'
 * import type { Postgres } from 'waxseal/postgres'
 * import { rotationQueue } from 'waxseal/rotation/queue'
 * import { postgresTable } from 'waxseal/rotation/postgres'
 *
 * export const rotation = (keys: Keyring, db: Postgres, customers: Records<any>) =>
 *   rotationQueue({ keys, tables: { customers: postgresTable(db, customers) }, jobs: ['rewrap', 'verify'] })
 * // run({ taskList: { ...taskList, ...rotation.tasks } })     in every worker process
 * // await rotation.enqueue(workerUtils, 'rewrap', 'customers') anywhere
 * ```
 */
export function rotationQueue(options: RotationQueueOptions): RotationQueue {
  const { keys, tables, workers = 4, leaseMs = 30_000, turnMs = 30_000, attempts = 10, name = 'waxseal' } = options
  const { priority, signal, onProgress, onEnded, onError } = options
  check(options)
  const job: JobOptions = { ...jobOptions(options), leaseMs, ranges: options.ranges ?? workers * 4 }
  const names = { run: `${name}:rotation`, turn: `${name}:turn` }
  const books = new Map<string, Promise<Runs>>()

  function runsFor({ kind, table }: Named): Promise<Runs> {
    const place = `${kind}:${table}`
    const known = books.get(place)
    if (known) return known
    const runs = runsOf(tables[table]!.books, kind, table)
    const prepared = runs.prepare().then(() => runs)
    books.set(place, prepared)
    prepared.catch(() => books.delete(place))
    return prepared
  }

  const keyOf = ({ kind, table }: Named): string => `${name}:${kind}:${table}`
  const own = priority === undefined ? {} : { priority }
  const addRun = (addJob: AddJob, named: Named & { readonly run?: string }, spec: QueueSpec = {}) =>
    addJob(names.run, named, { jobKey: keyOf(named), ...own, ...spec })
  const addTurn = (addJob: AddJob, turn: Turn) =>
    addJob(names.turn, turn, {
      jobKey: `${keyOf(turn)}#${turn.slot}`,
      jobKeyMode: 'preserve_run_at',
      maxAttempts: attempts,
      ...own,
    })

  /** Has somebody look after the run when a lease has passed: a job of the queue that no dead worker can hold. */
  async function watch(addJob: AddJob, named: Named & { readonly run: string }, spec: QueueSpec = {}) {
    const now = await (await runsFor(named)).time()
    await addRun(addJob, named, { runAt: new Date(now + leaseMs), ...spec })
  }

  /** Begins a run, or looks after the one that is under way: turns that are overdue, ends that nobody was told of. */
  async function look(payload: unknown, { addJob }: TaskHelpers): Promise<void> {
    const { run = globalThis.crypto.randomUUID(), ...named } = readNamed(payload, options)
    const runs = await runsFor(named)
    let active = await runs.active()
    if (!active && !(await runs.isKnown(run))) {
      await watch(addJob, { ...named, run }) // first: whoever comes after a kill begins this run
      await runs.forget()
      await runs.begin(run, workers)
      active = await runs.active()
    }
    if (active) await watch(addJob, { ...named, run: active.run })
    try {
      const overdue = active?.state === 'running' ? await runs.overdue(active.run) : []
      if (overdue.some(({ died }) => died > attempts)) await runs.end(active!.run, 'failed', 'WORKERS_DIED')
      else for (const { slot } of overdue) await addTurn(addJob, { ...named, run: active!.run, slot })
      for (const ended of await runs.untold()) await conclude(runs, named, ended)
      if (!active && (await runs.untold()).length > 0) await watch(addJob, { ...named, run })
    } catch (error) {
      if (!active) throw error
      onError?.(error, named) // who looks next is in the queue already
    }
  }

  /** One turn in a slot of a run; the next one is entered behind it. */
  async function take(payload: unknown, { addJob, abortSignal, job: queued }: TaskHelpers): Promise<void> {
    const turn = readTurn(payload, options)
    const { run, slot, kind, table } = turn
    const runs = await runsFor(turn)
    const holder = globalThis.crypto.randomUUID()
    if (!(await runs.claim(run, slot, holder, leaseMs))) return
    const named = { kind, table }
    try {
      await watch(addJob, { ...named, run }, { jobKeyMode: 'preserve_run_at' })
      const progress = onProgress && { onProgress: (told: Progress) => onProgress(told, named) }
      const signals = [abortSignal, signal]
      const settings = { turn, holder, runs, keys, leaseMs, turnMs, signals, source: tables[table]! }
      if (await takeTurn({ ...settings, job: { ...job, ...progress } })) await runs.end(run, 'finished')
    } catch (error) {
      const isFinal = WaxsealError.is(error) && !error.retryable
      if (!isFinal && queued.attempts < queued.max_attempts) {
        // Nobody else takes the slot while the queue waits; if this fails too, its lease runs out.
        await runs.release(run, slot, holder, backOffMs(queued.attempts) + leaseMs, true).catch(() => undefined)
        throw error
      }
      onError?.(error, named)
      await runs.end(run, 'failed', codeOf(error))
    }
    const goesOn = await runs.isRunning(run)
    await runs.release(run, slot, holder, goesOn ? leaseMs : 0)
    if (goesOn) await addTurn(addJob, turn)
    else await conclude(runs, named, run)
  }

  /** Tells of a run that is over, once its totals are final. */
  async function conclude(runs: Runs, named: Named, run: string): Promise<void> {
    if (!(await runs.settle(run)) || !(await runs.claimTelling(run, leaseMs))) return
    const status = await runs.status(run)
    if (!status) return
    try {
      await onEnded?.({ ...status, failures: await runs.failures(run, MAX_REPORTED) })
    } catch (error) {
      onError?.(error, named)
      return
    }
    await runs.told(run)
  }

  /** Nothing that a database client said goes to the queue, whose table keeps it. */
  const task =
    (work: QueueTask): QueueTask =>
    async (payload, helpers) => {
      try {
        await work(payload, helpers)
      } catch (error) {
        const named = namedOf(payload)
        onError?.(error, named)
        // graphile-worker ends its process when it cannot write down how a job ended.
        if (named) await untilAnswered(() => tables[named.table]!.books.query('select 1'), helpers.abortSignal)
        throw forQueue(error)
      }
    }
  function namedOf(payload: unknown): Named | undefined {
    const { kind, table } = (payload ?? {}) as Partial<Named>
    return kind && table && options.jobs.includes(kind) && Object.hasOwn(tables, table) ? { kind, table } : undefined
  }

  const registered = (kind: JobKind, table: string): Promise<Runs> => runsFor(readNamed({ kind, table }, options))

  return {
    tasks: { [names.run]: task(look), [names.turn]: task(take) },
    task: names.run,
    async enqueue(queue, kind, table) {
      const addJob: unknown = typeof queue === 'function' ? queue : queue?.addJob
      if (typeof addJob !== 'function') throw config('queue', 'addJob of graphile-worker, or what has it', queue)
      const named = readNamed({ kind, table }, options)
      await addRun(addJob.bind(typeof queue === 'function' ? undefined : queue) as AddJob, named)
    },
    status: async (kind, table) => (await registered(kind, table)).status(),
    pause: async (kind, table) => (await registered(kind, table)).move('running', 'paused'),
    resume: async (kind, table) => (await registered(kind, table)).move('paused', 'running'),
    async cancel(kind, table) {
      const runs = await registered(kind, table)
      const active = await runs.active()
      if (!active || !(await runs.end(active.run, 'cancelled'))) return false
      await conclude(runs, { kind, table }, active.run)
      return true
    },
  }
}

/** What is handed to the job as it is. */
function jobOptions({ batchSize, maxFailures, pace, control }: RotationQueueOptions): JobOptions {
  const given = { batchSize, maxFailures, pace, control }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

function check({
  keys,
  tables,
  jobs,
  name,
  workers = 1,
  leaseMs = 100,
  turnMs = 100,
  attempts = 1,
}: RotationQueueOptions) {
  if (typeof keys?.ready !== 'function') throw config('keys', 'an open keyring', keys)
  expectKinds(jobs)
  const labels = typeof tables === 'object' && tables !== null ? Object.keys(tables) : []
  if (labels.length === 0) throw config('tables', 'tables by their names', tables)
  const wrong = labels.find((label) => !LABEL.test(label))
  if (wrong !== undefined) throw config('tables', 'names of 1 to 100 letters, digits, ".", "_" or "-"', wrong)
  const none = labels.find((label) => typeof tables[label]?.books?.query !== 'function')
  if (none !== undefined) throw config(`tables.${none}`, 'what postgresTable() returns', tables[none])
  if (name !== undefined && !NAME.test(name)) throw config('name', 'letters, digits, "_" or "-", 31 at most', name)
  expectInteger('workers', workers, 1, MAX_WORKERS)
  expectInteger('leaseMs', leaseMs, 100, 3_600_000)
  expectInteger('turnMs', turnMs, 100, 3_600_000)
  expectInteger('attempts', attempts, 1, 25)
}
