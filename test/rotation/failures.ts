import { describe, expect, it } from 'vitest'
import { text } from '../../src/index.ts'
import type { Progress } from '../../src/rotation/index.ts'
import { retire, rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows, oneByOne } from './jobs.ts'
import {
  type AnyRow,
  createTable,
  declare,
  freshName,
  insert,
  people,
  person,
  readPlain,
  readStored,
  rotate,
} from './tables.ts'

const flip = (text: string, at: number): string =>
  text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)

/** Ways to break a header that leave the key id where a query finds it. `wxh:` and 8 characters stand before it. */
const BREAKAGES = [
  { what: 'a wrapped key that was changed', code: 'DECRYPTION_FAILED', change: (h: string) => flip(h, h.length - 6) },
  { what: 'a commitment that was changed', code: 'DECRYPTION_FAILED', change: (h: string) => flip(h, 40), suite: 2 },
  { what: 'an unknown version', code: 'MALFORMED', change: (h: string) => flip(h, 4) },
  { what: 'the reserved byte set', code: 'MALFORMED', change: (h: string) => flip(h, 11) },
  { what: 'its end cut off', code: 'MALFORMED', change: (h: string) => h.slice(0, 60) },
  { what: 'something behind it', code: 'MALFORMED', change: (h: string) => `${h}AAAA` },
  { what: 'characters that are not base64url', code: 'MALFORMED', change: (h: string) => `${h.slice(0, -1)}*` },
  { what: 'another prefix', code: 'MALFORMED', change: (h: string) => `wxp:${h.slice(4)}` },
] as const

/** Rows and keys that a job must leave alone. */
export function failureSuite(client: () => Client): void {
  /** Changes the stored header of row `id`. */
  async function damage(table: string, id: number, change: (header: string) => string): Promise<void> {
    const [row] = await client().query<{ envelope: string }>(`select envelope from "${table}" where id = $1`, [id])
    await client().query(`update "${table}" set envelope = $1 where id = $2`, [change(row!.envelope), id])
  }

  describe('broken rows', () => {
    it.each(BREAKAGES)('with $what: are reported by id, left as they are, and stop nothing', async (breakage) => {
      const { query } = client()
      const keys = testKeyring({ suite: 'suite' in breakage ? breakage.suite : 1 })
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, [1, 2, 3, 4, 5].map(person))
      const oldId = await rotate(keys)
      for (const id of [2, 5]) await damage(record.schema.table, id, breakage.change)
      const before = await readStored(query, record)
      const report = await rewrap({ keys, table: client().table(record), batchSize: 2 })
      expect(report.failures).toEqual([
        { rowId: '2', code: breakage.code },
        { rowId: '5', code: breakage.code },
      ])
      expect(report.written).toBe(3)
      expect(report.remaining).toEqual(new Map([[oldId, 2]]))
      const after = await readStored(query, record)
      expect([after[1], after[4]]).toEqual([before[1], before[4]])
      expect(record.decrypt(keys, after[2] as never)).toEqual(person(3))
    })

    it('are named by whole characters, however long their ids are', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('long'), { id: { id: text() }, fields: { email: text() } })
      const { table } = record.schema
      await createTable(query, record, ['varchar(700)'])
      const id = `${'x'.repeat(599)}😀`
      await insert(query, record, keys, [{ id, email: 'e' }])
      await query(`update ${table} set envelope = substr(envelope, 1, 60)`)
      await rotate(keys)
      const report = await rewrap({ keys, table: client().table(record) })
      expect(report.failures).toEqual([{ rowId: `${'x'.repeat(599)}\ufffd`, code: 'MALFORMED' }])
    })

    it('end the job when there are more than maxFailures', async () => {
      const { keys, record, table } = await oldRows(client())
      for (const id of [3, 4, 8, 9, 15]) await damage(table.name, id, (h) => flip(h, h.length - 6))
      const before = await readStored(client().query, record)
      const job = rewrap({ keys, table, batchSize: 20, maxFailures: 4 })
      await expect(job).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED', table: table.name })
      expect(await readStored(client().query, record)).toEqual(before)
      expect((await rewrap({ keys, table, maxFailures: 5 })).failures).toHaveLength(5)
    })

    /** 30 rows, of which 6 to 18 are broken, after a job that stopped for them. `mend` puts the first n right. */
    async function stopped(maxFailures: number) {
      const { keys, table } = await oldRows(client(), 30)
      const good = new Map<number, string>()
      for (let id = 6; id <= 18; id++) {
        await damage(table.name, id, (header) => {
          good.set(id, header)
          return flip(header, header.length - 6)
        })
      }
      const job = { keys, table, batchSize: 4, maxFailures }
      await expect(rewrap(job)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' })
      const mend = async (n: number): Promise<void> => {
        for (const id of [...good.keys()].slice(0, n)) await damage(table.name, id, () => good.get(id)!)
      }
      return { job, mend }
    }

    it('that were mended since count no more: the same call goes on, and names those that are left', async () => {
      const { job, mend } = await stopped(10)
      await mend(12)
      const report = await rewrap(job)
      expect(report.failures).toEqual([{ rowId: '18', code: 'DECRYPTION_FAILED' }])
      expect(report).toMatchObject({ failed: 1, written: 29 })
      expect([...report.remaining.values()]).toEqual([1])
    })

    it.each([10, 1_000])(
      'that all were mended leave no failure and no row behind, with a limit of %d',
      async (limit) => {
        const { job, mend } = await stopped(10)
        await mend(13)
        const report = await rewrap({ ...job, maxFailures: limit })
        expect(report).toMatchObject({ failed: 0, failures: [], written: 30, remaining: new Map() })
      },
    )

    it('that nobody mended end the job again, with their names', async () => {
      const { job, mend } = await stopped(10)
      await expect(rewrap(job)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' })
      await expect(rewrap(job)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' })
      expect((await rewrap({ ...job, maxFailures: 13 })).failures).toHaveLength(13)
      await mend(13)
      expect(await rewrap(job)).toMatchObject({ failed: 0, written: 13, remaining: new Map() })
    })

    it('let progress count up to the total, also when a pass is repeated', async () => {
      const { keys, record, table } = await oldRows(client())
      for (const id of [1, 2, 3]) await damage(table.name, id, (h) => flip(h, h.length - 6))
      let raced = false
      const racing = {
        ...table,
        async write(...args: Parameters<typeof table.write>) {
          const [change] = args[0]
          if (!raced && change) {
            raced = true
            const { envelope } = record.rewrap(keys, change.expect)!
            await client().query(`update "${table.name}" set envelope = $1 where id = $2`, [envelope, change.cursor[0]])
          }
          return table.write(...args)
        },
      }
      const seen: Progress[] = []
      const report = await rewrap({ keys, table: racing, batchSize: 2, onProgress: (p) => seen.push(p) })
      expect(report).toMatchObject({ written: 16, raced: 1 })
      const done = seen.map((p) => p.done)
      expect(done).toEqual([...done].sort((a, b) => a - b))
    })

    it('are counted once when the job is resumed', async () => {
      const { keys, table } = await oldRows(client())
      for (const id of [1, 2, 3]) await damage(table.name, id, (h) => flip(h, h.length - 6))
      const stop = new AbortController()
      const onProgress = (p: Progress) => p.done > 5 && stop.abort()
      await rewrap({ keys, table: oneByOne(table), batchSize: 5, signal: stop.signal, onProgress })
      const seen: Progress[] = []
      const report = await rewrap({ keys, table, batchSize: 5, onProgress: (p) => seen.push(p) })
      expect(report.failures.map((failure) => failure.rowId)).toEqual(['1', '2', '3'])
      expect(report.written).toBe(17)
      expect(seen[0]).toMatchObject({ done: 10, total: 20 })
      expect(seen.at(-1)).toMatchObject({ done: 20, total: 20 })
      expect(seen.every((p) => p.rowsPerSecond >= 0)).toBe(true)
    })
  })

  describe('keys that must not be written', () => {
    it.each([
      ['compromised', (keys: ReturnType<typeof testKeyring>, id: string) => keys.markCompromised(id, {})],
      [
        'suspended',
        async (keys: ReturnType<typeof testKeyring>, id: string) => {
          await keys.suspend(id)
          await rotate(keys)
        },
      ],
    ] as const)('rows under a %s version are left, and remaining says so', async (_, change) => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      await createTable(query, record)
      const [a, b, c] = [[1, 2], [3, 4, 5], [6]].map((ids) => ids.map(person))
      await insert(query, record, keys, a!)
      const bad = keys.status().active!
      await change(keys, bad)
      await insert(query, record, keys, b!)
      await rotate(keys)
      await insert(query, record, keys, c!)
      const before = await readStored(query, record)
      const report = await rewrap({ keys, table: client().table(record) })
      expect(report).toMatchObject({ written: 3, failures: [] })
      expect(report.remaining).toEqual(new Map([[bad, 2]]))
      expect((await readStored(query, record)).slice(0, 2)).toEqual(before.slice(0, 2))
    })

    it('a version that ceases to be active during the job is in remaining', async () => {
      const { keys, table, oldId } = await oldRows(client())
      const second = keys.status().active!
      let rotated: Promise<string> | undefined
      const slow = {
        ...table,
        async write(...args: Parameters<typeof table.write>) {
          const answer = await table.write(...args)
          rotated ??= rotate(keys)
          await rotated
          return answer
        },
      }
      const report = await rewrap({ keys, table: slow, batchSize: 6 })
      const left = await table.countByKey([oldId, second])
      expect(report.remaining).toEqual(new Map([...left].filter(([, count]) => count > 0)))
    })
  })

  describe('retire', () => {
    it('is refused while a row of any table refers to the version, and counts them', async () => {
      const { keys, oldId, table, record } = await oldRows(client(), 4)
      const empty = client().table(people())
      await client().query(`create table "${empty.name}" (id integer primary key, envelope text)`)
      const place = (await table.locate()).join('.')
      const refused = retire({ keys, keyId: oldId, tables: [empty, table] })
      await expect(refused).rejects.toMatchObject({ code: 'CONFLICT', table: place, keyId: oldId })
      await expect(refused).rejects.toThrow('4 rows')
      await rewrap({ keys, table })
      await retire({ keys, keyId: oldId, tables: [empty, table], reason: 'nothing is left' })
      const version = keys.status().versions.find(({ id }) => id === oldId)
      expect(version).toMatchObject({ state: 'deactivated', retired: true })
      expect(await readPlain(client().query, record, keys)).toEqual([1, 2, 3, 4].map(person) as AnyRow[])
    })

    it('is refused for the active version, and without tables to ask', async () => {
      const { keys, table } = await oldRows(client(), 1)
      const active = keys.status().active!
      await expect(retire({ keys, keyId: active, tables: [table] })).rejects.toMatchObject({ code: 'KEY_STATE' })
      await expect(retire({ keys, keyId: active, tables: [] })).rejects.toMatchObject({ code: 'CONFIG' })
    })
  })

  it.each([0, 1.5, 10_001, Number.NaN])('refuses a batch size of %d', async (batchSize) => {
    const { keys, table } = await oldRows(client(), 1)
    await expect(rewrap({ keys, table, batchSize })).rejects.toMatchObject({ code: 'CONFIG', argument: 'batchSize' })
  })
}
