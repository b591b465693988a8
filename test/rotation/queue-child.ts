import { existsSync } from 'node:fs'
import { Logger, run } from 'graphile-worker'
import { int, openKeyring, records, text } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import type { RotationSource } from '../../src/rotation/index.ts'
import { type JobKind, type RunReport, rotationQueue } from '../../src/rotation/queue/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { pgClient } from './clients.ts'

/** A machine of the fleet: a graphile-worker process that has the tasks of a rotation, started by queue-fleet.ts. */
export interface Machine {
  readonly url: string
  readonly file: string
  readonly root: string
  readonly table: string
  readonly jobs: readonly JobKind[]
  readonly workers: number
  readonly ranges: number
  readonly batchSize: number
  readonly leaseMs: number
  readonly turnMs: number
  readonly maxFailures: number
  /** Jobs of the queue that it works on at once. */
  readonly concurrency: number
  /** How long each batch takes at least. */
  readonly batchMs: number
  /** While this file is there, the KMS is away. */
  readonly away: string
  /** How many batches fail with an error whose message quotes a value. */
  readonly failing: number
  /** Whether it dies of its first batch. */
  readonly isMortal: boolean
  readonly attempts: number
}

/** What it tells its parent. */
export type Told =
  | { readonly ready: true }
  | { readonly wrote: number }
  | { readonly ended: RunReport }
  | { readonly error: string }

export const recordOf = (table: string) =>
  records(table, { id: { id: int() }, fields: { email: text(), note: text({ nullable: true }) } })

const silent = new Logger(() => () => undefined)
const tell = (told: Told): void => void process.send?.(told)

async function main(machine: Machine): Promise<void> {
  const { url, file, root, table, batchMs, away, concurrency } = machine
  const local = localKms(root)
  const kms = {
    ...local,
    async unwrap(...args: Parameters<typeof local.unwrap>) {
      if (existsSync(away)) throw new Error('the KMS is away')
      return local.unwrap(...args)
    },
  }
  const keys = await openKeyring({
    name: 'fleet',
    store: fileKeyStore(file),
    kms,
    patience: { attempts: 1 },
    maxAgeMs: 700,
    graceMs: 300,
  })
  const client = pgClient(url)
  const source = postgresTable(client.db, recordOf(table))
  let failing = machine.failing
  const watched: RotationSource = {
    ...source,
    async write(changes, step) {
      await new Promise((done) => setTimeout(done, batchMs))
      if (machine.isMortal) process.kill(process.pid, 'SIGKILL')
      if (failing-- > 0) throw Object.assign(new Error('invalid input: "person1@example.org"'), { code: 'XX000' })
      const stepped = await source.write(changes, step)
      if (stepped) tell({ wrote: stepped.written })
      return stepped
    },
  }
  const { jobs, workers, ranges, batchSize, leaseMs, turnMs, maxFailures, attempts } = machine
  const rotation = rotationQueue({
    ...{ keys, jobs, workers, ranges, batchSize, leaseMs, turnMs, maxFailures, attempts },
    tables: { accounts: watched },
    onEnded: (ended) => tell({ ended }),
    onError: (error) => tell({ error: String((error as { code?: unknown }).code ?? error) }),
  })
  const preset = { worker: { gracefulShutdownAbortTimeout: 0, completeJobBatchDelay: 0, failJobBatchDelay: 0 } }
  const runner = await run({
    ...{ connectionString: url, concurrency, pollInterval: 200, logger: silent, preset },
    taskList: { ...rotation.tasks },
  })
  tell({ ready: true })
  await runner.promise
  await client.close()
  await keys.close()
  process.disconnect?.()
}

if (process.env.WAXSEAL_TEST_MACHINE) await main(JSON.parse(process.env.WAXSEAL_TEST_MACHINE) as Machine)
