import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, describe, expect, it } from 'vitest'
import { WaxsealError } from '../../src/errors.ts'
import { runJob } from '../../src/rotation/job.ts'
import type { ReadRow, RotationSource } from '../../src/rotation/source.ts'
import type { Work } from '../../src/rotation/work.ts'
import { pgliteClient } from './clients.ts'
import { freshName, people } from './tables.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const BATCH = 500
const BROKEN_EVERY = 20
/** What one row would be at least, kept in any form: a key of a Map, a string of its id. */
const LEAST_BYTES_A_ROW = 16

const client = pgliteClient()
afterAll(() => client.close())

/** A table of `rows` that are made when they are read, and the books of a real one; it looks at memory as it goes. */
function stub(rows: number) {
  const real = client.table(people())
  const made: WeakRef<object>[] = []
  const samples: { alive: number; heap: number }[] = []
  let pages = 0
  const source: RotationSource = {
    ...real,
    count: async () => rows,
    cut: async () => [],
    async page(_, { after }, limit) {
      const from = after ? Number(after[0]) + 1 : 0
      // Soon after the beginning, and shortly before the end.
      if (++pages === 10 || from === rows - 2 * BATCH) {
        await new Promise((done) => setTimeout(done, 20)) // a WeakRef lives until the end of its job
        collect()
        samples.push({
          alive: made.filter((ref) => ref.deref() !== undefined).length,
          heap: process.memoryUsage().heapUsed - made.length * 64,
        })
      }
      const length = Math.min(limit, rows - from)
      return Array.from({ length }, (_, i): ReadRow => {
        const id = String(from + i)
        const read = { row: { id, email: `e${id}`, envelope: `h${id}` }, was: { envelope: `h${id}` }, cursor: [id] }
        if ((from + i) % 50 === 0) made.push(new WeakRef(read))
        return read
      })
    },
    async write(changes, step) {
      const stepped = await real.write([], step)
      return stepped && { written: changes.length }
    },
  }
  return { source, samples, made }
}

const work: Work = {
  name: 'rewrap',
  filter: 'sealed',
  extent: 'envelope',
  isShrinking: false,
  ready: async () => undefined,
  apply({ row, was, cursor }) {
    if (Number(row.id) % BROKEN_EVERY === 0) throw new WaxsealError('DECRYPTION_FAILED', 'broken')
    return { cursor, set: { envelope: `next ${row.id}` }, expect: was }
  },
}

describe('what a job keeps in memory', () => {
  it.each([10_000, 300_000])('of %d rows: a batch, and nothing for each row or each broken one', async (rows) => {
    const { source, samples, made } = stub(rows)
    let told = 0
    const { report } = await runJob(source, work, freshName('memory'), {
      batchSize: BATCH,
      maxFailures: rows,
      onProgress: () => told++,
    })
    const broken = Math.ceil(rows / BROKEN_EVERY)
    expect(report).toMatchObject({ seen: rows, failed: broken })
    expect(report.failures).toHaveLength(Math.min(broken, 10_000))
    expect(told).toBeGreaterThan(rows / BATCH / 2)
    expect(made).toHaveLength(rows / 50)
    const [early, late] = samples
    expect(samples).toHaveLength(2)
    // Of the rows that are watched, one in 50: at most two batches.
    expect(early!.alive).toBeLessThanOrEqual((2 * BATCH) / 50)
    expect(late!.alive).toBeLessThanOrEqual((2 * BATCH) / 50)
    const between = rows - 12 * BATCH
    if (rows > 100_000) expect(late!.heap - early!.heap).toBeLessThan(between * LEAST_BYTES_A_ROW)
  })

  it('is seen by this test: a job that keeps ids grows by more', async () => {
    const { source, samples } = stub(300_000)
    const kept = new Map<string, number>()
    const leaking: Work = {
      ...work,
      apply: (read) => {
        kept.set(`row ${read.row.id}`, kept.size)
        return work.apply(read)
      },
    }
    await runJob(source, leaking, freshName('memory'), { batchSize: BATCH, maxFailures: 300_000 })
    const [early, late] = samples
    expect(late!.heap - early!.heap).toBeGreaterThan((300_000 - 12 * BATCH) * LEAST_BYTES_A_ROW)
    expect(kept.size).toBe(300_000)
  })
})
