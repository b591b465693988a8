import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Client, pgClient } from '../rotation/clients.ts'
import { createTable, freshName, insert, people, person, rotate } from '../rotation/tables.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { type Reader, reader } from './support.ts'

const TABLES = `['customers', 'orders'].map((name) => postgresTable(pool, records(name, {
  id: { id: int() }, fields: { email: text(), note: text({ nullable: true }) },
}), { select: ['city'], subject: (row: any) => row.city }))`

describe.skipIf(missing('the guides on a real PostgreSQL', postgresMissing()))('the guides, as written', () => {
  let server: PostgresServer
  let admin: Client
  let open: Reader | undefined
  beforeAll(async () => {
    server = await startPostgres()
    admin = pgClient(server.url)
  })
  afterEach(async () => {
    await open?.close()
    open = undefined
  })
  afterAll(async () => {
    await admin?.close()
    server?.stop()
  })

  /** In a database of its own: pages use plain names, and a proof asks every table. */
  const begin = async (tables: string): Promise<Reader> => {
    const name = freshName('guide')
    await admin.query(`create database ${name}`)
    const url = new URL(server.url)
    url.pathname = name
    open = await reader(url.href, tables)
    return open
  }
  const fill = async ({ client, keys }: Reader, name: string, rows: number, before = keys) => {
    const opened = await before()
    const record = people(name)
    await createTable(client.query, record)
    await insert(
      client.query,
      record,
      opened,
      Array.from({ length: rows }, (_, i) => person(i + 1)),
    )
    await opened.close()
    return record
  }

  it('rotation.md: from the first look to the destruction', { timeout: 180_000 }, async () => {
    const guide = await begin(TABLES)
    await fill(guide, 'customers', 1200)
    await fill(guide, 'orders', 300)
    expect(await guide.follow('docs/guides/rotation.md')).toEqual({ commands: 10, statements: 0 })
    const keys = await guide.keys()
    expect(keys.status().versions).toMatchObject([{ state: 'deactivated', retired: true }, { state: 'active' }])
    expect(keys.status().versions[0]!.destroyAt).toBe(Date.UTC(2027, 2, 31))
    await keys.close()
  })

  it('migrate.md: from plaintext to strict, and out again', { timeout: 180_000 }, async () => {
    const guide = await begin(`import('./customers.ts').then(({ customers }) => [postgresTable(pool, customers)])`)
    const { query } = guide.client
    const seen: string[] = []
    const expected = Array.from({ length: 500 }, (_, i) => ({
      id: i + 1,
      email: `c${i + 1}@example.org`,
      phone: i % 5 === 0 ? null : `+43 ${i}`,
      birth_date: `19${60 + (i % 40)}-02-28`,
    }))
    const plain = () => query(`select id, email, phone, birth_date::text from customers order by id`)
    const { statements } = await guide.follow('docs/guides/migrate.md', async (code) => {
      if (/add column envelope/.test(code)) {
        for (const { id, email, phone, birth_date } of expected) {
          await query('insert into customers values ($1, $2, $3, $4)', [id, email, phone, birth_date])
        }
      }
      if (/phase: 'encrypt'/.test(code)) expect(await plain()).toEqual(expected)
      if (/validate constraint/.test(code)) {
        // What the fence is for: an instance that still writes plaintext.
        for (const wrong of [
          `insert into customers (id, email) values (1001, 'late@example.org')`,
          `update customers set birth_date = '2000-01-01' where id = 3`,
          `update customers set email = 'late@example.org' where id = 4`,
        ]) {
          await expect(query(wrong), wrong).rejects.toMatchObject({ code: '23514' })
        }
        seen.push('fence')
      }
      if (/vacuum full/.test(code)) {
        await query('alter table customers drop constraint if exists none')
        const [left] = await query<{ n: string }>(
          `select count(*) as n from customers as t where t::text like '%example.org%' or birth_date is not null`,
        )
        expect(Number(left!.n)).toBe(0)
        seen.push('strict')
      }
    })
    expect([seen, statements]).toEqual([['fence', 'strict'], 16])
    expect(await plain()).toEqual(expected)
    expect(await query('select 1 from customers where envelope is not null or birth_date_sealed is not null')).toEqual(
      [],
    )
  })

  it('incident.md: from a suspicion to the report', { timeout: 180_000 }, async () => {
    const guide = await begin(TABLES)
    const opened = await guide.keys()
    await rotate(opened)
    await opened.close()
    await fill(guide, 'customers', 120)
    await fill(guide, 'orders', 30)
    expect(await guide.follow('docs/guides/incident.md')).toMatchObject({ statements: 0 })
    const keys = await guide.keys()
    const states = keys.status().versions.map(({ state }) => state)
    expect(states).toEqual(['deactivated', 'compromised', 'active'])
    await keys.close()
    const list = readFileSync(join(guide.folder, 'affected.ndjson'), 'utf8').trimEnd().split('\n')
    expect(JSON.parse(list.pop()!)).toMatchObject({ complete: true, rows: 150 })
    expect(new Set(list).size).toBe(150)
  })
})
