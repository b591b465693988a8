import { PGlite } from '@electric-sql/pglite'
import pg from 'pg'
import postgres from 'postgres'
import { type Postgres, type Query, queryOf } from '../../src/postgres.ts'

/** One way to reach a PostgreSQL. Every suite of this folder takes one and runs with each. */
export interface Client {
  readonly name: string
  readonly db: Postgres
  readonly query: Query
  close(): Promise<void>
}

export function pgliteClient(): Client {
  const db = new PGlite()
  return { name: 'PGlite', db, query: queryOf(db), close: () => db.close() }
}

export function pgClient(url: string): Client {
  const db = new pg.Pool({ connectionString: url, max: 6 })
  db.on('error', () => {}) // the server is stopped before idle connections are
  return { name: 'pg', db, query: queryOf(db), close: () => db.end() }
}

export function postgresJsClient(url: string): Client {
  const db = postgres(url, { max: 6, onnotice: () => {} })
  return { name: 'postgres.js', db, query: queryOf(db), close: () => db.end({ timeout: 1 }) }
}
