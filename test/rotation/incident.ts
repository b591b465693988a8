import { describe, expect, it } from 'vitest'
import { createKeyring } from '../../src/index.ts'
import { memoryKeyStore } from '../../src/keystore/memory.ts'
import { noteListed } from '../../src/rotation/affected.ts'
import { TABLES } from '../../src/rotation/books.ts'
import type { RotationSource } from '../../src/rotation/index.ts'
import { type IncidentProgress, incident, rewrap } from '../../src/rotation/index.ts'
import { memoryKms, testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { createTable, insert, people, person, readPlain } from './tables.ts'

/** A version that may have leaked: from the marking to the report. */
export function incidentSuite(client: () => Client): void {
  const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
  /** Two tables under one version. */
  async function leak(rows = 7) {
    const { query } = client()
    const keys = testKeyring()
    const [one, two] = [people(), people()]
    for (const record of [one, two]) {
      await createTable(query, record)
      await insert(query, record, keys, ids(1, rows).map(person))
    }
    const options = { select: ['city'], subject: (row: Readonly<Record<string, unknown>>) => `in ${row.city}` }
    const tables = [client().table(one, options), client().table(two)]
    const lines: string[] = []
    const call = { keys, keyId: keys.status().active!, tables, reason: 'stolen', actor: 'ann', settleMs: 0 }
    const ends: string[] = []
    const write = (line: string): void => void (line.startsWith('{"complete"') ? ends : lines).push(line)
    return { ...call, one, two, lines, ends, write, call }
  }
  const parsed = (lines: readonly string[]) => lines.map((line) => JSON.parse(line) as Record<string, string>)

  describe('an incident', () => {
    it('marks, lists every row, re-encrypts in the given order, and says when', async () => {
      const { keys, keyId, one, two, tables, lines, write, call } = await leak()
      const started = Date.now()
      const told: IncidentProgress[] = []
      const report = await incident({ ...call, tables: tables.toReversed(), write, onProgress: (p) => told.push(p) })
      expect(report).toMatchObject({ keyId, wasMarked: false, aborted: false, isDone: true })
      expect(report.active).toBe(keys.status().active)
      expect(report.active).not.toBe(keyId)
      expect(keys.status().versions[0]).toMatchObject({ id: keyId, state: 'compromised' })
      expect(keys.status().versions[0]!.history.at(-1)).toMatchObject({ reason: 'stolen', actor: 'ann' })
      expect(report.tables.map(({ table }) => table)).toEqual([two, one].map(({ schema }) => schema.table))
      for (const table of report.tables) {
        expect(table).toMatchObject({ listed: 7, reencrypted: 7, failed: 0, failures: [], remaining: 0 })
      }
      const times = [started, report.markedAt, report.listedAt!, ...report.tables.map((t) => t.reencryptedAt!)]
      expect([...times, report.endedAt].toSorted((a, b) => a - b)).toEqual([...times, report.endedAt])
      const expected = [two, one].flatMap(({ schema }) =>
        ids(1, 7).map((id) => ({
          table: schema.table,
          rowId: String(id),
          ...(schema.table === one.schema.table && { subject: `in ${person(id).city}` }),
        })),
      )
      expect(parsed(lines)).toEqual(expected)
      expect(lines.every((line) => line.endsWith('}\n'))).toBe(true)
      expect([...new Set(told.map(({ phase }) => phase))]).toEqual(['marked', 'listing', 'reencrypting'])
      for (const record of [one, two]) {
        expect(await readPlain(client().query, record, keys)).toEqual(ids(1, 7).map(person))
      }
    })

    it('lists again, when every instance has learned of it, what was written under the version meanwhile', async () => {
      const { keyId, keys, one, lines, write, call } = await leak(3)
      const late = one.encrypt(keys, person(9) as never) as Record<string, unknown>
      let inserted: Promise<unknown> | undefined
      const report = await incident({
        ...call,
        write,
        settleMs: 400,
        onProgress: ({ phase }) => {
          if (phase !== 'settling') return
          inserted = client().query(
            `insert into "${one.schema.table}" (id, email, note, envelope) values (9, $1, $2, $3)`,
            [late.email, late.note, late.envelope],
          )
        },
      })
      await inserted
      expect(report.tables[0]).toMatchObject({ listed: 4, reencrypted: 4, remaining: 0 })
      expect(report.listedAt! - report.markedAt).toBeGreaterThanOrEqual(400)
      const rows = new Set(lines.map((line) => line))
      expect([lines.length, rows.size]).toEqual([13, 7])
      expect(keys.status().active).not.toBe(keyId)
    })

    it('makes its list whatever the books say of one before the marking', async () => {
      const { keyId, lines, ends, tables, write, call } = await leak(3)
      const { books } = tables[0]!
      for (const table of tables) await noteListed(table, keyId, { rows: 3, at: Date.now() + 1_000 })
      const dying = () => Promise.reject(new Error('killed'))
      await expect(incident({ ...call, write: dying })).rejects.toThrow('killed')
      expect(await books.query(`select 1 from ${TABLES.job} where name like 'affected%${keyId}%'`)).toEqual([])
      expect(await incident({ ...call, write })).toMatchObject({ wasMarked: true, isDone: true })
      expect([lines.length, ends.length]).toEqual([6, 1])
    })

    it('stopped while it waits for the other instances: its lines are on disk, and it claims no whole list', async () => {
      const { lines, ends, write, call } = await leak(3)
      const stop = new AbortController()
      const flushed: number[] = []
      const flush = () => flushed.push(lines.length)
      const report = await incident({
        ...call,
        write,
        flush,
        settleMs: 60_000,
        signal: stop.signal,
        onProgress: ({ phase }) => phase === 'settling' && stop.abort(),
      })
      expect([flushed, ends]).toEqual([[6], []])
      expect(report).toMatchObject({ listedAt: undefined, aborted: true, isDone: false })
      expect(await incident({ ...call, write, flush })).toMatchObject({ isDone: true })
      expect(ends).toHaveLength(1)
    })

    it('waits for the writer after every line', async () => {
      const { call } = await leak(20)
      let [open, most] = [0, 0]
      await incident({
        ...call,
        write: async () => {
          most = Math.max(most, ++open)
          await new Promise((done) => setImmediate(done))
          open--
        },
      })
      expect(most).toBe(1)
    })

    it.each(['killed', 'ENOSPC: no space left on device'])(
      'begins its list anew after %s while listing, and marks once',
      async (what) => {
        const { keys, lines, ends, write, call } = await leak(5)
        let left = 7
        const dying = (line: string) => {
          if (left-- === 0) throw new Error(what)
          write(line)
        }
        await expect(incident({ ...call, write: dying })).rejects.toThrow(what)
        expect([lines.length, ends.length]).toEqual([7, 0])
        const active = keys.status().active
        const report = await incident({ ...call, write })
        expect(report).toMatchObject({ wasMarked: true, active, isDone: true })
        expect(new Set(lines).size).toBe(10)
        expect(lines).toHaveLength(17)
        expect(ends.map((line) => JSON.parse(line))).toEqual([
          { complete: true, keyId: call.keyId, rows: 10, at: expect.any(String) },
        ])
      },
    )

    it('changes no row before the list is on disk: a flush that fails, or a kill there, begins it anew', async () => {
      const { keys, one, lines, ends, write, call } = await leak(4)
      const before = await client().query(`select * from "${one.schema.table}" order by id`)
      const flush = async (): Promise<void> => {
        throw new Error('ENOSPC: no space left on device')
      }
      await expect(incident({ ...call, write, flush })).rejects.toThrow('ENOSPC')
      expect(await client().query(`select * from "${one.schema.table}" order by id`)).toEqual(before)
      expect([lines.length, ends.length]).toEqual([8, 1]) // what was given to the writer; who knows what is on disk
      const synced: number[] = []
      expect(await incident({ ...call, write, flush: () => synced.push(ends.length) })).toMatchObject({ isDone: true })
      expect([lines.length, ends.length, synced]).toEqual([16, 2, [2]])
      expect(await readPlain(client().query, one, keys)).toEqual(ids(1, 4).map(person))
    })

    it('keeps its list and goes on after a kill while re-encrypting', async () => {
      const { one, two, keys, tables, lines, write, call } = await leak(12)
      let left = 3
      const dying: RotationSource = {
        ...tables[1]!,
        write: (...args: Parameters<RotationSource['write']>) => {
          if (left-- <= 0) throw new Error('killed')
          return tables[1]!.write(...args)
        },
      }
      const first = incident({ ...call, tables: [tables[0]!, dying], batchSize: 3, write })
      await expect(first).rejects.toThrow('killed')
      expect(lines).toHaveLength(24)
      const report = await incident({ ...call, batchSize: 3, write })
      expect(lines).toHaveLength(24)
      expect(report).toMatchObject({ wasMarked: true, isDone: true })
      expect(report.tables[1]).toMatchObject({ listed: 12, reencrypted: 12, remaining: 0 })
      for (const record of [one, two]) {
        expect(await readPlain(client().query, record, keys)).toEqual(ids(1, 12).map(person))
      }
      expect(await incident({ ...call, write })).toMatchObject({
        isDone: true,
        tables: [{ listed: 12 }, { listed: 12 }],
      })
      expect(lines).toHaveLength(24)
    })

    it('stops when aborted, while listing or re-encrypting, and resumes', async () => {
      const { lines, ends, write, call } = await leak(6)
      for (const phase of ['listing', 'reencrypting'] as const) {
        const stop = new AbortController()
        const onProgress = (p: IncidentProgress) => p.phase === phase && stop.abort()
        const report = await incident({ ...call, batchSize: 2, write, onProgress, signal: stop.signal })
        expect(report).toMatchObject({ aborted: true, isDone: false })
        expect(report.listedAt === undefined).toBe(phase === 'listing')
        expect(ends).toHaveLength(phase === 'listing' ? 0 : 1)
      }
      expect(await incident({ ...call, write })).toMatchObject({ aborted: false, isDone: true })
      expect(new Set(lines).size).toBe(12)
    })

    it('reports broken rows and goes on; too many of them stop their table alone', async () => {
      const { one, tables, write, call } = await leak(6)
      await client().query(`update "${one.schema.table}" set email = 'broken' where id <= 3`)
      const report = await incident({ ...call, write, maxFailures: 2 })
      expect(report).toMatchObject({ isDone: false })
      expect(report.tables[0]).toMatchObject({ stopped: 'LIMIT_EXCEEDED', remaining: 6, reencryptedAt: undefined })
      expect(report.tables[1]).toMatchObject({ reencrypted: 6, remaining: 0 })
      const second = await incident({ ...call, write })
      expect(second.tables[0]).toMatchObject({ reencrypted: 3, failed: 3, remaining: 3, listed: 6 })
      expect(second.tables[0]!.reencryptedAt).toBeGreaterThan(0)
      expect(second.tables[0]!.failures.map(({ rowId }) => rowId)).toEqual(['1', '2', '3'])
      expect((await rewrap({ keys: call.keys, table: tables[0]! })).remaining).toEqual(new Map([[call.keyId, 3]]))
    })

    it('of a version that was suspended while the KMS was away: makes a successor', async () => {
      const { query } = client()
      const kms = memoryKms()
      await using keys = await createKeyring({ name: 'leak', store: memoryKeyStore(), kms, propagationMs: 60_000 })
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, [1, 2].map(person))
      const keyId = keys.status().active!
      await keys.suspend(keyId)
      const tables = [client().table(record)]
      const report = await incident({ keys, keyId, tables, reason: 'leak', settleMs: 0, write: () => undefined })
      expect(report).toMatchObject({ isDone: true, tables: [{ reencrypted: 2 }] })
    })

    it('refuses what it cannot do before anything is marked', async () => {
      const { keys, write, call } = await leak(1)
      for (const wrong of [{ tables: [] }, { reason: ' ' }, { write: 'file' as never }, { settleMs: -1 }]) {
        await expect(incident({ ...call, write, ...wrong })).rejects.toMatchObject({ code: 'CONFIG' })
      }
      await expect(incident({ ...call, write, keyId: 'A'.repeat(20) })).rejects.toMatchObject({ code: 'UNKNOWN_KEY' })
      expect(keys.status().versions).toHaveLength(1)
    })
  })
}
