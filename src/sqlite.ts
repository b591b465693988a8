// And null: the types of better-sqlite3 take any value but that, and its code takes it.
type Value = string | number | bigint | Uint8Array

/** The part of a database of `node:sqlite` or `better-sqlite3` that is used. */
export interface Sqlite {
  exec(sql: string): unknown
  prepare(sql: string): {
    all(...values: Value[]): unknown[]
    run(...values: Value[]): { readonly changes: number | bigint }
  }
  /** Of node:sqlite. */
  readonly isTransaction?: boolean
  /** Of better-sqlite3. */
  readonly inTransaction?: boolean
}

export type SqliteValue = Value

/** Primary result codes of SQLite, under the name that better-sqlite3 gives them. */
const CODES: Record<number, string> = {
  3: 'SQLITE_PERM',
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  11: 'SQLITE_CORRUPT',
  18: 'SQLITE_TOOBIG',
  19: 'SQLITE_CONSTRAINT',
  20: 'SQLITE_MISMATCH',
  23: 'SQLITE_AUTH',
  26: 'SQLITE_NOTADB',
}
const BUSY_MS = 5_000
const BUSY_WAIT_MS = 20

export const isSqlite = (db: Sqlite): boolean => typeof db?.prepare === 'function' && typeof db.exec === 'function'

/** Whether somebody has begun a transaction on this connection: what is written now would be undone with it. */
export const isInTransaction = (db: Sqlite): boolean => db.isTransaction === true || db.inTransaction === true

/** Repeats what found the database busy: each call is one statement, or one transaction, so nothing was done. */
export async function patiently<T>(work: () => T, isBusy = isLocked): Promise<T> {
  const started = performance.now()
  for (;;) {
    try {
      return work()
    } catch (error) {
      if (!isBusy(error) || performance.now() - started > BUSY_MS) throw error
    }
    await new Promise((done) => setTimeout(done, BUSY_WAIT_MS * (1 + Math.random())))
  }
}

export const isLocked = (error: unknown): boolean => /^SQLITE_(BUSY|LOCKED)$/.test(resultOf(error))

/** The name of the primary result code: `errcode` of node:sqlite, `code` of better-sqlite3. */
export function resultOf(error: unknown): string {
  const { errcode, code } = (error ?? {}) as { errcode?: unknown; code?: unknown }
  if (typeof errcode === 'number') return CODES[errcode & 0xff] ?? ''
  return /^SQLITE_[A-Z]+/.exec(String(code))?.[0] ?? ''
}
