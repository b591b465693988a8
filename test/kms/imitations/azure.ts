import {
  constants,
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { CryptographyClient, type CryptographyClientOptions, type KeyVaultKey } from '@azure/keyvault-keys'
import { bodyOf, type Fault, listen, type Reply } from './server.ts'

interface Version {
  readonly kty: 'RSA' | 'oct-HSM'
  readonly rsa?: { readonly privateKey: KeyObject; readonly publicKey: KeyObject }
  readonly aes?: Buffer
  enabled: boolean
  /** Seconds since the epoch. */
  exp?: number
  operations?: readonly string[]
}
/** Operations that the caller has; `get` is optional for wrapping and unwrapping. */
type Operation = 'get' | 'wrapKey' | 'unwrapKey'

/** The challenge that the client has to answer, and the token that the credential of the tests gives. */
const TOKEN = 'a token that nobody else has'
const HOST = 'https://shop.vault.azure.net'

/** A Key Vault (or Managed HSM: AES keys), with the requests and answers of api-version 7.x. */
export class AzureImitation {
  readonly versions = new Map<string, Version>()
  readonly permissions = new Set<Operation>(['get', 'wrapKey', 'unwrapKey'])
  readonly faults: Fault[] = []
  readonly calls: { operation: string; authorization: string | undefined; aborted: boolean }[] = []
  private readonly running: Awaited<ReturnType<typeof listen>>

  private constructor(running: Awaited<ReturnType<typeof listen>>) {
    this.running = running
  }

  static async start(): Promise<AzureImitation> {
    const server = createServer(async (request, response) => {
      const body = await bodyOf(request)
      const reply = imitation.answer(request, body)
      const { status, body: json, headers } = reply === 'hang' ? await imitation.hang(request) : reply
      response.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', ...headers })
      response.end(typeof json === 'string' ? json : JSON.stringify(json))
    })
    const imitation = new AzureImitation(await listen(server))
    return imitation
  }

  close(): Promise<void> {
    return this.running.close()
  }

  /** The id of a new version. */
  create(name: string, kty: Version['kty'] = 'RSA'): string {
    const id = `/keys/${name}/${randomBytes(16).toString('hex')}`
    const made = kty === 'RSA' ? { rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }) } : { aes: randomBytes(32) }
    this.versions.set(id, { kty, enabled: true, ...made })
    return `${HOST}${id}`
  }

  at(id: string): Version {
    return this.versions.get(id.slice(HOST.length))!
  }

  /** The vendor's client, with retries off, whose requests for the vault come here. */
  client(
    id: string | KeyVaultKey,
    { token = TOKEN, ...options }: CryptographyClientOptions & { token?: string } = {},
  ): CryptographyClient {
    const credential = { getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3_600_000 }) }
    return new CryptographyClient(id, credential, {
      retryOptions: { maxRetries: 0 },
      ...options,
      additionalPolicies: [
        {
          position: 'perRetry',
          policy: {
            name: 'to this machine',
            sendRequest: async (request, next) => {
              const { url } = request
              request.url = url.replace(HOST, this.running.url)
              request.allowInsecureConnection = true
              return next(request).finally(() => {
                request.url = url
              })
            },
          },
        },
      ],
    })
  }

  private hang(request: IncomingMessage): Promise<never> {
    const call = this.calls.at(-1)!
    request.socket.on('close', () => {
      call.aborted = true
    })
    return new Promise(() => undefined)
  }

  private answer({ method, url, headers }: IncomingMessage, body: Buffer): Reply | 'hang' {
    const { pathname } = new URL(url!, HOST)
    const [, id, verb] = /^(\/keys\/[\w-]+\/\w+)(?:\/(wrapkey|unwrapkey))?$/.exec(pathname) ?? []
    const operation = verb === undefined ? 'get' : verb === 'wrapkey' ? 'wrapKey' : 'unwrapKey'
    const { authorization } = headers
    this.calls.push({ operation, authorization, aborted: false })
    if (authorization !== `Bearer ${TOKEN}`) return challenge
    const reply = id
      ? this.serve(operation, id, method === 'POST' ? (JSON.parse(body.toString()) as Body) : undefined)
      : notFound
    return this.faults.shift()?.(reply) ?? reply
  }

  private serve(operation: Operation, id: string, body: Body | undefined): Reply {
    if (!this.permissions.has(operation)) {
      const message = `The user, group or application does not have keys ${operation} permission on key vault 'shop'.`
      return failure(403, 'Forbidden', message, 'AccessDenied')
    }
    const key = this.versions.get(id)
    if (!key) return notFound
    if (!body) return { status: 200, body: bundle(id, key) }
    if (!key.enabled)
      return failure(403, 'Forbidden', `Operation ${operation} is not allowed on a disabled key.`, 'KeyDisabled')
    const input = Buffer.from(body.value, 'base64url')
    try {
      const value = operation === 'wrapKey' ? wrap(key, body.alg, input) : unwrap(key, body.alg, input)
      return { status: 200, body: { kid: `${HOST}${id}`, value: value.toString('base64url') } }
    } catch {
      return failure(400, 'BadParameter', 'The parameter is incorrect.')
    }
  }
}

interface Body {
  readonly alg: string
  readonly value: string
}

function wrap({ rsa, aes }: Version, alg: string, key: Buffer): Buffer {
  if (rsa && alg === 'RSA-OAEP-256') return publicEncrypt({ key: rsa.publicKey, ...OAEP }, key)
  if (!aes || alg !== 'A256KW') throw new Error('another type of key')
  const cipher = createCipheriv('id-aes256-wrap', aes, A6)
  return Buffer.concat([cipher.update(key), cipher.final()])
}

function unwrap({ rsa, aes }: Version, alg: string, wrapped: Buffer): Buffer {
  if (rsa && alg === 'RSA-OAEP-256') return privateDecrypt({ key: rsa.privateKey, ...OAEP }, wrapped)
  if (!aes || alg !== 'A256KW' || wrapped.length !== 40) throw new Error('another type of key')
  const decipher = createDecipheriv('id-aes256-wrap', aes, A6)
  return Buffer.concat([decipher.update(wrapped), decipher.final()])
}

const OAEP = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' }
const A6 = Buffer.alloc(8, 0xa6)

function bundle(id: string, { kty, rsa, enabled, exp, operations = ['wrapKey', 'unwrapKey'] }: Version): unknown {
  const { n, e } = rsa?.publicKey.export({ format: 'jwk' }) ?? {}
  const key = { kid: `${HOST}${id}`, kty, key_ops: operations, n, e }
  return {
    key,
    attributes: {
      enabled,
      exp,
      created: 1_767_225_600,
      updated: 1_767_225_600,
      recoveryLevel: 'Recoverable+Purgeable',
    },
  }
}

const challenge: Reply = {
  status: 401,
  body: { error: { code: 'Unauthorized', message: 'AKV10000: Request is missing a Bearer or PoP token.' } },
  headers: {
    'WWW-Authenticate':
      'Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"',
  },
}
const notFound = failure(404, 'KeyNotFound', 'A key with (name/id) was not found in this key vault.')

export function failure(status: number, code: string, message: string, inner?: string): Reply {
  return { status, body: { error: { code, message, ...(inner && { innererror: { code: inner } }) } } }
}
