import { copyBytes, wipe } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsDriver, KmsFailure } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** RSA-OAEP-256 for RSA keys of a Key Vault or Managed HSM, A256KW (RFC 3394) for AES keys of a Managed HSM. */
export type AzureAlgorithm = 'RSA-OAEP-256' | 'A256KW'

/** What is used of `CryptographyClient` of @azure/keyvault-keys. */
export interface AzureCryptographyClient {
  /** `https://…/keys/<name>/<version>` */
  readonly keyID?: string | undefined
  /** Empty for a client that has only a local key. */
  readonly vaultUrl?: string
  wrapKey(algorithm: AzureAlgorithm, key: Uint8Array, options: AzureCallOptions): Promise<AzureAnswer>
  unwrapKey(algorithm: AzureAlgorithm, wrapped: Uint8Array, options: AzureCallOptions): Promise<AzureAnswer>
}

export interface AzureCallOptions {
  abortSignal?: AbortSignal
}

export interface AzureAnswer {
  readonly result: Uint8Array
  readonly keyID?: string | undefined
}

export interface AzureKmsOptions {
  readonly client: AzureCryptographyClient
  readonly algorithm: AzureAlgorithm
  /** `https://…/keys/<name>/<version>`, for a client that does not tell its own; must equal it if it does. */
  readonly keyId?: string
}

/**
 * A root key in Azure Key Vault or Managed HSM: **one version** of a key, named with its version. A later version is
 * another root key; this one must stay enabled for as long as something is wrapped by it.
 *
 * The service takes no context, so the keyring binds it: it seals the key under a fresh one, and that is wrapped. Under
 * RSA-OAEP-256 whoever has the public key can wrap, so a keyring asks for `pin.id` to be opened. What the driver stores
 * is the service's answer: 256 to 512 bytes for RSA of 2,048 to 4,096 bits, 40 for A256KW.
 *
 * Errors: CONFIG at once for another algorithm, a key id without version, or a client that has only a local key. From
 * a keyring: KMS_DENIED for HTTP 401, 403 (no permission, disabled, expired) and 404, for no credentials, and for 400
 * when wrapping; DECRYPTION_FAILED for 400 when unwrapping; KMS_UNAVAILABLE else (429, 5xx, no connection).
 *
 * @example
 * ```ts
 * // compile only
 * import type { TokenCredential } from '@azure/core-auth'
 * import { CryptographyClient } from '@azure/keyvault-keys'
 * import { azureKms } from 'waxseal/kms/azure'
 *
 * declare const credential: TokenCredential // new DefaultAzureCredential()
 * const keyId = 'https://shop.vault.azure.net/keys/crm/78deebed173b48e48f55abf87ed4cf71'
 * const kms = azureKms({
 *   client: new CryptographyClient(keyId, credential, { retryOptions: { maxRetries: 0 } }), // the keyring retries
 *   algorithm: 'RSA-OAEP-256',
 * })
 * console.log(kms.keyUri)
 * ```
 */
export function azureKms({ client, algorithm, keyId }: AzureKmsOptions): KmsDriver {
  if (typeof client?.wrapKey !== 'function' || typeof client.unwrapKey !== 'function') {
    throw config('client', 'a CryptographyClient', client)
  }
  if (client.vaultUrl === '') throw config('client', 'a CryptographyClient of a key at the service', client)
  if (algorithm !== 'RSA-OAEP-256' && algorithm !== 'A256KW') {
    throw config('algorithm', "'RSA-OAEP-256' or 'A256KW'", algorithm)
  }
  const id = versionedId(client, keyId)

  /** The client's own buffer is wiped: the copy is what is handed on. */
  const answer = ({ result, keyID }: AzureAnswer): Uint8Array => {
    if (!(result instanceof Uint8Array)) throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Azure answered without bytes')
    const own = copyBytes(result)
    wipe(result)
    if (keyID === undefined || sameId(keyID, id)) return own
    wipe(own)
    throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Azure used another key')
  }

  return {
    keyUri: `azure-kms:${id}`,
    ignoresContext: true,
    wrapsPublicly: algorithm === 'RSA-OAEP-256',

    async wrap(key, _context, signal) {
      signal?.throwIfAborted()
      const asked = client.wrapKey(algorithm, key, signal ? { abortSignal: signal } : {})
      return answer(
        await asked.catch((error: unknown) => {
          throw failureOf(error) === 'rejected' ? unfit(algorithm) : error
        }),
      )
    },

    async unwrap(wrapped, _context, signal) {
      signal?.throwIfAborted()
      return answer(await client.unwrapKey(algorithm, wrapped, signal ? { abortSignal: signal } : {}))
    },

    failureOf,
  }
}

const KEY_ID = /^https:\/\/[\w.-]+(:\d{1,5})?\/keys\/[\w-]{1,127}\/\w{1,64}$/

function versionedId(client: AzureCryptographyClient, keyId: string | undefined): string {
  const id = keyId ?? client.keyID
  if (typeof id !== 'string' || !KEY_ID.test(id)) {
    const argument = keyId === undefined ? 'client' : 'keyId'
    throw config(argument, 'a key id https://…/keys/<name>/<version>, with its version', id)
  }
  if (client.keyID !== undefined && !sameId(client.keyID, id)) {
    throw config('keyId', 'the key id of the client', keyId)
  }
  return normal(id)
}

/** Host, name and version mean the same in either case, and with the port of https or without it. */
const normal = (id: string): string => id.toLowerCase().replace(/^(https:\/\/[^/]+):443\//, '$1/')
const sameId = (a: string, b: string): boolean => normal(a) === normal(b)

/** What @azure/identity throws when there is no identity, or Entra ID refuses it. */
const NO_IDENTITY = /^(AuthenticationRequired|CredentialUnavailable|AggregateAuthentication)Error$/

/** What the client finds out by itself in the key's attributes, as errors without a code. */
const UNUSABLE = /^Key \S+ (can't be used before|expired at) |^Operation \w+ is not supported on key /

function failureOf(error: unknown): KmsFailure | undefined {
  const { name, statusCode, message } = (typeof error === 'object' && error !== null ? error : {}) as {
    name?: unknown
    statusCode?: unknown
    message?: unknown
  }
  if (NO_IDENTITY.test(String(name))) return 'denied'
  if (statusCode === 400) return name === 'AuthenticationError' ? 'denied' : 'rejected'
  return statusCode === undefined && UNUSABLE.test(String(message)) ? 'denied' : undefined
}

const unfit = (algorithm: AzureAlgorithm): WaxsealError =>
  new WaxsealError('KMS_DENIED', `kms.wrap: Azure refuses the request: is the key made for ${algorithm}?`)
