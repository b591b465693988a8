import { describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { encryptInPlace, reencrypt, retire, rewrap, verify } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type Client, type PostgresClient, pgClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, declare, freshName, readPlain, rotate } from './tables.ts'

/** What the database does by itself when a job updates a row: docs/guides/rotation/triggers.md. */
export function triggerSuite(client: () => PostgresClient, url: () => string): void {
  const as = async <T>(settings: Record<string, string>, use: (other: PostgresClient) => Promise<T>): Promise<T> => {
    const address = new URL(url())
    for (const [name, value] of Object.entries(settings)) address.searchParams.set(name, value)
    const other = pgClient(address.href)
    try {
      return await use(other)
    } finally {
      await other.close()
    }
  }

  /** Rows under an old version, with a counter of how often a trigger touched them. */
  const touched = async (trigger: (table: string) => string) => {
    const { query } = client()
    const made = await oldRows(client(), 6)
    const { name } = made.table
    await query(`alter table ${name} add column touched int not null default 0`)
    await query(`create or replace function touch() returns trigger language plpgsql as
      $$ begin new.touched = old.touched + 1; return new; end $$`)
    await query(trigger(name))
    const touches = async () => {
      const [row] = await query<{ n: number }>(`select sum(touched)::int as n from ${name}`)
      return row!.n
    }
    return { ...made, touches }
  }
  const every = (name: string) => `create trigger t before update on ${name} for each row execute function touch()`

  it('a trigger on every update fires on a rewrap, one with a column list does not, and does on a re-encryption', async () => {
    const all = await touched(every)
    expect(await rewrap(all)).toMatchObject({ written: 6, raced: 0 })
    expect(await all.touches()).toBe(6)
    const some = await touched((name) => every(name).replace('update', 'update of email, note'))
    expect(await rewrap(some)).toMatchObject({ written: 6, raced: 0 })
    expect(await some.touches()).toBe(0)
    await rotate(some.keys)
    expect(await reencrypt(some)).toMatchObject({ written: 6, raced: 0 })
    expect(await some.touches()).toBe(6)
  })

  it('is left out for the connections of jobs by application_name, or by session_replication_role', async () => {
    const named = await touched((name) =>
      every(name).replace('execute', `when (current_setting('application_name') <> 'waxseal') execute`),
    )
    await as({ application_name: 'waxseal' }, async ({ db }) => {
      expect(await reencrypt({ keys: named.keys, table: postgresTable(db, named.record) })).toMatchObject({
        written: 6,
      })
    })
    expect(await named.touches()).toBe(0)
    await client().query(`update ${named.table.name} set city = city`)
    expect(await named.touches()).toBe(6)

    const all = await touched(every)
    await as({ options: '-c session_replication_role=replica' }, async ({ db }) => {
      expect(await rewrap({ keys: all.keys, table: postgresTable(db, all.record) })).toMatchObject({ written: 6 })
    })
    expect(await all.touches()).toBe(0)
    await client().query(`alter table ${all.table.name} enable always trigger t`)
    await rotate(all.keys)
    await as({ options: '-c session_replication_role=replica' }, async ({ db }) => {
      await rewrap({ keys: all.keys, table: postgresTable(db, all.record) })
    })
    expect(await all.touches()).toBe(6)
  })

  it('a history table keeps rows under the old version: retire finds it', async () => {
    const { query } = client()
    const { keys, oldId, table } = await oldRows(client(), 5)
    const { name } = table
    await query(`create table ${name}_history (like ${name}, at timestamptz default now())`)
    await query(`create or replace function keep_${name}() returns trigger language plpgsql as
      $$ begin insert into ${name}_history select old.*; return null; end $$`)
    await query(`create trigger h after update on ${name} for each row execute function keep_${name}()`)
    expect(await rewrap({ keys, table })).toMatchObject({ written: 5, remaining: new Map() })
    const refused = retire({ keys, keyId: oldId, tables: [table] })
    await expect(refused).rejects.toThrow(`5 rows of public.${name}_history`)
    await query(`delete from ${name}_history`)
    expect((await retire({ keys, keyId: oldId, tables: [table] })).counted).toContain(`public.${name}_history`)
  })

  it('one that changes ciphertext damages it, and verify names the rows', async () => {
    const { query } = client()
    const keys = testKeyring()
    const name = freshName('lower')
    const record = declare(name, {
      id: { id: int() },
      fields: { email: text() },
      migrate: { phase: 'encrypt', until: new Date(Date.now() + 1e9) },
    })
    await query(`create table ${name} (id int primary key, email text, envelope text)`)
    await query(`insert into ${name} values (1, 'A@example.org'), (2, 'B@example.org')`)
    await query(`create function lower_${name}() returns trigger language plpgsql as
      $$ begin new.email = lower(new.email); return new; end $$`)
    await query(`create trigger l before insert or update on ${name} for each row execute function lower_${name}()`)
    const table = postgresTable(client().db, record)
    await encryptInPlace({ keys, table })
    expect(await verify({ keys, table })).toMatchObject({ seen: 2, failed: 2 })
  })

  it('one that suppresses updates makes them races, and the job ends all the same', async () => {
    const { query } = client()
    const { keys, oldId, table } = await oldRows(client(), 4)
    await query(`create or replace function never() returns trigger language plpgsql as $$ begin return null; end $$`)
    await query(
      `create trigger n before update on ${table.name} for each row when (old.id = 2) execute function never()`,
    )
    const report = await rewrap({ keys, table })
    expect(report).toMatchObject({ written: 3, raced: 10, failed: 0 })
    expect(report.remaining).toEqual(new Map([[oldId, 1]]))
  })

  it('a generated column is computed again, from ciphertext; what is protected cannot be one', async () => {
    const { query } = client()
    const keys = testKeyring()
    const name = freshName('generated')
    const record = declare(name, {
      id: { id: int() },
      fields: { email: text() },
      migrate: { phase: 'encrypt', until: new Date(Date.now() + 1e9) },
    })
    await query(`create table ${name} (id int primary key, email text, envelope text,
      host text generated always as (split_part(email, '@', 2)) stored)`)
    await query(`insert into ${name} values (1, 'a@secret.example')`)
    expect(await query(`select host from ${name}`)).toEqual([{ host: 'secret.example' }])
    await encryptInPlace({ keys, table: postgresTable(client().db, record) })
    expect(await query(`select host from ${name}`)).toEqual([{ host: '' }])
    await query(`alter table ${name} drop column host, drop column email,
      add column email text generated always as ('x' || id) stored`)
    await query(`update ${name} set envelope = null`)
    const job = encryptInPlace({ keys, table: postgresTable(client().db, record) })
    await expect(job).rejects.toMatchObject({ code: '428C9' })
  })

  it('logical decoding sees every row of a job, also with session_replication_role', async () => {
    const { query } = client()
    const [{ level }] = (await query<{ level: string }>('select current_setting($1) as level', ['wal_level'])) as [
      { level: string },
    ]
    expect(level).toBe('logical')
    const { keys, record, table } = await oldRows(client(), 7)
    await query(`select pg_create_logical_replication_slot('jobs', 'test_decoding')`)
    try {
      await as({ options: '-c session_replication_role=replica' }, async ({ db }) => {
        await rewrap({ keys, table: postgresTable(db, record) })
      })
      const changes = await query<AnyRow>(
        `select data from pg_logical_slot_get_changes('jobs', null, null) where data like $1`,
        [`table public.${table.name}: UPDATE%`],
      )
      expect(changes).toHaveLength(7)
    } finally {
      await query(`select pg_drop_replication_slot('jobs')`)
    }
  })
}

/** SQLite has no way to leave a trigger out for one connection. */
export function sqliteTriggerSuite(client: () => Client): void {
  describe('triggers', () => {
    it('fire on a rewrap unless they list columns, and what they change is not counted', async () => {
      const { query } = client()
      const { keys, record, table } = await oldRows(client(), 6)
      const { name } = table
      await query(`alter table ${name} add column touched int not null default 0`)
      await query(`alter table ${name} add column edited int not null default 0`)
      await query(`create trigger ${name}_t after update of envelope on ${name}
        begin update ${name} set touched = touched + 1 where id = new.id; end`)
      await query(`create trigger ${name}_e after update of email, note on ${name}
        begin update ${name} set edited = edited + 1 where id = new.id; end`)
      const sums = async () =>
        (await query<AnyRow>(`select sum(touched) as touched, sum(edited) as edited from ${name}`))[0]
      expect(await rewrap({ keys, table, batchSize: 4 })).toMatchObject({ written: 6, raced: 0 })
      expect(await sums()).toEqual({ touched: 6, edited: 0 })
      await rotate(keys)
      expect(await reencrypt({ keys, table, batchSize: 4 })).toMatchObject({ written: 6, raced: 0 })
      expect(await sums()).toEqual({ touched: 12, edited: 6 })
      expect(await readPlain(query, record, keys)).toHaveLength(6)
    })

    it('a history table keeps rows under the old version, and is asked when it is given', async () => {
      const { query, table: source } = client()
      const { keys, oldId, table, record } = await oldRows(client(), 3)
      const { name } = table
      await query(`create table ${name}_history as select * from ${name} where 1 = 0`)
      await query(
        `create trigger ${name}_h after update on ${name}
        begin insert into ${name}_history select old.*; end`.replace(
          'select old.*',
          'values (old.id, old.email, old.note, old.envelope, old.city)',
        ),
      )
      expect(await rewrap({ keys, table })).toMatchObject({ written: 3, remaining: new Map() })
      const history = source(
        declare(record.schema.label, {
          id: { id: int() },
          fields: { email: text(), note: text({ nullable: true }) },
          table: `${name}_history`,
        }),
      )
      const refused = retire({ keys, keyId: oldId, tables: [table, history] })
      await expect(refused).rejects.toMatchObject({ code: 'CONFLICT', table: `${name}_history` })
    })
  })
}
