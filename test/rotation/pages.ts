import { describe, expect, it } from 'vitest'
import { int, text, uuid } from '../../src/index.ts'
import { reserveIds } from '../../src/postgres.ts'
import { type Cursor, type RotationSource, rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client, PostgresClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { createTable, declare, freshName, insert, insertStored, person, readStored, rotate } from './tables.ts'

/** Every id of a walk over the table, with what happens between its pages. */
async function walk(table: RotationSource, keyId: string, limit: number, between?: (page: number) => unknown) {
  const ids: string[] = []
  let after: Cursor | null = null
  for (let page = 1; ; page++) {
    const rows = await table.page({ keys: [keyId] }, { after, upTo: null }, limit, 'envelope')
    if (rows.length === 0) return ids
    expect(rows.length).toBeLessThanOrEqual(limit)
    ids.push(...rows.map(({ row }) => table.rowId(row)))
    after = rows.at(-1)!.cursor
    await between?.(page)
  }
}

/** Pages follow the ids. */
export function pageSuite(client: () => Client, digits: 'any' | 'of 64 bits' = 'any'): void {
  describe('pages', () => {
    it('come in the order of the ids as numbers, each row once', async () => {
      const { table, oldId } = await oldRows(client(), 23)
      const expected = Array.from({ length: 23 }, (_, i) => String(i + 1))
      expect(await walk(table, oldId, 4)).toEqual(expected)
      expect(await walk(table, oldId, 100)).toEqual(expected)
    })

    it('hold every remaining row once while others delete, insert and move rows in between', async () => {
      const { query } = client()
      const { keys, table, oldId, record } = await oldRows(client(), 12)
      const stored = await readStored(query, record)
      await query(`delete from "${table.name}" where id in (1, 12)`)
      const ids = await walk(table, oldId, 3, async (page) => {
        if (page !== 1) return
        await query(`delete from "${table.name}" where id in (4, 6)`) // 4 is the cursor
        await insertStored(query, record, [stored[0]!, stored[11]!]) // one behind the cursor, one ahead
        const moved = record.rewrap(keys, stored[7]!)! // row 8 is under the new key now
        await query(`update "${table.name}" set envelope = $1 where id = 8`, [moved.envelope])
        await insert(query, record, keys, [person(50)]) // a new row, under the new key
      })
      expect(ids).toEqual(['2', '3', '4', '5', '7', '9', '10', '11', '12'])
    })

    it('hold only rows under the keys that were asked for, and none for no row', async () => {
      const { table, oldId, keys } = await oldRows(client(), 2)
      const active = keys.status().active!
      const page = (keys: string[], after: Cursor | null, upTo: Cursor | null = null) =>
        table.page({ keys }, { after, upTo }, 10, 'envelope')
      expect(await page([active], null)).toEqual([])
      expect(await page([], null)).toEqual([])
      expect(await page([active, oldId], null)).toHaveLength(2)
      expect(await page([oldId], ['2'])).toEqual([])
      expect(await page([oldId], null, ['1'])).toHaveLength(1)
      expect(await page([oldId], ['1'], ['2'])).toHaveLength(1)
    })
  })

  describe('ids in a column of another SQL type than the usual one', () => {
    const hex = (n: number) => `6ba7b810-9dad-11d1-80b4-00c04fd4300${n}`
    const columns = [
      { what: 'uuid() in text', id: uuid(), sql: 'text', nth: hex },
      { what: 'uuid() in text, in upper case', id: uuid(), sql: 'text', nth: (n: number) => hex(n).toUpperCase() },
      { what: 'text() in uuid', id: text(), sql: 'uuid', nth: hex },
      { what: 'int() in text', id: int(), sql: 'text', nth: (n: number) => String(5 * n) },
    ]
    const large = { what: 'int() beyond 2^63 in numeric', id: int(), sql: 'numeric(40)' }
    const nth = (n: number): string => `${10n ** 25n + BigInt(n)}`
    it.each(digits === 'any' ? [...columns, { ...large, nth }] : columns)(
      '$what: every row is moved',
      async ({ id, sql, nth }) => {
        const { query } = client()
        const keys = testKeyring()
        const record = declare(freshName('sql'), { id: { id }, fields: { email: text() } })
        await createTable(query, record, [sql])
        const rows = [1, 2, 3, 4, 5].map((n) => ({ id: nth(n), email: 'e', city: null }))
        await insert(query, record, keys, rows)
        await rotate(keys)
        const report = await rewrap({ keys, table: client().table(record), batchSize: 2 })
        expect(report.written).toBe(5)
        expect(report.remaining.size).toBe(0)
      },
    )
  })
}

/** Ids can be drawn ahead where there are sequences. */
export function sequenceSuite(client: () => PostgresClient): void {
  describe('reserveIds', () => {
    it('draws ids that are not drawn twice, as bigints beyond 2^53', async () => {
      const { db, query } = client()
      const sequence = freshName('seq')
      await query(`create sequence ${sequence} start 9007199254740991`)
      const draws = await Promise.all([3, 1, 2].map((count) => reserveIds(db, sequence, count)))
      expect(draws.map((ids) => ids.length)).toEqual([3, 1, 2])
      const drawn = draws.flat().sort((a, b) => Number(a - b))
      expect(drawn).toEqual(Array.from({ length: 6 }, (_, i) => 9007199254740991n + BigInt(i)))
    })

    it('takes a quoted name, and never runs what a name says', async () => {
      const { db, query } = client()
      const name = freshName('Odd "seq". x')
      await query(`create sequence "${name.replaceAll('"', '""')}"`)
      expect(await reserveIds(db, `"${name.replaceAll('"', '""')}"`, 1)).toEqual([1n])
      const canary = freshName('canary')
      await query(`create table ${canary} (id integer)`)
      for (const evil of [`x'); drop table ${canary};--`, `x; drop table ${canary}`, `(select 1)`]) {
        await expect(reserveIds(db, evil, 1)).rejects.toThrow()
      }
      expect(await query(`select * from ${canary}`)).toHaveLength(0)
    })

    it.each([0, -1, 1.5, 10_001, Number.NaN, '1' as never])('refuses a count of %s', async (count) => {
      await expect(reserveIds(client().db, 'x', count)).rejects.toMatchObject({ code: 'CONFIG', argument: 'count' })
    })
  })
}

/** Only where the server has ICU: an order of text that is neither that of bytes nor that of JavaScript. */
export function collationSuite(client: () => Client): void {
  it('pages over text ids follow the collation of the column', async () => {
    const { query } = client()
    const keys = testKeyring()
    const record = declare(freshName('c'), { id: { id: text() }, fields: { email: text() } })
    await createTable(query, record, ['text collate "en-x-icu"'])
    const ids = ['b', 'A', 'ä', 'a', 'B', 'Ä', 'z', 'Z', 'é', '_', '1', '10', '2', 'ß', 'ss', 'a b', 'a-b']
    await insert(
      query,
      record,
      keys,
      ids.map((id) => ({ id, email: id, city: null })),
    )
    const oldId = await rotate(keys)
    const seen = await walk(client().table(record), oldId, 2)
    expect(seen).toHaveLength(ids.length)
    expect(new Set(seen)).toEqual(new Set(ids))
    expect(seen).not.toEqual([...seen].sort())
  })
}
