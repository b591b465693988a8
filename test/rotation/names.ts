import { describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { retire, rewrap } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { type AnyRow, createTable, declare, freshName, insert, readPlain, readStored, rotate } from './tables.ts'

/** Names that break out of a statement which does not quote them, or mean something else in it. */
export const NAMES = [
  'Upper Case',
  'select',
  'täble 雪 😀',
  `it's`,
  'dou"ble',
  '"quoted"',
  `x"; drop table canary; --`,
  `x' or '1'='1`,
  '$1',
  'back\\slash',
  'new\nline',
  '%s /* */ --',
]

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** Names of tables and columns that somebody chose badly. */
export function nameSuite(client: () => Client, names: readonly string[] = NAMES): void {
  describe('odd names', () => {
    it.each(names)('of tables and columns are names and nothing else: %j', async (odd) => {
      const { query } = client()
      await query('create table if not exists canary (id integer)')
      const keys = testKeyring()
      const table = freshName(odd)
      const record = declare(table, {
        id: { id: int({ column: `${odd} id` }) },
        fields: { email: text({ column: `${odd} email` }), phone: text() },
        envelopeColumn: `${odd}.envelope`,
      })
      await createTable(query, record)
      expect(await query(client().findTable, [table])).toHaveLength(1)
      const rows: AnyRow[] = Array.from({ length: 12 }, (_, id) => ({ id, email: `e${id}`, phone: odd, city: null }))
      await insert(query, record, keys, rows)
      const keyId = await rotate(keys)
      const source = client().table(record)

      const { guard, set } = record.patch(keys, (await readStored(query, record))[0] as never, { phone: 'new' })
      const guarded = `update ${quoted(table)} set phone = $1 where ${quoted(`${odd} id`)} = 0 and ${guard.expression} = $2`
      expect(await query(`${guarded} returning 1`, [(set as AnyRow).phone, guard.value])).toHaveLength(1)

      const report = await rewrap({ keys, table: source, batchSize: 5 })
      expect(report).toMatchObject({ written: 12, failures: [] })
      await retire({ keys, keyId, tables: [source] })
      rows[0]!.phone = 'new'
      expect(await readPlain(query, record, keys)).toEqual(rows)
      expect(await query('select * from canary')).toEqual([])
    })

    it('reach a table in another schema', async () => {
      const { query } = client()
      const schema = freshName('Sch ema')
      await query(`${client().makeSchema} ${quoted(schema)}`)
      const keys = testKeyring()
      const record = declare('people', { id: { id: int() }, fields: { email: text() }, table: `${schema}.Péople` })
      await createTable(query, record)
      await insert(query, record, keys, [{ id: 1, email: 'e', city: null }])
      await rotate(keys)
      expect((await rewrap({ keys, table: client().table(record) })).written).toBe(1)
      expect(await query(`select 1 from ${quoted(schema)}."Péople"`)).toHaveLength(1)
    })

    it.each(['id0', 'id1', 'envelope', 'was', 'next', 'one', 'v', 's', 't'])(
      'of ids that our own statements use are no hindrance: %s',
      async (column) => {
        const { query } = client()
        const keys = testKeyring()
        const record = declare(freshName('own'), {
          id: { a: int({ column }), b: int({ column: 'other' }) },
          fields: { email: text() },
          envelopeColumn: 'sealed',
        })
        await createTable(query, record, ['integer', 'integer'])
        const rows = Array.from({ length: 25 }, (_, i) => ({ a: i + 1, b: 30 - i, email: `e${i}`, city: null }))
        await insert(query, record, keys, rows)
        await rotate(keys)
        const source = client().table(record)
        const pages: number[] = []
        await rewrap({ keys, table: source, batchSize: 10, onProgress: ({ done }) => pages.push(done) })
        expect(pages).toEqual([0, 10, 20, 25])
      },
    )

    it('of the envelope column are quoted in the guard of a plaintext row, too', () => {
      const keys = testKeyring()
      const record = declare(freshName('g'), {
        id: { id: int() },
        fields: { email: text() },
        envelopeColumn: 'en"velope',
        migrate: { phase: 'prepare', until: new Date(Date.now() + 1e9) },
      })
      const { guard } = record.patch(keys, { id: 1, email: 'a', envelope: null } as never, { email: 'b' })
      expect(guard).toMatchObject({ expression: `coalesce("en""velope", '')`, value: '' })
    })

    it('keep the jobs of two records in one table apart', async () => {
      const { query } = client()
      const keys = testKeyring()
      const table = freshName('shared')
      const [a, b] = ['a', 'b'].map((name) =>
        declare(`${table} ${name}`, {
          id: { id: int() },
          fields: { [name]: text() },
          table,
          envelopeColumn: `e${name}`,
        }),
      )
      await query(`create table ${table} (id integer primary key, a text, b text, ea text, eb text)`)
      const stored = (record: typeof a, id: number, row: AnyRow) =>
        record!.encrypt(keys, { id, ...row } as never) as AnyRow
      for (let id = 1; id <= 8; id++) {
        const rowA = stored(a, id, { a: `a${id}` })
        const rowB = stored(b, id, { b: `b${id}` })
        const values = [id, rowA.a, rowB.b, rowA.envelope, rowB.envelope]
        await query(`insert into ${table} values ($1, $2, $3, $4, $5)`, values)
      }
      await rotate(keys)
      const stop = new AbortController()
      const options = { keys, batchSize: 3, signal: stop.signal }
      await rewrap({ ...options, table: client().table(a!), onProgress: (p) => p.done === 3 && stop.abort() })
      const report = await rewrap({ keys, table: client().table(b!) })
      expect(report.written).toBe(8)
      expect((await rewrap({ keys, table: client().table(a!) })).written).toBe(8)
    })
  })
}
