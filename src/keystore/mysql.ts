import { config } from '../errors.ts'
import { type KeyStore, MAX_DOCUMENT } from './keystore.ts'
import { errorProperty, quoteTable, type TableFailure, type TableOptions, tableKeyStore } from './table.ts'

export type { KeyStore, StoredKeyring } from './keystore.ts'
export type { TableOptions } from './table.ts'

/** The part of a client of `mysql2/promise` (pool or connection) that is used. */
export interface Mysql {
  // Prepared on the server, so that neither the sql_mode nor the character set of the session has a say in the values.
  execute(sql: string, values: string[]): Promise<readonly [unknown, ...unknown[]]>
}

/** Numbers of errors, of MySQL and MariaDB alike → what they mean. */
const FAILURES: Record<number, TableFailure> = {
  1062: 'conflict', // duplicate key
  1213: 'conflict', // deadlock, or refused by the certification of a cluster: the statement was undone
  1020: 'conflict', // record has changed since last read (innodb_snapshot_isolation)
  1044: 'denied', // access to the database
  1045: 'denied', // password
  1142: 'denied', // command on the table
  1143: 'denied', // command on a column
  1146: 'no table',
  1049: 'no table', // no such database
  1054: 'no table', // no such column
  1153: 'too large', // max_allowed_packet
}
const IN_TRANSACTION = 1

/**
 * The statement that makes the table of {@link mysqlKeyStore}, to run once or to put in a migration; for MySQL 8 and
 * MariaDB 10.6 and later. `table` may name its database. Names are compared byte by byte: `crm` is not `CRM`.
 *
 * @example
 * ```ts
 * import { keyStoreSchema } from 'waxseal/keystore/mysql'
 *
 * console.log(keyStoreSchema())
 * ```
 */
export function keyStoreSchema(options: TableOptions = {}): string {
  return `create table if not exists ${quoteTable(options, '`', true)} (
  name varchar(64) not null primary key,
  epoch bigint not null,
  document longtext not null,
  written_at timestamp(6) not null default current_timestamp(6)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin`
}

/**
 * Keyrings in a MySQL or MariaDB table, a row each: `keyStoreSchema()` makes it. `db` is a pool or a connection of
 * `mysql2/promise`, outside a transaction and with autocommit on. Opening is one read, a change one read and one write.
 *
 * A save is one compare-and-swap statement: whatever replica or moment a read came from, it changes only what it was
 * decided on. It is durable as far as `innodb_flush_log_at_trx_commit` says (1 by default: yes).
 *
 * Errors: CONFLICT when another process won, also by a deadlock; CONFIG when the table is missing or `db` is in a
 * transaction; KMS_DENIED when a grant is missing; MALFORMED for an edited row or one over 64 MiB; LIMIT_EXCEEDED for a
 * keyring over 64 MiB or `max_allowed_packet`; KMS_UNAVAILABLE (retryable) for all else that the server or the client
 * throws, such as a lock that was waited for too long.
 *
 * @example
 * ```ts
 * import { openKeyring } from 'waxseal'
 * import { type Mysql, mysqlKeyStore } from 'waxseal/keystore/mysql'
 * import { localKms } from 'waxseal/kms/local'
 *
 * export const open = (db: Mysql) =>
 *   openKeyring({ name: 'crm', store: mysqlKeyStore(db), kms: localKms(process.env['ROOT_KEY']) })
 * ```
 */
export function mysqlKeyStore(db: Mysql, options: TableOptions = {}): KeyStore {
  if (typeof db?.execute !== 'function') throw config('db', 'a pool or a connection of mysql2/promise', db)
  const table = quoteTable(options, '`', true)

  /**
   * Whether a row was written. In a transaction of the caller's it would be undone with it, while the keyring encrypts
   * under the new key already, so that is refused: the server says in each answer whether one is open.
   */
  async function write(sql: string, values: string[]): Promise<boolean> {
    const [answer] = await db.execute(sql, values)
    const { affectedRows, serverStatus } = answer as { affectedRows?: unknown; serverStatus?: unknown }
    if (affectedRows === 0) return false
    if (typeof serverStatus !== 'number' || (serverStatus & IN_TRANSACTION) !== 0) {
      throw config('db', 'a pool, or a connection with autocommit that is in no transaction', db)
    }
    return affectedRows === 1
  }

  return tableKeyStore({
    async select(name) {
      const [rows] = await db.execute(
        `select cast(epoch as char) as epoch, case when length(document) <= ${MAX_DOCUMENT} then document end as document
          from ${table} where name = ?`,
        [name],
      )
      return rows as readonly unknown[]
    },
    insert: ({ name, epoch, document }) =>
      write(`insert into ${table} (name, epoch, document) values (?, ?, ?)`, [name, String(epoch), document]),
    // written_at changes always: without CLIENT_FOUND_ROWS, a row that is written as it was does not count.
    update: ({ name, epoch, document }, expectedEpoch) =>
      write(
        `update ${table} set epoch = ?, document = ?, written_at = current_timestamp(6)
          where name = ? and epoch = cast(? as signed)`,
        [String(epoch), document, name, String(expectedEpoch)],
      ),
    async selectNow() {
      // From UTC: local time is ambiguous for an hour a year.
      const sql = `select cast(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000 as char) as now`
      const [rows] = await db.execute(sql, [])
      return rows as readonly unknown[]
    },
    failureOf: (error) => FAILURES[Number(errorProperty(error, 'errno'))],
  })
}
