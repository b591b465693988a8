import { toBase64url } from '../bytes.ts'
import { encodeContext } from '../context.ts'
import { defaultEngine } from '../engine/index.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsContext, KmsDriver, KmsFailure } from '../kms/kms.ts'
import { printsAs } from '../secret.ts'

export type { KmsContext, KmsDriver, KmsFailure } from '../kms/kms.ts'

/**
 * What a {@link memoryKms} does instead of answering: fails as a service does (`denied`, `rejected`, `unavailable`);
 * `hang`s until it is aborted; answers with one bit flipped (`corrupt`) or for another key (`otherKey`); throws what
 * you give; answers late.
 */
export type Misbehaviour =
  | KmsFailure
  | 'hang'
  | 'corrupt'
  | 'otherKey'
  | { readonly throws: unknown }
  | { readonly delayMs: number }

export interface MemoryKms extends KmsDriver {
  /** Requests to wrap so far, failed ones included. */
  readonly wraps: number
  /** Requests to unwrap so far, failed ones included. */
  readonly unwraps: number
  /** From now on, for `times` requests (all, by default) of one operation (both, by default). Replaces what was set. */
  misbehave(how: Misbehaviour, limits?: { readonly times?: number; readonly operation?: 'wrap' | 'unwrap' }): void
  /** Behaves again, and counts from zero. */
  reset(): void
}

export interface MemoryKmsOptions {
  /** Its `keyUri` is `memory:` and this; random by default. */
  readonly name?: string
  /** As a driver says it: the context is ignored here, and the portable layer binds it. */
  readonly ignoresContext?: boolean
  /** As a driver says it, to see what a keyring demands then. */
  readonly wrapsPublicly?: boolean
}

const KINDS = ['denied', 'rejected', 'unavailable', 'hang', 'corrupt', 'otherKey']

/**
 * An imitation of a KMS for tests: a root key in memory that is never shown and dies with the object. It really wraps
 * (XChaCha20-Poly1305 with the context as AAD, 72 bytes), counts its calls, and misbehaves when told to.
 *
 * Errors: CONFIG from `misbehave` for what it does not know.
 *
 * @example
 * ```ts
 * import { createKeyring } from 'waxseal'
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { memoryKms } from 'waxseal/testing'
 *
 * const kms = memoryKms()
 * kms.misbehave('denied')
 * const refused = await createKeyring({ name: 'crm', store: memoryKeyStore(), kms }).catch((error) => error.code)
 * console.log(refused, kms.wraps)
 * ```
 */
export function memoryKms(options: MemoryKmsOptions = {}): MemoryKms {
  const engine = defaultEngine()
  const aead = engine.aead('xchacha20-poly1305', engine.randomKey(32))
  const { name = toBase64url(engine.randomBytes(15)), ignoresContext, wrapsPublicly } = options
  const bound = (context: KmsContext): Uint8Array => (ignoresContext ? new Uint8Array(0) : encodeContext(context))
  const counts = { wrap: 0, unwrap: 0 }
  let fault: { how: Misbehaviour; left: number; operation: 'wrap' | 'unwrap' | undefined } | undefined

  /** Counts the request, and lets it run into what was asked for; returns what is to be done with the answer. */
  async function enter(
    operation: 'wrap' | 'unwrap',
    signal: AbortSignal | undefined,
  ): Promise<Misbehaviour | undefined> {
    counts[operation]++
    if (!fault || fault.left <= 0 || (fault.operation ?? operation) !== operation) return undefined
    fault.left--
    const { how } = fault
    if (how === 'denied' || how === 'rejected' || how === 'unavailable') throw new MemoryKmsError(how)
    if (how === 'hang') await sleep(undefined, signal)
    if (typeof how === 'object' && 'throws' in how) throw how.throws
    if (typeof how === 'object') await sleep(how.delayMs, signal)
    return how
  }

  const kms: MemoryKms = {
    keyUri: `memory:${name}`,
    ...(ignoresContext && { ignoresContext }),
    ...(wrapsPublicly && { wrapsPublicly }),
    get wraps() {
      return counts.wrap
    },
    get unwraps() {
      return counts.unwrap
    },
    async wrap(key, context, signal) {
      const how = await enter('wrap', signal)
      const plain = how === 'otherKey' ? engine.randomKey(32) : key
      return spoilt(aead.seal(plain, bound(context)), how)
    },
    async unwrap(wrapped, context, signal) {
      const how = await enter('unwrap', signal)
      const key = aead.open(wrapped, bound(context))
      if (!key) throw new MemoryKmsError('rejected')
      return how === 'otherKey' ? engine.randomKey(32) : spoilt(key, how)
    },
    failureOf: (error) => (error instanceof MemoryKmsError ? error.failure : undefined),
    misbehave(how, { times = Number.POSITIVE_INFINITY, operation } = {}) {
      fault = { how: checked(how), left: times, operation }
    },
    reset() {
      fault = undefined
      counts.wrap = 0
      counts.unwrap = 0
    },
  }
  return printsAs(kms, `[memoryKms ${kms.keyUri}]`)
}

/** Stands for the error of a vendor's client: only `failureOf` can read it. */
class MemoryKmsError extends Error {
  override readonly name = 'MemoryKmsError'
  readonly failure: KmsFailure

  constructor(failure: KmsFailure) {
    super(`told to be ${failure}`)
    this.failure = failure
  }
}

function checked(how: Misbehaviour): Misbehaviour {
  if (typeof how === 'string' && KINDS.includes(how)) return how
  if (typeof how === 'object' && how !== null && ('throws' in how || Number.isFinite(how.delayMs))) return how
  throw config('how', `${KINDS.join(', ')}, { throws } or { delayMs }`, how)
}

function spoilt(bytes: Uint8Array, how: Misbehaviour | undefined): Uint8Array {
  if (how === 'corrupt') bytes[bytes.length - 1]! ^= 1
  return bytes
}

/** For `ms`, or for ever; rejects when it is aborted. */
function sleep(ms: number | undefined, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done, reject) => {
    const timer = ms === undefined ? undefined : setTimeout(done, ms)
    const stop = (): void => {
      clearTimeout(timer)
      reject(new WaxsealError('KMS_UNAVAILABLE', 'kms: aborted while it was told to wait'))
    }
    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
  })
}
