import { type ErrorCode, WaxsealError } from '../index.ts'
import { messageOf } from './config.ts'

/** What the codes of others come to, the first that fits: SQLSTATE, and the words of Node, MySQL and SQLite. */
const OTHERS: readonly (readonly [RegExp, number, string])[] = [
  [/^28...$|^ER_ACCESS_DENIED/, 3, 'the database refused user or password'],
  [/^42501$|^EACCES$|^EPERM$|_DENIED_ERROR$/, 3, 'permission denied'],
  [/^3D000$|^ER_BAD_DB_ERROR$/, 2, 'there is no such database'],
  [/^42...$|^ER_NO_SUCH_TABLE$|^ER_BAD_FIELD_ERROR$/, 2, 'a table or column is not there, or is another'],
  [/^ENOENT$|^EISDIR$|^ENOTDIR$/, 2, 'no such file'],
  [/^ENOTFOUND$|^EAI_/, 4, 'the name of the host is not known'],
  [/^ECONN|^EPIPE$|^ETIMEDOUT$|^EHOST|^ENET|^08...$|^57P|^PROTOCOL_|^CONNECT/, 4, 'the database did not answer'],
  [/^53...$|^ER_CON_COUNT_ERROR$/, 4, 'the database has no room for it now'],
  [/^SQLITE_BUSY|^SQLITE_LOCKED|^55P03$|^57014$|^40...$/, 4, 'others held the rows for too long'],
  [/^2[23]...$|^54...$/, 1, 'the database refused a row'],
]
const codeOf = (error: unknown): string | undefined => {
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown }
  return typeof code === 'string' ? code : typeof errno === 'number' ? String(errno) : undefined
}

/** What a database, or the file system, said to the key store in it. Of a KMS that does not answer, nothing is to be added. */
function behind(error: WaxsealError): (typeof OTHERS)[number] | undefined {
  const isStore = error.code.startsWith('KMS_') && error.message.startsWith('key store: ')
  const code = isStore ? codeOf(error.cause) : undefined
  return code === undefined ? undefined : OTHERS.find(([pattern]) => pattern.test(code))
}

export function exitOf(error: unknown): number {
  if (WaxsealError.is(error)) return behind(error)?.[1] ?? EXIT[error.code]
  const code = codeOf(error)
  if (code === undefined) return isMistake(error) ? 2 : 4
  return OTHERS.find(([pattern]) => pattern.test(code))?.[1] ?? (code.startsWith('ERR_') ? 2 : 4)
}

/** An error in a line: our own as it is, others with a word of what it comes to. */
export function said(error: unknown): { readonly code: string | undefined; readonly message: string } {
  if (WaxsealError.is(error)) {
    const cause = behind(error)
    const why = cause ? ` (${codeOf(error.cause)}: ${cause[2]})` : ''
    return { code: error.code, message: `${error.message}${why}` }
  }
  const code = codeOf(error)
  const meaning = OTHERS.find(([pattern]) => pattern.test(code ?? ''))?.[2]
  const message = messageOf(error)
  return { code, message: meaning === undefined || message === code ? (meaning ?? message) : `${meaning}: ${message}` }
}

/** Thrown by a program that is wrong, such as the configuration. */
const isMistake = (error: unknown): boolean =>
  [TypeError, ReferenceError, SyntaxError, RangeError].some((kind) => error instanceof kind)

/** 1 failures recorded, 2 usage or configuration, 3 refused, 4 unavailable: try again. */
const EXIT: Readonly<Record<ErrorCode, number>> = {
  MALFORMED: 1,
  DECRYPTION_FAILED: 1,
  ERASED: 1,
  ROW_REFUSED: 1,
  LIMIT_EXCEEDED: 1,
  CONFIG: 2,
  SCHEMA: 2,
  UNKNOWN_KEY: 2,
  KEY_STATE: 3,
  CONFLICT: 3,
  KMS_DENIED: 3,
  KMS_UNAVAILABLE: 4,
  KEY_NOT_LOADED: 4,
}
