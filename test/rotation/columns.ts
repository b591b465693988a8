import { beforeAll, describe, expect, it } from 'vitest'
import { bigint, boolean, bytes, date, int, json, number, object, text } from '../../src/index.ts'
import { decryptInPlace, encryptInPlace, reencrypt } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { PostgresClient } from './clients.ts'
import { type AnyRow, declare, freshName, insertStored, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
const KINDS = {
  prefs: json(),
  born: date(),
  score: number(),
  visits: int(),
  big: bigint(),
  active: boolean(),
  email: text(),
}
const VALUES: AnyRow = {
  prefs: { a: [1, null, 'x,y'] },
  born: new Date(1_234_567),
  score: -0.1,
  visits: 7,
  big: 18446744073709551615n,
  active: true,
  email: '[object Object]',
}

/** Columns of PostgreSQL that hold more than one kind of value, or compare otherwise than byte by byte. */
export function columnSuite(client: () => PostgresClient): void {
  describe.each(['text', 'varchar(900)'])('every kind of value in columns of %s', (type) => {
    it('comes back in place with every digit', async () => {
      const { db, query } = client()
      const keys = testKeyring()
      const name = freshName('kinds')
      const sealed = declare(name, { id: { id: int() }, fields: KINDS })
      const back = declare(name, { id: { id: int() }, fields: KINDS, migrate: { phase: 'prepare', until: UNTIL } })
      const columns = Object.keys(KINDS).map((column) => `${column} ${type}`)
      await query(`create table ${name} (id int primary key, ${columns.join(', ')}, envelope text)`)
      await insertStored(query, sealed, [sealed.encrypt(keys, { id: 1, ...VALUES } as never) as AnyRow])
      const report = await decryptInPlace({ keys, table: postgresTable(db, back) })
      expect(report).toMatchObject({ written: 1, failures: [], sealed: 0 })
      const [{ prefs, ...row }] = (await query<AnyRow>(`select * from ${name}`)) as [AnyRow]
      expect(JSON.parse(prefs as string)).toEqual(VALUES.prefs)
      expect(row).toMatchObject({
        born: '1970-01-01T00:20:34.567Z',
        score: '-0.1',
        visits: '7',
        big: '18446744073709551615',
        active: 'true',
        email: '[object Object]',
        envelope: null,
      })
    })

    it('is moved from packed into an object', async () => {
      const { db, query } = client()
      const keys = testKeyring()
      const name = freshName('kinds')
      const packed = declare(name, { id: { id: int() }, fields: { contact: json() }, shape: 'packed' })
      const columns = declare(name, { id: { id: int() }, fields: { contact: object({ home: text() }) } })
      await query(`create table ${name} (id int primary key, contact ${type}, envelope text)`)
      const row = packed.encrypt(keys, { id: 1, contact: { home: '555' } } as never)
      await insertStored(query, packed, [row as AnyRow])
      await rotate(keys)
      const report = await reencrypt({ keys, table: postgresTable(db, packed), to: columns })
      expect(report).toMatchObject({ written: 1, failures: [] })
      const [stored] = (await query<AnyRow>(`select * from ${name}`)) as [AnyRow]
      const read = { ...stored, contact: JSON.parse(stored.contact as string) }
      expect(columns.decrypt(keys, read as never)).toEqual({ id: 1, contact: { home: '555' } })
    })
  })

  it('text does not come back into a column of bytes, where a backslash has a meaning', async () => {
    const { db, query } = client()
    const keys = testKeyring()
    const name = freshName('kinds')
    const declaration = { id: { id: int() }, encoding: 'bytes' as const, fields: { email: text(), photo: bytes() } }
    const sealed = declare(name, declaration)
    const back = declare(name, { ...declaration, migrate: { phase: 'prepare', until: UNTIL } })
    await query(`create table ${name} (id int primary key, email bytea, photo bytea, envelope bytea)`)
    const row = sealed.encrypt(keys, { id: 1, email: '\\x41', photo: new Uint8Array(9) } as never)
    await insertStored(query, sealed, [row as AnyRow])
    const [before] = await query(`select * from ${name}`)
    await expect(decryptInPlace({ keys, table: postgresTable(db, back) })).rejects.toMatchObject({ code: 'CONFIG' })
    expect(await query(`select * from ${name}`)).toEqual([before])
  })

  describe('under a collation that takes letters for the same', () => {
    beforeAll(async () => {
      await client().query(
        `create collation if not exists anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
      )
    })

    it('an edit that changes no more than the case of a letter wins', async () => {
      const { db, query } = client()
      const keys = testKeyring()
      const name = freshName('anycase')
      const fields = { email: text() }
      const record = declare(name, { id: { id: int() }, fields, migrate: { phase: 'encrypt', until: UNTIL } })
      await query(`create table ${name} (id int primary key, email text collate anycase, envelope text)`)
      await query(`insert into ${name} (id, email) values (1, 'ann@example.org'), (2, 'bob@example.org')`)
      const source = postgresTable(db, record)
      let edits = 1
      const raced = {
        ...source,
        async write(...args: Parameters<typeof source.write>) {
          if (edits-- > 0) await query(`update ${name} set email = 'ANN@example.org' where id = 1`)
          return source.write(...args)
        },
      }
      expect(await encryptInPlace({ keys, table: raced })).toMatchObject({ written: 2, raced: 1, plaintext: 0 })
      const [row] = await query<AnyRow>(`select * from ${name} where id = 1`)
      expect(record.decrypt(keys, row as never)).toEqual({ id: 1, email: 'ANN@example.org' })
    })
  })

  it('a field of a newer release in a range of text is seen', async () => {
    const { db, query } = client()
    const keys = testKeyring()
    const name = freshName('range')
    const [known, next] = [{ email: text() }, { email: text(), phone: text() }].map((fields) =>
      declare(name, { id: { id: int() }, fields }),
    )
    await query(`create type ${name}_span as range (subtype = text)`)
    await query(`create table ${name} (id int primary key, email text, envelope text, phone ${name}_span)`)
    const { phone, ...row } = next!.encrypt(keys, { id: 1, email: 'e', phone: '5' } as never) as AnyRow
    await insertStored(query, known!, [row])
    await query(`update ${name} set phone = ${name}_span($1::text, null)`, [phone])
    await rotate(keys)
    const report = await reencrypt({ keys, table: postgresTable(db, known!) })
    expect(report).toMatchObject({ written: 0, failures: [{ rowId: '1', code: 'SCHEMA' }] })
  })
}
