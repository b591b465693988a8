/**
 * The closed set of error codes: code → meaning, whether a retry can help, and who has to act.
 *
 * Tests hold this table, the type {@link ErrorCode} and docs/errors.md together.
 */
export const ERRORS = {
  /** The bytes are not a well-formed header, ciphertext or key-store entry of a version this reader knows. */
  MALFORMED: { retryable: false, class: 'data' },
  /** Wrong key, wrong context or changed bytes. One cause, on purpose: an attacker learns nothing from it. */
  DECRYPTION_FAILED: { retryable: false, class: 'data' },
  /** The header names a key that is not in this keyring, even after its manifest was read again. */
  UNKNOWN_KEY: { retryable: false, class: 'data' },
  /** The key is not in memory. Await keys.ready() and try again. */
  KEY_NOT_LOADED: { retryable: true, class: 'key' },
  /** The state of the key forbids the operation. */
  KEY_STATE: { retryable: false, class: 'key' },
  /** The key of this data subject was destroyed: the plaintext is gone for good. */
  ERASED: { retryable: false, class: 'key' },
  /** The key-management service, or the key store's database, refused: check identity and permissions. */
  KMS_DENIED: { retryable: false, class: 'service' },
  /** The key-management service or the key store did not answer. */
  KMS_UNAVAILABLE: { retryable: true, class: 'service' },
  /** A size or count is above a documented limit. */
  LIMIT_EXCEEDED: { retryable: false, class: 'input' },
  /** Somebody else changed the row or the keyring first. Read again, then retry. */
  CONFLICT: { retryable: true, class: 'race' },
  /** An argument or a declaration is wrong: a mistake in the calling program. */
  CONFIG: { retryable: false, class: 'input' },
  /** A value does not fit the declared schema, on the way in or out. */
  SCHEMA: { retryable: false, class: 'input' },
  /** The database refused what a row was to become: a constraint, a trigger, a column that is too short. */
  ROW_REFUSED: { retryable: false, class: 'data' },
} as const satisfies Record<string, { retryable: boolean; class: ErrorClass }>

/** Who has to act: `input` the caller, `data` whoever wrote the bytes, `key` the key owner, `service` operations, `race` nobody. */
export type ErrorClass = 'input' | 'data' | 'key' | 'service' | 'race'

/** The closed union of error codes. */
export type ErrorCode = keyof typeof ERRORS

/** Where an error happened; every part is optional, and none of them is secret. */
export interface ErrorDetails {
  readonly table?: string | undefined
  readonly field?: string | undefined
  readonly rowId?: string | undefined
  readonly keyId?: string | undefined
  /** The key state that forbade the operation (KEY_STATE). */
  readonly state?: string | undefined
  /** The argument that was wrong (CONFIG, SCHEMA, LIMIT_EXCEEDED). */
  readonly argument?: string | undefined
  readonly cause?: unknown
  /** A cause that is reduced already. */
  readonly reduced?: ReducedCause
}

/** What is kept of a cause. */
export interface ReducedCause {
  readonly name: string
  readonly code?: string
  readonly message: string
}

const WHERE = ['table', 'field', 'rowId', 'keyId', 'state', 'argument'] as const
const brand = Symbol.for('waxseal.error')

/** An error's cause without its payload: drivers put queries and bodies on their errors. */
function reduceCause(cause: unknown): ReducedCause | undefined {
  if (cause === undefined || cause === null) return undefined
  if (!(cause instanceof Error)) return { name: typeof cause, message: 'not an Error' }
  const code = (cause as { code?: unknown }).code
  return { name: cause.name, ...(typeof code === 'string' ? { code } : {}), message: cause.message }
}

/**
 * The one error class. `code` is from the closed union {@link ErrorCode}; `retryable` says whether the same call may
 * succeed later. No plaintext, key bytes or ciphertext is ever in it; `cause` is reduced to name, code and message.
 *
 * @example
 * ```ts
 * import { WaxsealError } from 'waxseal'
 *
 * const reply = (error: unknown): number =>
 *   WaxsealError.is(error) && error.retryable ? 503 : 500
 * ```
 */
export class WaxsealError extends Error {
  override readonly name = 'WaxsealError'
  readonly code: ErrorCode
  readonly retryable: boolean
  declare readonly table?: string
  declare readonly field?: string
  declare readonly rowId?: string
  declare readonly keyId?: string
  declare readonly state?: string
  declare readonly argument?: string

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const cause = details.reduced ?? reduceCause(details.cause)
    super(message, cause && { cause })
    this.code = code
    this.retryable = ERRORS[code].retryable
    for (const name of WHERE) if (details[name] !== undefined) tell(this, name, details[name])
    Object.defineProperty(this, brand, { value: true })
  }

  /** True for a WaxsealError of any copy of this package (two versions may live in one process). */
  static is(value: unknown): value is WaxsealError {
    return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[brand] === true
  }
}

/** Tells an error where it happened, unless it knows already; anything that is not ours passes as it is. */
export function at(error: unknown, where: Omit<ErrorDetails, 'cause' | 'reduced'>): unknown {
  if (WaxsealError.is(error)) {
    for (const name of WHERE) if (where[name] !== undefined && error[name] === undefined) tell(error, name, where[name])
  }
  return error
}

function tell(error: WaxsealError, name: (typeof WHERE)[number], value: string): void {
  Object.defineProperty(error, name, { value, enumerable: true })
}

/** What came, without its value: for messages that must not carry plaintext. */
export function typeName(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (typeof value === 'string') return `string of length ${value.length}`
  if (typeof value !== 'object') return typeof value
  if (value instanceof Uint8Array) return `Uint8Array of length ${value.length}`
  if (Array.isArray(value)) return `array of length ${value.length}`
  // The prototype's, never an own property's: that would be data.
  const made = (Object.getPrototypeOf(value) as { constructor?: unknown } | null)?.constructor
  return typeof made === 'function' ? made.name : 'object'
}

/** A programmer's mistake, named: `"argument" expected …, got …`. */
export function config(argument: string, expected: string, got: unknown): WaxsealError {
  return new WaxsealError('CONFIG', `"${argument}" expected ${expected}, got ${typeName(got)}`, { argument })
}

/** CONFIG unless the argument is an integer within bounds. */
export function expectInteger(argument: string, value: unknown, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return
  throw config(argument, `an integer from ${least} to ${most}`, value)
}

/** CONFIG unless the argument is one of the words. */
export function expectWord(argument: string, value: unknown, ...words: readonly string[]): void {
  if (words.includes(value as string)) return
  throw config(argument, words.map((word) => `'${word}'`).join(' or '), value)
}
