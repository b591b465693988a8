import { config } from '../errors.ts'
import { type Postgres, queryOf } from '../postgres.ts'
import { type KeyStore, MAX_DOCUMENT } from './keystore.ts'
import { errorProperty, quoteTable, type TableFailure, type TableOptions, tableKeyStore } from './table.ts'

export type { Postgres } from '../postgres.ts'
export type { KeyStore, StoredKeyring } from './keystore.ts'
export type { TableOptions } from './table.ts'

/** SQLSTATE → what it means. Under REPEATABLE READ and SERIALIZABLE, losing a race is an error. */
const FAILURES: Record<string, TableFailure> = {
  '40001': 'conflict', // serialization_failure
  '40P01': 'conflict', // deadlock_detected
  '42501': 'denied', // insufficient_privilege
  '28000': 'denied', // invalid_authorization_specification
  '28P01': 'denied', // invalid_password
  '42P01': 'no table', // undefined_table
  '3F000': 'no table', // invalid_schema_name
  '42703': 'no table', // undefined_column
  '42P10': 'no table', // invalid_column_reference: the name has no unique key
  '54000': 'too large', // program_limit_exceeded
  XX001: 'malformed', // data_corrupted
}

/**
 * The statement that makes the table of {@link postgresKeyStore}, to run once or to put in a migration. `table` may name its
 * schema, and should: an unqualified name is looked up along the `search_path`.
 *
 * @example
 * ```ts
 * import { keyStoreSchema } from 'waxseal/keystore/postgres'
 *
 * console.log(keyStoreSchema({ table: 'app.waxseal_keyring' }))
 * ```
 */
export function keyStoreSchema(options: TableOptions = {}): string {
  return `create table if not exists ${quoteTable(options, '"', true)} (
  name text collate "C" primary key,
  epoch bigint not null check (epoch >= 1),
  document text not null,
  written_at timestamptz not null default now()
)`
}

/**
 * Keyrings in a PostgreSQL table, a row each: `keyStoreSchema()` makes it. `db` is a `pg` pool or client, a postgres.js
 * instance or PGlite, outside a transaction. Opening is one read, a change one read and two statements.
 *
 * A save is one compare-and-swap statement: whatever replica or moment a read came from, it changes only what it was
 * decided on. It is durable when the server says so (`synchronous_commit` is not `off`).
 *
 * Errors: CONFLICT when another process won; CONFIG when the table is missing or `db` is in a transaction; KMS_DENIED
 * when a grant is missing; MALFORMED for an edited row or one over 64 MiB; LIMIT_EXCEEDED for a keyring over 64 MiB;
 * KMS_UNAVAILABLE (retryable) for all else that the server or the client throws.
 *
 * @example
 * ```ts
 * import { openKeyring } from 'waxseal'
 * import { type Postgres, postgresKeyStore } from 'waxseal/keystore/postgres'
 * import { localKms } from 'waxseal/kms/local'
 *
 * export const open = (db: Postgres) =>
 *   openKeyring({ name: 'crm', store: postgresKeyStore(db), kms: localKms(process.env['ROOT_KEY']) })
 * ```
 */
export function postgresKeyStore(db: Postgres, options: TableOptions = {}): KeyStore {
  const query = queryOf(db)
  const table = quoteTable(options, '"', true)

  /**
   * In a transaction of the caller's the write would be undone with it, while the keyring encrypts under the new key
   * already. What this connection wrote gave the transaction an id; if there is still one now, it was not committed.
   */
  async function committed(rows: readonly unknown[]): Promise<boolean> {
    if (rows.length === 0) return false
    const [row] = await query<{ open: boolean }>('select txid_current_if_assigned() is not null as open')
    if (row?.open !== false) throw config('db', 'a pool, or a client that is in no transaction', db)
    return true
  }

  return tableKeyStore({
    select: (name) =>
      query(
        `select epoch::text as epoch, case when octet_length(document) <= ${MAX_DOCUMENT} then document end as document
          from ${table} where name = $1::text`,
        [name],
      ),
    insert: async ({ name, epoch, document }) =>
      committed(
        await query(
          `insert into ${table} (name, epoch, document) values ($1::text, $2::bigint, $3::text)
            on conflict (name) do nothing returning 1 as saved`,
          [name, epoch, document],
        ),
      ),
    update: async ({ name, epoch, document }, expectedEpoch) =>
      committed(
        await query(
          `update ${table} set epoch = $2::bigint, document = $3::text, written_at = now()
            where name = $1::text and epoch = $4::bigint returning 1 as saved`,
          [name, epoch, document, expectedEpoch],
        ),
      ),
    selectNow: () => query('select floor(extract(epoch from clock_timestamp()) * 1000)::bigint::text as now'),
    failureOf: (error) => FAILURES[String(errorProperty(error, 'code'))],
  })
}
