import pg from 'pg'
import { reencrypt, rewrap } from 'waxseal/rotation'
import { postgresTable } from 'waxseal/rotation/postgres'
import { type Backfill, backfill } from './plain.ts'
import { COLUMNS, customer, openKeys, recordOf } from './record.ts'

/** What a worker process is told, one order at a time, and what it answers. */
export type Order =
  | {
      readonly kind: 'rewrap' | 'reencrypt'
      readonly table: string
      readonly batchSize: number
      readonly ranges: number
    }
  | ({ readonly kind: 'plain' } & Backfill)
  /** Only asks for the answer's figures. */
  | { readonly kind: 'rest' }
  | { readonly kind: 'fill'; readonly table: string; readonly from: number; readonly to: number }

export interface Answer {
  /** Rows that this process changed, or the whole job did. */
  readonly rows: number
  /** ms since the epoch. */
  readonly startedAt: number
  readonly endedAt: number
  /** Largest resident size so far, in bytes. */
  readonly peakRss: number
}

const FILL = 1_000

const { BENCH_URL: url, BENCH_KEYS: file, BENCH_ROOT: root } = process.env
const db = new pg.Pool({ connectionString: url, max: 4 })
const keys = await openKeys(file!, root!)
const now = (): number => performance.timeOrigin + performance.now()

process.on('message', async (order: Order) => {
  const startedAt = now()
  const rows = await carryOut(order)
  const endedAt = now()
  process.send!({ rows, startedAt, endedAt, peakRss: process.resourceUsage().maxRSS * 1024 } satisfies Answer)
})
process.on('disconnect', () => process.exit())
process.send!('ready')

async function carryOut(order: Order): Promise<number> {
  if (order.kind === 'rest') return 0
  if (order.kind === 'plain') return backfill(db, order)
  if (order.kind === 'fill') return fill(order.table, order.from, order.to)
  const { kind, table, batchSize, ranges } = order
  const report = await { rewrap, reencrypt }[kind]({
    keys,
    table: postgresTable(db, recordOf(table)),
    batchSize,
    ranges,
  })
  if (report.failed > 0 || report.remaining.size > 0) throw new Error(`${kind}: ${JSON.stringify(report.failures)}`)
  return report.written
}

/** Rows as an application inserts them. */
async function fill(table: string, from: number, to: number): Promise<number> {
  const record = recordOf(table)
  const types = COLUMNS.map((name) => (name === 'id' ? 'bigint' : 'text'))
  const insert = `insert into ${table} (${COLUMNS.map((name) => `"${name}"`).join(', ')})
    select * from unnest(${types.map((type, i) => `$${i + 1}::${type}[]`).join(', ')})`
  let writing: Promise<unknown> = Promise.resolve()
  for (let first = from; first <= to; first += FILL) {
    const size = Math.min(FILL, to - first + 1)
    const rows = Array.from({ length: size }, (_, i) => record.encrypt(keys, customer(first + i)))
    await writing
    writing = db.query(
      insert,
      COLUMNS.map((name) => rows.map((row) => row[name])),
    )
  }
  await writing
  return to - from + 1
}
