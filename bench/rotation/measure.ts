import { compared, type Result } from '../harness.ts'
import type { Arena } from './arena.ts'
import { SEALED } from './record.ts'
import type { Order } from './worker.ts'
import type { Workers } from './workers.ts'

export interface Scale {
  /** Of the table that both sides change in every round. */
  readonly rows: number
  readonly rounds: number
  readonly batchSize: number
  readonly jobs: readonly Job[]
  /** Numbers of worker processes. */
  readonly workers: readonly number[]
  /** Rows of the tables that show how time and memory grow. */
  readonly sizes: readonly number[]
}

export type Job = 'rewrap' | 'reencrypt'
export const JOBS: readonly Job[] = ['rewrap', 'reencrypt']
/** What each job writes, and so what its limit does. */
const COLUMNS = { rewrap: ['envelope'], reencrypt: SEALED } as const
const BUDGET = { rewrap: 0.7, rss: 1.1 }
/** More than there are workers, so that a fast one takes from a slow one. */
const RANGES_PER_WORKER = 2

/** Both jobs against their limit, by one and by several processes. */
export async function* duels(arena: Arena, scale: Scale): AsyncGenerator<Result> {
  for (const count of scale.workers) {
    const workers = await arena.workers(count)
    try {
      for (const job of scale.jobs) {
        const rates = { ours: [] as number[], limit: [] as number[] }
        // The first round warms the processes up.
        for (let round = 0; round <= scale.rounds; round++) {
          for (const side of round % 2 === 0 ? (['ours', 'limit'] as const) : (['limit', 'ours'] as const)) {
            const rate = await run(
              arena,
              workers,
              count,
              side === 'ours' ? job : 'plain',
              COLUMNS[job],
              scale.rows,
              scale,
            )
            if (round > 0) rates[side].push(rate)
          }
        }
        const name = count === 1 ? `rotation.${job}` : `rotation.${job}.workers_${count}`
        const budget = name === 'rotation.rewrap' ? BUDGET.rewrap : null
        yield compared({ name, unit: 'rows/s', budget, better: 'higher' }, rates.ours, rates.limit)
      }
    } finally {
      workers.stop()
    }
  }
}

/** Rows a second on a fresh copy of the table. What was written is checked. */
async function run(
  arena: Arena,
  workers: Workers,
  count: number,
  kind: Job | 'plain',
  columns: readonly string[],
  rows: number,
  { batchSize }: Scale,
): Promise<number> {
  const table = await arena.restored(rows, 'target')
  const share = Math.ceil(rows / count)
  const orders = Array.from({ length: count }, (_, i): Order => {
    if (kind !== 'plain') return { kind, table, batchSize, ranges: count === 1 ? 1 : count * RANGES_PER_WORKER }
    const part = { from: i * share + 1, to: Math.min((i + 1) * share, rows) }
    return { kind, table, columns, ...part, batchSize, old: arena.oldId, next: arena.newId }
  })
  const answers = await workers.carryOut(orders)
  if (kind === 'plain') await arena.checkWritten(table, rows, columns)
  else await arena.checkRotated(table, rows)
  const began = Math.min(...answers.map((answer) => answer.startedAt))
  const ends = answers.map((answer) => answer.endedAt)
  // A job tells no worker that it is over before it is; a backfill is over when its last part is.
  const ended = kind === 'plain' ? Math.max(...ends) : Math.min(...ends)
  return (rows / (ended - began)) * 1000
}

/**
 * Each job and its limit once at every size, in a process of its own: rows a second, and the largest resident size.
 * `rotation.rss` holds rewrap's at the largest size against that at a tenth of it.
 */
export async function* growth(arena: Arena, scale: Scale): AsyncGenerator<Result> {
  const peaks = new Map<number, number>()
  const once = { spread: null, budget: null } as const
  for (const rows of scale.sizes) {
    for (const job of scale.jobs) {
      const ours = await alone(arena, job, job, rows, scale)
      const limit = await alone(arena, 'plain', job, rows, scale)
      if (job === 'rewrap') peaks.set(rows, ours.rss)
      const sized = (what: string) => `rotation.${what}.rows_${rows}`
      yield {
        name: sized(job),
        unit: 'rows/s',
        value: ours.rate,
        limit: limit.rate,
        ratio: ours.rate / limit.rate,
        ...once,
        better: 'higher',
      }
      yield {
        name: sized(`${job}.rss`),
        unit: 'MB',
        value: ours.rss,
        limit: limit.rss,
        ratio: ours.rss / limit.rss,
        ...once,
        better: 'lower',
      }
    }
  }
  const most = Math.max(...scale.sizes)
  const [value, limit] = [peaks.get(most), peaks.get(most / 10)]
  if (value === undefined || limit === undefined) return
  const name = most === 1_000_000 ? 'rotation.rss' : `rotation.rss.rows_${most}_over_${most / 10}`
  yield { name, unit: 'MB', value, limit, ratio: value / limit, spread: null, budget: BUDGET.rss, better: 'lower' }
}

async function alone(arena: Arena, kind: Job | 'plain', job: Job, rows: number, scale: Scale) {
  const workers = await arena.workers(1)
  try {
    const rate = await run(arena, workers, 1, kind, COLUMNS[job], rows, scale)
    const [last] = await workers.carryOut([{ kind: 'rest' }])
    return { rate, rss: last!.peakRss / 1e6 }
  } finally {
    workers.stop()
  }
}
