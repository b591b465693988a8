import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { jobControl, type RotationSource, reencrypt, rewrap } from '../../src/rotation/index.ts'
import { ledgerOf } from '../../src/rotation/ledger.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { type Client, type PostgresClient, pgClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { freshName, person, readPlain } from './tables.ts'

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

/** A batch that is sent while the one before is written. */
export function aheadSuite(client: () => Client): void {
  it('a step is written behind the one that it follows, once, and nowhere else', async () => {
    const { keys, record, oldId, table } = await oldRows(client(), 5)
    await table.books.prepare()
    const ledger = ledgerOf(table.books, freshName('job'))
    await ledger.open()
    await ledger.fill(1, [])
    const range = (await ledger.claim('me', 60_000))!
    const rows = await table.page({ keys: [oldId] }, range.span, 5, 'envelope')
    const changes = rows.map(({ row, cursor, was }) => {
      const { envelope } = record.rewrap(keys, row as never)!
      return { cursor, set: { envelope }, expect: { envelope: was.envelope! } }
    })
    const write = (from: number, to: number, after = rows[from - 1]?.cursor ?? null) =>
      table.write(changes.slice(from, to), {
        job: ledger.run,
        range: range.n,
        owner: 'me',
        leaseMs: 60_000,
        after,
        upTo: null,
        cursor: rows[to - 1]!.cursor,
        isDone: to === rows.length,
        seen: to - from,
        failures: [],
      })
    expect(await write(2, 4)).toBeNull()
    expect(await write(0, 2, rows[4]!.cursor)).toBeNull()
    expect((await table.countByKey([oldId])).get(oldId)).toBe(5)
    expect(await write(0, 2)).toEqual({ written: 2 })
    expect(await write(0, 2)).toBeNull()
    expect(await write(3, 5)).toBeNull()
    expect(await write(2, 4)).toEqual({ written: 2 })
    expect(await write(4, 5, null)).toBeNull()
    expect(await write(4, 5)).toEqual({ written: 1 })
    expect(await ledger.totals()).toMatchObject({ seen: 5, written: 5, raced: 0 })
    expect(await table.countLeft({ keys: [oldId] })).toBe(0)
  })

  it('an error of one batch is told, and the one behind it is not written', async () => {
    const { keys, record, oldId, table } = await oldRows(client(), 12)
    const broken: RotationSource = {
      ...table,
      async write(changes, step) {
        if (step.after === null) return table.write(changes, step)
        await pause(20)
        throw new Error('the connection is gone')
      },
    }
    await expect(rewrap({ keys, table: broken, batchSize: 3 })).rejects.toThrow('the connection is gone')
    expect((await table.countByKey([oldId])).get(oldId)).toBe(9)
    expect(await rewrap({ keys, table, batchSize: 3 })).toMatchObject({ written: 12, seen: 12, raced: 0, failed: 0 })
    expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: 12 }, (_, i) => person(i + 1)))
  })
}

async function slow(query: PostgresClient['query'], table: string): Promise<void> {
  await query(`create or replace function slowly() returns trigger language plpgsql as
    $$ begin perform pg_sleep(0.1); return new; end $$`)
  await query(`create trigger slowly before update on ${table} for each row execute function slowly()`)
}

/** With locks and limits as only a server has them. */
export function aheadServerSuite(client: () => PostgresClient, url: () => string): void {
  describe.each([
    ['rewrap', rewrap],
    ['reencrypt', reencrypt],
  ] as const)('%s', (_, job) => {
    it('sends one batch behind the one that waits, and no third', async () => {
      const { keys, record, table } = await oldRows(client(), 12)
      const lock = new pg.Client({ connectionString: url() })
      await lock.connect()
      let calls = 0
      const counted: RotationSource = {
        ...table,
        async write(changes, step) {
          if (++calls === 2) await pause(100) // on a busy machine, it might come first
          return table.write(changes, step)
        },
      }
      try {
        await lock.query('begin')
        await lock.query(`select 1 from ${table.name} where id = 2 for update`)
        const running = job({ keys, table: counted, batchSize: 2 })
        for (let waiting = 0; waiting < 2; await pause(5)) {
          const [row] = await client().query<{ n: number }>(
            `select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and query like '%${table.name}%'`,
          )
          waiting = row!.n
        }
        await pause(50)
        expect(calls).toBe(2)
        await lock.query(`update ${table.name} set city = 'Turku' where id = 2`)
        await lock.query('commit')
        expect(await running).toMatchObject({ written: 12, seen: 12, raced: 0, failed: 0, remaining: new Map() })
      } finally {
        await lock.end()
      }
      const expected = Array.from({ length: 12 }, (_, i) => person(i + 1))
      expect(await readPlain(client().query, record, keys)).toEqual(
        expected.map((row) => (row.id === 2 ? { ...row, city: 'Turku' } : row)),
      )
    })

    it('ends what it sent when it is aborted, and resumes behind that', async () => {
      const { keys, record, oldId, table } = await oldRows(client(), 12)
      const stop = new AbortController()
      const first = await job({
        keys,
        table,
        batchSize: 2,
        signal: stop.signal,
        onProgress: (p) => p.done > 0 && stop.abort(),
      })
      expect(first).toMatchObject({ written: 4, seen: 4, raced: 0, aborted: true, remaining: new Map([[oldId, 8]]) })
      expect(await job({ keys, table, batchSize: 2 })).toMatchObject({
        written: 12,
        seen: 12,
        raced: 0,
        aborted: false,
      })
      expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: 12 }, (_, i) => person(i + 1)))
    })

    it('writes what it sent when it is paused, and no more', async () => {
      const { keys, oldId, table } = await oldRows(client(), 12)
      const control = jobControl()
      const running = job({ keys, table, batchSize: 2, control, onProgress: (p) => p.done === 2 && control.pause() })
      const left = async () => (await table.countByKey([oldId])).get(oldId)
      while ((await left())! > 8) await pause(5)
      await pause(100)
      expect(await left()).toBe(8)
      control.resume()
      expect(await running).toMatchObject({ written: 12, seen: 12, raced: 0 })
    })

    it.each([
      ['one connection', { max: 1 }],
      ['two, and little time to get one', { max: 2, connectionTimeoutMillis: 350 }],
      ['little time for a query', { max: 4, query_timeout: 500 }],
    ])('ends with a pool of %s', async (_, options) => {
      const { query } = client()
      const { keys, record, table } = await oldRows(client(), 12)
      await slow(query, table.name)
      const pool = new pg.Pool({ connectionString: url(), ...options })
      try {
        const report = await job({ keys, table: postgresTable(pool, record), batchSize: 3 })
        expect(report).toMatchObject({ written: 12, seen: 12, raced: 0, failed: 0, remaining: new Map() })
      } finally {
        await pool.end()
      }
    })

    it.each(['lock_timeout', 'statement_timeout'])('is no victim of %s for having waited', async (setting) => {
      const { query } = client()
      const { keys, record, table } = await oldRows(client(), 12)
      await slow(query, table.name)
      // A batch takes 0.3 s; with the one before it takes 0.6 s.
      const limit = setting === 'lock_timeout' ? 100 : 450
      const address = new URL(url())
      address.searchParams.set('options', `-c ${setting}=${limit}`)
      const hasty = pgClient(address.href)
      try {
        const report = await job({ keys, table: postgresTable(hasty.db, record), batchSize: 3 })
        expect(report).toMatchObject({ written: 12, seen: 12, raced: 0, failed: 0, remaining: new Map() })
      } finally {
        await hasty.close()
      }
    })
  })
}
