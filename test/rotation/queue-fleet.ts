import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Logger, makeWorkerUtils, runOnce, type WorkerUtils } from 'graphile-worker'
import { createKeyring, type Keyring } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import {
  type JobKind,
  type RotationQueue,
  type RotationQueueOptions,
  type RunReport,
  type RunStatus,
  rotationQueue,
} from '../../src/rotation/queue/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import type { PostgresClient } from './clients.ts'
import { type Machine, recordOf, type Told } from './queue-child.ts'
import { type AnyRecords, createTable, freshName, insert, person, readPlain, rotate } from './tables.ts'

const CHILD = fileURLToPath(new URL('./queue-child.ts', import.meta.url))
const ROOT = '6'.repeat(64)
export const silent = new Logger(() => () => undefined)
export const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

/** A process of the fleet, and what it told so far. */
export interface Worker {
  readonly process: ChildProcess
  readonly wrote: number[]
  readonly ended: RunReport[]
  readonly errors: string[]
  /** Ends it, and resolves when it is gone. */
  stop(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
}

/** A table of rows under an old version, an audit of every change of it, a queue, and processes that work on it. */
export interface Fleet {
  readonly keys: Keyring
  readonly record: AnyRecords
  readonly table: string
  readonly away: string
  readonly utils: WorkerUtils
  readonly rotation: RotationQueue
  /** The same table's queue with other settings, in this process. */
  rotationWith(options: Partial<RotationQueueOptions>): RotationQueue
  start(machine?: Partial<Machine>): Promise<Worker>
  /** The jobs that are due, in this process, one after the other. */
  workHere(rotation: RotationQueue): Promise<void>
  /** The run, once it is over and settled. */
  ended(kind: JobKind): Promise<RunStatus>
  /** How often each row was changed. */
  changes(): Promise<readonly { readonly id: number; readonly n: number }[]>
  queued(): Promise<readonly Queued[]>
  expectRows(rows: number): Promise<void>
  close(): Promise<void>
}

export interface Queued {
  readonly task: string
  readonly payload: Record<string, unknown>
  readonly key: string | null
  readonly attempts: number
  readonly max_attempts: number
  readonly last_error: string | null
  readonly locked_by: string | null
}

export async function makeFleet(client: PostgresClient, url: string, folder: string, rows: number): Promise<Fleet> {
  const { query, db } = client
  const table = freshName('fleet')
  const file = join(folder, `${table}.json`)
  const away = join(folder, `${table}.away`)
  const store = fileKeyStore(file)
  const keys = await createKeyring({ name: 'fleet', store, kms: localKms(ROOT), propagationMs: 0 })
  const record = recordOf(table) as AnyRecords
  await createTable(query, record)
  await insert(
    query,
    record,
    keys,
    Array.from({ length: rows }, (_, id) => person(id)),
  )
  await query(`create table ${table}_audit (id int)`)
  await query(`create function ${table}_note() returns trigger language plpgsql as
    $$ begin insert into ${table}_audit values (new.id); return null; end $$`)
  await query(`create trigger note after update on ${table} for each row execute function ${table}_note()`)
  await rotate(keys)
  const utils = await makeWorkerUtils({ connectionString: url, logger: silent })
  await utils.migrate()
  await query('delete from graphile_worker._private_jobs') // of the tests before
  await query('drop table if exists waxseal_run, waxseal_slot')
  const workers = new Set<Worker>()

  const rotationWith = (options: Partial<RotationQueueOptions>): RotationQueue =>
    rotationQueue({ keys, tables: { accounts: postgresTable(db, record) }, jobs: ['rewrap', 'verify'], ...options })
  const rotation = rotationWith({})

  async function start(machine: Partial<Machine> = {}): Promise<Worker> {
    const all: Machine = {
      ...{ url, file, root: ROOT, table, away, jobs: ['rewrap', 'reencrypt', 'verify'], workers: 4, ranges: 8 },
      ...{ batchSize: 10, leaseMs: 1_500, turnMs: 400, maxFailures: 1_000, concurrency: 2, batchMs: 20, failing: 0 },
      ...{ isMortal: false, attempts: 10 },
      ...machine,
    }
    const env = { ...process.env, WAXSEAL_TEST_MACHINE: JSON.stringify(all), NO_LOG_SUCCESS: '1' }
    const stdio: ['ignore', 'inherit', 'inherit', 'ipc'] = ['ignore', 'inherit', 'inherit', 'ipc']
    const child = fork(CHILD, { env, execArgv: ['--import', 'tsx'], stdio })
    const worker: Worker = {
      ...{ process: child, wrote: [], ended: [], errors: [] },
      async stop(signal) {
        workers.delete(worker)
        if (child.exitCode !== null || child.signalCode !== null) return
        const exit = once(child, 'exit')
        child.kill(signal)
        await exit
      },
    }
    workers.add(worker)
    await new Promise<void>((resolve, reject) => {
      child.on('exit', (code) => reject(new Error(`the worker ended with ${code}`)))
      child.on('message', (told: Told) => {
        if ('ready' in told) resolve()
        if ('wrote' in told) worker.wrote.push(told.wrote)
        if ('ended' in told) worker.ended.push(told.ended)
        if ('error' in told) worker.errors.push(told.error)
      })
    })
    return worker
  }

  return {
    ...{ keys, record, table, away, utils, rotation, rotationWith, start },
    async workHere({ tasks }) {
      await runOnce({ connectionString: url, taskList: { ...tasks }, logger: silent, noHandleSignals: true })
    },
    async ended(kind) {
      for (;;) {
        const status = await rotation.status(kind, 'accounts')
        if (status?.isSettled) return status
        await pause(50)
      }
    },
    changes: () => query(`select id, count(*)::int as n from ${table}_audit group by id order by id`),
    queued: () =>
      query<Queued>(
        `select t.identifier as task, j.payload, j.key, j.attempts, j.max_attempts, j.last_error, j.locked_by
          from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id order by j.id`,
      ),
    async expectRows(count) {
      const found = await readPlain(query, record, keys)
      const wanted = Array.from({ length: count }, (_, id) => person(id))
      if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error('rows were lost or changed')
    },
    async close() {
      for (const worker of workers) await worker.stop('SIGKILL')
      await utils.release()
      await keys.close()
    },
  }
}
