/**
 * What a key-management service must do: wrap and unwrap 32-byte keys under a root key that it keeps. `context` is
 * readable pairs, so that the service's own policies and audit trail can use them; a blob must not open under others.
 *
 * A driver is the smallest thing that can work: it asks its client once and hands back what came. Time-outs, retries,
 * limits of size and the mapping of errors are the portable layer's (portable.ts).
 */
export interface KmsDriver {
  /** Recorded with what it wraps, e.g. `aws-kms:arn:…`; 1 to 2,048 characters of ASCII. Compared, never dialled. */
  readonly keyUri: string
  /** The service takes no context: the portable layer binds it, by sealing the key under a fresh one that is wrapped. */
  readonly ignoresContext?: boolean
  /** Whoever has the public key can wrap, so a wrap authenticates nobody: opening such a keyring demands `pin.id`. */
  readonly wrapsPublicly?: boolean
  /** 32 bytes → 1 to 16,384 bytes. */
  wrap(key: Uint8Array, context: KmsContext, signal?: AbortSignal): Promise<Uint8Array>
  /** What `wrap` gave → 32 bytes. */
  unwrap(wrapped: Uint8Array, context: KmsContext, signal?: AbortSignal): Promise<Uint8Array>
  /** What an error of the client means; undefined when its HTTP status, if it has one, tells enough. */
  failureOf?(error: unknown): KmsFailure | undefined
}

export type KmsContext = Readonly<Record<string, string>>

/**
 * `denied`: identity, permission, or a root key that is disabled, deleted or not there (KMS_DENIED). `rejected`: the
 * blob does not open, or not under this context (DECRYPTION_FAILED). `unavailable`: throttled, timed out, broken
 * (KMS_UNAVAILABLE, and the only one that is tried again).
 */
export type KmsFailure = 'denied' | 'rejected' | 'unavailable'

/** One wrapped key: by which root key, and the blob as base64url. */
export interface Wrap {
  readonly uri: string
  readonly wrapped: string
}

/** Printable, since it stands in messages. */
export const isKeyUri = (uri: string): boolean => uri.length <= 2048 && /^[ -~]+$/.test(uri)

/** A wrapped 32-byte key is below 1 KiB at every service; 16 KiB leaves room and bounds what a store can feed us. */
export const MAX_WRAPPED_BYTES = 16_384
