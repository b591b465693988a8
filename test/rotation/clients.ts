import { PGlite } from '@electric-sql/pglite'
import mariadb, { type PoolConfig } from 'mariadb'
import mysql, { type PoolOptions } from 'mysql2/promise'
import pg from 'pg'
import postgres from 'postgres'
import { type Postgres, type Query, queryOf } from '../../src/postgres.ts'
import type { RotationSource } from '../../src/rotation/index.ts'
import { type Mysql, mysqlTable } from '../../src/rotation/sources/mysql.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { type Sqlite, sqliteTable } from '../../src/rotation/sources/sqlite.ts'
import type { TableOptions } from '../../src/rotation/table.ts'
import type { AnyRecords } from './tables.ts'

/** One way to reach a database. Every suite of this folder takes one and runs with each. */
export interface Client {
  readonly name: string
  /** In the words of PostgreSQL. */
  readonly query: Query
  table(record: AnyRecords, options?: TableOptions): RotationSource
  /** A statement that finds the table of a name, and the words that make a schema. */
  readonly findTable: string
  readonly makeSchema: string
  close(): Promise<void>
}

export interface PostgresClient extends Client {
  readonly db: Postgres
}

const postgresClient = (name: string, db: Postgres, close: () => Promise<void>): PostgresClient => ({
  name,
  db,
  query: queryOf(db),
  table: (record, options) => postgresTable(db, record, options),
  findTable: 'select 1 from pg_class where relname = $1',
  makeSchema: 'create schema',
  close,
})

export function pgliteClient(): PostgresClient {
  const db = new PGlite()
  return postgresClient('PGlite', db, () => db.close())
}

export function pgClient(url: string): PostgresClient {
  const db = new pg.Pool({ connectionString: url, max: 6 })
  db.on('error', () => {}) // the server is stopped before idle connections are
  return postgresClient('pg', db, () => db.end())
}

export function postgresJsClient(url: string): PostgresClient {
  const db = postgres(url, { max: 6, onnotice: () => {} })
  return postgresClient('postgres.js', db, () => db.end({ timeout: 1 }))
}

export type SqliteDatabase = Sqlite & { close(): void }
type Statement = { safeIntegers?(on: boolean): void; setReadBigInts?(on: boolean): void }

/** `db` is what the jobs have, `own` another connection to the same file, for the test itself. */
export function sqliteClient(name: string, db: SqliteDatabase, own: SqliteDatabase): Client & { db: SqliteDatabase } {
  const query: Query = async <T>(text: string, params: readonly unknown[] = []) => {
    const values: unknown[] = []
    const statement = own.prepare(inSqlite(text, (n) => values.push(params[n - 1])))
    if (!/^\s*select|\breturning\b/.test(text)) {
      statement.run(...(values as string[]))
      return []
    }
    const exact = statement as Statement
    exact.safeIntegers?.(true)
    exact.setReadBigInts?.(true)
    const rows = statement.all(...(values as string[])) as Record<string, unknown>[]
    return rows.map((row) => Object.fromEntries(Object.entries(row).map(([key, v]) => [key, numberOf(v)])) as T)
  }
  return {
    name,
    db,
    query,
    table: (record, options) => sqliteTable(db, record, options),
    findTable: 'select 1 from sqlite_master where name = $1',
    makeSchema: `attach ':memory:' as`,
    async close() {
      db.close()
      if (own !== db) own.close()
    },
  }
}

const numberOf = (value: unknown): unknown =>
  typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value

/** Numbered parameters in the order in which they stand, no casts, and the schema before the index, not the table. */
function inSqlite(text: string, place: (n: number) => unknown): string {
  return text
    .replace(/^create index ("(?:[^"]|"")*") on ("(?:[^"]|"")*"\.)/, 'create index $2$1 on ')
    .replace(/"(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\d+)|::\w+/g, (all, n) => {
      if (n !== undefined) place(Number(n))
      return n !== undefined ? '?' : all.startsWith('::') ? '' : all
    })
}

export interface MysqlClient extends Client {
  readonly db: Mysql
  /** A statement in the words of MySQL. */
  own<T = Record<string, unknown>>(sql: string, values?: readonly unknown[]): Promise<readonly T[]>
}

/** Jobs go through `db`, tests through a pool of their own that loses no digit. */
function mysqlClient(name: string, url: string, db: Mysql, close: () => Promise<void>): MysqlClient {
  const pool = mysql.createPool({ uri: url, supportBigNumbers: true, connectionLimit: 6 })
  const own = async <T>(sql: string, values: readonly unknown[] = []) => {
    const [answer] = await pool.execute(sql, values.map(inNode) as never[])
    // As many rows as were changed, for whoever counts what RETURNING returns.
    return (Array.isArray(answer) ? answer : Array(answer.affectedRows).fill({})) as readonly T[]
  }
  return {
    name,
    db,
    own,
    query: (text, params = []) => {
      const values: unknown[] = []
      return own(
        inMysql(text, (n) => values.push(params[n - 1])),
        values,
      )
    },
    table: (record, options) => mysqlTable(db, record, options),
    findTable: 'select 1 from information_schema.tables where table_name = $1',
    makeSchema: 'create database',
    async close() {
      await Promise.all([pool.end(), close()])
    },
  }
}

export function mysql2Client(url: string, options: PoolOptions = {}): MysqlClient {
  const db = mysql.createPool({ uri: url, connectionLimit: 6, ...options })
  return mysqlClient('mysql2', url, db, () => db.end())
}

export function mariadbClient(url: string, options: PoolConfig = {}): MysqlClient {
  const { hostname: host, port, username: user, pathname } = new URL(url)
  const database = decodeURIComponent(pathname.slice(1))
  const db = mariadb.createPool({ host, port: Number(port), user, database, connectionLimit: 6, ...options })
  return mysqlClient('mariadb', url, db, () => db.end())
}

const inNode = (value: unknown): unknown =>
  value instanceof Uint8Array ? Buffer.from(value) : typeof value === 'bigint' ? String(value) : (value ?? null)

/** A statement in the words of PostgreSQL, in those of MySQL. */
function inMysql(text: string, place: (n: number) => unknown): string {
  const index =
    /^create index "(?:[^"]|"")*" on ((?:"(?:[^"]|"")*"\.?)+) \(\(substr\(("(?:[^"]|"")*"), (\d+), (\d+)\)\)\)$/.exec(
      text,
    )
  const [, table, column, from, length] = index ?? []
  const statement = index
    ? `alter table ${table} add column ${column!.slice(0, -1)}_key_id" varbinary(80)
        generated always as (substr(${column}, ${from}, ${length})) virtual invisible, add index (${column!.slice(0, -1)}_key_id")`
    : text
  const isTable = /^create table/.test(text)
  const keys = /primary key \(([^)]*)\)\)$/.exec(text)?.[1] ?? ''
  return statement
    .replace(/ returning 1$/, '')
    .replace(/("(?:[^"]|"")*") text/g, (all, name) => (isTable && keys.includes(name) ? `${name} varchar(190)` : all))
    .replace(/("(?:[^"]|"")*") bytea/g, (all, name) =>
      isTable && keys.includes(name) ? `${name} varbinary(190)` : all,
    )
    .replace(/"(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\d+)|::\w+|\bbytea\b|\btext\b/g, (all, n) => {
      if (n !== undefined) place(Number(n))
      if (n !== undefined) return '?'
      if (all.startsWith('::')) return ''
      if (all === 'bytea') return 'longblob'
      if (all === 'text') return 'longtext'
      return all.startsWith('"') ? `\`${all.slice(1, -1).replaceAll('""', '"').replaceAll('`', '``')}\`` : all
    })
}

/** The client for a URL of a server. */
export const clientOf = (url: string): Client => (url.startsWith('mysql:') ? mysql2Client(url) : pgClient(url))
