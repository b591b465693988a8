import { describe, expect, it } from 'vitest'
import type { Stored } from '../../src/envelope/format.ts'
import { inspect } from '../../src/envelope/index.ts'
import { SOURCE, sourceOf } from '../../src/envelope/keys.ts'
import { suiteById } from '../../src/envelope/suites.ts'
import { int, type Keyring, text } from '../../src/index.ts'
import { createKeyring } from '../../src/keyring/create.ts'
import { memoryKeyStore } from '../../src/keystore/memory.ts'
import { localKms } from '../../src/kms/local.ts'
import { reencrypt, rewrap, verify } from '../../src/rotation/index.ts'
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

const commitment = (row: AnyRow): string => String(row.envelope).slice(32, 72)

/** A new data key for every row: after a leak, or to move between suites. */
export function reencryptSuite(client: () => Client): void {
  describe('reencrypt', () => {
    it('gives every old row a new data key under the active version, and leaves new rows alone', async () => {
      const { keys, record, table } = await oldRows(client(), 9)
      await insert(client().query, record, keys, [person(10)])
      const before = await readStored(client().query, record)
      const report = await reencrypt({ keys, table, batchSize: 4 })
      expect(report).toMatchObject({ written: 9, seen: 9, raced: 0, failures: [], aborted: false })
      expect(report.remaining.size).toBe(0)
      const after = await readStored(client().query, record)
      for (const [i, row] of before.entries()) {
        if (i === 9) expect(after[i]).toEqual(row)
        else for (const name of ['email', 'note']) expect(after[i]![name]).not.toBe(row[name])
        expect(commitment(after[i]!) === commitment(row)).toBe(i === 9)
      }
      expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: 10 }, (_, i) => person(i + 1)))
    })

    it('moves rows away from a compromised version, which rewrap leaves', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, [1, 2, 3].map(person))
      const bad = keys.status().active!
      await keys.markCompromised(bad, { decrypt: 'report' })
      const table = client().table(record)
      expect((await rewrap({ keys, table })).remaining).toEqual(new Map([[bad, 3]]))
      const report = await reencrypt({ keys, table, batchSize: 2 })
      expect(report).toMatchObject({ written: 3, failures: [] })
      expect(report.remaining.size).toBe(0)
      expect(await readPlain(query, record, keys)).toEqual([1, 2, 3].map(person))
    })

    it('leaves only the versions of `from`, and refuses those that it may not read', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, [1, 2].map(person))
      const first = await rotate(keys)
      await insert(query, record, keys, [3, 4, 5].map(person))
      const second = await rotate(keys)
      const table = client().table(record)
      const report = await reencrypt({ keys, table, from: [second] })
      expect(report).toMatchObject({ written: 3 })
      expect(report.remaining).toEqual(new Map([[first, 2]]))
      const wrong = keys.status().active!
      await expect(reencrypt({ keys, table, from: [first, wrong] })).rejects.toMatchObject({
        code: 'CONFIG',
        argument: 'from',
      })
    })

    it.each(['email', 'note', 'envelope'])(
      'compares %s, which it overwrites: an edit in between wins',
      async (column) => {
        const { keys, record, table } = await oldRows(client(), 6)
        const [one, two] = await readStored(client().query, record)
        // Whatever is written there, broken even: it must be found as it was written.
        const [edit] = column === 'envelope' ? [two!.envelope] : ['somebody was here']
        let edited = false
        const racing = {
          ...table,
          async write(...args: Parameters<typeof table.write>) {
            if (!edited) {
              edited = true
              await client().query(`update "${table.name}" set ${column} = $1 where id = 1`, [edit])
            }
            return table.write(...args)
          },
        }
        const report = await reencrypt({ keys, table: racing, batchSize: 3 })
        expect(report).toMatchObject({ written: 5, raced: 1, failed: 1 })
        expect(report.failures).toEqual([{ rowId: '1', code: expect.any(String) }])
        expect((await readStored(client().query, record))[0]).toEqual({ ...one, [column]: edit })
      },
    )

    it('resumes where it was stopped, and counts every row once', async () => {
      const { keys, record, table } = await oldRows(client(), 12)
      const stop = new AbortController()
      const onProgress = ({ done }: { done: number }) => done >= 5 && stop.abort()
      const first = await reencrypt({ keys, table: oneByOne(table), batchSize: 5, signal: stop.signal, onProgress })
      expect(first).toMatchObject({ written: 5, aborted: true })
      const [done] = await readStored(client().query, record)
      expect(await reencrypt({ keys, table, batchSize: 5 })).toMatchObject({ written: 12, seen: 12, aborted: false })
      expect((await readStored(client().query, record))[0]).toEqual(done)
    })

    it.each(['columns', 'packed'] as const)('moves a table from suite 1 to suite 2, %s', async (shape) => {
      const { query } = client()
      const [store, kms] = [memoryKeyStore(), localKms('7'.repeat(64))]
      await using keys = await createKeyring({ name: 'both', store, kms, propagationMs: 0 })
      const writing = (suite: 1 | 2): Keyring => ({
        ...keys,
        [SOURCE]: { ...sourceOf(keys), writeSuite: suiteById(suite)! },
      })
      const [one, two] = [writing(1), writing(2)]
      const record = declare(freshName('s'), { id: { id: int() }, fields: { email: text() }, shape, encoding: 'bytes' })
      await createTable(query, record)
      const rows = [1, 2, 3].map((id) => ({ id, email: `e${id}`, city: null }))
      await insert(query, record, one, rows)
      await rotate(two)
      const table = client().table(record)
      expect(await reencrypt({ keys: two, table })).toMatchObject({ written: 3, failures: [] })
      const suites = (await readStored(query, record)).map((row) => inspect(row.envelope as Stored).suite)
      expect(new Set(suites)).toEqual(new Set([2]))
      expect(await readPlain(query, record, two)).toEqual(rows)
      expect(await verify({ keys: two, table })).toMatchObject({ seen: 3, failed: 0 })
    })

    it('gives the declared context to records that have one, from columns that are selected besides', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('ctx'), {
        id: { id: int() },
        context: { tenant: text() },
        fields: { email: text() },
      })
      await createTable(query, record)
      for (const id of [1, 2, 3]) {
        const stored = record.encrypt(keys, { id, email: `e${id}` } as never, { tenant: `t${id}` } as never) as AnyRow
        const values = [id, stored.email, stored.envelope, `t${id}`]
        await query(`insert into "${record.schema.table}" (id, email, envelope, city) values ($1, $2, $3, $4)`, values)
      }
      await rotate(keys)
      const table = client().table(record, { select: ['city'], context: (row) => ({ tenant: row.city }) })
      // Without its context a job cannot open any row: that is no fault of the rows.
      const blind = reencrypt({ keys, table: client().table(record) })
      await expect(blind).rejects.toMatchObject({ code: 'CONFIG', argument: 'context' })
      expect(await reencrypt({ keys, table })).toMatchObject({ written: 3, failures: [] })
      expect(await verify({ keys, table })).toMatchObject({ seen: 3, failed: 0, plaintext: 0 })
    })
  })
}
