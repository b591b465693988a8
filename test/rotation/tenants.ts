import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { incident, reencrypt, retire, rewrap, verify } from '../../src/rotation/index.ts'
import { postgresTable, postgresTables } from '../../src/rotation/sources/postgres.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type PostgresClient, pgClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, createTable, declare, freshName, insert, people, person, rotate } from './tables.ts'

/** Tables that a proof must not forget: partitions, children, tenants' schemas, copies. */
export function tenantSuite(server: () => PostgresClient, serverUrl: () => string): void {
  // A database for each test: a proof asks every table of it.
  let own: { readonly client: PostgresClient; readonly url: string }
  const client = () => own.client
  const url = () => own.url
  beforeEach(async () => {
    const name = freshName('database')
    await server().query(`create database ${name}`)
    const address = new URL(serverUrl())
    address.pathname = name
    own = { client: pgClient(address.href), url: address.href }
  })
  afterEach(() => own.client.close())

  const schemas = async (...tenants: string[]) => {
    const { query } = client()
    const keys = testKeyring()
    const name = freshName('tenants')
    const record = declare(name, { id: { id: int() }, context: { tenant: text() }, fields: { email: text() } })
    const add = async (tenant: string): Promise<string> => {
      const schema = `${name}_${tenant}`
      await query(`create schema "${schema}"`)
      await query(
        `create table "${schema}".${name} (id int primary key, email text, envelope text not null, city text)`,
      )
      for (const id of [1, 2, 3]) {
        const row = record.encrypt(
          keys,
          { id, email: `${tenant}${id}` } as never,
          { tenant: schema } as never,
        ) as AnyRow
        await query(`insert into "${schema}".${name} values ($1, $2, $3)`, [id, row.email, row.envelope])
      }
      return schema
    }
    const made: string[] = []
    for (const tenant of tenants) made.push(await add(tenant))
    const tables = () =>
      postgresTables(client().db, record, {
        schemas: new RegExp(`^${name}_`, 'g'),
        context: (_, schema) => ({ tenant: schema }),
        subject: (_, schema) => schema,
      })
    return { keys, name, record, add, made, tables }
  }

  describe('a table in the schema of every tenant', () => {
    it('is found by a query, each a table of its own, bound to its tenant', async () => {
      const { keys, name, made, tables } = await schemas('b', 'a', 'Up per')
      const found = await tables()
      expect(found.map((table) => table.name)).toEqual([...made].sort().map((schema) => `${schema}.${name}`))
      const oldId = await rotate(keys)
      for (const table of found) {
        expect(await rewrap({ keys, table, batchSize: 2 })).toMatchObject({ table: table.name, written: 3, failed: 0 })
        expect(await verify({ keys, table })).toMatchObject({ seen: 3, failed: 0, total: 3 })
      }
      await rotate(keys)
      for (const table of found) expect(await reencrypt({ keys, table })).toMatchObject({ written: 3, failed: 0 })
      const { counted } = await retire({ keys, keyId: oldId, tables: found })
      expect(counted).toEqual([...made].sort().map((schema) => `${schema}.${name}`))
    })

    it('rows that are moved between tenants do not open, since the tenant is in the context', async () => {
      const { keys, name, made, tables } = await schemas('a', 'b')
      const [a, b] = made
      await client().query(`update "${a}".${name} as x set email = y.email, envelope = y.envelope from "${b}".${name} as y
        where x.id = 2 and y.id = 2`)
      const [first, second] = await tables()
      expect(await verify({ keys, table: first! })).toMatchObject({
        failures: [{ rowId: '2', code: 'DECRYPTION_FAILED' }],
      })
      expect(await verify({ keys, table: second! })).toMatchObject({ failed: 0 })
    })

    it('a tenant that came later is asked, whether the list is old or new', async () => {
      const { keys, name, add, tables } = await schemas('a')
      const before = await tables()
      const late = await add('late')
      const oldId = await rotate(keys)
      await rewrap({ keys, table: before[0]! })
      const refused = retire({ keys, keyId: oldId, tables: before })
      await expect(refused).rejects.toMatchObject({ code: 'CONFLICT', table: `${late}.${name}` })
      for (const table of await tables()) await rewrap({ keys, table })
      await retire({ keys, keyId: oldId, tables: before })
    })

    it('is listed by tenant in an incident', async () => {
      const { keys, made, tables } = await schemas('a', 'b')
      const lines: string[] = []
      const leaked = keys.status().active!
      const options = { keys, keyId: leaked, tables: await tables(), reason: 'r', settleMs: 0 }
      const report = await incident({ ...options, write: (line) => lines.push(line) })
      expect(report.isDone).toBe(true)
      expect(JSON.parse(lines.pop()!)).toMatchObject({ complete: true, rows: 6 })
      expect(lines.map((line) => JSON.parse(line).subject)).toEqual([
        made[0],
        made[0],
        made[0],
        made[1],
        made[1],
        made[1],
      ])
    })

    it('wrong schemas are said', async () => {
      const { record, made } = await schemas('a')
      const { db } = client()
      const wrong = (given: unknown, of = record) => postgresTables(db, of, { schemas: given as string[] })
      await expect(wrong([...made, 'nowhere'])).rejects.toThrow('nowhere')
      await expect(wrong(/^nothing_/)).rejects.toMatchObject({ code: 'CONFIG', argument: 'schemas' })
      await expect(wrong('a')).rejects.toMatchObject({ code: 'CONFIG', argument: 'schemas' })
      const qualified = declare('q', { id: { id: int() }, fields: { email: text() }, table: 'public.q' })
      await expect(wrong(/./, qualified)).rejects.toMatchObject({ code: 'CONFIG', argument: 'schema' })
      expect(() => postgresTable(db, qualified, { schema: 'a' })).toThrow(
        expect.objectContaining({ code: 'CONFIG', argument: 'schema' }),
      )
    })
  })

  it('search_path: the name leads elsewhere on another connection, and its job is another', async () => {
    const { keys, name, record, made } = await schemas('a', 'b')
    const [a, b] = made
    await rotate(keys)
    const at = (schema: string) => {
      const address = new URL(url())
      address.searchParams.set('options', `-c search_path=${schema},public`)
      return pgClient(address.href)
    }
    const [first, second] = [at(a!), at(b!)]
    try {
      const source = ({ db }: PostgresClient) => postgresTable(db, record, { context: () => ({ tenant: '' }) })
      const stop = new AbortController()
      const onProgress = ({ done }: { done: number }) => done > 0 && stop.abort()
      await rewrap({ keys, table: source(first), batchSize: 1, signal: stop.signal, onProgress })
      // Were it the same job, this would go on behind row 1.
      expect(await rewrap({ keys, table: source(second) })).toMatchObject({ written: 3 })
      expect(await rewrap({ keys, table: source(first) })).toMatchObject({ written: 3 })
      expect(await source(first).locate()).toEqual([a, name])
      const old = keys.status().versions[0]!.id
      expect((await retire({ keys, keyId: old, tables: [source(first)] })).counted).toEqual([
        `${a}.${name}`,
        `${b}.${name}`,
      ])
    } finally {
      await Promise.all([first.close(), second.close()])
    }
  })

  describe('what hangs together with a table', () => {
    const fill = async (create: (table: string) => string[]) => {
      const { db, query } = client()
      const keys = testKeyring()
      const record = people()
      const { table } = record.schema
      for (const statement of create(table)) await query(statement)
      const insert = async (into: string, id: number) => {
        const row = record.encrypt(keys, person(id) as never) as AnyRow
        await query(`insert into ${into} (id, email, note, envelope) values ($1, $2, $3, $4)`, [
          id,
          row.email,
          row.note,
          row.envelope,
        ])
      }
      return { keys, record, table, insert, source: postgresTable(db, record) }
    }
    const columns = 'id int primary key, email text, note text, envelope text not null, city text'

    it('inheritance children are a part of it', async () => {
      const { keys, table, insert, source } = await fill((name) => [
        `create table ${name} (${columns})`,
        `create table ${name}_child (extra text, primary key (id)) inherits (${name})`,
      ])
      await insert(table, 1)
      await insert(`${table}_child`, 2)
      const oldId = await rotate(keys)
      await expect(retire({ keys, keyId: oldId, tables: [source] })).rejects.toThrow('2 rows')
      expect(await rewrap({ keys, table: source })).toMatchObject({ written: 2 })
      expect(await retire({ keys, keyId: oldId, tables: [source] })).toMatchObject({ counted: [`public.${table}`] })
    })

    it('partitions of partitions are; one that is detached is another table, and is asked all the same', async () => {
      const { keys, record, table, insert, source } = await fill((name) => [
        `create table ${name} (${columns}) partition by range (id)`,
        `create table ${name}_1 partition of ${name} for values from (0) to (100) partition by range (id)`,
        `create table ${name}_11 partition of ${name}_1 for values from (0) to (50)`,
        `create table ${name}_2 partition of ${name} for values from (100) to (200)`,
      ])
      for (const id of [1, 2, 150]) await insert(table, id)
      const oldId = await rotate(keys)
      await client().query(`alter table ${table} detach partition ${table}_2`)
      expect(await rewrap({ keys, table: source })).toMatchObject({ written: 2, remaining: new Map() })
      const refused = retire({ keys, keyId: oldId, tables: [source] })
      await expect(refused).rejects.toThrow(`1 rows of public.${table}_2, which is not among the tables`)
      const detached = declare(table, {
        id: { id: int() },
        fields: { email: text(), note: text({ nullable: true }) },
        table: `${table}_2`,
      })
      expect(await rewrap({ keys, table: postgresTable(client().db, detached) })).toMatchObject({ written: 1 })
      const { counted } = await retire({ keys, keyId: oldId, tables: [source] })
      expect(counted).toEqual([`public.${table}`, `public.${table}_2`])
      expect(record.schema.table).toBe(table)
    })

    it('a copy of it is asked, unless somebody answers for it', async () => {
      const { keys, oldId, table } = await oldRows(client(), 4)
      await client().query(`create schema if not exists archive`)
      await client().query(`create table archive.${table.name}_2024 as select * from ${table.name} limit 3`)
      await rewrap({ keys, table })
      const name = `archive.${table.name}_2024`
      const refused = retire({ keys, keyId: oldId, tables: [table] })
      await expect(refused).rejects.toMatchObject({ code: 'CONFLICT', table: name })
      const misspelt = retire({ keys, keyId: oldId, tables: [table], except: [name, 'archive.nothing'] })
      await expect(misspelt).rejects.toMatchObject({ code: 'CONFIG', argument: 'except' })
      // Before anything that was found is asked.
      const bare = retire({ keys, keyId: oldId, tables: [table], except: [`${table.name}_2024`] })
      await expect(bare).rejects.toMatchObject({ code: 'CONFIG', message: expect.stringContaining('give the schema') })
      const report = await retire({ keys, keyId: oldId, tables: [table], except: [name] })
      expect(report).toEqual({ keyId: oldId, counted: [`public.${table.name}`], skipped: [name] })
    })

    it('a copy is asked as well where the envelope is of a domain', async () => {
      const { query } = client()
      const domain = freshName('sealed')
      await query(`create domain ${domain}_0 as text; create domain ${domain} as ${domain}_0`)
      await query(`create domain ${domain}_b as bytea`)
      for (const [encoding, type] of [
        ['text', domain],
        ['bytes', `${domain}_b`],
      ] as const) {
        const keys = testKeyring()
        const record = declare(freshName('of_domain'), { id: { id: int() }, encoding, fields: { email: text() } })
        const { table } = record.schema
        await createTable(query, record)
        await query(`alter table ${table} alter column envelope type ${type}`)
        await insert(query, record, keys, [{ id: 1, email: 'e' }])
        await query(`create table ${table}_copy as select * from ${table}`)
        const source = postgresTable(client().db, record)
        const oldId = await rotate(keys)
        await rewrap({ keys, table: source })
        const refused = retire({ keys, keyId: oldId, tables: [source] })
        await expect(refused, encoding).rejects.toMatchObject({ code: 'CONFLICT', table: `public.${table}_copy` })
      }
    })

    it('a copy that this role may not read, or sees in part, is no proof', async () => {
      const { query } = client()
      const { keys, oldId, table, record } = await oldRows(client(), 4)
      await rewrap({ keys, table })
      const copy = `${table.name}_copy`
      await query(`create table ${copy} as select * from ${table.name}`)
      const role = freshName('auditor')
      await query(`create role ${role} login`)
      await query(`grant select on ${table.name} to ${role}`)
      const address = new URL(url())
      address.username = role
      const other = pgClient(address.href)
      try {
        const call = () => retire({ keys, keyId: oldId, tables: [postgresTable(other.db, record)] })
        await expect(call()).rejects.toMatchObject({ code: 'CONFIG', table: `public.${copy}`, argument: 'except' })
        await query(`grant select on ${copy} to ${role}; alter table ${copy} enable row level security`)
        await expect(call()).rejects.toMatchObject({ code: 'CONFIG', table: `public.${copy}` })
      } finally {
        await other.close()
      }
      await retire({ keys, keyId: oldId, tables: [table] })
    })

    it('a view may hide rows, and is refused', async () => {
      const { keys, oldId, table } = await oldRows(client(), 2)
      await client().query(`create view ${table.name}_view as select * from ${table.name} where city = 'Oslo'`)
      const view = declare(`${table.name}_view`, { id: { id: int() }, fields: { email: text() } })
      const refused = retire({ keys, keyId: oldId, tables: [postgresTable(client().db, view)] })
      await expect(refused).rejects.toMatchObject({ code: 'CONFIG', message: expect.stringContaining('view') })
    })
  })
}
