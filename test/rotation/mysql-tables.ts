import type mysql from 'mysql2/promise'
import { describe, expect, it } from 'vitest'
import { bytes, int, text, uuid } from '../../src/index.ts'
import { encryptInPlace, proveEncrypted, reencrypt, retire, rewrap, verify } from '../../src/rotation/index.ts'
import { keyIdIndex, type Mysql, mysqlTable } from '../../src/rotation/sources/mysql.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { sqlOf } from '../support/snippets.ts'
import { type MysqlClient, mysql2Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, createTable, declare, freshName, insert, people, person, readPlain, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
const step = (cursor: readonly string[], after: readonly string[] | null = null) => ({
  job: 'j',
  range: 1,
  owner: 'me',
  leaseMs: 1000,
  upTo: null,
  cursor,
  after,
  isDone: false,
  seen: 1,
  failures: [],
})

/** Tables as only MySQL has them: collations, generated columns, columns that change by themselves, other engines. */
export function mysqlTableSuite(client: () => MysqlClient, url: () => string): void {
  describe('ids', () => {
    const CASES = [
      ['utf8mb4_general_ci', 'utf8mb4', ['b', 'A', 'z', '_', '10', '2', 'ß', 'a b', 'a-b', '雪', 'é', '']],
      ['utf8mb4_unicode_520_ci', 'utf8mb4', ['b', 'A', 'z', 'Z2', '_', '10', '2', 'a b', '雪', '😀', 'é1']],
      ['utf8mb4_unicode_520_nopad_ci', 'utf8mb4', ['b', 'b ', 'B  ', 'a', 'a ', '']],
      ['utf8mb4_bin', 'utf8mb4', ['b', 'B', 'a', 'A', 'ä', 'Ä', 'a b', '😀']],
      ['latin1_swedish_ci', 'latin1', ['b', 'A', 'é1', 'z', 'Å', 'Ö', '€', '']],
      ['latin1_german1_ci', 'latin1', ['b', 'A ', 'z', 'Z2', 'o', 'p']],
    ] as const
    it.each(CASES)('of text in %s: pages, ranges and writes follow the collation', async (collation, charset, ids) => {
      const { query, own } = client()
      const keys = testKeyring()
      const record = declare(freshName('ci'), { id: { id: text() }, fields: { email: text() } })
      const { table } = record.schema
      await own(`create table ${table} (id varchar(50) character set ${charset} collate ${collation} primary key,
        email text, envelope text, city text)`)
      await own(keyIdIndex(record))
      await insert(
        query,
        record,
        keys,
        ids.map((id) => ({ id, email: `e${id}`, city: null })),
      )
      const order = (await own<{ id: string }>(`select id from ${table} order by id`)).map(({ id }) => id)
      const oldId = await rotate(keys)
      const source = client().table(record)
      const seen: string[] = []
      let after: readonly string[] | null = null
      for (;;) {
        const page = await source.page({ keys: [oldId] }, { after, upTo: null }, 2, 'envelope')
        if (page.length === 0) break
        seen.push(...page.map(({ row }) => String(row.id)))
        after = page.at(-1)!.cursor
      }
      expect(seen).toEqual(order)
      expect(await rewrap({ keys, table: source, batchSize: 2, ranges: 3 })).toMatchObject({
        written: ids.length,
        failed: 0,
        remaining: new Map(),
      })
      expect(await readPlain(query, record, keys)).toHaveLength(ids.length)
    })

    it.each([
      ['bigint unsigned', int(), (n: number) => String(18446744073709551615n - BigInt(n)), (v: unknown) => v],
      ['decimal(40,0)', int(), (n: number) => `${10n ** 30n + BigInt(n)}`, (v: unknown) => v],
      ['char(36)', uuid(), (n: number) => `6ba7b810-9dad-11d1-80b4-00c04fd43${n + 100}`, (v: unknown) => v],
      ['uuid', uuid(), (n: number) => `6ba7b8${n + 10}-9dad-11d1-80b4-00c04fd43000`, (v: unknown) => v],
      [
        'binary(16)',
        uuid(),
        (n: number) => `6ba7b8${n + 10}-9dad-11d1-80b4-00c04fd43000`,
        (v: unknown) => Buffer.from(String(v).replaceAll('-', ''), 'hex'),
      ],
      ['varbinary(50)', text(), (n: number) => `ключ ${n}`, (v: unknown) => Buffer.from(String(v))],
      ['binary(5)', bytes(), (n: number) => Uint8Array.of(n, 0, 255, 92, 32), (v: unknown) => v],
      ['varchar(40)', int(), (n: number) => String(7 * n), (v: unknown) => v],
    ])('in %s', async (type, id, nth, inSql) => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('ids'), { id: { id }, fields: { email: text() } })
      await createTable(query, record, [type])
      const { table } = record.schema
      for (let n = 0; n < 9; n++) {
        const { email, envelope } = record.encrypt(keys, { id: nth(n), email: `e${n}` } as never) as AnyRow
        await query(`insert into ${table} (id, email, envelope) values ($1, $2, $3)`, [inSql(nth(n)), email, envelope])
      }
      await rotate(keys)
      const source = client().table(record)
      expect(await rewrap({ keys, table: source, batchSize: 2, ranges: 2 })).toMatchObject({ written: 9, failed: 0 })
      await rotate(keys)
      expect(await reencrypt({ keys, table: source, batchSize: 4 })).toMatchObject({ written: 9, failures: [] })
      expect(await verify({ keys, table: source })).toMatchObject({ seen: 9, failed: 0 })
    })
  })

  describe('the index of keyIdIndex', () => {
    it.each(['text', 'bytes'] as const)('serves counts, pages and their order; %s', async (encoding) => {
      const { query, own } = client()
      const keys = testKeyring()
      const record = declare(freshName('ix'), { id: { a: int(), b: int() }, encoding, fields: { email: text() } })
      const { table } = record.schema
      const [type, sealed] = encoding === 'text' ? ['text', 'text'] : ['blob', 'blob']
      await own(
        `create table ${table} (a int, b int, email ${type}, envelope ${sealed}, city text, primary key (a, b))`,
      )
      const rows = Array.from({ length: 40 }, (_, i) => ({ a: i % 5, b: i, email: 'e', city: null }))
      await insert(query, record, keys, rows)
      // Copies, so that there is something to choose; nobody opens them.
      await own(
        `insert into ${table} (a, b, email, envelope) select a, b + 1000 * seq, email, envelope from ${table}, seq_1_to_100`,
      )
      await own(keyIdIndex(record))
      const oldId = await rotate(keys)
      await insert(query, record, keys, [{ a: 3, b: 5, email: 'new', city: null }])
      await own(`analyze table ${table}`)
      const shown = (await own(`select * from ${table} limit 1`))[0] as object
      expect(Object.keys(shown)).toEqual(['a', 'b', 'email', 'envelope', 'city'])

      const plans: string[][] = []
      const explaining = explained(client().db, plans)
      const source = mysqlTable(explaining, record)
      const active = keys.status().active!
      expect((await source.countByKey([active])).get(active)).toBe(1)
      expect(
        await source.page({ keys: [active] }, { after: ['1', '20'], upTo: ['4', '0'] }, 10, 'envelope'),
      ).toHaveLength(1)
      expect(await source.page({ keys: [oldId] }, { after: ['1', '20'], upTo: null }, 10, 'envelope')).toHaveLength(10)
      expect(plans).toHaveLength(3)
      for (const [, key, , extra] of plans) {
        expect(key).toBe('envelope_key_id')
        expect(extra).not.toMatch(/filesort|temporary/)
      }
      const [count, few] = plans as [string[], string[]]
      expect(count![0]).toBe('ref')
      expect(Number(count![2])).toBe(1)
      expect(Number(few![2])).toBeLessThan(10)
    })

    it('is the one of the page, whose trigger works too', async () => {
      const { own } = client()
      const [index, trigger] = sqlOf('docs/guides/rotation/mysql.md')
      const record = declare('customers', { id: { id: int() }, fields: { email: text() } })
      expect(index).toBe(keyIdIndex(record))
      await own('drop table if exists customers')
      await own('create table customers (id int primary key, email text, envelope text, edits int default 0)')
      await own(index!)
      await own(trigger!)
      const keys = testKeyring()
      const { email, envelope } = record.encrypt(keys, { id: 1, email: 'e' } as never) as AnyRow
      await own('insert into customers (id, email, envelope) values (1, ?, ?)', [email, envelope])
      await rotate(keys)
      expect(await rewrap({ keys, table: client().table(record) })).toMatchObject({ written: 1 })
      await own('update customers set email = 1')
      expect(await own('select edits from customers')).toEqual([{ edits: 1 }])
    })

    it('is not taken when its column computes something else', async () => {
      const { own } = client()
      const { keys, table, record } = await oldRows(client(), 2)
      await own(`alter table ${table.name} drop column envelope_key_id`)
      await own(
        `alter table ${table.name} add column envelope_key_id varbinary(80) as (substr(envelope, 12, 20)) virtual`,
      )
      await expect(rewrap({ keys, table: client().table(record) })).rejects.toMatchObject({
        code: 'CONFIG',
        argument: 'record',
      })
    })

    it.each(['ucs2', 'utf16', 'utf16le', 'utf32'])(
      'is not taken of an envelope in %s; without it, every row is found',
      async (charset) => {
        const { own } = client()
        const { keys, table, record, oldId } = await oldRows(client(), 3)
        await own(`alter table ${table.name} modify envelope varchar(400) character set ${charset} not null`)
        const source = client().table(record)
        const refused = { code: 'CONFIG', argument: 'record' }
        await expect(retire({ keys, keyId: oldId, tables: [source] })).rejects.toMatchObject(refused)
        await own(`alter table ${table.name} drop column envelope_key_id`)
        await expect(retire({ keys, keyId: oldId, tables: [client().table(record)] })).rejects.toThrow('3 rows')
        expect(await rewrap({ keys, table: client().table(record) })).toMatchObject({
          written: 3,
          remaining: new Map(),
        })
      },
    )

    it('may be missing', async () => {
      const { own } = client()
      const { keys, table, record } = await oldRows(client(), 5)
      await own(`alter table ${table.name} drop column envelope_key_id`)
      expect(await rewrap({ keys, table: client().table(record), batchSize: 2 })).toMatchObject({ written: 5 })
    })
  })

  describe('columns', () => {
    it('that change by themselves do not, unless asked for', async () => {
      const { own } = client()
      const { keys, table, record } = await oldRows(client(), 4)
      await own(`alter table ${table.name} add column updated_at timestamp(6) default '2001-01-01' on update current_timestamp(6),
        add column changed datetime default '2001-01-01' on update current_timestamp`)
      const fresh = async () =>
        Number(
          (
            await own<{ n: unknown }>(
              `select count(*) as n from ${table.name} where updated_at > '2020-01-01' or changed > '2020-01-01'`,
            )
          )[0]!.n,
        )
      expect(await rewrap({ keys, table: client().table(record), batchSize: 3 })).toMatchObject({ written: 4 })
      expect(await fresh()).toBe(0)
      await rotate(keys)
      const touching = mysqlTable(client().db, record, { touch: true })
      expect(await rewrap({ keys, table: touching })).toMatchObject({ written: 4 })
      expect(await fresh()).toBe(4)
    })

    it('that are too short, or pad: LIMIT_EXCEEDED or an error, in lax mode too, and nothing is lost', async () => {
      const { own } = client()
      const lax = mysql2Client(url())
      ;(lax.db as mysql.Pool).pool.on('connection', (connection) => void connection.query(`set sql_mode = ''`))
      const keys = testKeyring()
      try {
        for (const [type, encoding] of [
          ['varchar(60)', 'text'],
          ['varbinary(60)', 'bytes'],
          ['binary(200)', 'bytes'],
          ['tinyblob', 'bytes'],
        ] as const) {
          const name = freshName('short')
          const record = declare(name, {
            id: { id: int() },
            encoding,
            fields: { email: text({ into: 'sealed' }) },
            migrate: { phase: 'encrypt', until: UNTIL },
          })
          const envelope = encoding === 'text' ? 'text' : 'blob'
          await own(
            `create table ${name} (id int primary key, email varchar(300), sealed ${type}, envelope ${envelope})`,
          )
          await own(`insert into ${name} (id, email) values (1, 'short'), (2, repeat('x', 300))`)
          const report = await encryptInPlace({ keys, table: lax.table(record) })
          const refused = report.failures.map(({ rowId }) => Number(rowId))
          expect(refused).toContain(2)
          expect(report.failures.every(({ code }) => code === 'LIMIT_EXCEEDED')).toBe(true)
          const rows = await own<AnyRow>(`select * from ${name} order by id`)
          const plain = [{ email: 'short' }, { email: 'x'.repeat(300) }]
          for (const id of refused) {
            expect(rows[id - 1]).toMatchObject({ ...plain[id - 1], sealed: null, envelope: null })
          }
        }
      } finally {
        await lax.close()
      }
    })

    it('are compared by their bytes: another case, an accent or a space behind is another value', async () => {
      const { own } = client()
      const { record, table } = await oldRows(client(), 1)
      await own(`alter table ${table.name} modify note varchar(300) collate utf8mb4_general_ci`)
      await own(`update ${table.name} set note = 'note'`)
      const source = client().table(record)
      const [read] = await source.page('sealed', { after: null, upTo: null }, 1, 'sealed')
      await source.books.prepare()
      await own(`delete from waxseal_range where job = 'j'`)
      await own(
        `insert into waxseal_range (job, n, pass, is_done, seen, written, raced, owner) values ('j', 1, 1, 0, 0, 0, 0, 'me')`,
      )
      const change = { cursor: read!.cursor, set: { email: 'x' }, expect: { note: read!.was.note! } }
      let after: readonly string[] | null = null
      for (const other of [`'NOTE'`, `'notë'`, `'note '`, `''`, 'null']) {
        await own(`update ${table.name} set note = ${other}`)
        expect(await source.write([change], step(read!.cursor, after))).toEqual({ written: 0 })
        after = read!.cursor
      }
      await own(`update ${table.name} set note = 'note'`)
      expect(await source.write([change], step(read!.cursor, after))).toEqual({ written: 1 })
    })
  })

  describe('tables', () => {
    it('partitioned, in another database', async () => {
      const { own, query } = client()
      const database = freshName('other')
      await own(`create database ${database}`)
      const keys = testKeyring()
      const record = declare('people', { id: { id: int() }, fields: { email: text() }, table: `${database}.people` })
      await own(`create table ${database}.people (id int primary key, email text, envelope text, city text)
        partition by range (id) (partition a values less than (6), partition b values less than maxvalue)`)
      await own(keyIdIndex(record))
      const rows = Array.from({ length: 10 }, (_, i) => ({ id: i + 1, email: `e${i}`, city: null }))
      await insert(query, record, keys, rows)
      const keyId = await rotate(keys)
      const source = client().table(record)
      await expect(retire({ keys, keyId, tables: [source] })).rejects.toThrow('10 rows')
      expect(await rewrap({ keys, table: source, batchSize: 4, ranges: 2 })).toMatchObject({ written: 10 })
      await retire({ keys, keyId, tables: [source] })
      expect(await readPlain(query, record, keys)).toEqual(rows)
    })

    it('a view, MyISAM, and what is not there are CONFIG; a history is no proof for retire', async () => {
      const { own } = client()
      const { keys, record, oldId, table } = await oldRows(client(), 2)
      const view = freshName('view')
      await own(`create view ${view} as select * from ${table.name} where id = 1`)
      const plain = freshName('myisam')
      await own(`create table ${plain} (id int primary key, email text, note text, envelope text) engine = MyISAM`)
      for (const name of [view, plain, 'gone']) {
        const other = client().table(people(name))
        const refused = { code: 'CONFIG', argument: 'record' }
        await expect(rewrap({ keys, table: other }), name).rejects.toMatchObject(refused)
        await expect(retire({ keys, keyId: oldId, tables: [other] }), name).rejects.toMatchObject(refused)
      }
      await own(`alter table ${table.name} add system versioning`)
      const versioned = client().table(record)
      expect(await rewrap({ keys, table: versioned })).toMatchObject({ written: 2 })
      await expect(retire({ keys, keyId: oldId, tables: [versioned] })).rejects.toMatchObject({ code: 'CONFIG' })
      await own(`alter table ${table.name} drop system versioning`)
      await retire({ keys, keyId: oldId, tables: [versioned] })
    })

    it('with triggers: they run, and can tell that a job changes the row', async () => {
      const { own } = client()
      const { keys, table } = await oldRows(client(), 3)
      await own(`create trigger ${table.name}_t before update on ${table.name} for each row
        set new.city = if(@waxseal_job is null, 'edited', old.city)`)
      expect(await rewrap({ keys, table })).toMatchObject({ written: 3 })
      expect(await own(`select 1 from ${table.name} where city = 'edited'`)).toHaveLength(0)
      await own(`update ${table.name} set note = 'x'`)
      expect(await own(`select 1 from ${table.name} where city = 'edited'`)).toHaveLength(3)
    })
  })

  it.each(['utf8mb4', 'latin1', 'utf16'])(
    'plaintext that begins like a ciphertext in other letters is found, in %s',
    async (charset) => {
      const keys = testKeyring()
      const record = people()
      await createTable(client().query, record)
      await insert(client().query, record, keys, [1, 2].map(person))
      const { table } = record.schema
      const { own } = client()
      await own(`alter table ${table} modify email text character set ${charset}`)
      expect(await proveEncrypted(client().table(record))).toBe(2)
      for (const text of ['WXF:', 'wxf', 'wxf :', '']) {
        await own(`update ${table} set email = '${text}secret' where id = 2`)
        await expect(proveEncrypted(client().table(record)), text).rejects.toMatchObject({ code: 'CONFLICT' })
      }
      await own(`update ${table} set email = null where id = 2`)
      expect(await proveEncrypted(client().table(record))).toBe(2)
    },
  )
}

/** The same client, where every statement that reads the table is explained besides: type, key, rows, extra. */
function explained(db: Mysql, plans: string[][]): Mysql {
  const pool = db as { getConnection(): Promise<never> }
  return {
    async getConnection() {
      const own = (await pool.getConnection()) as unknown as {
        execute(statement: { sql: string }, values: unknown[]): Promise<unknown>
      }
      return new Proxy(own, {
        get(target, name) {
          if (name !== 'execute') {
            const value = target[name as 'execute'] as unknown
            return typeof value === 'function' ? value.bind(target) : value
          }
          return async (statement: { sql: string }, values: unknown[]) => {
            if (/ as t where/.test(statement.sql)) {
              const answer = (await target.execute(
                { ...statement, sql: `explain ${statement.sql}` },
                values,
              )) as AnyRow[]
              const [row] = (Array.isArray(answer[0]) ? answer[0] : answer) as AnyRow[]
              plans.push([row!.type, row!.key, row!.rows, row!.Extra].map(String))
            }
            return target.execute(statement, values)
          }
        },
      }) as never
    },
  }
}
