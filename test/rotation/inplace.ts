import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytes, date, int, json, type Keyring, number, object, text } from '../../src/index.ts'
import type { Query } from '../../src/postgres.ts'
import { quoteColumn, quoteName } from '../../src/records/sql.ts'
import { decryptInPlace, encryptInPlace, verify } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { PostgresClient } from './clients.ts'
import { oneByOne } from './jobs.ts'
import { type AnyRecords, type AnyRow, declare, freshName } from './tables.ts'

const ROWS = 40
const UNTIL = new Date(Date.now() + 1e9)
type Phase = 'prepare' | 'encrypt' | 'strict'
type Shape = 'columns' | 'packed'

/** Every kind of plaintext column. In the columns shape a date, a number and a whole number are sealed elsewhere. */
const FIELDS = {
  columns: {
    email: text({ nullable: true }),
    born: date({ nullable: true, into: 'born_sealed' }),
    score: number({ into: 'score_sealed' }),
    visits: int({ into: 'visits_sealed' }),
    contact: object({ phone: text() }),
  },
  packed: {
    email: text({ nullable: true }),
    born: date({ nullable: true }),
    score: number(),
    visits: int(),
    contact: json(),
  },
}
const PLAIN_COLUMNS = ['email', 'born', 'score', 'visits', 'contact']

const inPhase = (table: string, shape: Shape, phase: Phase): AnyRecords =>
  declare(table, {
    id: { id: int() },
    shape,
    fields: FIELDS[shape],
    ...(phase !== 'strict' && { migrate: { phase, until: UNTIL } }),
  })

const nth = (id: number): AnyRow => ({
  id,
  email: id % 5 === 0 ? null : `secret${id}@example.org`,
  born: id % 7 === 0 ? null : new Date(86_400_000 * id + id),
  score: [Number.NaN, Number.NEGATIVE_INFINITY, -0, 0.1, 1e300][id % 5],
  visits: 9_007_199_254_730_000 + id,
  contact: { phone: `0${id}`, preferred: 'mail' },
})

/** A table as it was before waxseal, and the columns that the migration added. */
async function plainTable(query: Query, table: string, ids: readonly number[]): Promise<void> {
  await query(`create table ${table} (id int primary key, email varchar(400), born timestamptz, score float8, visits int8,
    contact jsonb, envelope text, born_sealed text, score_sealed text, visits_sealed text)`)
  for (const id of ids) await insertRow(query, table, nth(id))
}

/** Numbers go as text: JSON would lose some of them. */
const parameter = (value: unknown): unknown =>
  typeof value === 'number' ? (Object.is(value, -0) ? '-0' : String(value)) : value

async function insertRow(query: Query, table: string, row: AnyRow): Promise<void> {
  const names = Object.keys(row)
  const list = names.map(quoteColumn).join(', ')
  const places = names.map((name, i) => (name === 'contact' ? `$${i + 1}::text::jsonb` : `$${i + 1}`)).join(', ')
  const values = names.map((name) => (name === 'contact' ? JSON.stringify(row[name]) : parameter(row[name])))
  await query(`insert into ${quoteName(table)} (${list}) values (${places})`, values)
}

async function readAll(query: Query, record: AnyRecords, keys: Keyring): Promise<AnyRow[]> {
  const rows = await query<AnyRow>(`select * from ${record.schema.table} order by id`)
  return rows.map((row) => {
    const { visits, born, ...plain } = record.decrypt(keys, row as never) as AnyRow
    for (const name of ['born_sealed', 'score_sealed', 'visits_sealed', 'envelope']) delete plain[name]
    return { ...plain, visits: Number(visits), born }
  })
}

/** What is left of the plaintext anywhere in the table. */
async function plaintextLeft(query: Query, table: string): Promise<number> {
  const [row] = await query<{ n: number }>(
    `select count(*)::int as n from ${table} as t where t::text like '%secret%' or born is not null
      or score is not null or visits is not null or t::text like '%"phone": "0%' or envelope is null`,
  )
  return row!.n
}

/** From plaintext to ciphertext on a table that is in use, and back. */
export function inPlaceSuite(client: () => PostgresClient): void {
  describe.each(['columns', 'packed'] as const)('a table of plaintext, %s', (shape) => {
    it('is encrypted while others write, read strictly, and turned back', async () => {
      const { db, query } = client()
      const keys = testKeyring()
      const name = freshName('inplace')
      const ids = Array.from({ length: ROWS }, (_, i) => i + 1)
      await plainTable(query, name, ids)
      const model = new Map(ids.map((id) => [id, nth(id)]))
      const [prepare, encrypt, strict] = (['prepare', 'encrypt', 'strict'] as const).map((p) => inPhase(name, shape, p))

      // Every instance reads both and writes plaintext; the job refuses to begin.
      expect(await readAll(query, prepare!, keys)).toEqual([...model.values()])
      const tooSoon = encryptInPlace({ keys, table: postgresTable(db, prepare!) })
      await expect(tooSoon).rejects.toMatchObject({ code: 'CONFIG', argument: 'table' })

      // Now they write ciphertext, between a page and its batch: rows are inserted, replaced and deleted.
      const source = oneByOne(postgresTable(db, encrypt!))
      let batch = 0
      const busy = {
        ...source,
        async write(...args: Parameters<typeof source.write>) {
          const touched = args[0].slice(0, 3).map(({ cursor }) => Number(cursor[0]))
          batch++
          const [replaced, plain, deleted] = touched
          if (replaced && plain && deleted && batch <= 4) {
            const next = { ...nth(replaced), email: `secret edit ${batch}` }
            await query(`delete from ${name} where id in ($1, $2)`, [replaced, deleted])
            await insertRow(query, name, encrypt!.encrypt(keys, next as never) as AnyRow)
            model.set(replaced, next)
            model.delete(deleted)
            const added = { ...nth(1000 + batch), email: `secret new ${batch}` }
            await insertRow(query, name, encrypt!.encrypt(keys, added as never) as AnyRow)
            model.set(1000 + batch, added)
            // An instance of the last release, that still is in its prepare phase: it writes plaintext.
            await query(`update ${name} set email = $1 where id = $2`, [`secret old ${batch}`, plain])
            model.set(plain, { ...model.get(plain)!, email: `secret old ${batch}` })
          }
          return source.write(...args)
        },
      }
      const report = await encryptInPlace({ keys, table: busy, batchSize: 7 })
      expect(report).toMatchObject({ failures: [], plaintext: 0, aborted: false })
      expect(report.raced).toBe(12)
      expect(report.written).toBe(ROWS - 8) // 4 replaced and 4 deleted by others
      const expected = [...model.values()].sort((a, b) => (a.id as number) - (b.id as number))
      expect(await readAll(query, encrypt!, keys)).toEqual(expected)

      // Nothing is left to read for whoever has the table.
      expect(await plaintextLeft(query, name)).toBe(0)
      expect(await readAll(query, strict!, keys)).toEqual(expected)
      expect(await verify({ keys, table: postgresTable(db, strict!) })).toMatchObject({ failed: 0, plaintext: 0 })

      // And back, for people who leave.
      const leaving = decryptInPlace({ keys, table: postgresTable(db, encrypt!) })
      await expect(leaving).rejects.toMatchObject({ code: 'CONFIG', argument: 'table' })
      const back = await decryptInPlace({ keys, table: postgresTable(db, prepare!), batchSize: 7 })
      expect(back).toMatchObject({ written: expected.length, failures: [], sealed: 0 })
      const plain = await query<AnyRow>(`select ${['id', ...PLAIN_COLUMNS].join(', ')} from ${name} order by id`)
      expect(plain.map((row) => ({ ...row, visits: Number(row.visits) }))).toEqual(expected)
      const [left] = await query(
        `select 1 from ${name} where coalesce(envelope, born_sealed, score_sealed) is not null`,
      )
      expect(left).toBeUndefined()
    })

    it('keeps broken rows as they are, and says which', async () => {
      const { db, query } = client()
      const keys = testKeyring()
      const name = freshName('inplace')
      await plainTable(query, name, [1, 2, 3, 4])
      const record = inPhase(name, shape, 'encrypt')
      await query(`update ${name} set visits = null where id = 2`) // not declared nullable
      const lost = `wxf:${'A'.repeat(60)}`
      await query(`update ${name} set email = $1 where id = 3`, [lost]) // a ciphertext without its header
      const report = await encryptInPlace({ keys, table: postgresTable(db, record), batchSize: 2 })
      expect(report.failures).toEqual([
        { rowId: '2', code: 'SCHEMA' },
        { rowId: '3', code: 'MALFORMED' },
      ])
      expect(report).toMatchObject({ written: 2, plaintext: 2 })
      const [two, three] = await query<AnyRow>(`select * from ${name} where id in (2, 3) order by id`)
      expect(two).toMatchObject({ email: 'secret2@example.org', envelope: null })
      expect(three).toMatchObject({ email: lost, envelope: null })

      // Mended by somebody, they are found by the next run.
      await query(`update ${name} set visits = 1, email = 'secret' where id in (2, 3)`)
      expect(await encryptInPlace({ keys, table: postgresTable(db, record) })).toMatchObject({
        written: 2,
        failed: 0,
        plaintext: 0,
      })
    })
  })

  it('finds plaintext in columns that are called otherwise than the property', async () => {
    const { db, query } = client()
    const keys = testKeyring()
    const name = freshName('named')
    const [prepare, encrypt] = (['prepare', 'encrypt'] as const).map((phase) =>
      declare(name, {
        id: { id: int() },
        fields: { birthYear: int({ into: 'birthYearSealed', column: 'sealed birth year' }) },
        migrate: { phase, until: UNTIL },
      }),
    )
    await query(`create table ${name} (id int primary key, "birth year" int, "sealed birth year" text, envelope text)`)
    await query(`insert into ${name} values (1, 1970)`)
    const options = { plaintext: { birthYear: 'birth year' } }
    expect(await encryptInPlace({ keys, table: postgresTable(db, encrypt!, options) })).toMatchObject({ written: 1 })
    const [row] = await query<AnyRow>(`select * from ${name}`)
    expect(row).toMatchObject({ 'birth year': null, 'sealed birth year': expect.stringMatching(/^wxf:/) })
    await decryptInPlace({ keys, table: postgresTable(db, prepare!, options) })
    expect(await query<AnyRow>(`select * from ${name}`)).toMatchObject([
      { 'birth year': 1970, 'sealed birth year': null },
    ])
    const wrong = () => postgresTable(db, encrypt!, { plaintext: { birthyear: 'birth year' } })
    expect(wrong).toThrow(expect.objectContaining({ code: 'CONFIG', argument: 'plaintext.birthyear' }))
  })

  it('does not turn back what JSON cannot hold', async () => {
    const { db, query } = client()
    const keys = testKeyring()
    const name = freshName('nested')
    const record = declare(name, {
      id: { id: int() },
      fields: { contact: object({ photo: bytes(), name: text() }) },
      migrate: { phase: 'prepare', until: UNTIL },
    })
    const strict = declare(name, { id: { id: int() }, fields: { contact: object({ photo: bytes(), name: text() }) } })
    await query(`create table ${name} (id int primary key, contact jsonb, envelope text)`)
    for (const [id, contact] of [{ name: 'a', photo: Uint8Array.of(1) }, { name: 'b' }].entries()) {
      await insertRow(query, name, strict.encrypt(keys, { id, contact } as never) as AnyRow)
    }
    const report = await decryptInPlace({ keys, table: postgresTable(db, record) })
    expect(report).toMatchObject({ written: 1, sealed: 1, failures: [{ rowId: '0', code: 'SCHEMA' }] })
  })

  describe('dates without a zone', () => {
    const zone = process.env.TZ
    beforeAll(() => {
      process.env.TZ = 'Asia/Tokyo'
    })
    afterAll(() => {
      if (zone === undefined) delete process.env.TZ
      else process.env.TZ = zone
    })

    it.each(['date', 'timestamp', 'timestamp(3)', 'timestamptz'])(
      '%s: come back as they were, east of Greenwich',
      async (type) => {
        const { db, query } = client()
        expect(new Date(2001, 0, 1).getTimezoneOffset()).toBe(-540)
        const keys = testKeyring()
        const name = freshName('dates')
        const [prepare, encrypt] = (['prepare', 'encrypt'] as const).map((phase) =>
          declare(name, {
            id: { id: int() },
            fields: { born: date({ into: 'sealed' }) },
            migrate: { phase, until: UNTIL },
          }),
        )
        await query(`create table ${name} (id int primary key, born ${type}, sealed text, envelope text)`)
        await query(
          `insert into ${name} values (1, '2001-07-02'), (2, '1969-12-31 23:30:00.5'), (3, '2024-02-29 08:00')`,
        )
        const before = await query(`select id, born::text from ${name} order by id`)
        const read = await query(`select id, born from ${name} order by id`)
        await encryptInPlace({ keys, table: postgresTable(db, encrypt!) })
        const sealed = await query<AnyRow>(`select * from ${name} order by id`)
        const opened = sealed.map((row) => (encrypt!.decrypt(keys, row as never) as AnyRow).born)
        expect(opened).toEqual(read.map(({ born }) => born)) // what the application read before
        await decryptInPlace({ keys, table: postgresTable(db, prepare!) })
        expect(await query(`select id, born::text from ${name} order by id`)).toEqual(before)
      },
    )
  })
}
