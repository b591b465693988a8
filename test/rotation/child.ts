import { int, openKeyring, records, text } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import {
  decryptInPlace,
  encryptInPlace,
  type RotationSource,
  reencrypt,
  rewrap,
  verify,
} from '../../src/rotation/index.ts'
import { clientOf } from './clients.ts'
import type { AnyRecords } from './tables.ts'

/**
 * A job in a process of its own, started by killed.ts, that dies of SIGKILL at the `at`-th time it comes to
 * `instant`. With another instant it goes on, slowly, until somebody kills it. It prints a line a batch.
 */
export const JOBS = { rewrap, reencrypt, encrypt: encryptInPlace, decrypt: decryptInPlace, verify }
export type Job = keyof typeof JOBS

export interface Order {
  readonly job: Job
  readonly url: string
  readonly file: string
  readonly root: string
  readonly table: string
  readonly batchSize: number
  readonly leaseMs: number
  readonly instant: Instant
  readonly at: number
}

export const INSTANTS = ['before a page', 'before a batch', 'during a batch', 'after a batch'] as const
export type Instant = (typeof INSTANTS)[number] | 'when told'

/** The record that parent and child share. */
export const killable = (table: string, job: Job = 'rewrap') => {
  const phase = { encrypt: 'encrypt', decrypt: 'prepare' }[job as string] as 'encrypt' | 'prepare' | undefined
  const migrate = phase && { phase, until: new Date(Date.UTC(2100, 0, 1)) }
  const fields = { email: text(), note: text({ nullable: true }) }
  return records(table, { id: { id: int() }, fields, ...(migrate && { migrate }) })
}

async function main(order: Order): Promise<void> {
  const keys = await openKeyring({ name: 'kill', store: fileKeyStore(order.file), kms: localKms(order.root) })
  const client = clientOf(order.url)
  const table = client.table(killable(order.table, order.job) as AnyRecords)
  const times = new Map<Instant, number>()
  const reach = (instant: Instant): void => {
    times.set(instant, (times.get(instant) ?? 0) + 1)
    if (instant === order.instant && times.get(instant) === order.at) process.kill(process.pid, 'SIGKILL')
  }
  const deadly: RotationSource = {
    ...table,
    page(...args) {
      reach('before a page')
      return table.page(...args)
    },
    async write(...args: Parameters<RotationSource['write']>) {
      await new Promise((done) => setTimeout(done, 30))
      reach('before a batch')
      const answer = table.write(...args)
      // The statement is on its way when the process dies: the server may or may not carry it out.
      if (order.instant === 'during a batch') setImmediate(() => reach('during a batch'))
      await answer
      reach('after a batch')
      return answer
    },
  }
  const onProgress = ({ done }: { done: number }) => console.log(`done ${done}`)
  await JOBS[order.job]({ keys, table: deadly, batchSize: order.batchSize, leaseMs: order.leaseMs, onProgress })
  await client.close()
  console.log('finished')
}

if (process.env.WAXSEAL_TEST_ORDER) await main(JSON.parse(process.env.WAXSEAL_TEST_ORDER) as Order)
