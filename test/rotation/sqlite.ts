import { describe, expect, it } from 'vitest'
import { bigint, boolean, bytes, date, int, json, number, object, text } from '../../src/index.ts'
import { decryptInPlace, encryptInPlace, reencrypt, retire, rewrap, verify } from '../../src/rotation/index.ts'
import { JOB_TABLES, type SqliteTableOptions, sqliteTable } from '../../src/rotation/sources/sqlite.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type SqliteDatabase, sqliteClient } from './clients.ts'
import { oldRows } from './jobs.ts'
import { type AnyRow, createTable, declare, freshName, insert, people, person, readPlain, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
const textOfDates = `'2001-07-02 03:04:05', '1969-12-31T23:30:00.500Z', '2024-02-29', '2024-02-29 08:00+09:00'`

/** What SQLite has of its own: five types that any column may hold, and one connection for everybody. */
export function sqliteSuite(name: string, open: (path?: string) => SqliteDatabase, newPath: () => string): void {
  const clientOf = (db = open(), own = db) => sqliteClient(name, db, own)

  describe.each(['columns', 'packed'] as const)('a table of plaintext in SQLite, %s', (shape) => {
    const at = (column: string) => (shape === 'columns' ? { into: `${column}_sealed` } : {})
    const declared = (table: string, phase: 'prepare' | 'encrypt') =>
      declare(table, {
        id: { id: int() },
        shape,
        fields: {
          email: text({ nullable: true }),
          born: date({ ...at('born'), nullable: true }),
          score: number(at('score')),
          visits: int(at('visits')),
          sum: bigint(at('sum')),
          active: boolean(at('active')),
          photo: bytes(at('photo')),
          contact: shape === 'columns' ? object({ phone: text() }) : json(),
          any: json(at('any')),
        },
        migrate: { phase, until: UNTIL },
      })
    const columns = 'id, email, born, score, visits, sum, active, photo, contact, any'
    const stored = (db: SqliteDatabase, table: string) => {
      const list = columns.split(', ').map((column) => `typeof("${column}") || quote("${column}") as "${column}"`)
      return db.prepare(`select ${list.join(', ')} from ${table} order by id`).all()
    }

    it('is encrypted, read, and comes back with every type and digit', async () => {
      const { db } = clientOf()
      const keys = testKeyring()
      const table = freshName('plain')
      db.exec(`create table ${table} (${columns.replace('id', 'id integer primary key')}, envelope text, born_sealed, score_sealed,
        visits_sealed, sum_sealed, active_sealed, photo_sealed, any_sealed)`)
      db.exec(`insert into ${table} (${columns}) values
        (1, 'secret', '2001-07-02T03:04:05.000Z', 0.1, 9007199254740991, 9223372036854775807, 1, x'00ff', '{"phone":"1"}', '"secret"'),
        (2, null, null, 1e300, -5, -9223372036854775808, 0, x'', '{"phone":"2"}', '[1,{"a":null}]'),
        (3, '7', '1969-12-31T23:30:00.500Z', -9e999, 0, 1, 1, x'01', '{"phone":"3"}', '12')`)
      const before = stored(db, table)
      const table1 = sqliteTable(db, declared(table, 'encrypt'))
      expect(await encryptInPlace({ keys, table: table1, batchSize: 2 })).toMatchObject({
        written: 3,
        plaintext: 0,
        failures: [],
      })
      const [hidden] = db
        .prepare(`select count(*) as n from ${table} where quote(email) || quote("any") like '%secret%'
        or born is not null or score is not null or photo is not null and '${shape}' = 'columns'`)
        .all()
      expect(Number((hidden as { n: number }).n)).toBe(0)
      expect(await verify({ keys, table: table1 })).toMatchObject({ seen: 3, failed: 0 })
      await rotate(keys)
      expect(await reencrypt({ keys, table: table1, batchSize: 2 })).toMatchObject({ written: 3, failures: [] })
      const back = sqliteTable(db, declared(table, 'prepare'))
      expect(await decryptInPlace({ keys, table: back, batchSize: 2 })).toMatchObject({
        written: 3,
        sealed: 0,
        failures: [],
      })
      expect(stored(db, table)).toEqual(before)
    })
  })

  it.each([
    ['text', textOfDates, ['2001-07-02T03:04:05Z', '1969-12-31T23:30:00.5Z', '2024-02-29T00:00Z', '2024-02-28T23:00Z']],
    ['ms', '86400001, -1', ['1970-01-02T00:00:00.001Z', '1969-12-31T23:59:59.999Z']],
    ['s', '86400, -0.5', ['1970-01-02T00:00Z', '1969-12-31T23:59:59.5Z']],
  ] as const)(
    'dates that are kept as %s are read as such; what is none is a broken row',
    async (dates, values, expected) => {
      const { db, query } = clientOf()
      const keys = testKeyring()
      const table = freshName('dates')
      const record = declare(table, {
        id: { id: int() },
        fields: { born: date({ into: 'sealed' }) },
        migrate: { phase: 'encrypt', until: UNTIL },
      })
      db.exec(`create table ${table} (id integer primary key, born, sealed text, envelope text)`)
      const given = [...values.split(', '), `'yesterday'`, `x'00'`]
      db.exec(`insert into ${table} (born) values ${given.map((value) => `(${value})`).join(', ')}`)
      const report = await encryptInPlace({ keys, table: sqliteTable(db, record, { dates }) })
      expect(report).toMatchObject({ written: expected.length, failed: 2 })
      const opened = (await query<AnyRow>(`select * from ${table} where envelope is not null order by id`)).map(
        (row) => (record.decrypt(keys, row as never) as AnyRow).born,
      )
      expect(opened).toEqual(expected.map((text) => new Date(text)))
    },
  )

  it.each([`x'736f6d65626f6479'`, '12', '12.0', 'null', `'somebody' || char(0)`])(
    'a value that another type took the place of is seen: %s',
    async (other) => {
      const { db, query } = clientOf()
      const { keys, table } = await oldRows(clientOf(db), 1)
      await query(`alter table ${table.name} add column any`)
      const value = { 12: '12.0', '12.0': '12', null: `''` }[other] ?? `'somebody'`
      db.exec(`update ${table.name} set "any" = ${value}`)
      const record = declare(table.name, {
        id: { id: int() },
        fields: { any: json({ into: 'email' }) },
        migrate: { phase: 'encrypt', until: UNTIL },
      })
      const source = sqliteTable(db, record)
      const [read] = await source.page('sealed', { after: null, upTo: null }, 1, 'all')
      db.exec(`update ${table.name} set "any" = ${other}`)
      await source.books.prepare()
      db.exec(
        `insert into waxseal_range (job, n, pass, is_done, seen, written, raced, owner) values ('j', 1, 1, 0, 0, 0, 0, 'me')`,
      )
      const step = {
        job: 'j',
        range: 1,
        owner: 'me',
        leaseMs: 1000,
        upTo: null,
        cursor: read!.cursor,
        after: null,
        isDone: false,
        seen: 1,
        failures: [],
      }
      const change = { cursor: read!.cursor, set: { city: 'x' }, expect: { any: read!.was.any! } }
      expect(await source.write([change], step)).toEqual({ written: 0 })
      db.exec(`update ${table.name} set "any" = ${value}`)
      expect(await source.write([change], { ...step, after: read!.cursor })).toEqual({ written: 1 })
      expect(keys.status().active).toBeDefined()
    },
  )

  it.each(['', 'any', 'text', 'blob', 'integer', 'real'])(
    'int ids in a column of type "%s" are found by value',
    async (type) => {
      const { db, query } = clientOf()
      const keys = testKeyring()
      const record = declare(freshName('ids'), { id: { id: int() }, fields: { email: text() } })
      await createTable(query, record, [type])
      for (let id = 1; id <= 12; id++) {
        const { email, envelope } = record.encrypt(keys, { id, email: 'e' } as never) as AnyRow
        await query(`insert into ${record.schema.table} (id, email, envelope) values (${id}, $1, $2)`, [
          email,
          envelope,
        ])
      }
      await rotate(keys)
      const report = await rewrap({ keys, table: sqliteTable(db, record), batchSize: 5, ranges: 3 })
      expect(report).toMatchObject({ written: 12, failed: 0, remaining: new Map() })
    },
  )

  it.each(['text', 'bytes'] as const)(
    'whatever an undeclared column holds, rows are re-encrypted: %s',
    async (encoding) => {
      const { db, table: of } = clientOf()
      const contents = [
        "x''",
        "x'00ff'",
        'zeroblob(3)',
        "''",
        "'wxf:'",
        "cast(x'7778663aff' as text)",
        '5',
        '1.5',
        'null',
      ]
      contents.push("'wxf:' || char(0) || 'x'", "char(0) || 'wxf:'", "'wxf:' || char(55296)")
      const keys = testKeyring()
      const name = freshName('any')
      const record = declare(name, { id: { id: int() }, encoding, fields: { email: text() } })
      db.exec(`create table ${name} (id integer primary key, email, envelope, other)`)
      for (const [i, content] of contents.entries()) {
        const row = record.encrypt(keys, { id: i, email: 'e' } as never) as AnyRow
        db.prepare(`insert into ${name} values (?, ?, ?, ${content})`).run(i, row.email as never, row.envelope as never)
      }
      await rotate(keys)
      const report = await reencrypt({ keys, table: of(record) })
      expect(report).toMatchObject({ written: contents.length, raced: 0, failures: [] })
    },
  )

  describe('one connection', () => {
    it('waits for a transaction of the application, and is not undone with it', async () => {
      const { db, query } = clientOf()
      const { keys, record, table } = await oldRows(clientOf(db), 20)
      await table.books.prepare()
      db.exec('begin')
      db.exec(`delete from ${table.name} where id > 10`)
      const job = rewrap({ keys, table, batchSize: 6 })
      await wait(100)
      db.exec('rollback')
      expect(await job).toMatchObject({ written: 20, remaining: new Map() })
      expect(await readPlain(query, record, keys)).toHaveLength(20)
      expect(await query('select 1 from waxseal_job where finished_at is not null')).toHaveLength(1)
    })

    it('that stays in a transaction is CONFIG after 5 seconds, for retire too', async () => {
      const db = open()
      const { keys, oldId, table } = await oldRows(clientOf(db), 2)
      db.exec('begin')
      db.exec(`delete from ${table.name}`)
      const jobs = [rewrap({ keys, table }), retire({ keys, keyId: oldId, tables: [table] })]
      for (const job of await Promise.allSettled(jobs)) {
        expect(job).toMatchObject({ status: 'rejected', reason: { code: 'CONFIG', argument: 'db' } })
      }
      db.exec('rollback')
    })

    it('gives way to the application between batches', async () => {
      const { keys, table } = await oldRows(clientOf(), 30)
      const stop = new AbortController()
      setTimeout(() => stop.abort(), 20)
      const pace = { rowsPerSecond: 1e6 }
      expect(await rewrap({ keys, table, batchSize: 1, pace, signal: stop.signal })).toMatchObject({ aborted: true })
    })
  })

  it('connections to one file: jobs on each share the work, and wait while another process writes', async () => {
    const path = newPath()
    const dbs = [open(path), open(path), open(path)] as const
    for (const db of dbs) db.exec('pragma busy_timeout = 0')
    const { keys, record } = await oldRows(clientOf(dbs[0]), 60)
    dbs[2].exec('begin immediate')
    setTimeout(() => dbs[2].exec('commit'), 100)
    const reports = await Promise.all(
      dbs.map((db) => rewrap({ keys, table: sqliteTable(db, record), batchSize: 4, ranges: 5 })),
    )
    expect(Math.max(...reports.map(({ written }) => written))).toBe(60)
    expect(await readPlain(clientOf(dbs[1]).query, record, keys)).toHaveLength(60)
    for (const db of dbs) db.close()
  })

  it('a batch and its books are written together, or not at all', async () => {
    const { db, query } = clientOf()
    const { keys, oldId, table } = await oldRows(clientOf(db), 10)
    await table.books.prepare()
    db.exec(`create trigger full before update of at_cursor on waxseal_range when old.at_cursor = '["4"]'
      begin select raise(abort, 'the disk is full'); end`)
    await expect(rewrap({ keys, table, batchSize: 4 })).rejects.toThrow('the disk is full')
    expect((await table.countByKey([oldId])).get(oldId)).toBe(6)
    expect(await query('select written from waxseal_range')).toEqual([{ written: 4 }])
    db.exec('drop trigger full')
    expect(await rewrap({ keys, table, batchSize: 4 })).toMatchObject({ written: 10 })
  })

  it('the index of the guide serves the search for a key', async () => {
    const { db, query } = clientOf()
    const record = people()
    await createTable(query, record)
    const plan = db
      .prepare(`explain query plan select count(*) from ${record.schema.table} as t where ${record.sql.keyId} = ?`)
      .all('x') as { detail: string }[]
    expect(plan.map(({ detail }) => detail).join()).toMatch(/SEARCH .* USING (COVERING )?INDEX/)
  })

  it('a table without a declared column, or that is not there, is CONFIG, for retire too', async () => {
    const { db, query } = clientOf()
    const keys = testKeyring()
    const record = people()
    await insertOne()
    const keyId = await rotate(keys)
    async function insertOne() {
      await createTable(query, record)
      await insert(query, record, keys, [person(1)])
    }
    const wrong = declare(record.schema.table, { id: { id: int() }, fields: { email: text() }, envelopeColumn: 'gone' })
    const absent = people()
    for (const each of [wrong, absent]) {
      const refused = retire({ keys, keyId, tables: [sqliteTable(db, each)] })
      await expect(refused).rejects.toMatchObject({ code: 'CONFIG', argument: 'record' })
    }
    expect(() => sqliteTable({} as SqliteDatabase, record)).toThrow(expect.objectContaining({ argument: 'db' }))
    const options = { dates: 'us' } as unknown as SqliteTableOptions
    expect(() => sqliteTable(db, record, options)).toThrow(expect.objectContaining({ argument: 'dates' }))
    expect(JOB_TABLES).toHaveLength(3)
  })
}
