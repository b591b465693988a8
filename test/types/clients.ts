import type { PGlite, Transaction } from '@electric-sql/pglite'
import { text as column, integer, jsonb, pgTable, timestamp } from 'drizzle-orm/pg-core'
import type {
  Connection as ConnectionOfMariadb,
  PoolConnection as PooledOfMariadb,
  Pool as PoolOfMariadb,
} from 'mariadb'
import type { Connection, PoolConnection, Pool as PoolOfMysql } from 'mysql2/promise'
import type { Client, Pool, PoolClient } from 'pg'
import type postgres from 'postgres'
import { cell, date, int, type Keys, object, records, text } from 'waxseal'
import { type Mysql, mysqlKeyStore } from 'waxseal/keystore/mysql'
import { postgresKeyStore } from 'waxseal/keystore/postgres'
import { type Postgres, reserveIds } from 'waxseal/postgres'
import type { Mysql as MysqlForJobs } from 'waxseal/rotation/mysql'
import { postgresTable } from 'waxseal/rotation/postgres'
import { exactly } from './expect.ts'

/** Compiled by types.test.ts, never run: the clients that applications have fit as they are. */
declare const keys: Keys
declare const pglite: PGlite
declare const transaction: Transaction
declare const pool: Pool
declare const client: Client
declare const poolClient: PoolClient
declare const sql: postgres.Sql
declare const custom: postgres.Sql<{ bigint: bigint }>
declare const inTransaction: postgres.TransactionSql

export const all: Postgres[] = [pglite, transaction, pool, client, poolClient, sql, custom, inTransaction]
// @ts-expect-error not a client
export const none: Postgres = { run: () => undefined }

export const stores = all.map((db) => postgresKeyStore(db, { table: 'app.keys' }))

declare const poolOfMysql: PoolOfMysql
declare const connection: Connection
declare const poolConnection: PoolConnection
export const allOfMysql: Mysql[] = [poolOfMysql, connection, poolConnection]
export const storesInMysql = allOfMysql.map((db) => mysqlKeyStore(db))
declare const poolOfMariadb: PoolOfMariadb
declare const ofMariadb: ConnectionOfMariadb
declare const pooledOfMariadb: PooledOfMariadb
export const forJobs: MysqlForJobs[] = [
  ...[poolOfMysql, connection, poolConnection],
  poolOfMariadb,
  ofMariadb,
  pooledOfMariadb,
]
// @ts-expect-error the client of callbacks
export const callbacksForJobs: MysqlForJobs = poolOfMysql.pool
// @ts-expect-error the client of callbacks
export const callbacks: Mysql = poolOfMysql.pool
// @ts-expect-error not a client
export const noneOfMysql: Mysql = pool

const people = pgTable('people', {
  id: integer('id').primaryKey(),
  email: column('email').notNull(),
  note: column('note'),
  born: timestamp('born'),
  bornSealed: column('born_sealed').notNull(),
  contact: jsonb('contact').$type<{ phone: string; preferred: string }>().notNull(),
  envelope: column('envelope').notNull(),
})
const orders = pgTable('orders', { id: integer('id').primaryKey() })

const person = records('people', {
  id: { id: int() },
  fields: {
    email: text(),
    note: text({ nullable: 'sql' }),
    born: date({ into: 'bornSealed', column: 'born_sealed' }),
    contact: object({ phone: text() }),
  },
})

// What encrypt gives, Drizzle inserts; what Drizzle selects, decrypt takes.
export const inserted: typeof people.$inferInsert = person.encrypt(keys, {
  id: 1,
  email: 'a',
  note: null,
  born: new Date(),
  contact: { phone: '1', preferred: 'mail' },
})
declare const selected: typeof people.$inferSelect
const opened = person.decrypt(keys, selected)
exactly<string>().is(opened.email)
exactly<string | null>().is(opened.note)
exactly<Date>().is(opened.born)
exactly<string>().is(opened.contact.phone)
exactly<string>().is(opened.contact.preferred)

declare const joined: { orders: typeof orders.$inferSelect; people: typeof people.$inferSelect | null }
exactly<string | null>().is(joined.people && person.decrypt(keys, joined.people).email)

export const updated: Partial<typeof people.$inferInsert> = person.patch(keys, selected, {
  email: 'b',
  born: new Date(),
}).set

export const table = postgresTable(sql, person)
export const ids: Promise<bigint[]> = reserveIds(pool, 'people_id_seq', 1)

// ── Cells ────────────────────────────────────────────────────────────────────────────────────────────────────────
const note = cell('people', 'note', { type: text({ nullable: true }), bind: { id: int() } })
const loose = cell('people', 'note', { type: date(), bind: 'column' })
exactly<string | null>().is(note.decrypt(keys, 'wxc:', { id: 1 }))
exactly<Date>().is(loose.decrypt(keys, 'wxc:'))
exactly<string>().is(note.encrypt(keys, null, { id: 1n }))
// @ts-expect-error the context is missing
note.encrypt(keys, 'x')
// @ts-expect-error an id of another name
note.decrypt(keys, 'wxc:', { no: 1 })
// @ts-expect-error no context was declared
loose.decrypt(keys, 'wxc:', { id: 1 })
// @ts-expect-error a wrong value
loose.encrypt(keys, '1970-01-01')
// @ts-expect-error what the cell is bound to has to be said
cell('people', 'note', { type: text() })
