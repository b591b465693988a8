import { copyBytes, wipe } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsContext, KmsDriver, KmsFailure } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** What is used of `KMS` in @aws-sdk/client-kms (version 3): the class with a method for each operation. */
export interface AwsKmsClient {
  encrypt(
    input: {
      KeyId: string
      Plaintext: Uint8Array
      EncryptionContext: Record<string, string>
      EncryptionAlgorithm: Only
    },
    options: AwsRequestOptions,
  ): Promise<{ readonly CiphertextBlob?: Uint8Array | undefined; readonly KeyId?: string | undefined }>
  decrypt(
    input: {
      KeyId: string
      CiphertextBlob: Uint8Array
      EncryptionContext: Record<string, string>
      EncryptionAlgorithm: Only
    },
    options: AwsRequestOptions,
  ): Promise<{ readonly Plaintext?: Uint8Array | undefined; readonly KeyId?: string | undefined }>
}
type Only = 'SYMMETRIC_DEFAULT'
interface AwsRequestOptions {
  readonly abortSignal?: AbortSignal
}

export interface AwsKmsOptions {
  /** `new KMS({ region, maxAttempts: 1 })`, for the key's region: the keyring does the retries. */
  readonly client: AwsKmsClient
  /** The whole ARN of a symmetric key. */
  readonly keyId: string
}

const EncryptionAlgorithm = 'SYMMETRIC_DEFAULT'
/** Every partition; a key's id is 32 hexadecimal digits, with dashes or after `mrk-` (a multi-Region key). */
const KEY_ARN = /^arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,40}:\d{12}:key\/(?:mrk-)?[0-9a-f](?:-?[0-9a-f]){31}$/
/** The service's own limit. */
const MAX_BLOB_BYTES = 6144

/**
 * AWS Key Management Service: the root key is a symmetric encryption key there. The context goes along as the
 * encryption context, so that policies can ask for it and CloudTrail shows it. Blobs are about 180 bytes.
 *
 * `keyId` is a key's ARN. An alias is refused: it can be pointed at another key. A replica of a multi-Region key has an
 * ARN of its own, so it is another root key here: give each Region its driver, and the keyring wraps for all of them.
 *
 * Errors: CONFIG at once for a client without `encrypt` and `decrypt` or a `keyId` that is no key ARN. Of a request:
 * KMS_DENIED for identity, permission, or a key that is disabled, deleted or of another usage; DECRYPTION_FAILED for a
 * blob that does not open under this key and context; KMS_UNAVAILABLE for throttling, time-outs and faults of the
 * service, and when it answers for another key.
 *
 * @example
 * ```ts
 * // compile only
 * import { KMS } from '@aws-sdk/client-kms'
 * import { awsKms } from 'waxseal/kms/aws'
 *
 * const kms = awsKms({
 *   client: new KMS({ region: 'eu-central-1', maxAttempts: 1 }),
 *   keyId: 'arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab',
 * })
 * console.log(kms.keyUri)
 * ```
 */
export function awsKms({ client, keyId }: AwsKmsOptions): KmsDriver {
  if (typeof client?.encrypt !== 'function' || typeof client.decrypt !== 'function') {
    throw config('client', 'a KMS of @aws-sdk/client-kms', client)
  }
  if (typeof keyId !== 'string' || !KEY_ARN.test(keyId)) {
    throw config(
      'keyId',
      'the ARN of a key (arn:aws:kms:<region>:<account>:key/<id>), not an alias or a bare id',
      keyId,
    )
  }
  const keyUri = `aws-kms:${keyId}`
  const request = (context: KmsContext) =>
    ({ KeyId: keyId, EncryptionContext: { ...context }, EncryptionAlgorithm }) as const
  return {
    keyUri,
    async wrap(key, context, signal) {
      const answer = await client.encrypt({ ...request(context), Plaintext: key }, options(signal))
      if (answer.KeyId !== keyId) throw anotherKey('wrap', keyUri, 'KMS_UNAVAILABLE')
      return bytesOf(answer.CiphertextBlob, 'wrap', keyUri)
    },
    async unwrap(wrapped, context, signal) {
      if (wrapped.length === 0 || wrapped.length > MAX_BLOB_BYTES) {
        throw new WaxsealError('MALFORMED', `kms.unwrap: a blob of ${keyUri} has 1 to ${MAX_BLOB_BYTES} bytes`)
      }
      const answer = await client.decrypt({ ...request(context), CiphertextBlob: wrapped }, options(signal))
      const plain = bytesOf(answer.Plaintext, 'unwrap', keyUri)
      // The client may have decoded into a pool that others share.
      const key = copyBytes(plain)
      wipe(plain)
      if (answer.KeyId === keyId) return key
      wipe(key)
      throw anotherKey('unwrap', keyUri, 'DECRYPTION_FAILED')
    },
    failureOf,
  }
}

const options = (signal: AbortSignal | undefined): AwsRequestOptions => (signal ? { abortSignal: signal } : {})

function bytesOf(bytes: unknown, operation: string, keyUri: string): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes
  throw new WaxsealError('KMS_UNAVAILABLE', `kms.${operation}: the answer of ${keyUri} holds no bytes`)
}

function anotherKey(operation: string, keyUri: string, code: 'KMS_UNAVAILABLE' | 'DECRYPTION_FAILED'): WaxsealError {
  return new WaxsealError(code, `kms.${operation}: ${keyUri} was asked, another key answered`)
}

/** By the name of the error: the service says 400 for nearly everything, throttling included. */
const FAILURES: Record<KmsFailure, readonly string[]> = {
  denied: [
    'AccessDeniedException',
    'DisabledException',
    'NotFoundException',
    // Pending deletion or import, or a custom key store that is disconnected: somebody has to act.
    'KMSInvalidStateException',
    'InvalidKeyUsageException',
    'InvalidArnException',
    'InvalidGrantTokenException',
    'UnsupportedOperationException',
    'ValidationException',
    'ExpiredTokenException',
    'UnrecognizedClientException',
    'InvalidSignatureException',
    'IncompleteSignature',
    'InvalidClientTokenId',
    'MissingAuthenticationToken',
    'NotAuthorized',
    'OptInRequired',
    // Of the client itself: it found no credentials, or those of a session that has ended.
    'CredentialsProviderError',
    'TokenProviderError',
  ],
  rejected: ['InvalidCiphertextException', 'IncorrectKeyException'],
  unavailable: [
    'ThrottlingException',
    'Throttling',
    'TooManyRequestsException',
    'RequestLimitExceeded',
    'LimitExceededException',
    'KeyUnavailableException',
    'DependencyTimeoutException',
    'KMSInternalException',
    'InternalFailure',
    'ServiceUnavailable',
    'ServiceUnavailableException',
    'RequestTimeout',
    'RequestTimeoutException',
    // The clock here differs from the service's; the client corrects it from the answer.
    'RequestExpired',
    'RequestTimeTooSkewed',
    'TimeoutError',
    'AbortError',
  ],
}

function failureOf(error: unknown): KmsFailure | undefined {
  const { name, $fault, $retryable, $metadata } = (typeof error === 'object' && error !== null ? error : {}) as {
    name?: unknown
    $fault?: unknown
    $retryable?: unknown
    $metadata?: { httpStatusCode?: unknown }
  }
  for (const failure of ['denied', 'rejected', 'unavailable'] as const) {
    if (FAILURES[failure].includes(name as string)) return failure
  }
  const isTransient = $retryable !== undefined || [408, 429].includes($metadata?.httpStatusCode as number)
  // A refusal that is not known here: asking again will not help.
  return $fault === 'client' && !isTransient ? 'denied' : undefined
}
