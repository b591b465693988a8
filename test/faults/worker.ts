import { existsSync } from 'node:fs'
import { openKeyring } from '../../src/index.ts'
import { postgresKeyStore } from '../../src/keystore/postgres.ts'
import { localKms } from '../../src/kms/local.ts'
import {
  encryptInPlace,
  type JobReport,
  type RotationSource,
  reencrypt,
  rewrap,
  type TableJob,
} from '../../src/rotation/index.ts'
import { sleep } from '../../src/rotation/pace.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { pgClient } from '../rotation/clients.ts'
import { otherShape, recordOf, type Shape } from './record.ts'

/** In the order in which all of them are done. The last one moves the table to the other shape. */
export const JOBS = ['encrypt', 'rewrap', 'reencrypt', 'move'] as const
export type Job = (typeof JOBS)[number]

/** What a worker process is told. It works until the job is done, whatever fails, or until it is killed. */
export interface Order {
  readonly url: string
  readonly root: string
  readonly job: Job
  /** Of the rows when the job begins. */
  readonly shape: Shape
  /** While this file is there, the KMS is away. */
  readonly away: string
  readonly rowsPerSecond: number
}

/** What a worker tells when the job is done: of the run that it took part in, by all its workers. */
export interface Report extends Pick<JobReport, 'startedAt' | 'seen' | 'written' | 'raced' | 'failed'> {
  /** Rows that the job should have dealt with. */
  readonly left: number
}

/** The job is done; an attempt failed, with this code; a step was refused: the range, or its far part, is somebody else's. */
export type Told = { readonly done: Report } | { readonly failure: string } | { readonly refused: true }

export const NAME = 'faults'
export const LEASE_MS = 1_500

/** What a worker process is called in the database, where the audit tells them apart. */
export const processName = (pid: number | undefined): string => `worker-${pid}`

type Done = JobReport & { readonly remaining?: ReadonlyMap<string, number>; readonly plaintext?: number }
const left = ({ plaintext, remaining }: Done): number =>
  plaintext ?? [...remaining!.values()].reduce((sum, rows) => sum + rows, 0)

const tell = (told: Told): void => void process.send?.(told)

/** The same table; it tells of every step that is refused. */
const telling = (table: RotationSource): RotationSource => ({
  ...table,
  async write(changes, step) {
    const stepped = await table.write(changes, step)
    if (!stepped) tell({ refused: true })
    return stepped
  },
  movingTo: (to) => telling(table.movingTo!(to)),
})

async function main({ url, root, job, shape, away, rowsPerSecond }: Order): Promise<void> {
  const client = pgClient(`${url}?application_name=${processName(process.pid)}`)
  const local = localKms(root)
  const kms = {
    ...local,
    async unwrap(...args: Parameters<typeof local.unwrap>) {
      if (existsSync(away)) throw new Error('the KMS is away')
      return local.unwrap(...args)
    },
  }
  const table = telling(postgresTable(client.db, recordOf(shape, job === 'encrypt' ? 'encrypt' : 'strict')))
  const move = (options: TableJob) => reencrypt({ ...options, to: recordOf(otherShape(shape)) })
  const work: (options: TableJob) => Promise<Done> = { rewrap, reencrypt, move, encrypt: encryptInPlace }[job]
  async function attempt(): Promise<Report> {
    // Keys that count for a second, so that a KMS that is away stops jobs that are under way.
    const keys = await openKeyring({
      name: NAME,
      store: postgresKeyStore(client.db),
      kms,
      patience: { attempts: 1 },
      maxAgeMs: 700,
      graceMs: 300,
    })
    try {
      const report = await work({ keys, table, batchSize: 200, ranges: 8, leaseMs: LEASE_MS, pace: { rowsPerSecond } })
      const { startedAt, seen, written, raced, failed } = report
      return { startedAt, seen, written, raced, failed, left: left(report) }
    } finally {
      await keys.close()
    }
  }
  for (let done: Report | undefined; !done; ) {
    try {
      done = await attempt()
      tell({ done })
    } catch (error) {
      if (process.env.WAXSEAL_FAULTS_VERBOSE) console.error(error)
      const { code, message } = error as { code?: unknown; message?: unknown }
      tell({ failure: String(code ?? message) })
      await sleep(100)
    }
  }
  await client.close()
  process.disconnect?.()
}

if (process.env.WAXSEAL_FAULTS_ORDER) {
  process.on('disconnect', () => process.exit()) // nobody is left to kill it
  await main(JSON.parse(process.env.WAXSEAL_FAULTS_ORDER) as Order)
}
