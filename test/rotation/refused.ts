import { describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { decryptInPlace, encryptInPlace, type RotationSource, reencrypt, rewrap } from '../../src/rotation/index.ts'
import { isRowRefusal } from '../../src/rotation/refusal.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { createTable, declare, freshName, insert, people, person, readPlain, readStored, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
const isPostgres = (client: Client): boolean => client.makeSchema === 'create schema'

/** Rows that the database does not take back: each is a failure, and the others of its batch are written. */
export function refusedSuite(client: () => Client): void {
  /** Refuses every update that touches one of the rows, in the words of the database. */
  async function refuse(table: string, ids: readonly number[]): Promise<void> {
    const { query } = client()
    const listed = ids.join(', ')
    if (isPostgres(client())) {
      await query(`create function refuse_${table}() returns trigger language plpgsql as
        $$ begin raise exception 'not this one'; end $$`)
      await query(`create trigger refuse_${table} before update on ${table} for each row when (new.id in (${listed}))
        execute function refuse_${table}()`)
    } else {
      await query(`create trigger refuse_${table} before update on ${table} when new.id in (${listed})
        begin select raise(abort, 'not this one'); end`)
    }
  }

  /** The same table, with every batch that was sent. */
  function watched(table: RotationSource) {
    const sizes: number[] = []
    const source: RotationSource = {
      ...table,
      write(changes, step) {
        sizes.push(changes.length)
        return table.write(changes, step)
      },
    }
    return { source, sizes }
  }

  describe('a row that the database refuses', () => {
    it.each([
      ['rewrap', rewrap],
      ['reencrypt', reencrypt],
    ] as const)('%s: is a failure, whatever else is in its batch', async (_, job) => {
      const { keys, record, oldId, table } = await oldRows(client(), 40)
      await refuse(table.name, [1, 7, 8, 40])
      const before = await readStored(client().query, record)
      const { source, sizes } = watched(table)
      const report = await job({ keys, table: source, batchSize: 16 })
      expect(report).toMatchObject({ written: 36, failed: 4, raced: 0, aborted: false })
      expect(report.seen).toBe(40)
      expect(report.failures.toSorted((a, b) => Number(a.rowId) - Number(b.rowId))).toEqual(
        ['1', '7', '8', '40'].map((rowId) => ({ rowId, code: 'ROW_REFUSED' })),
      )
      expect(report.remaining).toEqual(new Map([[oldId, 4]]))
      expect(Math.max(...sizes)).toBe(16)
      expect(sizes.length).toBeLessThan(3 + 4 * 2 * 5)
      const after = await readStored(client().query, record)
      for (const id of [1, 7, 8, 40]) expect(after[id - 1]).toEqual(before[id - 1])
      expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: 40 }, (_, i) => person(i + 1)))
    })

    it('is left by a run that is stopped between halves, and the next call adds up', async () => {
      const { keys, table } = await oldRows(client(), 20)
      await refuse(table.name, [4])
      let calls = 0
      const dying: RotationSource = {
        ...table,
        async write(changes, step) {
          if (++calls >= 4) throw new Error('the connection is gone')
          return table.write(changes, step)
        },
      }
      await expect(rewrap({ keys, table: dying, batchSize: 20 })).rejects.toThrow('the connection is gone')
      expect(await rewrap({ keys, table, batchSize: 20 })).toMatchObject({ written: 19, failed: 1, seen: 20 })
    })

    it('stops the job when there are more than maxFailures of them, and those up to there are in the books', async () => {
      const { keys, table } = await oldRows(client(), 20)
      await refuse(table.name, [2, 3, 5, 9])
      const job = rewrap({ keys, table, batchSize: 20, maxFailures: 2 })
      await expect(job).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED', table: table.name })
      const named = await client().query(`select row_id from waxseal_failure where job like $1`, [`%"${table.name}"%`])
      expect(named.length).toBe(3)
      expect(await rewrap({ keys, table, batchSize: 20 })).toMatchObject({ written: 16, failed: 4 })
    })

    it('by a check of its own is one as well; put right, the next call takes it', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      const { table: name } = record.schema
      await query(`create table ${name} (id integer primary key, email text, note text, city text, envelope text,
        frozen text, check (frozen is null or frozen = envelope))`)
      const rows = [1, 2, 3, 4, 5].map(person)
      await insert(query, record, keys, rows)
      await query(`update ${name} set frozen = envelope where id in (2, 5)`)
      await rotate(keys)
      const table = client().table(record)
      const first = await reencrypt({ keys, table, batchSize: 2 })
      expect(first.failures).toEqual(['2', '5'].map((rowId) => ({ rowId, code: 'ROW_REFUSED' })))
      expect(first).toMatchObject({ written: 3 })
      await query(`update ${name} set frozen = null`)
      expect(await reencrypt({ keys, table })).toMatchObject({ written: 2, failed: 0, remaining: new Map() })
      expect(await readPlain(query, record, keys)).toEqual(rows)
    })

    it('encryptInPlace and decryptInPlace: a column that cannot hold the ciphertext, or the plaintext', async () => {
      const { query } = client()
      const keys = testKeyring()
      const name = freshName('narrow')
      const at = (phase: 'prepare' | 'encrypt') =>
        declare(name, { id: { id: int() }, fields: { email: text() }, migrate: { phase, until: UNTIL } })
      const limit = isPostgres(client()) ? 'varchar(80)' : 'text check (length(email) <= 80)'
      await query(`create table ${name} (id integer primary key, email ${limit}, envelope text)`)
      for (const id of [1, 2, 3, 4, 5, 6]) {
        await query(`insert into ${name} (id, email) values ($1, $2)`, [id, id === 4 ? 'x'.repeat(60) : `e${id}`])
      }
      const report = await encryptInPlace({ keys, table: client().table(at('encrypt')), batchSize: 4 })
      expect(report).toMatchObject({ written: 5, plaintext: 1, failures: [{ rowId: '4', code: 'ROW_REFUSED' }] })
      const left = await query<{ email: string }>(`select email from ${name} where id = 4`)
      expect(left).toEqual([{ email: 'x'.repeat(60) }])
      const back = await decryptInPlace({ keys, table: client().table(at('prepare')), batchSize: 4 })
      expect(back).toMatchObject({ written: 5, sealed: 0, failed: 0 })
    })

    it('is not what a lost connection, a lock or a missing permission is: these end the run as they are', async () => {
      const errors = [
        Object.assign(new Error('terminating'), { code: '57P01' }),
        Object.assign(new Error('reset'), { code: 'ECONNRESET' }),
        Object.assign(new Error('lock time-out'), { code: '55P03' }),
        Object.assign(new Error('statement time-out'), { code: '57014' }),
        Object.assign(new Error('denied'), { code: '42501' }),
        Object.assign(new Error('disk full'), { code: '53100' }),
        Object.assign(new Error('full'), { code: 'SQLITE_FULL' }),
        Object.assign(new Error('busy'), { code: 'SQLITE_BUSY' }),
        Object.assign(new Error('gone'), { code: 'ER_LOCK_WAIT_TIMEOUT', errno: 1205, sqlState: 'HY000' }),
        new Error('anything'),
      ]
      const { keys, table } = await oldRows(client(), 5)
      for (const error of errors) {
        let calls = 0
        const failing: RotationSource = {
          ...table,
          async write() {
            calls++
            throw error
          },
        }
        await expect(rewrap({ keys, table: failing })).rejects.toBe(error)
        expect(calls).toBe(1)
      }
      expect(await rewrap({ keys, table })).toMatchObject({ written: 5, failed: 0 })
    })

    it.each([
      [{ code: '23514' }, true], // check
      [{ code: '22001' }, true], // too long
      [{ code: '22003' }, true], // out of range
      [{ code: '44000' }, true], // check option of a view
      [{ code: '54000' }, true], // index entry too long
      [{ code: 'P0001' }, true], // raise exception
      [{ code: 'MY001' }, true], // raise … using errcode
      [{ code: 'ER_CHECK_CONSTRAINT_VIOLATED', errno: 3819, sqlState: 'HY000' }, true],
      [{ code: 'ER_DATA_TOO_LONG', errno: 1406, sqlState: '22001' }, true],
      [{ code: 'ER_SIGNAL_EXCEPTION', errno: 1644, sqlState: '45000' }, true],
      [{ errcode: 1811 }, true], // node:sqlite, a trigger
      [{ code: 'SQLITE_CONSTRAINT_CHECK' }, true],
      [{ code: 'XX000' }, false],
      [{ code: '08006' }, false],
      [{ code: '25006' }, false],
      [{ code: 'ENOSPC' }, false],
      [undefined, false],
    ])('is told by its error: %j, %s', (error, is) => {
      expect(isRowRefusal(error)).toBe(is)
    })
  })

  it('a table of which every row is refused ends with LIMIT_EXCEEDED, and is as it was', async () => {
    const { query } = client()
    const keys = testKeyring()
    const record = people()
    await createTable(query, record)
    await insert(
      query,
      record,
      keys,
      Array.from({ length: 30 }, (_, i) => person(i + 1)),
    )
    await rotate(keys)
    await refuse(
      record.schema.table,
      Array.from({ length: 30 }, (_, i) => i + 1),
    )
    const before = await readStored(query, record)
    const job = rewrap({ keys, table: client().table(record), maxFailures: 10 })
    await expect(job).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' })
    expect(await readStored(query, record)).toEqual(before)
  })
}
