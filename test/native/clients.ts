import { DatabaseSync } from 'node:sqlite'
import BetterSqlite3 from 'better-sqlite3'
import { int, records, text } from 'waxseal'
import { type Sqlite, sqliteKeyStore } from 'waxseal/keystore/sqlite'
import { sqliteTable } from 'waxseal/rotation/sqlite'

/** Compiled by test/types/native.test.ts, never run: the clients that applications have fit as they are. */
declare const better: BetterSqlite3.Database
declare const sync: DatabaseSync

export const all: Sqlite[] = [better, sync, new BetterSqlite3('keys.db'), new DatabaseSync('keys.db')]
export const stores = all.map((db) => sqliteKeyStore(db, { table: 'keys' }))
// @ts-expect-error not a client
export const none: Sqlite = { prepare: () => undefined }

const people = records('people', { id: { id: int() }, fields: { email: text() } })
export const tables = all.map((db) => sqliteTable(db, people, { dates: 'ms' }))
