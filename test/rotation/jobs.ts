import { describe, expect, it } from 'vitest'
import { jobControl, type Progress, type RotationSource, rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { type AnyRow, createTable, insert, insertStored, people, person, readPlain, rotate } from './tables.ts'

const ROWS = 20
const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
const all = (rows = ROWS): AnyRow[] => Array.from({ length: rows }, (_, i) => person(i + 1))

/** A table of rows under a version that was rotated away. */
export async function oldRows({ table, query }: Client, rows = ROWS) {
  const keys = testKeyring()
  const record = people()
  await createTable(query, record)
  await insert(query, record, keys, all(rows))
  const oldId = await rotate(keys)
  return { keys, record, oldId, table: table(record) }
}

/** The same table for jobs that send one batch at a time on every database: how far they come is known exactly. */
export function oneByOne({ isOrdered: _, movingTo, ...table }: RotationSource): RotationSource {
  return movingTo ? { ...table, movingTo: (to) => oneByOne(movingTo(to)) } : table
}

/** The same table, where something else happens before, or after, every call of `what`. */
const interrupted = (
  table: RotationSource,
  when: 'before' | 'after',
  what: 'page' | 'write',
  work: (call: number) => unknown,
): RotationSource => {
  let calls = 0
  const original = table[what] as (...args: unknown[]) => Promise<unknown>
  return {
    ...table,
    [what]: async (...args: unknown[]) => {
      const call = ++calls
      if (when === 'before') await work(call)
      const answer = await original(...args)
      if (when === 'after') await work(call)
      return answer
    },
  }
}

/** A job that is stopped, at every instant at which one may be. */
export function jobSuite(client: () => Client): void {
  /** Jobs on the table that are under way, and ranges that are kept. */
  const books = async (table: string) => {
    const [row] = await client().query<{ jobs: number; ranges: number }>(
      `select (select count(*)::int from waxseal_job where job like $1 and finished_at is null) as jobs,
        (select count(*)::int from waxseal_range where job like $1) as ranges`,
      [`%"${table}"%`],
    )
    return row
  }

  describe('a job that is stopped', () => {
    it('ends after the running batch when aborted, and resumes behind it', async () => {
      const { keys, record, oldId, table } = await oldRows(client())
      const stop = new AbortController()
      const first = await rewrap({
        keys,
        table: oneByOne(table),
        batchSize: 6,
        signal: stop.signal,
        onProgress: ({ done }) => done >= 12 && stop.abort(),
      })
      expect(first).toMatchObject({ written: 12, aborted: true, failures: [] })
      expect(first.remaining).toEqual(new Map([[oldId, 8]]))
      expect(await books(table.name)).toEqual({ jobs: 1, ranges: 1 })

      const cursors: unknown[] = []
      const watched: RotationSource = {
        ...table,
        page: (filter, span, limit, extent) => {
          cursors.push(span.after)
          return table.page(filter, span, limit, extent)
        },
      }
      const seen: Progress[] = []
      const second = await rewrap({ keys, table: watched, batchSize: 6, onProgress: (p) => seen.push(p) })
      expect(cursors[0]).toEqual(['12'])
      expect(seen[0]).toMatchObject({ done: 12, total: ROWS })
      expect(second).toMatchObject({ written: ROWS, aborted: false })
      expect(second.remaining.size).toBe(0)
      expect(await books(table.name)).toEqual({ jobs: 0, ranges: 0 })
      expect(await readPlain(client().query, record, keys)).toEqual(all())
    })

    it('aborted after it had counted that nothing is left: counts again for its report', async () => {
      const { keys, record, oldId, table } = await oldRows(client(), 3)
      const late = await client().query<AnyRow>(`select * from ${record.schema.table} where id = 1`)
      const stop = new AbortController()
      const counted: RotationSource = {
        ...table,
        async countLeft(...args) {
          const rows = await table.countLeft(...args)
          if (rows > 0 || stop.signal.aborted) return rows
          // Another worker finds a row that was written under the old version since, and begins another pass.
          await insertStored(client().query, record, [{ ...late[0], id: 9 }])
          const mine = `%${record.schema.table}%`
          await client().query(
            'update waxseal_job set passes = passes + 1 where finished_at is null and name like $1',
            [mine],
          )
          stop.abort()
          return rows
        },
      }
      const report = await rewrap({ keys, table: counted, signal: stop.signal })
      expect(report).toMatchObject({ aborted: true, remaining: new Map([[oldId, 1]]) })
      expect(await rewrap({ keys, table })).toMatchObject({ remaining: new Map() })
    })

    it('does nothing when it is aborted before it begins', async () => {
      const { keys, oldId, table } = await oldRows(client(), 3)
      const report = await rewrap({ keys, table, signal: AbortSignal.abort() })
      expect(report).toMatchObject({ written: 0, aborted: true })
      expect(report.remaining).toEqual(new Map([[oldId, 3]]))
    })

    it.each([
      ['before a page is read', 'before', 'page'],
      ['before a batch is written', 'before', 'write'],
      ['when the server has written a batch and its answer is lost', 'after', 'write'],
    ] as const)('by an error %s: passes it on, and the next call ends with the right totals', async (_, when, what) => {
      const { keys, record, table } = await oldRows(client())
      const broken = interrupted(table, when, what, (call) => {
        if (call >= 2) throw new Error('the connection is gone')
      })
      await expect(rewrap({ keys, table: broken, batchSize: 6 })).rejects.toThrow('the connection is gone')
      const report = await rewrap({ keys, table, batchSize: 6 })
      expect(report.remaining.size).toBe(0)
      expect(await readPlain(client().query, record, keys)).toEqual(all())
      expect(report.written).toBe(ROWS)
    })

    it('moves rows that came behind the cursor meanwhile', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, all().slice(10))
      const late = all()
        .slice(0, 10)
        .map((row) => record.encrypt(keys, row as never) as AnyRow)
      await rotate(keys)
      const table = interrupted(
        client().table(record),
        'before',
        'write',
        (call) => call === 2 && insertStored(query, record, late),
      )
      const report = await rewrap({ keys, table, batchSize: 3 })
      expect(report.written).toBe(ROWS)
      expect(report.remaining.size).toBe(0)
      expect(await readPlain(query, record, keys)).toEqual(all())
    })
  })

  describe('two jobs on one table at once', () => {
    it('move every row once and lose none', async () => {
      const { keys, record, oldId, table } = await oldRows(client(), 60)
      // The first one does not end before the second one has joined it.
      let join = (): void => undefined
      const joined = new Promise<void>((resolve) => {
        join = resolve
      })
      const other = interrupted(client().table(record), 'before', 'page', () => join())
      const [a, b] = await Promise.all([
        rewrap({ keys, table: interrupted(table, 'before', 'write', () => joined), batchSize: 4 }),
        rewrap({ keys, table: other, batchSize: 5 }),
      ])
      expect(a!.failures).toEqual([])
      expect(b!.failures).toEqual([])
      expect([a!.written, b!.written]).toEqual([60, 60])
      expect((await table.countByKey([oldId])).get(oldId)).toBe(0)
      expect(await readPlain(client().query, record, keys)).toEqual(all(60))
    })
  })

  describe('a job with a pace', () => {
    it('writes nothing while it is paused, goes on when it is resumed, and may be aborted in a pause', async () => {
      const { keys, table, oldId } = await oldRows(client())
      const [control, stop] = [jobControl(), new AbortController()]
      const options = { keys, table: oneByOne(table), batchSize: 5, control, signal: stop.signal }
      const job = rewrap({ ...options, onProgress: ({ done }) => done % 10 === 5 && control.pause() })
      const left = async () => (await table.countByKey([oldId])).get(oldId)
      while (!control.isPaused) await wait(5)
      await wait(100)
      expect(await left()).toBe(15)
      control.resume()
      while (!control.isPaused) await wait(5)
      await wait(100)
      expect(await left()).toBe(5)
      stop.abort()
      expect(await job).toMatchObject({ written: 15, aborted: true })
      control.resume()
      expect(await rewrap({ keys, table })).toMatchObject({ written: ROWS, aborted: false })
    })

    it('keeps to its rows per second, and waits while replicas lag', async () => {
      const { keys, table } = await oldRows(client())
      const lags = [9_000, 0]
      const lag = async () => lags.shift() ?? 0
      const started = performance.now()
      const pace = { rowsPerSecond: 40, lag, maxLagMs: 1_000 }
      expect(await rewrap({ keys, table, batchSize: 5, pace })).toMatchObject({ written: ROWS, failed: 0 })
      // A second of lag, and four batches of an eighth of a second.
      expect(performance.now() - started).toBeGreaterThan(1_400)
      expect(lags).toEqual([])
    })
  })

  describe('progress', () => {
    it('counts up from 0 to the total', async () => {
      const { keys, table } = await oldRows(client())
      const seen: Progress[] = []
      await rewrap({ keys, table, batchSize: 6, onProgress: (p) => seen.push(p) })
      expect(seen.map((p) => p.done)).toEqual([0, 6, 12, 18, 20])
      expect(seen.every((p) => p.total === ROWS && p.rowsPerSecond >= 0)).toBe(true)
      expect(seen.at(-1)).toMatchObject({ written: ROWS, failed: 0, raced: 0 })
    })
  })
}
