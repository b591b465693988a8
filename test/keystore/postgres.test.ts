import type { PGlite } from '@electric-sql/pglite'
import pg from 'pg'
import type postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keyStoreSchema, type Postgres, postgresKeyStore } from 'waxseal/keystore/postgres'
import { refusal } from '../keyring/support.ts'
import { type PostgresClient, pgClient, pgliteClient, postgresJsClient } from '../rotation/clients.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { sqlOf } from '../support/snippets.ts'
import { document } from './document.ts'
import { postgresSuite, refusesIn, suiteOn } from './postgres-suite.ts'

describe('PGlite', () => {
  let client: PostgresClient
  beforeAll(() => {
    client = pgliteClient()
  })
  afterAll(() => client.close())
  suiteOn('PGlite', () => client)
  postgresSuite(() => client)

  it('in a transaction is CONFIG', async () => {
    await client.query(keyStoreSchema())
    await postgresKeyStore(client.db).save('crm', document(1), null)
    await (client.db as unknown as PGlite).transaction(async (transaction) => {
      await refusesIn(transaction, 'waxseal_keyring')
      await transaction.rollback()
    })
    expect(await postgresKeyStore(client.db).load('crm')).toEqual(document(1))
  })
})

describe.skipIf(missing('key store on a real PostgreSQL', postgresMissing()))('a real PostgreSQL', () => {
  let server: PostgresServer
  const clients = new Map<string, PostgresClient>()
  const client = (name: string) => () => clients.get(name)!
  const urlWith = (settings: string) => `${server.url}?options=${encodeURIComponent(settings)}`
  const ISOLATION = '-c default_transaction_isolation='

  beforeAll(async () => {
    server = await startPostgres()
    clients.set('pg', pgClient(server.url))
    clients.set('postgres.js', postgresJsClient(server.url))
    clients.set('repeatable', pgClient(urlWith(`${ISOLATION}repeatable\\ read`)))
    clients.set('serializable', pgClient(urlWith(`${ISOLATION}serializable`)))
    const { query } = client('pg')()
    await query('create schema "App"')
    await query(`create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`)
    clients.set('latin', pgClient(server.url.replace(/postgres$/, 'latin')))
  })
  afterAll(async () => {
    await Promise.all([...clients.values()].map((each) => each.close()))
    server?.stop()
  })

  describe.each(['pg', 'postgres.js'])('with %s', (name) => {
    suiteOn(`PostgreSQL with ${name}`, client(name))
    postgresSuite(client(name))
  })
  suiteOn('PostgreSQL, in a schema,', client('pg'), 'App')
  suiteOn('PostgreSQL under REPEATABLE READ', client('repeatable'))
  suiteOn('PostgreSQL under SERIALIZABLE', client('serializable'))
  suiteOn('PostgreSQL in LATIN1', client('latin'))

  /** A table with one keyring at epoch 1. */
  async function made(table: string) {
    const { db, query } = client('pg')()
    await query(keyStoreSchema({ table }))
    const store = postgresKeyStore(db, { table })
    await store.save('crm', document(1), null)
    return { query, store }
  }

  async function withClient<T>(work: (own: pg.Client) => Promise<T>, url = server.url): Promise<T> {
    const own = new pg.Client(url)
    await own.connect()
    try {
      return await work(own)
    } finally {
      await own.end()
    }
  }

  describe('a client in a transaction', () => {
    it('of pg is CONFIG for saving, and what it wrote goes with the transaction', async () => {
      const { store } = await made('tx_pg')
      await withClient(async (own) => {
        await own.query('begin')
        await refusesIn(own, 'tx_pg')
        await own.query('rollback')
        expect(await postgresKeyStore(own, { table: 'tx_pg' }).load('crm')).toEqual(document(1))
        await postgresKeyStore(own, { table: 'tx_pg' }).save('crm', document(2), 1)
      })
      expect(await store.load('crm')).toEqual(document(2))
    })

    it('of postgres.js is CONFIG for saving', async () => {
      const { store } = await made('tx_js')
      const sql = clients.get('postgres.js')!.db as unknown as postgres.Sql
      const undone = new Error('undone')
      const work = sql.begin(async (transaction) => {
        await refusesIn(transaction as unknown as Postgres, 'tx_js')
        throw undone
      })
      await expect(work).rejects.toBe(undone)
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('reads an old state, and cannot save on it', async () => {
      const { store } = await made('stale')
      await withClient(async (own) => {
        await own.query('begin isolation level repeatable read')
        const stale = postgresKeyStore(own, { table: 'stale' })
        expect((await stale.load('crm'))?.epoch).toBe(1)
        await store.save('crm', document(2), 1)
        expect((await stale.load('crm'))?.epoch).toBe(1)
        expect(await refusal(() => store.save('crm', document(2, 'stale'), 1))).toMatchObject({ code: 'CONFLICT' })
        expect(await refusal(() => stale.save('crm', document(2, 'stale'), 1))).toMatchObject({ code: 'CONFLICT' })
        await own.query('rollback')
      })
      expect(await store.load('crm')).toEqual(document(2))
    })
  })

  describe('a row that somebody is changing', () => {
    /** Another changes the row and commits 200 ms later; resolves to what a save that met it came to. */
    async function meets(isolation: string): Promise<unknown> {
      const table = `meets_${isolation}`
      const { query, store } = await made(table)
      await withClient(async (own) => {
        await own.query('begin')
        await postgresKeyStore(own, { table })
          .save('crm', document(2, 'first'), 1)
          .catch(() => {})
        const saving = postgresKeyStore(client(isolation)().db, { table }).save('crm', document(2, 'second'), 1)
        const told = saving.then(
          () => 'saved',
          (error) => error.code,
        )
        const waiting = async () =>
          (await query(`select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%${table}%'`))
            .length
        while ((await waiting()) === 0) await new Promise((done) => setTimeout(done, 20))
        await own.query('commit')
        expect(await told).toBe('CONFLICT')
      })
      return (await store.load('crm'))?.manifest
    }

    it.each(['pg', 'repeatable', 'serializable'])('is CONFLICT with %s, once that was committed', async (isolation) => {
      expect(await meets(isolation)).toBe('first')
    })

    it('for longer than lock_timeout is KMS_UNAVAILABLE, retryable, and nothing was changed', async () => {
      const { store } = await made('held')
      await withClient(async (own) => {
        await own.query('begin')
        await own.query('select 1 from held for update')
        const slow = async (other: pg.Client) => {
          const held = postgresKeyStore(other, { table: 'held' })
          expect(await held.load('crm')).toEqual(document(1)) // reading does not wait
          const error = await refusal(() => held.save('crm', document(2), 1))
          expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true, cause: { code: '55P03' } })
        }
        await withClient(slow, urlWith('-c lock_timeout=100'))
        await own.query('rollback')
      })
      expect(await store.load('crm')).toEqual(document(1))
    })
  })

  it('holds no lock once it has answered', async () => {
    const { query, store } = await made('locks')
    await store.save('crm', document(2), 1)
    await refusal(() => store.save('crm', document(2), 1))
    const locks = await query(`select mode from pg_locks where relation = 'locks'::regclass`)
    expect(locks).toEqual([])
  })

  describe('roles', () => {
    it('that may only read open keyrings, and are KMS_DENIED for saving', async () => {
      const { query } = await made('app_keys')
      await query('create role reader login')
      await query('create role rotator login')
      await query('grant select on app_keys to reader')
      await query('grant select, insert, update on app_keys to rotator')
      await withClient(
        async (own) => {
          const store = postgresKeyStore(own, { table: 'app_keys' })
          expect(await store.load('crm')).toEqual(document(1))
          expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'KMS_DENIED' })
          expect(await refusal(() => store.save('hr', document(1), null))).toMatchObject({ code: 'KMS_DENIED' })
        },
        server.url.replace('postgres@', 'reader@'),
      )
      await withClient(
        async (own) => {
          const store = postgresKeyStore(own, { table: 'app_keys' })
          await store.save('crm', document(2), 1)
          await store.save('hr', document(1), null)
          expect((await store.load('crm'))?.epoch).toBe(2)
          expect(await refusal(() => store.save('hr', document(1), null))).toMatchObject({ code: 'CONFLICT' })
        },
        server.url.replace('postgres@', 'rotator@'),
      )
    })

    it('that may not read are KMS_DENIED', async () => {
      const { query } = await made('secret_keys')
      await query('create role nobody_here login')
      await withClient(
        async (own) => {
          const store = postgresKeyStore(own, { table: 'secret_keys' })
          expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'KMS_DENIED', retryable: false })
        },
        server.url.replace('postgres@', 'nobody_here@'),
      )
    })
  })

  it('does what the page says: the table, the grants, the query', async () => {
    const [schema, grants, query] = sqlOf('docs/guides/keystores/postgres.md')
    expect(schema).toBe(keyStoreSchema())
    await client('pg')().query('create database page')
    const url = server.url.replace(/postgres$/, 'page')
    await withClient(async (own) => {
      await own.query(schema!)
      await own.query(grants!)
      await postgresKeyStore(own).save('crm', document(1, '{"versions":[]}'), null)
      expect((await own.query(query!)).rows).toMatchObject([{ name: 'crm', versions: [] }])
    }, url)
    await withClient(
      async (own) => {
        expect((await postgresKeyStore(own).load('crm'))?.epoch).toBe(1)
        expect(await refusal(() => postgresKeyStore(own).save('crm', document(2), 1))).toMatchObject({
          code: 'KMS_DENIED',
        })
        await expect(own.query('delete from waxseal_keyring')).rejects.toMatchObject({ code: '42501' })
      },
      url.replace('postgres@', 'app@'),
    )
    await withClient(
      async (own) => {
        await postgresKeyStore(own).save('crm', document(2), 1)
        await postgresKeyStore(own).save('hr', document(1), null)
        await expect(own.query('delete from waxseal_keyring')).rejects.toMatchObject({ code: '42501' })
      },
      url.replace('postgres@', 'key_admin@'),
    )
  })

  it('a connection that is cut is KMS_UNAVAILABLE, with a reduced cause', async () => {
    const { query } = await made('cut')
    const own = new pg.Client(server.url)
    own.on('error', () => {})
    await own.connect()
    const store = postgresKeyStore(own, { table: 'cut' })
    const [row] = (await own.query('select pg_backend_pid() as pid')).rows
    await query('select pg_terminate_backend($1::int)', [row.pid])
    for (const work of [() => store.load('crm'), () => store.save('crm', document(2), 1)]) {
      const error = await refusal(work)
      expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect(Object.keys(error.cause as object).sort()).toEqual(expect.arrayContaining(['message', 'name']))
    }
  })

  it('a server that accepts no writes, such as a replica, reads, and is KMS_UNAVAILABLE for saving', async () => {
    await made('replica')
    await withClient(async (own) => {
      const store = postgresKeyStore(own, { table: 'replica' })
      expect(await store.load('crm')).toEqual(document(1))
      expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    }, urlWith('-c default_transaction_read_only=on'))
  })
})

describe('what is no client, or no table', () => {
  it.each([undefined, null, {}, 'postgres://'])('%j is CONFIG at once', async (db) => {
    expect(await refusal(() => postgresKeyStore(db as Postgres))).toMatchObject({ code: 'CONFIG', argument: 'db' })
  })

  it.each(['', 'a.b.c', '.a', 'a.', 'a"b', 'a b', 'a;b', '1a', 'ä', 'x'.repeat(64), 5, null, {}])(
    'table %j is CONFIG',
    async (table) => {
      const options = { table: table as string }
      const db = { query: async () => [] }
      expect(await refusal(() => keyStoreSchema(options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
      expect(await refusal(() => postgresKeyStore(db, options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
    },
  )
})
