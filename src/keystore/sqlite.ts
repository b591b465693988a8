import { config } from '../errors.ts'
import { isInTransaction, isSqlite, patiently, resultOf, type Sqlite } from '../sqlite.ts'
import { type KeyStore, MAX_DOCUMENT } from './keystore.ts'
import { errorProperty, quoteTable, type TableFailure, type TableOptions, tableKeyStore } from './table.ts'

export type { Sqlite } from '../sqlite.ts'
export type { KeyStore, StoredKeyring } from './keystore.ts'
export type { TableOptions } from './table.ts'

const FAILURES: Record<string, TableFailure> = {
  SQLITE_PERM: 'denied',
  SQLITE_READONLY: 'denied',
  SQLITE_AUTH: 'denied',
  SQLITE_CORRUPT: 'malformed',
  SQLITE_NOTADB: 'malformed',
  SQLITE_TOOBIG: 'too large',
}
const FULL = 2

/**
 * The statement that makes the table of {@link sqliteKeyStore}, to run once or to put in a migration; SQLite 3.37 or later.
 * `table` has no schema before it. Names are compared byte by byte: `crm` is not `CRM`.
 *
 * @example
 * ```ts
 * import { keyStoreSchema } from 'waxseal/keystore/sqlite'
 *
 * console.log(keyStoreSchema())
 * ```
 */
export function keyStoreSchema(options: TableOptions = {}): string {
  return `create table if not exists ${quoteTable(options, '"', false)} (
  name text not null collate binary primary key,
  epoch integer not null check (epoch >= 1),
  document text not null,
  written_at text not null default current_timestamp
) strict`
}

/**
 * Keyrings in a SQLite table, a row each: `keyStoreSchema()` makes it. `db` is a `DatabaseSync` of node:sqlite (Node 22.5
 * or later) or a database of better-sqlite3, outside a transaction. Opening is one read, a change one read and one write.
 *
 * A save is one compare-and-swap statement, written with `synchronous = full` at least, so that it is durable when it
 * resolves, in WAL mode too; what was set before is set again. While another process writes, calls are repeated for 5
 * seconds, without blocking beyond the time-out of the database itself.
 *
 * Errors: CONFLICT when another process won; CONFIG when the table is missing or `db` is in a transaction; KMS_DENIED when
 * the database is read-only; MALFORMED for an edited row, one over 64 MiB or a damaged file; LIMIT_EXCEEDED for a keyring
 * over 64 MiB; KMS_UNAVAILABLE (retryable) for all else, such as a database that stays busy.
 *
 * @example
 * ```ts
 * import { openKeyring } from 'waxseal'
 * import { type Sqlite, sqliteKeyStore } from 'waxseal/keystore/sqlite'
 * import { localKms } from 'waxseal/kms/local'
 *
 * export const open = (db: Sqlite) =>
 *   openKeyring({ name: 'crm', store: sqliteKeyStore(db), kms: localKms(process.env['ROOT_KEY']) })
 * ```
 */
export function sqliteKeyStore(db: Sqlite, options: TableOptions = {}): KeyStore {
  if (!isSqlite(db)) throw config('db', 'a database of node:sqlite or better-sqlite3', db)
  const table = quoteTable(options, '"', false)

  /** Whether a row was written. */
  function write(sql: string, ...values: (string | number)[]): boolean {
    // It would be undone with the transaction, while the keyring encrypts under the new key already.
    if (isInTransaction(db)) throw config('db', 'a database that is in no transaction', db)
    const [was] = db.prepare('pragma synchronous').all() as { synchronous: number | bigint }[]
    const isLess = Number(was?.synchronous) < FULL
    if (isLess) db.exec('pragma synchronous = full')
    try {
      return Number(db.prepare(sql).run(...values).changes) === 1
    } finally {
      if (isLess) db.exec(`pragma synchronous = ${was?.synchronous}`)
    }
  }

  return tableKeyStore({
    select: (name) =>
      patiently(() =>
        db
          .prepare(
            `select cast(epoch as text) as epoch,
                case when length(cast(document as blob)) <= ${MAX_DOCUMENT} then document end as document
              from ${table} where name = ? collate binary`,
          )
          .all(name),
      ),
    insert: ({ name, epoch, document }) =>
      patiently(() =>
        write(
          `insert into ${table} (name, epoch, document) values (?, cast(? as integer), ?) on conflict (name) do nothing`,
          name,
          epoch,
          document,
        ),
      ),
    update: ({ name, epoch, document }, expectedEpoch) =>
      patiently(() =>
        write(
          `update ${table} set epoch = cast(? as integer), document = ?, written_at = current_timestamp
            where name = ? collate binary and epoch = cast(? as integer)`,
          epoch,
          document,
          name,
          expectedEpoch,
        ),
      ),
    failureOf: (error) => (isMissingTable(error) ? 'no table' : FAILURES[resultOf(error)]),
  })
}

/** SQLite has no code of its own for it. */
const isMissingTable = (error: unknown): boolean =>
  /no such (table|column)|has no column named|does not match any PRIMARY KEY or UNIQUE/.test(
    String(errorProperty(error, 'message')),
  )
