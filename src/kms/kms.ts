import { fromBase64url, toBase64url } from '../bytes.ts'
import { WaxsealError } from '../errors.ts'

/**
 * What a key-management service must do: wrap and unwrap 32-byte keys under a root key that it keeps. `context` is
 * readable pairs, so that the service's own policies and audit trail can use them; a blob must not open under others.
 *
 * A driver throws WaxsealError KMS_DENIED, KMS_UNAVAILABLE or DECRYPTION_FAILED; anything else it throws becomes
 * KMS_UNAVAILABLE here.
 */
export interface KmsDriver {
  /** Recorded with what it wraps, e.g. `aws-kms:arn:…`. A stored URI must equal it and is never dialled. */
  readonly keyUri: string
  wrap(key: Uint8Array, context: KmsContext, signal?: AbortSignal): Promise<Uint8Array>
  unwrap(wrapped: Uint8Array, context: KmsContext, signal?: AbortSignal): Promise<Uint8Array>
}

export type KmsContext = Readonly<Record<string, string>>

/** One wrapped key: by which root key, and the blob as base64url. */
export interface Wrap {
  readonly uri: string
  readonly wrapped: string
}

/** A wrapped 32-byte key is below 1 KiB at every service; 16 KiB leaves room and bounds what a store can feed us. */
export const MAX_WRAPPED_BYTES = 16_384

export async function wrapKey(kms: KmsDriver, key: Uint8Array, context: KmsContext): Promise<Wrap> {
  const wrapped = await call('wrap', () => kms.wrap(key, context))
  if (!(wrapped instanceof Uint8Array) || wrapped.length === 0 || wrapped.length > MAX_WRAPPED_BYTES) {
    throw new WaxsealError('KMS_UNAVAILABLE', 'kms.wrap: expected 1 to 16384 bytes in the answer')
  }
  return { uri: kms.keyUri, wrapped: toBase64url(wrapped) }
}

export async function unwrapKey(kms: KmsDriver, wraps: readonly Wrap[], context: KmsContext): Promise<Uint8Array> {
  const mine = wraps.find((wrap) => wrap.uri === kms.keyUri)
  if (!mine) {
    const stored = wraps.map((wrap) => wrap.uri).join(', ')
    throw new WaxsealError('CONFIG', `"kms" expected the root key ${stored}, got ${kms.keyUri}`, { argument: 'kms' })
  }
  const wrapped =
    mine.wrapped.length <= Math.ceil((MAX_WRAPPED_BYTES * 4) / 3) ? fromBase64url(mine.wrapped) : undefined
  if (!wrapped) throw new WaxsealError('MALFORMED', 'key store: a wrapped key is not canonical base64url')
  const key = await call('unwrap', () => kms.unwrap(wrapped, context))
  if (!(key instanceof Uint8Array) || key.length !== 32) {
    throw new WaxsealError('DECRYPTION_FAILED', 'kms.unwrap: expected 32 bytes in the answer')
  }
  return key
}

async function call<T>(operation: string, request: () => Promise<T>): Promise<T> {
  try {
    return await request()
  } catch (cause) {
    if (WaxsealError.is(cause)) throw cause
    throw new WaxsealError('KMS_UNAVAILABLE', `kms.${operation} failed`, { cause })
  }
}
