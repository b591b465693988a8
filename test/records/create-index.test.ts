import { PGlite } from '@electric-sql/pglite'
import { expect, it } from 'vitest'
import { int, records, text } from 'waxseal'

const declared = { id: { id: int() }, fields: { body: text() } } as const
const statementOf = (table: string, envelopeColumn = 'envelope'): string =>
  records('notes', { ...declared, table, envelopeColumn }).sql.createIndex
const indexOf = (table: string, envelopeColumn?: string): string =>
  /^create index "((?:[^"]|"")*)" on /.exec(statementOf(table, envelopeColumn))![1]!

it('names the index after table and envelope column, without the schema', () => {
  expect(statementOf('notes')).toBe('create index "notes_envelope_key_id" on "notes" ((substr("envelope", 13, 20)))')
  expect(indexOf('app.notes')).toBe('notes_envelope_key_id')
  expect(indexOf('notes', 'sealed.by')).toBe('notes_sealed.by_key_id')
  expect(indexOf('my "notes"')).toBe('my ""notes""_envelope_key_id')
})

it('keeps a name of 63 bytes, and gives longer ones ends of their own', () => {
  expect(indexOf('n'.repeat(47))).toBe(`${'n'.repeat(47)}_envelope_key_id`)
  const names = [...'abc'].map((end) => indexOf(`${'n'.repeat(60)}${end}`))
  expect(new Set(names).size).toBe(3)
  for (const name of names) expect(name).toMatch(/^n{47}_[0-9a-f]{8}_key_id$/)
  expect(indexOf(`${'n'.repeat(60)}a`)).toBe(names[0])
})

it.each([24, 25, 40])('cuts through no character of a name of %i letters of two bytes', (letters) => {
  const name = indexOf(`n${'é'.repeat(letters)}`)
  expect(name).toMatch(/^né+_(envelope|[0-9a-f]{8})_key_id$/)
  expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63)
})

it.each(['notes', 'app.notes', `n${'é'.repeat(31)}`, `n${'é'.repeat(30)}n`, 'my "notes"'])(
  'is taken for %s by PostgreSQL, which names it so and uses it',
  async (table) => {
    await using db = new PGlite()
    const { keyId, createIndex } = records('notes', { ...declared, table }).sql
    const quoted = table === 'app.notes' ? table : `"${table.replaceAll('"', '""')}"`
    await db.exec(`create schema app; create table ${quoted} (id int primary key, envelope text, body text)`)
    await db.exec(createIndex)
    await db.exec('set enable_seqscan = off')
    const { rows } = await db.query<{ name: string }>(
      `select indexname as name from pg_indexes where indexdef like '%substr%'`,
    )
    expect(rows).toEqual([{ name: indexOf(table).replaceAll('""', '"') }])
    const plan = await db.query(`explain (format json) select id from ${quoted} where ${keyId} = 'x'`)
    expect(plan.rows).toMatchObject([{ 'QUERY PLAN': [{ Plan: expect.anything() }] }])
    expect(JSON.stringify(plan.rows)).toContain(JSON.stringify(rows[0]!.name).slice(1, -1))
  },
)
