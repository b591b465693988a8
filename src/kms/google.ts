import { ascii, copyBytes, wipe } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsContext, KmsDriver, KmsFailure } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** What is used of `KeyManagementServiceClient` of @google-cloud/kms, over gRPC or its REST fallback. */
export interface GoogleKmsClient {
  encrypt(request: GoogleEncryptRequest, options: GoogleCallOptions): Promise<readonly [GoogleEncrypted, ...unknown[]]>
  decrypt(request: GoogleDecryptRequest, options: GoogleCallOptions): Promise<readonly [GoogleDecrypted, ...unknown[]]>
  /** Awaited before each call, if there: it rejects where `encrypt` would leave a rejection that nobody handles. */
  initialize?(): Promise<unknown>
}

export interface GoogleEncryptRequest {
  name: string
  plaintext: Uint8Array
  plaintextCrc32c: { value: string }
  additionalAuthenticatedData: Uint8Array
  additionalAuthenticatedDataCrc32c: { value: string }
}

export interface GoogleDecryptRequest {
  name: string
  ciphertext: Uint8Array
  ciphertextCrc32c: { value: string }
  additionalAuthenticatedData: Uint8Array
  additionalAuthenticatedDataCrc32c: { value: string }
}

/** `retry: null`: the client does not try again; the keyring does. */
export interface GoogleCallOptions {
  retry: null
}

export interface GoogleEncrypted {
  readonly name?: string | null
  readonly ciphertext?: unknown
  readonly ciphertextCrc32c?: { readonly value?: unknown } | null
  readonly verifiedPlaintextCrc32c?: boolean | null
  readonly verifiedAdditionalAuthenticatedDataCrc32c?: boolean | null
}

export interface GoogleDecrypted {
  readonly plaintext?: unknown
  readonly plaintextCrc32c?: { readonly value?: unknown } | null
}

export interface GoogleKmsOptions {
  readonly client: GoogleKmsClient
  /** `projects/…/locations/…/keyRings/…/cryptoKeys/…`, without a version: Google picks it, and rotates it. */
  readonly keyName: string
}

/**
 * A root key in Google Cloud KMS: a symmetric key of purpose ENCRYPT_DECRYPT.
 *
 * The additional authenticated data is the UTF-8 of JSON: an array of the context's `[key, value]` pairs, sorted by key
 * in UTF-16 code units, without white space. It and the key have 4-byte CRC32C checksums in both directions; an answer
 * whose checksum is wrong or missing is not believed and asked for again. What is stored is the ciphertext as it came:
 * 32 bytes become about 110, at most 16,384.
 *
 * The client takes no abort signal. A call that timed out is cancelled if the client's promise can do that; else it is
 * left to the client's own deadline (60 s over gRPC unless configured, none over REST), and a late answer is wiped.
 *
 * Errors: CONFIG at once for a key name of another form. From a keyring: KMS_DENIED for PERMISSION_DENIED,
 * UNAUTHENTICATED, NOT_FOUND, FAILED_PRECONDITION (disabled or destroyed), UNIMPLEMENTED, missing credentials, and
 * INVALID_ARGUMENT when wrapping; DECRYPTION_FAILED for INVALID_ARGUMENT when unwrapping; KMS_UNAVAILABLE else.
 *
 * @example
 * ```ts
 * // compile only
 * import { KeyManagementServiceClient } from '@google-cloud/kms'
 * import { googleKms } from 'waxseal/kms/google'
 *
 * const kms = googleKms({
 *   client: new KeyManagementServiceClient(),
 *   keyName: 'projects/shop/locations/europe-west1/keyRings/waxseal/cryptoKeys/crm',
 * })
 * console.log(kms.keyUri)
 * ```
 */
export function googleKms({ client, keyName }: GoogleKmsOptions): KmsDriver {
  if (typeof client?.encrypt !== 'function' || typeof client.decrypt !== 'function') {
    throw config('client', 'a KeyManagementServiceClient', client)
  }
  if (typeof keyName !== 'string' || keyName.length > 1024 || !KEY_NAME.test(keyName)) {
    throw config('keyName', 'projects/…/locations/…/keyRings/…/cryptoKeys/… without a version', keyName)
  }
  return {
    keyUri: `google-kms:${keyName}`,

    wrap: (key, context, signal) =>
      abortable(signal, async (call) => {
        await ready(client, signal)
        const plaintext = copyBytes(key)
        const request = { name: keyName, plaintext, plaintextCrc32c: checksum(key), ...aadOf(context) }
        const made = call(client.encrypt(request, { retry: null })).finally(() => wipe(plaintext))
        const [answer] = await made.catch((error: unknown) => {
          throw failureOf(error) === 'rejected' ? unfit() : error
        })
        if (!answer.verifiedPlaintextCrc32c || !answer.verifiedAdditionalAuthenticatedDataCrc32c) {
          throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Google did not verify the checksums of the request')
        }
        if (!answer.name?.startsWith(`${keyName}/cryptoKeyVersions/`))
          throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Google used another key')
        return intact(answer.ciphertext, answer.ciphertextCrc32c)
      }),

    unwrap: (wrapped, context, signal) =>
      abortable(signal, async (call) => {
        await ready(client, signal)
        // Copies: over REST the client sends the whole buffer that a view is a part of.
        const ciphertext = copyBytes(wrapped)
        const request = { name: keyName, ciphertext, ciphertextCrc32c: checksum(wrapped), ...aadOf(context) }
        const [answer] = await call(client.decrypt(request, { retry: null }))
        return intact(answer.plaintext, answer.plaintextCrc32c)
      }),

    failureOf,
  }
}

const KEY_NAME = /^projects\/[\w.:-]+\/locations\/[\w-]+\/keyRings\/[\w-]+\/cryptoKeys\/[\w-]+$/

async function ready(client: GoogleKmsClient, signal: AbortSignal | undefined): Promise<void> {
  try {
    await client.initialize?.()
  } catch {
    // The client remembers this failure: no retry can help.
    throw new WaxsealError('KMS_DENIED', 'kms: the Google client finds no credentials')
  }
  signal?.throwIfAborted()
}

/** A call of the client; promises of some of its versions can be cancelled. */
type Call = <T>(made: Promise<T> & { cancel?: () => void }) => Promise<T>

/** The client takes no signal: its answer is waited for no longer, and wiped when it comes. */
function abortable(signal: AbortSignal | undefined, work: (call: Call) => Promise<Uint8Array>): Promise<Uint8Array> {
  if (!signal) return work((made) => made)
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    let cancel: (() => void) | undefined
    const done = work((made) => {
      cancel = () => made.cancel?.()
      return made
    })
    const abort = (): void => {
      reject(signal.reason)
      done.then(wipe, () => undefined)
      cancel?.()
    }
    signal.addEventListener('abort', abort, { once: true })
    done.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function aadOf(context: KmsContext) {
  const pairs = Object.entries(context).sort(([a], [b]) => (a < b ? -1 : 1))
  const additionalAuthenticatedData = ascii(JSON.stringify(pairs))
  return { additionalAuthenticatedData, additionalAuthenticatedDataCrc32c: checksum(additionalAuthenticatedData) }
}

/** A copy, so that no buffer of the client is kept, and the client's is wiped. */
function intact(bytes: unknown, crc: { readonly value?: unknown } | null | undefined): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Google answered without bytes')
  const own = copyBytes(bytes)
  wipe(bytes)
  // A number, a decimal string or a Long, by transport and version of the client.
  if (String(crc?.value) === checksum(own).value) return own
  wipe(own)
  throw new WaxsealError('KMS_UNAVAILABLE', 'kms: the checksum of the answer is wrong')
}

/** gRPC status codes: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, UNIMPLEMENTED, UNAUTHENTICATED. */
const INVALID_ARGUMENT = 3
const DENIED: readonly unknown[] = [5, 7, 9, 12, 16]

/** The client gives a gRPC status as `code`; over REST some versions give the HTTP status, with the body as message. */
function failureOf(error: unknown): KmsFailure | undefined {
  const { code, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const text = String(message)
  if (code === INVALID_ARGUMENT || (code === 400 && text.includes('INVALID_ARGUMENT'))) {
    // Also how the service says that what arrived does not fit its checksum.
    return /checksum|crc32c/i.test(text) ? 'unavailable' : 'rejected'
  }
  if (DENIED.includes(code) || code === 400 || code === 501) return 'denied'
  return typeof code === 'number' && code < 100 ? 'unavailable' : undefined
}

const unfit = (): WaxsealError =>
  new WaxsealError('KMS_DENIED', 'kms.wrap: Google refuses the request: the key is not of purpose ENCRYPT_DECRYPT?')

const checksum = (bytes: Uint8Array): { value: string } => ({ value: String(crc32c(bytes)) })

/** CRC-32C (RFC 3720, appendix B.4), reflected, a bit at a time: a call handles some hundred bytes. */
function crc32c(bytes: Uint8Array): number {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  }
  return ~crc >>> 0
}
