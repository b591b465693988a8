import { copyBytes, wipe } from '../bytes.ts'
import { expectInteger, type ReducedCause, WaxsealError } from '../errors.ts'
import type { KmsDriver, KmsFailure } from './kms.ts'

/** How patient a keyring is with its KMS. */
export interface KmsPatience {
  /** For one request, in ms: 10,000 by default. The driver's signal is aborted then. */
  readonly timeoutMs?: number
  /** Requests made before a call fails: 4 by default, 1 for no retry. Only KMS_UNAVAILABLE is tried again. */
  readonly attempts?: number
  /** The pause before the n-th retry is random, from 0 to this · 2ⁿ⁻¹ ms and at most 10 s: 200 by default. */
  readonly backoffMs?: number
}

const DEFAULTS: Required<KmsPatience> = { timeoutMs: 10_000, attempts: 4, backoffMs: 200 }
const MOST: Required<KmsPatience> = { timeoutMs: 600_000, attempts: 20, backoffMs: 60_000 }
const MAX_PAUSE_MS = 10_000

/** The defaults filled in; CONFIG for one out of bounds. */
export function checkPatience(patience: KmsPatience = {}): Required<KmsPatience> {
  const checked = { ...DEFAULTS, ...patience }
  for (const key of ['timeoutMs', 'attempts', 'backoffMs'] as const) {
    expectInteger(`patience.${key}`, checked[key], key === 'backoffMs' ? 0 : 1, MOST[key])
  }
  return checked
}

/** Full jitter: spreads callers that failed together. */
export function pause(retry: number, { backoffMs }: Required<KmsPatience>): Promise<void> {
  const most = Math.min(MAX_PAUSE_MS, backoffMs * 2 ** (retry - 1))
  return new Promise((done) => setTimeout(done, Math.random() * most))
}

/**
 * One request: bounded in time, its error mapped. The driver is lent a copy, which is wiped when it is done with it, as
 * is what arrives after the time-out.
 */
export async function request(
  driver: KmsDriver,
  operation: 'wrap' | 'unwrap',
  input: Uint8Array,
  context: Readonly<Record<string, string>>,
  { timeoutMs }: Required<KmsPatience>,
): Promise<Uint8Array> {
  const controller = new AbortController()
  const lent = copyBytes(input)
  let timer: ReturnType<typeof setTimeout> | undefined
  let isLate = false
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      isLate = true
      reject(
        new WaxsealError('KMS_UNAVAILABLE', `kms.${operation}: no answer from ${driver.keyUri} in ${timeoutMs} ms`),
      )
      controller.abort()
    }, timeoutMs)
  })
  try {
    // In an async function: a driver that throws, or answers, without a promise is one like the others.
    const ask = async (): Promise<Uint8Array> => driver[operation](lent, context, controller.signal)
    const answer = ask().finally(() => wipe(lent))
    answer.then((bytes) => isLate && bytes instanceof Uint8Array && wipe(bytes), ignore)
    return await Promise.race([answer, late])
  } catch (error) {
    throw mapped(driver, operation, error)
  } finally {
    clearTimeout(timer)
  }
}

const ignore = (): void => undefined

const CODES = {
  denied: ['KMS_DENIED', 'refused'],
  rejected: ['DECRYPTION_FAILED', 'does not open this blob under this context'],
  unavailable: ['KMS_UNAVAILABLE', 'failed'],
} as const

function mapped(driver: KmsDriver, operation: 'wrap' | 'unwrap', error: unknown): WaxsealError {
  if (WaxsealError.is(error)) return error
  const [code, what] = CODES[failureOf(driver, error)]
  return new WaxsealError(code, `kms.${operation}: ${driver.keyUri} ${what}`, { reduced: withoutBody(error) })
}

function failureOf(driver: KmsDriver, error: unknown): KmsFailure {
  let failure: KmsFailure | undefined
  try {
    failure = driver.failureOf?.(error)
  } catch {
    // A reader of errors that fails has not read this one.
  }
  if (typeof failure === 'string' && Object.hasOwn(CODES, failure)) return failure
  const status = statusOf(error)
  return status === 401 || status === 403 || status === 404 ? 'denied' : 'unavailable'
}

/** A property of whatever a client throws; undefined when even looking at it fails. */
function lookUp(value: unknown, key: string): unknown {
  try {
    return (value as Record<string, unknown> | null | undefined)?.[key]
  } catch {
    return undefined
  }
}

/** Where the vendors' clients put the HTTP status. */
function statusOf(error: unknown): number | undefined {
  const response = lookUp(error, 'response')
  const found = [
    lookUp(error, 'status'),
    lookUp(error, 'statusCode'),
    lookUp(lookUp(error, '$metadata'), 'httpStatusCode'),
    lookUp(response, 'status'),
    lookUp(response, 'statusCode'),
  ]
  return found.find((value): value is number => typeof value === 'number')
}

/** Name, code and status of a client's error. Not its message: clients quote bodies there, and a body may hold a key. */
function withoutBody(error: unknown): ReducedCause {
  const [name, code] = [lookUp(error, 'name'), lookUp(error, 'code')]
  const status = statusOf(error)
  return {
    name: isWord(name) ? name : 'Error',
    ...(isWord(code) || typeof code === 'number' ? { code: String(code) } : {}),
    message: status === undefined ? 'no HTTP status' : `HTTP status ${status}`,
  }
}

/** Too short for 32 bytes in any encoding. */
const isWord = (value: unknown): value is string => typeof value === 'string' && /^[\w.-]{1,40}$/.test(value)
