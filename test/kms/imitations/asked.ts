import { WaxsealError } from 'waxseal'
import { defaultEngine } from 'waxseal/engine'
import type { KmsContext, KmsDriver, Wrap } from '../../../src/kms/kms.ts'
import { checkPatience, request } from '../../../src/kms/portable.ts'
import { unwrapKey, wrapKey } from '../../../src/kms/wraps.ts'

export const KEY: Uint8Array = Uint8Array.from({ length: 32 }, (_, i) => (i * 89 + 173) & 255)
export const CONTEXT: KmsContext = { 'waxseal:keyring': 'AAAAAAAAAAAAAAAAAAAAAA', 'waxseal:key': 'integrity' }
export const OTHER: KmsContext = { ...CONTEXT, 'waxseal:key': 'BBBBBBBBBBBBBBBBBBBB' }

const patience = checkPatience({ timeoutMs: 400, attempts: 3, backoffMs: 1 })
const roots = (...drivers: KmsDriver[]) => ({ drivers, patience, engine: defaultEngine() })

/** One request, as the portable layer makes it. */
export const once = (driver: KmsDriver, operation: 'wrap' | 'unwrap', input: Uint8Array = KEY, context = CONTEXT) =>
  request(driver, operation, Uint8Array.from(input), context, patience)

/** With retries and verification, as a keyring does it. */
export const wrapped = (driver: KmsDriver): Promise<Wrap[]> => wrapKey(roots(driver), Uint8Array.from(KEY), CONTEXT)
export const unwrapped = (driver: KmsDriver, wraps: readonly Wrap[], context = CONTEXT): Promise<Uint8Array> =>
  unwrapKey(roots(driver), wraps, context, (key) => Buffer.compare(key, KEY) === 0)

/** The code of what was thrown; the error shows neither the key nor a secret, whoever prints it. */
export async function codeOf(work: Promise<unknown> | (() => unknown), ...secrets: string[]): Promise<string> {
  const error = await Promise.resolve(typeof work === 'function' ? attempt(work) : work).then(
    () => 'nothing was thrown',
    (thrown: unknown) => thrown,
  )
  if (!WaxsealError.is(error)) throw error
  const printed = [error.message, error.stack, JSON.stringify(error), JSON.stringify(error.cause)].join('\n')
  const key = Buffer.from(KEY)
  for (const secret of [key.toString('hex'), key.toString('base64'), key.toString('base64url'), ...secrets]) {
    if (printed.includes(secret)) throw new Error('the error shows a secret')
  }
  return error.code
}

async function attempt(work: () => unknown): Promise<unknown> {
  return work()
}
