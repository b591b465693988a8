import { describe, expect, it } from 'vitest'
import { type Cursor, encryptInPlace, type RotationSource, rewrap, verify } from '../../src/rotation/index.ts'
import { type Ledger, ledgerOf } from '../../src/rotation/ledger.ts'
import type { Client } from './clients.ts'
import { oldRows, oneByOne } from './jobs.ts'
import { type AnyRow, freshName, insertStored, people, person, readPlain } from './tables.ts'

const LEASE_MS = 60_000
const JOBS = [
  { name: 'rewrap', job: rewrap },
  { name: 'verify', job: verify },
]
function gate(): { readonly passed: Promise<void>; open(): void } {
  let open = (): void => undefined
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { passed, open: () => open() }
}
const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

/** How many workers share a table: who holds what, and what becomes of it when one stops or is slow. */
export function rangeSuite(client: () => Client): void {
  /** The same table for one worker, whose batches are counted and may be held up. */
  function worker(table: RotationSource, before: (call: number) => unknown = () => undefined) {
    const counts = { batches: 0, rows: 0 }
    const source: RotationSource = {
      ...table,
      async write(changes, step) {
        await before(++counts.batches)
        const stepped = await table.write(changes, step)
        counts.rows += stepped?.written ?? 0
        return stepped
      },
    }
    return { source, counts }
  }

  describe('workers that share a table', () => {
    it.each(JOBS)('$name: four of them, nine ranges: every row once, and all report the same', async ({ job }) => {
      const { keys, record, table } = await oldRows(client(), 90)
      // None writes before all have joined.
      const joined = new Set<number>()
      const workers = Array.from({ length: 4 }, (_, i) =>
        worker(table, async () => {
          joined.add(i)
          while (joined.size < 4) await pause(5)
        }),
      )
      const reports = await Promise.all(
        workers.map(({ source }) => job({ keys, table: source, batchSize: 4, ranges: 9 })),
      )
      for (const report of reports) {
        expect(report).toMatchObject({ seen: 90, written: job === rewrap ? 90 : 0, raced: 0, failed: 0 })
      }
      expect(Math.min(...workers.map(({ counts }) => counts.batches))).toBeGreaterThan(0)
      if (job === rewrap) expect(workers.reduce((sum, { counts }) => sum + counts.rows, 0)).toBe(90)
      expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: 90 }, (_, i) => person(i + 1)))
    })

    it.each(JOBS)(
      '$name: an idle one takes half of what a slow one holds, and no row is read twice',
      async ({ job }) => {
        const { keys, table } = await oldRows(client(), 100)
        const fast = worker(table)
        const slow = worker(table, async (call) => {
          while (call > 1 && fast.counts.batches < 8) await pause(5)
        })
        const running = job({ keys, table: slow.source, batchSize: 5 })
        while (slow.counts.batches === 0) await pause(5)
        const report = await job({ keys, table: fast.source, batchSize: 5 })
        expect(report).toMatchObject({ seen: 100, written: job === rewrap ? 100 : 0, raced: 0 })
        expect(await running).toEqual(report)
      },
    )

    it('one that stops without a word is followed when its lease has run out, and is told so when it wakes', async () => {
      const { keys, table } = await oldRows(client(), 30)
      let wake = (): void => undefined
      const asleep = new Promise<void>((resolve) => {
        wake = resolve
      })
      const stuck = worker(oneByOne(table), (call) => call === 3 && asleep)
      const first = rewrap({ keys, table: stuck.source, batchSize: 5, leaseMs: 400 })
      while (stuck.counts.batches < 3) await pause(5)
      const started = performance.now()
      const report = await rewrap({ keys, table, batchSize: 5 })
      expect(performance.now() - started).toBeGreaterThan(200)
      expect(report).toMatchObject({ written: 30, seen: 30, raced: 0 })
      wake()
      expect(await first).toEqual(report) // it wrote nothing and counted nothing after it woke
      expect(stuck.counts.rows).toBe(10)
    })

    it('one that cuts the table after others have ended the run begins another one', async () => {
      const { query } = client()
      const { keys, record, oldId, table } = await oldRows(client(), 12)
      const late = await query<AnyRow>(`select * from ${table.name} where id <= 6`)
      let calls = 0
      const [cutting, ended] = [gate(), gate()]
      const slow: RotationSource = {
        ...table,
        async cut(...args) {
          const cuts = await table.cut(...args)
          if (++calls > 1) return cuts
          cutting.open()
          await ended.passed
          return cuts
        },
      }
      const first = rewrap({ keys, table: slow, batchSize: 3, ranges: 2 })
      await cutting.passed
      expect(await rewrap({ keys, table, batchSize: 3, ranges: 2 })).toMatchObject({ written: 12, seen: 12 })
      // Of an instance that does not know the new version yet.
      await insertStored(
        query,
        record,
        late.map((row) => ({ ...row, id: Number(row.id) + 100 })),
      )
      expect((await table.countByKey([oldId])).get(oldId)).toBe(6)
      ended.open()
      expect(await first).toMatchObject({ written: 6, seen: 6, remaining: new Map() })
      expect((await table.countByKey([oldId])).get(oldId)).toBe(0)
    })

    it('one that is aborted lets go at once: nobody waits for its lease', async () => {
      const { keys, table } = await oldRows(client(), 30)
      const stop = new AbortController()
      const onProgress = ({ done }: { done: number }) => done >= 10 && stop.abort()
      await rewrap({ keys, table, batchSize: 5, leaseMs: LEASE_MS, signal: stop.signal, onProgress })
      const started = performance.now()
      expect(await rewrap({ keys, table, batchSize: 5 })).toMatchObject({ written: 30, seen: 30 })
      expect(performance.now() - started).toBeLessThan(LEASE_MS / 4)
    })

    it('a finished job begins anew when it is called again, with totals of its own', async () => {
      const { keys, table } = await oldRows(client(), 6)
      expect(await rewrap({ keys, table, ranges: 2 })).toMatchObject({ written: 6, seen: 6 })
      expect(await rewrap({ keys, table, ranges: 2 })).toMatchObject({ written: 0, seen: 0, failed: 0 })
      await client().query(`update ${table.name} set email = 'broken' where id = 3`)
      expect(await verify({ keys, table })).toMatchObject({ seen: 6, failed: 1 })
      expect(await verify({ keys, table })).toMatchObject({ seen: 6, failed: 1 })
    })
  })

  describe('the books of a job', () => {
    async function open(cuts: readonly Cursor[] = []): Promise<{ job: string; name: string; ledger: Ledger }> {
      const { books } = (await oldRows(client(), 1)).table
      const job = freshName('job')
      const ledger = ledgerOf(books, job)
      await ledger.open()
      await ledger.fill(1, cuts)
      return { job: ledger.run, name: job, ledger }
    }
    const another = async (name: string): Promise<Ledger> => {
      const ledger = ledgerOf(client().table(people()).books, name)
      await ledger.open()
      return ledger
    }
    const end = (job: string) =>
      client().query('update waxseal_range set is_done = 1, owner = null, seen = seen + 1 where job = $1', [job])
    const spans = async (job: string) =>
      (
        await client().query<{ l: string | null; u: string | null }>(
          'select lower_bound as l, upper_bound as u from waxseal_range where job = $1 order by n',
          [job],
        )
      ).map(({ l, u }) => [l, u])

    it('hold one set of ranges when two workers cut differently at the same time', async () => {
      const { books } = (await oldRows(client(), 1)).table
      for (let round = 0; round < 5; round++) {
        const job = freshName('job')
        const ledgers = [ledgerOf(books, job), ledgerOf(books, job)] as const
        await Promise.all(ledgers.map((ledger) => ledger.open()))
        const totals = await Promise.all(ledgers.map((ledger, i) => ledger.total(async () => 10 + i)))
        expect(totals[0]).toBe(totals[1])
        expect(await ledgers[0].total(() => Promise.reject(new Error('counted again')))).toBe(totals[0])
        await Promise.all([ledgers[0].fill(1, [['1'], ['5']]), ledgers[1].fill(1, [['3']])])
        const found = await spans(job)
        for (const [i, [lower, upper]] of found.entries()) {
          expect(lower).toBe(i === 0 ? null : found[i - 1]![1])
          if (i === found.length - 1) expect(upper).toBeNull()
        }
      }
    })

    it('give a range to one worker, and to another only when its lease has run out', async () => {
      const { ledger } = await open([['5']])
      const claims = await Promise.all(['a', 'b', 'c'].map((owner) => ledger.claim(owner, LEASE_MS)))
      expect(claims.filter((range) => range !== null)).toHaveLength(2)
      expect(await ledger.claim('d', LEASE_MS)).toBeNull()
      for (const owner of ['a', 'b', 'c']) await ledger.release(owner)
      expect(await ledger.claim('d', 100)).toMatchObject({ span: { after: null, upTo: ['5'] } })
      await pause(150)
      const taken = await ledger.claim('e', LEASE_MS)
      expect(taken).toMatchObject({ span: { after: null, upTo: ['5'] } })
      expect(await ledger.held('d', taken!.n)).toBeNull()
    })

    it('let a range be split once; who comes second, or after the worker moved on, gets nothing', async () => {
      const { job, ledger } = await open()
      await ledger.claim('a', LEASE_MS)
      const [range] = await ledger.running()
      const parts = await Promise.all([
        ledger.split(range!, ['50'], 'b', LEASE_MS),
        ledger.split(range!, ['60'], 'c', LEASE_MS),
      ])
      const won = parts.filter((part) => part !== null)
      expect(won).toHaveLength(1)
      const at = JSON.stringify(won[0]!.span.after)
      expect(await spans(job)).toEqual([
        [null, at],
        [at, null],
      ])
      expect(await ledger.split(range!, ['40'], 'd', LEASE_MS)).toBeNull()
      expect(await ledger.state()).toMatchObject({ ranges: 2, running: 2 })
    })

    it('begin one further pass when two workers see the end of the last one', async () => {
      const { job, name, ledger } = await open()
      const other = await another(name)
      await ledger.again(1)
      expect(await ledger.state()).toMatchObject({ ranges: 1, pass: 1 }) // not while a range is not done
      await end(job)
      await Promise.all([ledger.again(1), other.again(1)])
      expect(await ledger.state()).toMatchObject({ ranges: 0, running: 0, pass: 2 })
      await Promise.all([ledger.fill(2, []), other.fill(2, [])])
      expect(await ledger.state()).toMatchObject({ ranges: 1, running: 1, pass: 2 })
      await end(job)
      await ledger.again(1) // a worker that slept
      expect(await ledger.state()).toMatchObject({ ranges: 1, running: 0, pass: 2 })
    })

    it('are closed once, whoever does it, and never while a range is not done or there is none yet', async () => {
      const { books } = (await oldRows(client(), 1)).table
      const job = freshName('job')
      const ledger = ledgerOf(books, job)
      await ledger.open()
      await ledger.finish(1)
      expect(await ledger.state()).toMatchObject({ isFinished: false, ranges: 0 })
      await ledger.fill(1, [['2']])
      await ledger.finish(1)
      expect(await ledger.state()).toMatchObject({ isFinished: false, ranges: 2 })
      await end(ledger.run)
      await Promise.all([ledger.finish(1), ledger.finish(1)])
      expect(await ledger.state()).toMatchObject({ isFinished: true, ranges: 0 })
      expect(await ledger.totals()).toMatchObject({ seen: 2, written: 0, raced: 0 })
      await ledger.again(1)
      expect(await ledger.state()).toMatchObject({ isFinished: true, ranges: 0 })
    })

    it('let a worker that saw the end of one pass neither end the next nor begin it once the run is over', async () => {
      const { job, name, ledger } = await open()
      const late = await another(name)
      await end(job)
      await ledger.again(1)
      await late.finish(1) // it had counted before the other one did
      expect(await ledger.state()).toMatchObject({ isFinished: false, pass: 2 })
      await ledger.fill(2, [])
      await late.finish(1)
      expect(await ledger.state()).toMatchObject({ isFinished: false, running: 1 })
      await end(job)
      await Promise.all([ledger.finish(2), late.again(2)])
      const { isFinished, pass } = await ledger.state()
      expect(isFinished ? pass : pass - 1).toBe(2) // one of the two
    })

    it('of a run whose last worker died behind the totals are cleared by the next run', async () => {
      const { job, name, ledger } = await open()
      await end(job)
      await client().query('update waxseal_job set finished_at = 1, seen = 1 where job = $1', [job])
      const next = await another(name)
      expect(next.run).not.toBe(job)
      expect(await spans(job)).toEqual([])
      expect(await next.state()).toMatchObject({ isFinished: false, ranges: 0, pass: 1 })
      await next.fill(1, [])
      expect(await next.totals()).toMatchObject({ seen: 0, written: 0, raced: 0 })
      expect(await ledger.totals()).toMatchObject({ seen: 1, written: 0, raced: 0 })
    })

    it('keep the totals of a run for workers that are late, whatever others did since; old runs are forgotten', async () => {
      const { job, name, ledger } = await open()
      await client().query(`insert into waxseal_failure (job, row_id, code, pass) values ($1, '7', 'MALFORMED', 1)`, [
        job,
      ])
      await end(job)
      await ledger.finish(1)
      for (let i = 0; i < 12; i++) {
        const next = await another(name)
        await next.fill(1, [])
        await end(next.run)
        await next.finish(1)
        if (i > 8) continue
        expect(await ledger.state()).toMatchObject({ isFinished: true })
        expect(await ledger.totals()).toMatchObject({ seen: 1, written: 0, raced: 0 })
        expect(await ledger.failures(9)).toEqual([{ rowId: '7', code: 'MALFORMED' }])
      }
      const kept = await client().query('select job from waxseal_job where name = $1', [name])
      expect(kept.length).toBe(11)
      expect(await client().query('select 1 as one from waxseal_failure where job = $1', [job])).toEqual([])
    })

    it('of a range that was entered behind the end of the run are dropped by whoever looks', async () => {
      const { job, ledger } = await open()
      await end(job)
      await ledger.finish(1)
      await ledger.fill(1, [['4']]) // a worker that was about to cut the table when it stopped for a while
      expect(await spans(job)).toHaveLength(2)
      expect(await ledger.state()).toMatchObject({ isFinished: true })
      expect(await spans(job)).toEqual([])
      expect(await ledger.totals()).toMatchObject({ seen: 1, written: 0, raced: 0 })
    })

    it('give a range away whose lease is from before the clock of the database was set back', async () => {
      const { job, ledger } = await open()
      const taken = await ledger.claim('a', LEASE_MS)
      const leaseIn = (ms: number) =>
        client().query('update waxseal_range set lease_until = lease_until + $1 where job = $2', [ms, job])
      expect(await ledger.claim('b', LEASE_MS)).toBeNull()
      await leaseIn(2 * 86_400_000) // as if it were two days earlier now
      expect(await ledger.claim('b', LEASE_MS)).toEqual(taken)
      expect(await ledger.held('a', taken!.n)).toBeNull()
      await leaseIn(-2 * 86_400_000) // and two days later
      expect(await ledger.claim('c', LEASE_MS)).toEqual(taken)
    })
  })

  it.each([
    ['ranges', 0],
    ['ranges', 10_001],
    ['leaseMs', 99],
    ['maxFailures', -1],
  ])('refuses %s of %d', async (argument, value) => {
    const { keys, table } = await oldRows(client(), 1)
    const job = encryptInPlace({ keys, table, [argument]: value })
    await expect(job).rejects.toMatchObject({ code: 'CONFIG', argument })
  })
}
