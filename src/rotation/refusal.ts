import { WaxsealError } from '../errors.ts'
import { resultOf } from '../sqlite.ts'

/**
 * SQLSTATE classes of what a statement is refused for on account of a row: data exceptions, constraints, a view's check
 * option, MySQL's SIGNAL, limits (an index entry that is too long), RAISE of PL/pgSQL, and the classes that the standard
 * leaves to users. Everything else is about the server, the connection or the statement, and no row's fault.
 */
const STATES = /^(?:22|23|44|45|54|P0|[I-OQ-WYZ][0-9A-Z])[0-9A-Z]{3}$/
/** Errors of MySQL and MariaDB about a row that have no SQLSTATE of their own: a value that does not fit, a check. */
const ERRNOS: readonly unknown[] = [1366, 3819, 4025]
const RESULTS: readonly string[] = ['SQLITE_CONSTRAINT', 'SQLITE_MISMATCH', 'SQLITE_TOOBIG']

/**
 * Whether the database refused what a row was to become, in the words of PostgreSQL, MySQL and SQLite; or its source
 * did, which knew that it would not fit.
 */
export function isRowRefusal(error: unknown): boolean {
  if (WaxsealError.is(error)) return error.code === 'LIMIT_EXCEEDED'
  const { code, sqlState, errno } = (error ?? {}) as { code?: unknown; sqlState?: unknown; errno?: unknown }
  if (RESULTS.includes(resultOf(error)) || ERRNOS.includes(errno)) return true
  return [code, sqlState].some((state) => typeof state === 'string' && STATES.test(state))
}

/** A unique index refused, in the words of PostgreSQL, MySQL and SQLite. */
export function isDuplicate(error: unknown): boolean {
  if (WaxsealError.is(error)) return false
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown }
  return (
    code === '23505' ||
    code === 'ER_DUP_ENTRY' ||
    errno === 1062 ||
    /UNIQUE constraint/i.test(String((error as Error)?.message))
  )
}
