import mysql, { type Connection, type ConnectionOptions, type Pool } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keyStoreSchema, type Mysql, mysqlKeyStore } from 'waxseal/keystore/mysql'
import { keyStoreSuite } from 'waxseal/testing'
import { refusal } from '../keyring/support.ts'
import { type MariadbServer, mariadbMissing, startMariadb } from '../support/mariadb.ts'
import { missing } from '../support/missing.ts'
import { sqlOf } from '../support/snippets.ts'
import { document } from './document.ts'
import { EDITS } from './edits.ts'

/** Ways of connecting that change what a client sends or is told, and statements for each new connection. */
const WAYS: Record<string, { options?: ConnectionOptions; session?: string[] }> = {
  'as it comes': {},
  'without CLIENT_FOUND_ROWS': { options: { flags: ['-FOUND_ROWS'] } },
  'in latin1': { options: { charset: 'latin1' } },
  'with big numbers as text': { options: { supportBigNumbers: true, bigNumberStrings: true, dateStrings: true } },
  'with a lax sql_mode': { session: ["set sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'"] },
  'under READ COMMITTED': { session: ['set session transaction isolation level read committed'] },
  'under SERIALIZABLE': { session: ['set session transaction isolation level serializable'] },
}

describe.skipIf(missing('key store on a real MariaDB', mariadbMissing()))('a real MariaDB', () => {
  let server: MariadbServer
  let pool: Pool
  const pools = new Map<string, Pool>()
  let count = 0

  beforeAll(async () => {
    server = await startMariadb()
    for (const [name, { options, session = [] }] of Object.entries(WAYS)) {
      const made = mysql.createPool({ uri: server.url, connectionLimit: 6, ...options })
      made.pool.on('connection', (connection) => {
        for (const statement of session) connection.query(statement)
      })
      pools.set(name, made)
    }
    pool = pools.get('as it comes')!
  })
  afterAll(async () => {
    await Promise.all([...pools.values()].map((each) => each.end()))
    await server?.stop()
  })

  for (const name of Object.keys(WAYS)) {
    keyStoreSuite(
      { describe, it, expect },
      {
        name: `MariaDB ${name}`,
        make: async () => {
          const table = `Keys$${count++}`
          await pool.query(keyStoreSchema({ table }))
          return () => mysqlKeyStore(pools.get(name)!, { table })
        },
      },
    )
  }

  /** A table with one keyring at epoch 1. */
  async function made(db: Mysql = pool) {
    const table = `keys_${count++}`
    await pool.query(keyStoreSchema({ table }))
    const store = mysqlKeyStore(db, { table })
    await mysqlKeyStore(pool, { table }).save('crm', document(1), null)
    return { table, store }
  }

  async function withConnection<T>(work: (own: Connection) => Promise<T>, options: ConnectionOptions = {}): Promise<T> {
    const own = await mysql.createConnection({ uri: server.url, ...options })
    try {
      return await work(own)
    } finally {
      own.destroy()
    }
  }

  it('keeps one row a keyring, in ASCII', async () => {
    const { table, store } = await made()
    await store.save('crm', document(2, 'ключ'), 1)
    const [rows] = await pool.query(
      `select name, epoch, document, written_at > now() - interval 1 minute as fresh from ${table}`,
    )
    expect(rows).toMatchObject([{ name: 'crm', epoch: 2, fresh: 1, document: expect.stringMatching(/^[\x20-\x7e]+$/) }])
  })

  it('compares names byte by byte in a database that does not', async () => {
    await pool.query('create database careless character set utf8mb4 collate utf8mb4_general_ci')
    await pool.query(keyStoreSchema({ table: 'careless.waxseal_keyring' }))
    const store = mysqlKeyStore(pool, { table: 'careless.waxseal_keyring' })
    for (const name of ['crm', 'CRM', 'Crm']) await store.save(name, document(1, name), null)
    for (const name of ['crm', 'CRM', 'Crm']) expect((await store.load(name))?.manifest).toBe(name)
  })

  it('may run its statement again, and loses nothing', async () => {
    const { table, store } = await made()
    await pool.query(keyStoreSchema({ table }))
    expect(await store.load('crm')).toEqual(document(1))
  })

  it.each([
    ['without a table', 'no_keys', ''],
    ['without a database', 'no_database.no_keys', ''],
    ['with another table of that name', 'other_keys', '(name varchar(64), epoch bigint)'],
  ])('%s is CONFIG', async (_, table, columns) => {
    if (columns) await pool.query(`create table ${table} ${columns}`)
    const store = mysqlKeyStore(pool, { table })
    for (const work of [() => store.load('crm'), () => store.save('crm', document(1), null)]) {
      expect(await refusal(work)).toMatchObject({ code: 'CONFIG', argument: 'table' })
    }
  })

  it('a table whose key was dropped, with two rows of one name, is MALFORMED', async () => {
    const { table, store } = await made()
    await pool.query(`alter table ${table} drop primary key`)
    await pool.query(`insert into ${table} select * from ${table}`)
    expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'MALFORMED' })
  })

  it.each(Object.entries(EDITS))('a row with %s is MALFORMED, and is replaced by nobody', async (_, change) => {
    const { table, store } = await made()
    await store.save('hr', document(1), null)
    await pool.query(`update ${table} set ${change} where name = 'crm'`)
    expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'MALFORMED' })
    expect(await refusal(() => store.save('crm', document(2), null))).toMatchObject({ code: 'CONFLICT' })
    expect(await store.load('hr')).toEqual(document(1))
  })

  describe('a connection in a transaction', () => {
    it.each(['start transaction', 'set autocommit = 0'])('after %s is CONFIG for saving', async (statement) => {
      const { table, store } = await made()
      await withConnection(async (own) => {
        const inside = mysqlKeyStore(own, { table })
        await own.query(statement)
        for (const work of [() => inside.save('crm', document(2), 1), () => inside.save('hr', document(1), null)]) {
          expect(await refusal(work)).toMatchObject({ code: 'CONFIG', argument: 'db' })
        }
        await own.query('rollback')
        await own.query('set autocommit = 1')
        expect(await inside.load('crm')).toEqual(document(1))
        await inside.save('crm', document(2), 1)
      })
      expect(await store.load('crm')).toEqual(document(2))
    })

    it('reads an old state, and cannot save on it', async () => {
      const { table, store } = await made()
      await withConnection(async (own) => {
        await own.query('start transaction')
        const stale = mysqlKeyStore(own, { table })
        expect((await stale.load('crm'))?.epoch).toBe(1)
        await store.save('crm', document(2), 1)
        expect((await stale.load('crm'))?.epoch).toBe(1)
        expect(await refusal(() => stale.save('crm', document(2, 'stale'), 1))).toMatchObject({ code: 'CONFLICT' })
        await own.query('rollback')
      })
      expect(await store.load('crm')).toEqual(document(2))
    })
  })

  describe('a row that somebody is changing', () => {
    it('is CONFLICT once that was committed', async () => {
      const { table, store } = await made()
      await withConnection(async (own) => {
        await own.query('start transaction')
        await own.query(`update ${table} set epoch = 2, document = replace(document, '"epoch":1', '"epoch":2')`)
        const told = store.save('crm', document(2, 'second'), 1).then(
          () => 'saved',
          (error) => error.code,
        )
        await new Promise((done) => setTimeout(done, 100))
        await own.query('commit')
        expect(await told).toBe('CONFLICT')
      })
      expect((await store.load('crm'))?.epoch).toBe(2)
    })

    it('for longer than innodb_lock_wait_timeout is KMS_UNAVAILABLE, retryable, and nothing was changed', async () => {
      const { table, store } = await made()
      await withConnection(async (own) => {
        await own.query('start transaction')
        await own.query(`select 1 from ${table} for update`)
        await withConnection(async (other) => {
          await other.query('set innodb_lock_wait_timeout = 1')
          const held = mysqlKeyStore(other, { table })
          expect(await held.load('crm')).toEqual(document(1)) // reading does not wait
          const error = await refusal(() => held.save('crm', document(2), 1))
          expect(error).toMatchObject({
            code: 'KMS_UNAVAILABLE',
            retryable: true,
            cause: { code: 'ER_LOCK_WAIT_TIMEOUT' },
          })
        })
      })
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('in a deadlock is CONFLICT, and nothing was changed', async () => {
      const { table, store } = await made()
      await store.save('hr', document(1), null)
      await withConnection(async (own) =>
        withConnection(async (other) => {
          await own.query('start transaction')
          await other.query('start transaction')
          // The heavier transaction survives.
          await own.query(`create temporary table heavy (a int)`)
          await own.query(
            `insert into ${table} (name, epoch, document) select concat('x', seq), 1, '' from seq_1_to_500`,
          )
          await own.query(`update ${table} set epoch = epoch where name = 'crm'`)
          await other.query(`update ${table} set epoch = epoch where name = 'hr'`)
          const waiting = own.query(`update ${table} set epoch = epoch where name = 'hr'`)
          await new Promise((done) => setTimeout(done, 100))
          const inside = mysqlKeyStore(other, { table })
          expect(await refusal(() => inside.save('crm', document(2), 1))).toMatchObject({ code: 'CONFLICT' })
          await waiting
          await own.query('rollback')
        }),
      )
      expect(await store.load('crm')).toEqual(document(1))
    })
  })

  it('a keyring over max_allowed_packet is LIMIT_EXCEEDED, and nothing was changed', async () => {
    const { table, store } = await made()
    await pool.query('set global max_allowed_packet = 65536')
    try {
      const code = await withConnection(
        async (own) =>
          (await refusal(() => mysqlKeyStore(own, { table }).save('crm', document(2, 'x'.repeat(200_000)), 1))).code,
      )
      expect(code).toBe('LIMIT_EXCEEDED')
    } finally {
      await pool.query('set global max_allowed_packet = 16777216')
    }
    expect(await store.load('crm')).toEqual(document(1))
  })

  it('a row over 64 MiB is MALFORMED without being read', async () => {
    await pool.query('set global max_allowed_packet = 134217728')
    try {
      const { table, store } = await made()
      await withConnection((own) => own.query(`update ${table} set document = repeat('x', (64 << 20) + 1)`))
      const error = await refusal(() => store.load('crm'))
      expect(error).toMatchObject({ code: 'MALFORMED', message: expect.stringContaining('over 64 MiB') })
    } finally {
      await pool.query('set global max_allowed_packet = 16777216')
    }
  })

  it('users that may only read open keyrings, and are KMS_DENIED for saving; others are KMS_DENIED', async () => {
    const { table } = await made()
    for (const user of ['reader', 'rotator', 'stranger']) await pool.query(`create user ${user}@'127.0.0.1'`)
    await pool.query(`grant select on waxseal.${table} to reader@'127.0.0.1'`)
    await pool.query(`grant select, insert, update on waxseal.${table} to rotator@'127.0.0.1'`)
    await withConnection(
      async (own) => {
        const store = mysqlKeyStore(own, { table })
        expect(await store.load('crm')).toEqual(document(1))
        expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'KMS_DENIED' })
        expect(await refusal(() => store.save('hr', document(1), null))).toMatchObject({ code: 'KMS_DENIED' })
      },
      { user: 'reader' },
    )
    await withConnection(
      async (own) => {
        const store = mysqlKeyStore(own, { table })
        await store.save('crm', document(2), 1)
        await store.save('hr', document(1), null)
      },
      { user: 'rotator' },
    )
    await withConnection(
      async (own) => {
        const store = mysqlKeyStore(own, { table: `waxseal.${table}` })
        expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'KMS_DENIED', retryable: false })
      },
      { user: 'stranger', database: 'information_schema' },
    )
    const wrong = mysql.createPool({ uri: server.url, user: 'reader', password: 'wrong' })
    expect(await refusal(() => mysqlKeyStore(wrong, { table }).load('crm'))).toMatchObject({ code: 'KMS_DENIED' })
    await wrong.end()
  })

  it('does what the page says: the table, the grants', async () => {
    const [schema, grants] = sqlOf('docs/guides/keystores/mysql.md')
    expect(schema).toBe(keyStoreSchema())
    await pool.query(schema!)
    for (const user of ['app', 'key_admin']) await pool.query(`create user ${user}@'127.0.0.1'`)
    await withConnection((own) => own.query(grants!), { multipleStatements: true })
    await withConnection(
      async (own) => {
        await mysqlKeyStore(own).save('crm', document(1), null)
        await mysqlKeyStore(own).save('crm', document(2), 1)
        await expect(own.query('delete from waxseal_keyring')).rejects.toMatchObject({ errno: 1142 })
      },
      { user: 'key_admin' },
    )
    await withConnection(
      async (own) => {
        expect((await mysqlKeyStore(own).load('crm'))?.epoch).toBe(2)
        expect(await refusal(() => mysqlKeyStore(own).save('crm', document(3), 2))).toMatchObject({
          code: 'KMS_DENIED',
        })
      },
      { user: 'app' },
    )
  })

  it('a connection that is cut is KMS_UNAVAILABLE, with a reduced cause', async () => {
    const { table } = await made()
    const own = await mysql.createConnection(server.url)
    own.on('error', () => {})
    const store = mysqlKeyStore(own, { table })
    await pool.query(`kill ${own.threadId}`)
    for (const work of [() => store.load('crm'), () => store.save('crm', document(2), 1)]) {
      const error = await refusal(work)
      expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect(Object.keys(error.cause as object)).not.toContain('sql')
    }
    own.destroy()
  })
})

describe('what is no client, or no table', () => {
  it.each([undefined, null, {}, { query() {} }])('%j is CONFIG at once', async (db) => {
    expect(await refusal(() => mysqlKeyStore(db as unknown as Mysql))).toMatchObject({ code: 'CONFIG', argument: 'db' })
  })

  it.each(['', 'a.b.c', 'a`b', 'a b', '1a', 'ä', 'x'.repeat(64), 5, null])('table %j is CONFIG', async (table) => {
    const options = { table: table as string }
    const db: Mysql = { execute: async () => [[]] }
    expect(await refusal(() => keyStoreSchema(options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
    expect(await refusal(() => mysqlKeyStore(db, options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
  })
})
