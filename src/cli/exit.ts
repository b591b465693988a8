import { type ErrorCode, WaxsealError } from '../index.ts'

/** Of ours by its code; of the database by its SQLSTATE: 28 and 42501 refuse, the rest of 42 is a wrong name. */
export function exitOf(error: unknown): number {
  if (WaxsealError.is(error)) return EXIT[error.code]
  const code = String((error as { code?: unknown } | null)?.code)
  if (/^28...$|^42501$|^EACCES$|^EPERM$/.test(code)) return 3
  return /^42...$|^ENOENT$|^EISDIR$/.test(code) ? 2 : 4
}

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
