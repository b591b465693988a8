import { describe, expect, it } from 'vitest'
import type { Stored } from '../../src/envelope/format.ts'
import { inspect } from '../../src/envelope/index.ts'
import { bytes, date, int, text, uuid } from '../../src/index.ts'
import { rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { type AnyRow, createTable, declare, freshName, insert, readPlain, readStored, rotate } from './tables.ts'

const ROWS = 11
const hex = (n: number, length: number): string => n.toString(16).padStart(length, '0')

/** Every kind of id: how it is declared, its SQL types, and the n-th one. Order in SQL is not the order of n. */
const IDS = [
  { ids: 'int', id: { id: int() }, sql: ['integer'], nth: (n: number) => ({ id: n * 7 - 30 }) },
  {
    ids: 'bigint beyond 2^53',
    id: { id: int() },
    sql: ['bigint'],
    nth: (n: number) => ({ id: n % 2 ? 9007199254740993n + BigInt(n) : -9223372036854775808n + BigInt(n) }),
  },
  {
    ids: 'uuid',
    id: { id: uuid() },
    sql: ['uuid'],
    nth: (n: number) => ({ id: `${hex((n * 7919) % 4096, 8)}-9dad-11d1-80b4-${hex(n, 12)}` }),
  },
  {
    ids: 'text',
    id: { id: text() },
    sql: ['text'],
    nth: (n: number) => ({ id: ['10', '9', 'Ä', 'a b', "it's", '', '\\x41', '{a,b}', '"', '雪', '😀'][n] }),
  },
  {
    ids: 'bytea',
    id: { id: bytes() },
    sql: ['bytea'],
    nth: (n: number) => ({ id: Uint8Array.of(255 - n, ...new Uint8Array(n % 4), 92, n) }),
  },
  {
    ids: 'compound',
    id: { tenant: text({ column: 'tenant_name' }), day: int(), part: uuid() },
    sql: ['text', 'bigint', 'uuid'],
    nth: (n: number) => ({ tenant: `t${n % 2}`, day: n % 3, part: `00000000-0000-0000-0000-${hex(n, 12)}` }),
  },
] as const

const CASES = IDS.flatMap((ids) =>
  (['text', 'bytes'] as const).flatMap((encoding) =>
    (['columns', 'packed'] as const).map((shape) => ({ ...ids, encoding, shape })),
  ),
)

const asBytes = (stored: unknown): Uint8Array =>
  typeof stored === 'string' ? Buffer.from(stored.slice(4), 'base64url') : (stored as Uint8Array)
const asHex = (stored: unknown): string => Buffer.from(asBytes(stored)).toString('hex')

/** What a rewrap must not touch: every column but the envelope, and of that all but key id and wrapped key. */
function untouched(row: AnyRow): AnyRow {
  const { headerBytes } = inspect(row.envelope as Stored)
  const envelope = asBytes(row.envelope)
  const around = [envelope.subarray(0, 6), envelope.subarray(21, 53), envelope.subarray(headerBytes)]
  const rest = Object.entries(row).map(([name, value]) => [name, value instanceof Uint8Array ? asHex(value) : value])
  return { ...Object.fromEntries(rest), envelope: around.map((part) => Buffer.from(part).toString('hex')) }
}

const content = ({ email, born, photo, city }: AnyRow): string =>
  JSON.stringify([email, born, Array.from(photo as Uint8Array), city])

/** Rewrapping with one client, for every kind of id, encoding and shape. */
export function matrixSuite(client: () => Client): void {
  describe.each(CASES)('a table with $ids ids, $encoding, $shape', ({ id, sql, nth, encoding, shape }) => {
    it('is moved under the active key, nothing else is touched, and a second run finds nothing', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('m'), {
        id,
        encoding,
        shape,
        fields: { email: text(), born: date({ nullable: true }), photo: bytes() },
      })
      await createTable(query, record, sql)
      const rows: AnyRow[] = Array.from({ length: ROWS }, (_, n) => ({
        ...nth(n),
        email: `person${n}@example.org`,
        born: n % 4 === 0 ? null : new Date(86_400_000 * n),
        photo: Uint8Array.of(n, 0, 255),
        city: `city ${n}`,
      }))
      await insert(query, record, keys, rows)
      const plain = await readPlain(query, record, keys)
      expect(plain.map(content).sort()).toEqual(rows.map(content).sort())
      const before = await readStored(query, record)
      const oldId = await rotate(keys)
      const table = client().table(record)
      expect(await table.countByKey([oldId])).toEqual(new Map([[oldId, ROWS]]))

      const first = await rewrap({ keys, table, batchSize: 4 })
      expect(first).toMatchObject({ written: ROWS, raced: 0, failures: [], aborted: false })
      expect(first.remaining.size).toBe(0)
      const after = await readStored(query, record)
      expect(after.map(untouched)).toEqual(before.map(untouched))
      expect(after.every((row) => inspect(row.envelope as Stored).keyId === keys.status().active)).toBe(true)
      expect(await readPlain(query, record, keys)).toEqual(plain)

      const second = await rewrap({ keys, table, batchSize: 4 })
      expect(second).toMatchObject({ written: 0, raced: 0, failures: [] })
      expect(await readStored(query, record)).toEqual(after)
    })
  })
}
