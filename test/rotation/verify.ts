import { describe, expect, it } from 'vitest'
import { int, type Keyring, text } from '../../src/index.ts'
import { type RotationSource, verify } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, createTable, declare, freshName, insert, insertStored, person, readStored } from './tables.ts'

/** Another character at the place of one: base64url stays base64url. */
const flip = (text: string, at: number): string =>
  text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)

/** Every row is opened, and none is changed. */
export function verifySuite(client: () => Client): void {
  describe('verify', () => {
    it('counts rows by version and changes nothing', async () => {
      const { keys, record, table, oldId } = await oldRows(client(), 7)
      await insert(client().query, record, keys, [20, 21].map(person))
      const before = await readStored(client().query, record)
      const report = await verify({ keys, table, batchSize: 3 })
      expect(report).toMatchObject({ seen: 9, written: 0, raced: 0, failed: 0, plaintext: 0, aborted: false })
      expect(report.byVersion).toEqual(
        new Map([
          [oldId, 7],
          [keys.status().active!, 2],
        ]),
      )
      expect(await readStored(client().query, record)).toEqual(before)
      expect(await verify({ keys, table })).toMatchObject({ seen: 9 }) // each is a job of its own
    })

    it.each([
      ['the key id', 'envelope', 14, 'UNKNOWN_KEY'],
      ['the commitment', 'envelope', 40, 'DECRYPTION_FAILED'],
      ['the wrapped key', 'envelope', 100, 'DECRYPTION_FAILED'],
      ['a nonce', 'email', 6, 'DECRYPTION_FAILED'],
      ['a ciphertext', 'note', 30, 'DECRYPTION_FAILED'],
      ['a prefix', 'email', 1, 'MALFORMED'],
    ])('finds a byte of %s that was flipped', async (_, column, at, code) => {
      const { keys, record, table } = await oldRows(client(), 7)
      const [, , , , stored] = await readStored(client().query, record)
      await client().query(`update "${table.name}" set ${column} = $1 where id = 5`, [
        flip(String(stored![column]), at),
      ])
      const report = await verify({ keys, table, batchSize: 2, ranges: 3 })
      expect(report).toMatchObject({ seen: 7, failed: 1, failures: [{ rowId: '5', code }] })
    })

    it('finds rows whose ciphertexts were exchanged', async () => {
      const { keys, record, table } = await oldRows(client(), 4)
      const [one, two] = await readStored(client().query, record)
      for (const [id, row] of [[1, two!] as const, [2, one!] as const]) {
        await client().query(`update "${table.name}" set email = $1 where id = $2`, [row.email, id])
      }
      expect((await verify({ keys, table })).failures.map(({ rowId }) => rowId)).toEqual(['1', '2'])
    })

    it('counts at one instant, and names what no version claims', async () => {
      const { keys, record, table, oldId } = await oldRows(client(), 5)
      const other = testKeyring()
      const [foreign] = [record.encrypt(other, person(9) as never) as AnyRow]
      await insertStored(client().query, record, [foreign!])
      const report = await verify({ keys, table })
      expect(report).toMatchObject({ total: 6, sealed: 6, plaintext: 0, failed: 1, sample: undefined })
      expect(report.unclaimed).toEqual({ rows: 1, rowIds: ['9'] })
      expect(report.byVersion.get(oldId)).toBe(5)
      expect(report.failures).toEqual([{ rowId: '9', code: 'UNKNOWN_KEY' }])
    })

    describe('a random sample', () => {
      const ROWS = 400
      /** Which of the rows are drawn, by what is read of them. */
      const drawnBy = async (of: RotationSource, keys: Keyring, sample: number) => {
        const ids: number[] = []
        const spy: RotationSource = {
          ...of,
          async page(...args: Parameters<RotationSource['page']>) {
            const rows = await of.page(...args)
            if (args[3] === 'sealed') ids.push(...rows.map(({ cursor }) => Number(cursor[0])))
            return rows
          },
        }
        return { report: await verify({ keys, table: spy, sample, batchSize: 7 }), ids }
      }

      it('is uniform, another one every time, in order, and says what follows', async () => {
        const { keys, table } = await oldRows(client(), ROWS)
        const hits = new Array<number>(ROWS + 1).fill(0)
        const draws: string[] = []
        const TIMES = 12
        for (let i = 0; i < TIMES; i++) {
          const { report, ids } = await drawnBy(table, keys, 100)
          expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b))
          expect(report.sample).toMatchObject({ drawn: ids.length, of: ROWS, broken: 0 })
          expect(report).toMatchObject({ seen: ids.length, failed: 0, total: ROWS, sealed: ROWS })
          expect(ids.length).toBeGreaterThan(45) // 6 standard deviations of the expected 100
          expect(ids.length).toBeLessThan(155)
          expect(report.sample!.atMost).toBeCloseTo(1 - 0.05 ** (1 / ids.length), 10)
          expect(report.sample!.atMostRows).toBe(Math.floor(report.sample!.atMost * ROWS))
          for (const id of ids) hits[id]!++
          draws.push(ids.join())
        }
        expect(new Set(draws).size).toBe(TIMES)
        // Each quarter of the table has its share: 300 expected, with a standard deviation of 15.
        for (let quarter = 0; quarter < 4; quarter++) {
          const sum = hits.slice(1 + quarter * 100, 101 + quarter * 100).reduce((a, b) => a + b, 0)
          expect(Math.abs(sum - (TIMES * 100) / 4)).toBeLessThan(95)
        }
      })

      it('of more rows than there are is all of them, and exact', async () => {
        const { keys, record, table } = await oldRows(client(), 8)
        await client().query(`update "${table.name}" set email = 'broken' where id = 5`)
        const report = await verify({ keys, table, sample: 10_000 })
        expect(report).toMatchObject({ seen: 8, failed: 1, failures: [{ rowId: '5' }] })
        expect(report.sample).toEqual({ drawn: 8, of: 8, broken: 1, atMost: 1 / 8, atMostRows: 1 })
        expect(await readStored(client().query, record)).toHaveLength(8)
      })

      it('goes on with the chance that it began with, also when the table has grown', async () => {
        const { keys, record, table } = await oldRows(client(), 200)
        const stop = new AbortController()
        const onProgress = ({ done }: { done: number }) => done > 0 && stop.abort()
        const first = await verify({ keys, table, sample: 50, batchSize: 5, signal: stop.signal, onProgress })
        expect(first.aborted).toBe(true)
        await insert(
          client().query,
          record,
          keys,
          Array.from({ length: 400 }, (_, i) => person(1000 + i)),
        )
        const second = await verify({ keys, table, sample: 50 })
        expect(second.startedAt).toBe(first.startedAt)
        expect(second.sample!.of).toBe(600)
        expect(second.seen).toBeGreaterThan(90) // a chance of 0.25; 0.083 would give 50
      })

      it.each([0, 0.5, 10_000_001])('refuses %d rows', async (sample) => {
        const { keys, table } = await oldRows(client(), 1)
        await expect(verify({ keys, table, sample })).rejects.toMatchObject({ code: 'CONFIG', argument: 'sample' })
      })
    })

    describe('that was stopped', () => {
      const stopped = async () => {
        const made = await oldRows(client(), 12)
        const stop = new AbortController()
        const onProgress = ({ done }: { done: number }) => done > 0 && stop.abort()
        const report = await verify({ ...made, batchSize: 4, signal: stop.signal, onProgress })
        expect(report).toMatchObject({ aborted: true, seen: 4 })
        return { ...made, report }
      }
      const age = (name: string, ms: number) =>
        Promise.all([
          client().query(`update waxseal_job set started_at = started_at - ${ms} where job like $1`, [
            `verify%"${name}"%`,
          ]),
          client().query(`update waxseal_range set lease_until = lease_until - ${ms} where job like $1`, [
            `verify%"${name}"%`,
          ]),
        ])

      it('goes on within a day, and says since when', async () => {
        const { keys, table, report } = await stopped()
        await age(table.name, 23 * 3_600_000)
        const next = await verify({ keys, table })
        expect(next).toMatchObject({ seen: 12, aborted: false, startedAt: report.startedAt - 23 * 3_600_000 })
      })

      it('begins anew after a day, or when it is told to', async () => {
        const { keys, record, table, report } = await stopped()
        // What was opened before counts no more: it may have been damaged since.
        await client().query(`update "${table.name}" set email = 'broken' where id = 2`)
        await age(table.name, 25 * 3_600_000)
        const next = await verify({ keys, table })
        expect(next).toMatchObject({ seen: 12, failed: 1, failures: [{ rowId: '2' }] })
        expect(next.startedAt).toBeGreaterThanOrEqual(report.startedAt)

        const again = await stopped()
        expect(await verify({ ...again, resumeWithinMs: 0 })).toMatchObject({ seen: 12 })
        expect(record).toBeDefined()
      })

      it('is not begun anew under a worker that is at it', async () => {
        const { keys, table } = await oldRows(client(), 12)
        let joined: Promise<unknown> | undefined
        const first = await verify({
          keys,
          table,
          batchSize: 4,
          onProgress: ({ done }) => {
            if (done === 4) joined = verify({ keys, table, batchSize: 4, resumeWithinMs: 0 })
          },
        })
        expect(first).toMatchObject({ seen: 12, failed: 0 })
        expect(await joined).toMatchObject({ failed: 0 })
      })
    })

    it('counts plaintext rows of a table that migrates, without opening them', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('v'), {
        id: { id: int() },
        fields: { email: text() },
        migrate: { phase: 'encrypt', until: new Date(Date.now() + 1e9) },
      })
      await createTable(query, record)
      await insert(query, record, keys, [{ id: 1, email: 'sealed' }])
      await query(`insert into "${record.schema.table}" (id, email) values (2, 'plain'), (3, 'plain')`)
      const report = await verify({ keys, table: client().table(record) })
      expect(report).toMatchObject({ seen: 1, failed: 0, plaintext: 2 })
    })
  })
}
