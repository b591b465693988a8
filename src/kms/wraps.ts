import { concat, fromBase64url, readU16, toBase64url, wipe, writeU16 } from '../bytes.ts'
import { encodeContext } from '../context.ts'
import type { Engine } from '../engine/engine.ts'
import { WaxsealError } from '../errors.ts'
import { isKeyUri, type KmsContext, type KmsDriver, MAX_WRAPPED_BYTES, type Wrap } from './kms.ts'
import { type KmsPatience, pause, request } from './portable.ts'

/** The root keys of a keyring: wrapped under all of them, unwrapped by any. */
export interface RootKeys {
  readonly drivers: readonly KmsDriver[]
  readonly patience: Required<KmsPatience>
  readonly engine: Engine
}

/**
 * Wraps under every root key, or fails as a whole. Each wrap is opened again before it is believed: a KMS that answers
 * nonsense is found out before anything is encrypted under the key, not when it has to be read back.
 */
export async function wrapKey(roots: RootKeys, key: Uint8Array, context: KmsContext): Promise<Wrap[]> {
  return Promise.all(
    roots.drivers.map((driver) =>
      persistent(roots, async () => {
        const wrapped = await wrapOnce(roots, driver, key, context)
        const back = await unwrapOnce(roots, driver, wrapped, context)
        const isSame = roots.engine.equal(back, key)
        wipe(back)
        if (isSame) return { uri: driver.keyUri, wrapped: toBase64url(wrapped) }
        throw new WaxsealError('KMS_UNAVAILABLE', `kms.wrap: what ${driver.keyUri} wrapped opens as another key`)
      }),
    ),
  )
}

/**
 * Unwraps by any root key that is configured and stored, in the order of the configuration; one that fails is passed
 * over for the next before it is asked again. `isRight` tells the key from another one's.
 */
export async function unwrapKey(
  roots: RootKeys,
  wraps: readonly Wrap[],
  context: KmsContext,
  isRight: (key: Uint8Array) => boolean,
): Promise<Uint8Array> {
  let ways = roots.drivers.flatMap((driver) => {
    const mine = wraps.find((wrap) => wrap.uri === driver.keyUri)
    return mine ? [{ driver, wrapped: blobOf(mine) }] : []
  })
  if (ways.length === 0) {
    const [stored, got] = [wraps, roots.drivers.map((driver) => ({ uri: driver.keyUri }))].map((list) =>
      list.map(({ uri }) => (isKeyUri(uri) ? uri : '(not printable)')).join(', '),
    )
    throw new WaxsealError('CONFIG', `"kms" expected the root key ${stored}, got ${got}`, { argument: 'kms' })
  }
  return persistent(roots, async () => {
    let failure: unknown
    for (const way of [...ways].sort((a, b) => Number(isOut(a.driver)) - Number(isOut(b.driver)))) {
      try {
        const key = await unwrapOnce(roots, way.driver, way.wrapped, context)
        if (isRight(key)) {
          outSince.delete(way.driver)
          return key
        }
        wipe(key)
        throw new WaxsealError('DECRYPTION_FAILED', `kms.unwrap: ${way.driver.keyUri} answered with another key`)
      } catch (error) {
        if (isRetryable(error)) outSince.set(way.driver, Date.now())
        else ways = ways.filter((other) => other !== way)
        // What may succeed later is worth more than what will not.
        if (failure === undefined || (isRetryable(error) && !isRetryable(failure))) failure = error
      }
    }
    throw failure
  })
}

/** Root keys that did not answer a moment ago are asked last: a hundred keys must not wait for a hundred time-outs. */
const outSince = new WeakMap<KmsDriver, number>()
const OUT_MS = 30_000
const isOut = (driver: KmsDriver): boolean => Date.now() - (outSince.get(driver) ?? Number.NEGATIVE_INFINITY) < OUT_MS

const isRetryable = (error: unknown): boolean => WaxsealError.is(error) && error.code === 'KMS_UNAVAILABLE'

/** Tries again while a retry can help. */
async function persistent<T>({ patience }: RootKeys, work: () => Promise<T>): Promise<T> {
  for (let retry = 1; ; retry++) {
    try {
      return await work()
    } catch (error) {
      if (!isRetryable(error) || retry >= patience.attempts) throw error
    }
    await pause(retry, patience)
  }
}

function blobOf({ wrapped }: Wrap): Uint8Array {
  const blob = wrapped.length <= Math.ceil((MAX_WRAPPED_BYTES * 4) / 3) ? fromBase64url(wrapped) : undefined
  if (blob) return blob
  throw new WaxsealError('MALFORMED', 'key store: a wrapped key is not canonical base64url')
}

/** 2 bytes of length before what the service wrapped, 72 of XChaCha20-Poly1305 (nonce 24, key 32, tag 16) after it. */
const SEALED_BYTES = 72
const LENGTH_BYTES = 2

async function wrapOnce(
  { engine, patience }: RootKeys,
  driver: KmsDriver,
  key: Uint8Array,
  context: KmsContext,
): Promise<Uint8Array> {
  if (!driver.ignoresContext) return wrapped(await request(driver, 'wrap', key, context, patience))
  const carrier = engine.randomKey(32)
  try {
    const blob = wrapped(await request(driver, 'wrap', carrier, context, patience))
    const aead = engine.aead('xchacha20-poly1305', carrier, true)
    const sealed = aead.seal(key, encodeContext(context))
    aead.destroy()
    const length = new Uint8Array(LENGTH_BYTES)
    writeU16(length, 0, blob.length)
    return wrapped(concat(length, blob, sealed))
  } finally {
    wipe(carrier)
  }
}

async function unwrapOnce(
  { engine, patience }: RootKeys,
  driver: KmsDriver,
  blob: Uint8Array,
  context: KmsContext,
): Promise<Uint8Array> {
  if (!driver.ignoresContext) return unwrapped(await request(driver, 'unwrap', blob, context, patience))
  const end = blob.length - SEALED_BYTES
  if (end <= LENGTH_BYTES || readU16(blob, 0) !== end - LENGTH_BYTES) {
    throw new WaxsealError('MALFORMED', 'key store: a wrapped key is not of the form that its root key asks for')
  }
  const carrier = unwrapped(await request(driver, 'unwrap', blob.slice(LENGTH_BYTES, end), context, patience))
  const aead = engine.aead('xchacha20-poly1305', carrier, true)
  wipe(carrier)
  const key = aead.open(blob.subarray(end), encodeContext(context))
  aead.destroy()
  if (key) return key
  throw new WaxsealError('DECRYPTION_FAILED', `kms.unwrap: ${driver.keyUri} opens the blob, but not for this context`)
}

function wrapped(answer: Uint8Array): Uint8Array {
  if (answer instanceof Uint8Array && answer.length > 0 && answer.length <= MAX_WRAPPED_BYTES) return answer
  throw new WaxsealError('KMS_UNAVAILABLE', 'kms.wrap: expected 1 to 16384 bytes in the answer')
}

function unwrapped(answer: Uint8Array): Uint8Array {
  if (answer instanceof Uint8Array && answer.length === 32) return answer
  if (answer instanceof Uint8Array) wipe(answer)
  throw new WaxsealError('DECRYPTION_FAILED', 'kms.unwrap: expected 32 bytes in the answer')
}
