import { describe, expect, it } from 'vitest'
import { int, type Keyring, text } from '../../src/index.ts'
import { quoteName } from '../../src/records/sql.ts'
import { type RotationSource, reencrypt, rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { type AnyRecords, type AnyRow, createTable, declare, freshName, insert, readPlain, rotate } from './tables.ts'

const WRITERS = 4
/** Whose id it is: so that the order of edits to a row is known. The last owner edits what the job is about to write. */
const OWNERS = WRITERS + 1
/** Edits, of all writers together, between reading a page and writing it back: where one could be lost. */
const EDITS_PER_BATCH = 8
const ROWS = 160

/** One writer: it owns the ids that are `own` modulo OWNERS, and remembers what it wrote last. */
async function write(
  { query }: Client,
  record: AnyRecords,
  keys: Keyring,
  own: number,
  model: Map<number, AnyRow>,
  over: () => boolean,
  edited: () => void,
): Promise<Record<string, number>> {
  const table = quoteName(record.schema.table)
  const counts = { insert: 0, patch: 0, update: 0, delete: 0, conflict: 0 }
  const change = async (names: AnyRow, where: string, values: unknown[]): Promise<number> => {
    const set = Object.keys(names).map((name, i) => `${name} = $${values.length + i + 1}`)
    const all = [...values, ...Object.values(names)]
    return (await query(`update ${table} set ${set.join(', ')} where ${where} returning 1`, all)).length
  }
  for (let turn = 0; !over(); turn++) {
    const mine = [...model.keys()].filter((id) => id % OWNERS === own)
    const id = mine[(turn * 7) % mine.length]!
    if (turn % 4 === 0) {
      const next = { id: ROWS + own + OWNERS * turn, email: `new ${own} ${turn}`, note: null, city: 'new' }
      await insert(query, record, keys, [next])
      model.set(next.id, next)
      counts.insert++
    } else if (turn % 4 === 1) {
      const [stored] = await query<AnyRow>(`select * from ${table} where id = $1`, [id])
      const changes = { note: `patched ${turn}` }
      const { set, guard } = record.patch(keys, stored as never, changes)
      if ((await change(set as AnyRow, `id = $1 and ${guard.expression} = $2`, [id, guard.value])) === 1) {
        model.set(id, { ...model.get(id)!, ...changes })
        counts.patch++
      } else counts.conflict++
    } else if (turn % 4 === 2) {
      const next = { ...model.get(id)!, email: `updated ${turn}`, city: `city ${turn}` }
      const { id: _, ...stored } = record.encrypt(keys, next as never) as AnyRow
      expect(await change(stored, 'id = $1', [id])).toBe(1)
      model.set(id, next)
      counts.update++
    } else {
      await query(`delete from ${table} where id = $1`, [id])
      model.delete(id)
      counts.delete++
    }
    edited()
    await pause(1)
  }
  return counts
}

/** Applications go on writing while a job runs. */
export function writerSuite(client: () => Client): void {
  const cases = [rewrap, reencrypt].flatMap((job) => (['columns', 'packed'] as const).map((shape) => ({ job, shape })))
  describe.each(cases)('$job.name among writers, $shape', ({ job, shape }) => {
    it('loses no edit and leaves no row under the old key', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('w'), {
        id: { id: int() },
        fields: { email: text(), note: text({ nullable: true }) },
        shape,
      })
      await createTable(query, record)
      const rows = Array.from({ length: ROWS }, (_, id) => ({ id, email: `e${id}`, note: null, city: 'Oslo' }))
      await insert(query, record, keys, rows)
      const model = new Map<number, AnyRow>(rows.map((row) => [row.id, row]))
      const oldId = await rotate(keys)

      let over = false
      let edits = 0
      const edited = () => void edits++
      const writers = Array.from({ length: WRITERS }, (_, own) =>
        write(client(), record, keys, own, model, () => over, edited),
      )
      const table = client().table(record)
      const amongEdits: RotationSource = {
        ...table,
        async write(...args: Parameters<RotationSource['write']>) {
          const enough = edits + EDITS_PER_BATCH
          while (edits < enough) await pause(1)
          const id = args[0].map(({ cursor }) => Number(cursor[0])).find((each) => each % OWNERS === WRITERS)
          if (id !== undefined) {
            const next = { ...model.get(id)!, email: `raced ${id}` }
            const { id: _, ...stored } = record.encrypt(keys, next as never) as AnyRow
            const set = Object.keys(stored).map((name, i) => `${name} = $${i + 2}`)
            await query(`update ${table.name} set ${set.join(', ')} where id = $1`, [id, ...Object.values(stored)])
            model.set(id, next)
          }
          return table.write(...args)
        },
      }
      const report = await job({ keys, table: amongEdits, batchSize: 8 }).finally(() => {
        over = true
      })
      const counts = await Promise.all(writers)

      for (const kind of ['insert', 'patch', 'update', 'delete']) {
        expect(Math.min(...counts.map((count) => count[kind]!))).toBeGreaterThan(0)
      }
      expect(report.failures).toEqual([])
      const left = (await table.countByKey([oldId])).get(oldId)!
      expect(report.remaining.get(oldId) ?? 0).toBe(left)
      expect(left).toBe(0)
      expect(report.raced).toBeGreaterThan(0)
      const expected = [...model.values()].sort((a, b) => (a.id as number) - (b.id as number))
      expect(await readPlain(query, record, keys)).toEqual(expected)
    })
  })
}

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
