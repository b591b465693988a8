import { existsSync } from 'node:fs'
import { int, openKeyring, records, text } from '../../src/index.ts'
import { postgresKeyStore } from '../../src/keystore/postgres.ts'
import { localKms } from '../../src/kms/local.ts'
import { encryptInPlace, type JobReport, reencrypt, rewrap } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { pgClient } from '../rotation/clients.ts'

/** In the order in which all of them are done. */
export const JOBS = ['encrypt', 'rewrap', 'reencrypt'] as const
export type Job = (typeof JOBS)[number]
export type Shape = 'columns' | 'packed'
export type Phase = 'prepare' | 'encrypt' | 'strict'

/** What a worker process is told. It works until the job is done, whatever fails, or until it is killed. */
export interface Order {
  readonly url: string
  readonly root: string
  readonly job: Job
  readonly shape: Shape
  /** While this file is there, the KMS is away. */
  readonly away: string
  readonly rowsPerSecond: number
}

/** What a worker tells when the job is done. */
export interface Report {
  readonly written: number
  readonly raced: number
  readonly failed: number
  /** Rows that the job should have dealt with. */
  readonly left: number
}

export const NAME = 'faults'
const UNTIL = new Date(Date.UTC(2100, 0, 1))
/** The record that all processes share. */
export const recordOf = (shape: Shape, phase: Phase = 'strict') =>
  records('accounts', {
    id: { id: int() },
    fields: { email: text(), note: text({ nullable: true }) },
    shape,
    ...(phase !== 'strict' && { migrate: { phase, until: UNTIL } }),
  })

const left = (report: JobReport & { remaining?: ReadonlyMap<string, number>; plaintext?: number }): number =>
  report.plaintext ?? [...report.remaining!.values()].reduce((sum, rows) => sum + rows, 0)

async function main({ url, root, job, shape, away, rowsPerSecond }: Order): Promise<void> {
  const client = pgClient(`${url}?application_name=worker`)
  const local = localKms(root)
  const kms = {
    ...local,
    async unwrap(...args: Parameters<typeof local.unwrap>) {
      if (existsSync(away)) throw new Error('the KMS is away')
      return local.unwrap(...args)
    },
  }
  const table = postgresTable(client.db, recordOf(shape, job === 'encrypt' ? 'encrypt' : 'strict'))
  const work = { rewrap, reencrypt, encrypt: encryptInPlace }[job]
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
      const report = await work({ keys, table, batchSize: 200, ranges: 8, leaseMs: 1_500, pace: { rowsPerSecond } })
      const { written, raced, failed } = report
      return { written, raced, failed, left: left(report) }
    } finally {
      await keys.close()
    }
  }
  for (let done: Report | undefined; !done; ) {
    try {
      done = await attempt()
      process.send?.({ done })
    } catch (error) {
      if (process.env.WAXSEAL_FAULTS_VERBOSE) console.error(error)
      const { code, message } = error as { code?: unknown; message?: unknown }
      process.send?.({ failure: String(code ?? message) })
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  await client.close()
  process.disconnect?.()
}

if (process.env.WAXSEAL_FAULTS_ORDER) await main(JSON.parse(process.env.WAXSEAL_FAULTS_ORDER) as Order)
