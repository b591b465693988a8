import { createConnection as createMariadbCallbackConnection } from 'mariadb/callback'
import { createConnection as createCallbackConnection, createPool as createCallbackPool } from 'mysql2'
import mysql, { type Connection, type PoolOptions } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { text } from '../../src/index.ts'
import { proveEncrypted, reencrypt, retire, rewrap, verify } from '../../src/rotation/index.ts'
import { JOB_TABLES, type Mysql, mysqlTable } from '../../src/rotation/sources/mysql.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type MysqlClient, mariadbClient, mysql2Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { createTable, declare, freshName, insert, people, person, readPlain, readStored, rotate } from './tables.ts'

const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
/** What MySQL has of its own: sessions, locks, and two clients with their settings. */
export function mysqlSessionSuite(client: () => MysqlClient, url: () => string): void {
  async function withConnection<T>(work: (own: Connection) => Promise<T>): Promise<T> {
    const own = await mysql.createConnection(url())
    try {
      return await work(own)
    } finally {
      own.destroy()
    }
  }

  /** Clients that were set up otherwise than usual, and statements for each of their connections. */
  const WAYS: Record<string, { options?: PoolOptions; session?: string[] }> = {
    'without CLIENT_FOUND_ROWS': { options: { flags: ['-FOUND_ROWS'] } },
    'in latin1': { options: { charset: 'latin1' } },
    'in utf8mb3': { options: { charset: 'utf8' } },
    'with values as text or arrays': {
      options: { supportBigNumbers: true, bigNumberStrings: true, dateStrings: true, rowsAsArray: true },
    },
    'with a typeCast of its own': { options: { typeCast: () => 'nothing' } },
    'with a lax sql_mode': { session: ["set sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT'"] },
    'with safe updates, in another zone': { session: ["set sql_safe_updates = 1, time_zone = '+09:00'"] },
    'under SERIALIZABLE': { session: ['set session transaction isolation level serializable'] },
  }

  describe.each(Object.entries(WAYS))('a pool %s', (_, { options, session = [] }) => {
    let other: MysqlClient
    beforeAll(() => {
      other = mysql2Client(url(), options)
      const pool = other.db as mysql.Pool
      pool.pool.on('connection', (connection) => {
        for (const statement of session) connection.query(statement)
      })
    })
    afterAll(() => other.close())

    it('rewraps, re-encrypts and verifies, counts what it changed, and leaves the session as it was', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('way'), { id: { id: text() }, fields: { email: text({ nullable: true }) } })
      await createTable(query, record, ['text'])
      const rows = ['a', 'é', '雪', '😀', "it's", 'back\\slash', ''].map((id) => ({ id, email: `e ${id}`, city: null }))
      await insert(query, record, keys, rows)
      await rotate(keys)
      const settings = `select @@sql_mode as m, @@time_zone as z, @@innodb_lock_wait_timeout as w, @@sql_safe_updates as s,
        @@tx_isolation as i, @waxseal_job as j`
      const asked = async () => (await (other.db as mysql.Pool).query({ sql: settings, rowsAsArray: true }))[0]
      const before = await asked()
      const table = other.table(record)
      expect(await rewrap({ keys, table, batchSize: 2, ranges: 2 })).toMatchObject({ written: 7, raced: 0, failed: 0 })
      await rotate(keys)
      expect(await reencrypt({ keys, table, batchSize: 3 })).toMatchObject({ written: 7, raced: 0, failed: 0 })
      await query(`update ${record.schema.table} set email = 'broken' where id = '雪'`)
      expect((await verify({ keys, table })).failures).toEqual([{ rowId: '雪', code: 'MALFORMED' }])
      await query(`update ${record.schema.table} set email = null where id = '雪'`)
      expect(await asked()).toEqual(before)
    })
  })

  describe('transactions', () => {
    it('a batch and its books are written together, or not at all', async () => {
      const { own } = client()
      const { keys, oldId, table } = await oldRows(client(), 10)
      await table.books.prepare()
      await own(`create trigger full before update on waxseal_range for each row
        if new.at_cursor = '["8"]' then signal sqlstate '45000' set message_text = 'secret'; end if`)
      try {
        const job = rewrap({ keys, table, batchSize: 4 })
        await expect(job).rejects.toThrow('the database refused a value')
        await job.catch((error) => expect(JSON.stringify([error, error.message])).not.toContain('secret'))
        // Halved down to the step that the books refuse, without any row.
        expect((await table.countByKey([oldId])).get(oldId)).toBe(3)
      } finally {
        await own('drop trigger full')
      }
      expect(await rewrap({ keys, table, batchSize: 4 })).toMatchObject({ written: 10 })
    })

    it('deadlocks and locks that are held too long are sent again', async () => {
      const { own } = client()
      const { keys, record, table } = await oldRows(client(), 20)
      await own(`create table if not exists heavy (a int)`)
      await withConnection(async (app) => {
        await app.query('set innodb_lock_wait_timeout = 20')
        await app.query('start transaction')
        await app.query('insert into heavy select seq from seq_1_to_500') // the heavier transaction survives
        await app.query(`update ${table.name} set city = 'locked' where id = 15`)
        const job = rewrap({ keys, table, batchSize: 20 })
        await wait(500) // it has rows 1 to 14 by now, and waits for 15
        await app.query(`update ${table.name} set city = 'locked' where id = 3`)
        await app.query('commit')
        expect(await job).toMatchObject({ written: 20, raced: 0, failed: 0 })
        await rotate(keys)
        await app.query('start transaction')
        await app.query(`update ${table.name} set city = 'held' where id = 7`)
        const second = rewrap({ keys, table: client().table(record) })
        await wait(6_000) // longer than the job waits for a lock
        await app.query('commit')
        expect(await second).toMatchObject({ written: 20, failed: 0 })
      })
      const rows = await readStored(client().query, record)
      expect(rows.filter(({ city }) => city === 'locked' || city === 'held').map(({ id }) => id)).toEqual([3, 7, 15])
    })

    it('one connection: waits for a transaction of the application, and is not undone with it', async () => {
      const { keys, record } = await oldRows(client(), 20)
      await withConnection(async (app) => {
        const table = mysqlTable(app, record)
        await table.books.prepare()
        await app.query('start transaction')
        await app.query(`delete from ${table.name} where id > 10`)
        const jobs = [1, 2].map(() => rewrap({ keys, table: mysqlTable(app, record), batchSize: 6, ranges: 2 }))
        await wait(100)
        await app.query('rollback')
        for (const report of await Promise.all(jobs)) expect(report).toMatchObject({ failed: 0, remaining: new Map() })
        expect(await readPlain(client().query, record, keys)).toHaveLength(20)
        await app.query('set autocommit = 0')
        await expect(rewrap({ keys, table: mysqlTable(app, record) })).rejects.toMatchObject({
          code: 'CONFIG',
          argument: 'db',
        })
      })
    })

    it('one connection that stays in a transaction is CONFIG after 5 seconds, for retire too', async () => {
      const { keys, oldId, record } = await oldRows(client(), 2)
      await withConnection(async (app) => {
        await app.query('start transaction')
        await app.query(`delete from ${record.schema.table}`)
        const table = mysqlTable(app, record)
        const refused = retire({ keys, keyId: oldId, tables: [table] })
        await expect(refused).rejects.toMatchObject({ code: 'CONFIG', argument: 'db' })
        await app.query('rollback')
      })
    })

    it('a connection that is cut ends the job with the error of the client, and the next one resumes', async () => {
      const { own } = client()
      const { keys, record } = await oldRows(client(), 12)
      const pool = mysql2Client(url(), { connectionLimit: 1 })
      try {
        const table = pool.table(record)
        const [row] = await (pool.db as mysql.Pool).query<mysql.RowDataPacket[]>('select connection_id() as id')
        const cut: typeof table = {
          ...table,
          async write(...args) {
            await own(`kill ${row[0]!.id}`)
            return table.write(...args)
          },
        }
        await expect(rewrap({ keys, table: cut, batchSize: 5 })).rejects.toThrow()
        expect(await rewrap({ keys, table, batchSize: 5 })).toMatchObject({ written: 12, remaining: new Map() })
      } finally {
        await pool.close()
      }
    })
  })

  describe('the tables of the books', () => {
    it('are made once when many jobs begin at the same time, and serve a user who may not make them', async () => {
      const { own, db } = client()
      for (let round = 0; round < 3; round++) {
        await own('drop table if exists waxseal_job, waxseal_range, waxseal_failure')
        await Promise.all(Array.from({ length: 6 }, () => mysqlTable(db, people()).books.prepare()))
      }
      expect(JOB_TABLES).toHaveLength(3)
      const { keys, record, table } = await oldRows(client(), 3)
      const user = freshName('app')
      await own(`create user ${user}@'127.0.0.1'`)
      for (const each of ['waxseal_job', 'waxseal_range', 'waxseal_failure', table.name]) {
        await own(`grant select, insert, update, delete on waxseal.${each} to ${user}@'127.0.0.1'`)
      }
      const app = mariadbClient(url().replace('root@', `${user}@`))
      try {
        expect(await rewrap({ keys, table: app.table(record), batchSize: 2 })).toMatchObject({
          written: 3,
          failures: [],
        })
      } finally {
        await app.close()
      }
    })

    it('hold ids of 600 characters, and jobs of any number of versions', async () => {
      const { own, query } = client()
      const keys = testKeyring()
      const record = declare(freshName('long'), { id: { id: text() }, fields: { email: text() } })
      await createTable(query, record, ['varchar(700)'])
      const ids = ['x'.repeat(600), `${'x'.repeat(699)}y`, '雪'.repeat(341)]
      await insert(
        query,
        record,
        keys,
        ids.map((id) => ({ id, email: 'e', city: null })),
      )
      const from: string[] = []
      for (let i = 0; i < 30; i++) from.push(await rotate(keys))
      await own(`update ${record.schema.table} set email = 'broken'`)
      const report = await reencrypt({ keys, table: client().table(record), from, batchSize: 3 })
      expect(report.failures.map(({ rowId }) => rowId).toSorted()).toEqual(['x'.repeat(600), '雪'.repeat(341)])
    })
  })

  it('a statement may be larger than a packet: it is sent in parts', async () => {
    const { own, query } = client()
    const keys = testKeyring()
    const record = people()
    await createTable(query, record)
    const note = 'n'.repeat(100_000)
    await insert(
      query,
      record,
      keys,
      Array.from({ length: 30 }, (_, i) => ({ ...person(i + 1), note })),
    )
    // What is read of this row and what is written of it are no packet together.
    await insert(query, record, keys, [{ ...person(31), note: 'n'.repeat(600_000) }])
    await rotate(keys)
    await own('set global max_allowed_packet = 1048576')
    const small = mysql2Client(url())
    try {
      const report = await reencrypt({ keys, table: small.table(record), batchSize: 30 })
      expect(report).toMatchObject({ written: 30, failures: [{ rowId: '31', code: 'LIMIT_EXCEEDED' }] })
    } finally {
      await small.close()
      await own('set global max_allowed_packet = 16777216')
    }
    expect(await readPlain(query, record, keys)).toHaveLength(31)
  })

  it.each([undefined, null, {}, { query() {} }, { execute() {} }])('%j is no client', (db) => {
    expect(() => mysqlTable(db as unknown as Mysql, people())).toThrow(expect.objectContaining({ argument: 'db' }))
  })

  it('a server that is read-only, as replicas are, proves nothing', async () => {
    const { keys, oldId, table } = await oldRows(client(), 3)
    await rewrap({ keys, table })
    const { own } = client()
    await own('set global read_only = 1')
    try {
      const refused = {
        code: 'CONFIG',
        table: table.name,
        argument: 'db',
        message: expect.stringContaining('read-only'),
      }
      await expect(retire({ keys, keyId: oldId, tables: [table] })).rejects.toMatchObject(refused)
      await expect(proveEncrypted(table)).rejects.toMatchObject(refused)
    } finally {
      await own('set global read_only = 0')
    }
    await retire({ keys, keyId: oldId, tables: [table] })
  })

  it('a client of callbacks is refused', async () => {
    const refused = expect.objectContaining({ code: 'CONFIG', argument: 'db' })
    const pool = createCallbackPool(url())
    const connection = createCallbackConnection(url())
    const other = createMariadbCallbackConnection(url().replace('mysql:', 'mariadb:'))
    for (const each of [connection, other]) each.on('error', () => undefined)
    try {
      // Asked for a connection without a callback, the first one would end the process.
      for (const db of [pool, connection]) {
        expect(() => mysqlTable(db as unknown as Mysql, people())).toThrow(refused)
      }
      const keys = testKeyring()
      const job = rewrap({ keys, table: mysqlTable(other as unknown as Mysql, people()) })
      await expect(job).rejects.toThrow(refused)
    } finally {
      pool.end()
      connection.destroy()
      other.destroy()
    }
  })
}
