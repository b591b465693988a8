import { expect, it } from 'vitest'
import { date, int, json, text } from '../../src/index.ts'
import {
  decryptInPlace,
  encryptInPlace,
  plan,
  proveEncrypted,
  reencrypt,
  retire,
  rewrap,
  verify,
} from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type PostgresClient, pgClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, createTable, declare, freshName, insert, people, person, readPlain, rotate } from './tables.ts'

/** What a server, its roles, its sessions and its tables may be like. */
export function serverSuite(client: () => PostgresClient, url: () => string): void {
  /** A connection of another role, or with other settings. */
  async function withClient<T>(change: (url: URL) => void, use: (other: PostgresClient) => Promise<T>): Promise<T> {
    const address = new URL(url())
    change(address)
    const other = pgClient(address.href)
    try {
      return await use(other)
    } finally {
      await other.close()
    }
  }

  it('plaintext that a collation takes for the beginning of a ciphertext is found', async () => {
    const { query } = client()
    const { table } = await oldRows(client(), 2)
    const collation = freshName('insensitive')
    await query(`create collation ${collation} (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
    await query(`alter table ${table.name} alter email type text collate ${collation}`)
    expect(await proveEncrypted(table)).toBe(2)
    await query(`update ${table.name} set email = 'WXF:secret' where id = 2`)
    await expect(proveEncrypted(table)).rejects.toMatchObject({ code: 'CONFLICT' })
  })

  it('row-level security that hides rows: nothing that counts begins, and its owner may retire the version', async () => {
    const { query } = client()
    const { keys, record, oldId, table } = await oldRows(client(), 4)
    await table.books.prepare()
    const role = freshName('tenant')
    await query(`create role ${role} login`)
    await query(`grant all on ${table.name}, waxseal_job, waxseal_range, waxseal_failure to ${role}`)
    await query(`alter table ${table.name} enable row level security`)
    await query(`create policy own on ${table.name} using (city = 'Oslo')`)
    await withClient(
      (address) => {
        address.username = role
      },
      async ({ db }) => {
        const seen = postgresTable(db, record)
        const until = new Date(Date.now() + 1e9)
        const migrating = (phase: 'prepare' | 'encrypt') => {
          const { table: name } = record.schema
          return postgresTable(
            db,
            declare(name, { id: { id: int() }, fields: { email: text() }, migrate: { phase, until } }),
          )
        }
        // Each would count too little: nothing remaining, no plaintext, no work.
        const refused: Record<string, () => Promise<unknown>> = {
          retire: () => retire({ keys, keyId: oldId, tables: [seen] }),
          rewrap: () => rewrap({ keys, table: seen }),
          reencrypt: () => reencrypt({ keys, table: seen }),
          encryptInPlace: () => encryptInPlace({ keys, table: migrating('encrypt') }),
          decryptInPlace: () => decryptInPlace({ keys, table: migrating('prepare') }),
          verify: () => verify({ keys, table: seen }),
          'verify, a sample': () => verify({ keys, table: seen, sample: 1 }),
          plan: () => plan({ keys, tables: [seen] }),
          proveEncrypted: () => proveEncrypted(seen),
        }
        for (const [what, call] of Object.entries(refused)) {
          await expect(call(), what).rejects.toMatchObject({ code: 'CONFIG', table: table.name, argument: 'db' })
        }
      },
    )
    await expect(retire({ keys, keyId: oldId, tables: [table] })).rejects.toThrow('4 rows')
    await rewrap({ keys, table })
    await retire({ keys, keyId: oldId, tables: [table] })
  })

  it('a partitioned table is one table: all partitions are counted, rewrapped and re-encrypted', async () => {
    const { db, query } = client()
    const keys = testKeyring()
    const record = people()
    const { table } = record.schema
    await query(`create table ${table} (id int primary key, email text, note text, envelope text not null, city text)
      partition by range (id)`)
    await query(`create table ${table}_a partition of ${table} for values from (0) to (6)`)
    await query(`create table ${table}_b partition of ${table} for values from (6) to (100)`)
    const rows = Array.from({ length: 10 }, (_, i) => person(i + 1))
    await insert(query, record, keys, rows)
    const first = await rotate(keys)
    const source = postgresTable(db, record)
    await expect(retire({ keys, keyId: first, tables: [source] })).rejects.toThrow('10 rows')
    expect(await rewrap({ keys, table: source, batchSize: 4, ranges: 2 })).toMatchObject({ written: 10 })
    await retire({ keys, keyId: first, tables: [source] })
    await rotate(keys)
    expect(await reencrypt({ keys, table: source, batchSize: 4 })).toMatchObject({ written: 10, failures: [] })
    expect(await readPlain(query, record, keys)).toEqual(rows)
  })

  it.each([
    ['bytea_output = escape', '-c bytea_output=escape'],
    ['serializable transactions', '-c default_transaction_isolation=serializable'],
    ['another date style and zone', '-c datestyle=SQL,DMY -c timezone=Asia/Tokyo'],
    ['another search path', '-c search_path=other,public'],
  ])('%s: jobs find what they read', async (_, options) => {
    const { query } = client()
    const keys = testKeyring()
    const record = declare(freshName('set'), {
      id: { id: int() },
      encoding: 'bytes',
      fields: { email: text(), born: date({ into: 'born_sealed' }) },
      migrate: { phase: 'encrypt', until: new Date(Date.now() + 1e9) },
    })
    const { table } = record.schema
    await query('create schema if not exists other')
    await query(`create table ${table} (id int primary key, email bytea, born timestamptz, born_sealed bytea,
      envelope bytea, city text)`)
    const rows = Array.from({ length: 12 }, (__, id) => ({ id, email: `e${id}`, born: new Date(id * 1e9), city: null }))
    await insert(query, record, keys, rows as AnyRow[])
    await rotate(keys)
    await withClient(
      (address) => address.searchParams.set('options', options),
      async ({ db }) => {
        const source = postgresTable(db, record)
        const both = await Promise.all([1, 2].map(() => rewrap({ keys, table: source, batchSize: 3, ranges: 2 })))
        for (const report of both) expect(report.failed).toBe(0)
        expect(Math.max(...both.map((report) => report.written))).toBe(12) // 0 for one that began when all was done
        await rotate(keys)
        expect(await reencrypt({ keys, table: source, batchSize: 5 })).toMatchObject({
          written: 12,
          raced: 0,
          failed: 0,
        })
      },
    )
    const opened = (await query<AnyRow>(`select * from ${table} order by id`)).map((row) => {
      const { id, email, born, city } = record.decrypt(keys, row as never) as AnyRow
      return { id, email, born, city }
    })
    expect(opened).toEqual(rows)
  })

  it('transactions of the application that lock rows the other way round: the batch is sent again', async () => {
    const { keys, record, table } = await oldRows(client(), 40)
    const application = (async () => {
      // Two rows in descending order, the first one held for longer than the batch takes to get there.
      for (let i = 0; i < 2; i++) {
        const locks = `do $$ begin
          perform 1 from ${table.name} where id = 39 for update; perform pg_sleep(0.3);
          perform 1 from ${table.name} where id = 2 for update; end $$`
        await client()
          .query(locks)
          .catch(() => undefined)
      }
    })()
    const report = await rewrap({ keys, table, batchSize: 40 })
    await application
    expect(report).toMatchObject({ written: 40, failed: 0 })
    expect(await readPlain(client().query, record, keys)).toHaveLength(40)
  })

  it.each([
    ['char(300)', text(), 'a value'],
    ['varchar(300)', text(), 'a value'],
    ['jsonb', json(), { b: [1, null, 'x'], a: { c: true } }],
    ['jsonb', json(), 'a text'],
    ['json', json(), { b: 1, a: 2 }],
    ['text[]', json(), ['a', 'b,"c"', '{d}']],
  ] as const)('plaintext in a column of type %s is sealed elsewhere and comes back', async (type, field, value) => {
    const { db, query } = client()
    const keys = testKeyring()
    const name = freshName('types')
    const [prepare, encrypt] = (['prepare', 'encrypt'] as const).map((phase) =>
      declare(name, {
        id: { id: int() },
        fields: { value: field.kind === 'text' ? text({ into: 'sealed' }) : json({ into: 'sealed' }) },
        migrate: { phase, until: new Date(Date.now() + 1e9) },
      }),
    )
    await query(`create table ${name} (id int primary key, value ${type}, sealed varchar(900), envelope varchar(200))`)
    const given = type.startsWith('json') ? JSON.stringify(value) : value
    await query(`insert into ${name} values (1, $1::${type === 'text[]' ? type : `text::${type}`})`, [given])
    const [before] = await query<AnyRow>(`select value from ${name}`)
    expect(await encryptInPlace({ keys, table: postgresTable(db, encrypt!) })).toMatchObject({ written: 1, failed: 0 })
    const [sealed] = await query<AnyRow>(`select value, sealed from ${name}`)
    expect(sealed).toEqual({ value: null, sealed: expect.stringMatching(/^wxf:/) })
    expect(await decryptInPlace({ keys, table: postgresTable(db, prepare!) })).toMatchObject({ written: 1, failed: 0 })
    expect(await query<AnyRow>(`select value from ${name}`)).toEqual([before])
  })

  it('a table without a declared column, or that is not there, is said before anything is written', async () => {
    const keys = testKeyring()
    const record = people()
    await expect(rewrap({ keys, table: postgresTable(client().db, record) })).rejects.toThrow(record.schema.table)
    await createTable(client().query, record)
    const wrong = declare(record.schema.table, { id: { id: int() }, fields: { email: text(), missing: text() } })
    await insert(client().query, record, keys, [person(1)])
    await rotate(keys)
    const job = reencrypt({ keys, table: postgresTable(client().db, wrong) })
    await expect(job).rejects.toMatchObject({ code: 'CONFIG', argument: 'record' })
  })
}
