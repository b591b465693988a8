import { createCipheriv, createDecipheriv, createVerify, generateKeyPairSync, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { KeyManagementServiceClient } from '@google-cloud/kms'
import { bodyOf, listen } from './server.ts'

/** The status codes of gRPC that Cloud KMS answers with, and what its JSON interface makes of them. */
const HTTP = {
  1: [499, 'CANCELLED'],
  3: [400, 'INVALID_ARGUMENT'],
  4: [504, 'DEADLINE_EXCEEDED'],
  5: [404, 'NOT_FOUND'],
  7: [403, 'PERMISSION_DENIED'],
  8: [429, 'RESOURCE_EXHAUSTED'],
  9: [400, 'FAILED_PRECONDITION'],
  10: [409, 'ABORTED'],
  12: [501, 'UNIMPLEMENTED'],
  13: [500, 'INTERNAL'],
  14: [503, 'UNAVAILABLE'],
  16: [401, 'UNAUTHENTICATED'],
} as const
export type Code = keyof typeof HTTP
export type Failure = { readonly code: Code; readonly message: string }
export interface Answer {
  name?: string
  ciphertext?: Buffer
  plaintext?: Buffer
  ciphertextCrc32c?: { value: string }
  plaintextCrc32c?: { value: string }
  verifiedPlaintextCrc32c?: boolean
  verifiedAdditionalAuthenticatedDataCrc32c?: boolean
}
/** Changes the next answer; 'hang' gives none. */
export type Fault = (answer: Answer | Failure) => Answer | Failure | 'hang'
type Method = 'encrypt' | 'decrypt'
interface Request {
  readonly name: string
  readonly plaintext: Buffer
  readonly ciphertext: Buffer
  readonly additionalAuthenticatedData: Buffer
  /** Undefined if it was not sent. */
  readonly crc: Readonly<Record<'plaintext' | 'ciphertext' | 'additionalAuthenticatedData', string | undefined>>
}
interface Key {
  readonly versions: Buffer[]
  state: 'enabled' | 'disabled' | 'denied' | 'asymmetric'
}

/** What the documentation says of Encrypt and Decrypt, with AES-256-GCM, whatever carries the request. */
export class GoogleImitation {
  readonly keys = new Map<string, Key>()
  readonly faults: Fault[] = []
  readonly calls: { method: Method; name: string; aad: string; cancelled: boolean }[] = []

  create(name: string): string {
    this.keys.set(name, { versions: [randomBytes(32)], state: 'enabled' })
    return name
  }

  rotate(name: string): void {
    this.keys.get(name)!.versions.push(randomBytes(32))
  }

  answer(method: Method, request: Request): Answer | Failure | 'hang' {
    const aad = request.additionalAuthenticatedData.toString('utf8')
    this.calls.push({ method, name: request.name, aad, cancelled: false })
    const answer = this[method](request)
    return this.faults.shift()?.(answer) ?? answer
  }

  private encrypt(request: Request): Answer | Failure {
    const key = this.usable(request, 'plaintext')
    if ('code' in key) return key
    const version = key.versions.length
    const iv = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', key.versions[version - 1]!, iv).setAAD(
      request.additionalAuthenticatedData,
    )
    const sealed = [cipher.update(request.plaintext), cipher.final(), cipher.getAuthTag()]
    const ciphertext = Buffer.concat([Buffer.of(version), iv, ...sealed])
    return {
      name: `${request.name}/cryptoKeyVersions/${version}`,
      ciphertext,
      ciphertextCrc32c: { value: String(crc32c(ciphertext)) },
      verifiedPlaintextCrc32c: request.crc.plaintext !== undefined,
      verifiedAdditionalAuthenticatedDataCrc32c: request.crc.additionalAuthenticatedData !== undefined,
    }
  }

  private decrypt(request: Request): Answer | Failure {
    const key = this.usable(request, 'ciphertext')
    if ('code' in key) return key
    const { ciphertext } = request
    const version = key.versions[ciphertext[0]! - 1]
    try {
      const decipher = createDecipheriv('aes-256-gcm', version!, ciphertext.subarray(1, 13), { authTagLength: 16 })
      decipher.setAAD(request.additionalAuthenticatedData).setAuthTag(ciphertext.subarray(-16))
      const plaintext = Buffer.concat([decipher.update(ciphertext.subarray(13, -16)), decipher.final()])
      return { plaintext, plaintextCrc32c: { value: String(crc32c(plaintext)) } }
    } catch {
      return { code: 3, message: 'Decryption failed: the ciphertext is invalid.' }
    }
  }

  private usable(request: Request, input: 'plaintext' | 'ciphertext'): Key | Failure {
    const key = this.keys.get(request.name)
    if (!key) return { code: 5, message: `CryptoKey ${request.name} not found.` }
    if (key.state === 'denied') return { code: 7, message: `Permission 'cloudkms.${input}' denied on ${request.name}.` }
    if (key.state === 'disabled')
      return { code: 9, message: `${request.name} is not enabled, current state is: DISABLED.` }
    if (key.state === 'asymmetric') return { code: 3, message: 'The CryptoKey is not of purpose ENCRYPT_DECRYPT.' }
    for (const field of [input, 'additionalAuthenticatedData'] as const) {
      if (request.crc[field] !== undefined && request.crc[field] !== String(crc32c(request[field]))) {
        return { code: 3, message: `The checksum in field ${field}_crc32c did not match the data in field ${field}.` }
      }
    }
    return key
  }
}

/** CRC-32C by table, written apart from the driver's. */
const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  return value
})
export function crc32c(bytes: Uint8Array): number {
  return (bytes.reduce((crc, byte) => TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0
}

const { privateKey, publicKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
})
const EMAIL = 'app@shop.iam.gserviceaccount.com'

/** The real client, and how to end it and its server. */
export interface Connected {
  readonly client: KeyManagementServiceClient
  close(): Promise<void>
}

/** JSON over HTTP; the client signs its requests as a service account, and the server checks that. */
export async function overRest(kms: GoogleImitation, { isKnown = true } = {}): Promise<Connected> {
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request)
    const reply = authenticated(request) ? restAnswer(kms, request.url!, body) : unauthenticated
    if (reply === 'hang') return hang(kms, response)
    const { status, json } = restOf(reply)
    response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(json))
  })
  const { port, close } = await listen(server)
  const other = isKnown ? privateKey : generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  const client = new KeyManagementServiceClient({
    fallback: true,
    apiEndpoint: '127.0.0.1',
    port,
    protocol: 'http',
    credentials: {
      client_email: EMAIL,
      private_key: typeof other === 'string' ? other : other.export({ type: 'pkcs8', format: 'pem' }).toString(),
    },
  })
  return {
    client,
    async close() {
      await client.close()
      await close()
    },
  }
}

const unauthenticated: Failure = { code: 16, message: 'Request had invalid authentication credentials.' }

/** A token that the service account signed itself: RS256, not expired. */
function authenticated({ headers }: IncomingMessage): boolean {
  const [head, claims, signature] = (headers.authorization ?? '').replace(/^Bearer /, '').split('.')
  if (!head || !claims || !signature) return false
  const { iss, exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { iss?: string; exp?: number }
  const isSigned = createVerify('RSA-SHA256').update(`${head}.${claims}`).verify(publicKey, signature, 'base64url')
  return isSigned && iss === EMAIL && exp! > Date.now() / 1000
}

function restAnswer(kms: GoogleImitation, url: string, body: Buffer): Answer | Failure | 'hang' {
  const [, name, method] = /^\/v1\/([^:?]+):(encrypt|decrypt)\?/.exec(url) ?? []
  if (!name) return { code: 5, message: 'no such method' }
  const json = JSON.parse(body.toString()) as Record<string, string | undefined>
  const bytes = (field: string): Buffer => Buffer.from(json[field] ?? '', 'base64')
  return kms.answer(method as Method, {
    name,
    plaintext: bytes('plaintext'),
    ciphertext: bytes('ciphertext'),
    additionalAuthenticatedData: bytes('additionalAuthenticatedData'),
    crc: {
      plaintext: json.plaintextCrc32c,
      ciphertext: json.ciphertextCrc32c,
      additionalAuthenticatedData: json.additionalAuthenticatedDataCrc32c,
    },
  })
}

function restOf(reply: Answer | Failure): { status: number; json: unknown } {
  if ('code' in reply) {
    const [code, status] = HTTP[reply.code]
    return { status: code, json: { error: { code, message: reply.message, status } } }
  }
  const json = Object.entries(reply).map(([field, value]) => {
    if (Buffer.isBuffer(value)) return [field, value.toString('base64')]
    return [field, typeof value === 'object' ? value.value : value]
  })
  return { status: 200, json: Object.fromEntries(json) }
}

function hang(kms: GoogleImitation, response: ServerResponse): void {
  const call = kms.calls.at(-1)!
  response.on('close', () => {
    call.cancelled = true
  })
}

// ── gRPC, with the client's own copy of grpc-js and protobuf ─────────────────────────────────────────────────────
interface Message {
  decode(bytes: Uint8Array): object
  fromObject(object: object): object
  toObject(message: object, options: object): Record<string, unknown>
  encode(message: object): { finish(): Uint8Array }
}
interface Call {
  readonly request: Request
  on(event: 'cancelled', listener: () => void): void
}
interface Gax {
  readonly protobuf: { Root: { fromJSON(json: object): { lookupType(name: string): Message } } }
  readonly grpc: {
    credentials: { createInsecure(): never }
    ServerCredentials: { createInsecure(): object }
    Server: new () => {
      addService(definition: object, handlers: object): void
      bindAsync(address: string, credentials: object, done: (error: Error | null, port: number) => void): void
      forceShutdown(): void
    }
  }
}

export async function overGrpc(kms: GoogleImitation): Promise<Connected> {
  const vendor = createRequire(createRequire(import.meta.url).resolve('@google-cloud/kms'))
  const gax = vendor('google-gax') as Gax
  const root = gax.protobuf.Root.fromJSON(vendor('../protos/protos.json') as object)
  const type = (name: string): Message => root.lookupType(`google.cloud.kms.v1.${name}`)
  const definition = (Method: 'Encrypt' | 'Decrypt') => ({
    path: `/google.cloud.kms.v1.KeyManagementService/${Method}`,
    requestStream: false,
    responseStream: false,
    requestDeserialize: (bytes: Buffer) => requestOf(type(`${Method}Request`), bytes),
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: () => ({}),
    responseSerialize(answer: object) {
      const message = type(`${Method}Response`)
      return Buffer.from(message.encode(message.fromObject(answer)).finish())
    },
  })
  const handler = (method: Method) => (call: Call, done: (error: object | null, answer?: object) => void) => {
    const reply = kms.answer(method, call.request)
    const record = kms.calls.at(-1)!
    if (reply === 'hang') {
      return call.on('cancelled', () => {
        record.cancelled = true
      })
    }
    return 'code' in reply ? done({ code: reply.code, details: reply.message }) : done(null, reply)
  }
  const server = new gax.grpc.Server()
  server.addService(
    { Encrypt: definition('Encrypt'), Decrypt: definition('Decrypt') },
    { Encrypt: handler('encrypt'), Decrypt: handler('decrypt') },
  )
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', gax.grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    )
  })
  const sslCreds = gax.grpc.credentials.createInsecure()
  const client = new KeyManagementServiceClient({ apiEndpoint: '127.0.0.1', port, sslCreds })
  return {
    client,
    async close() {
      await client.close()
      server.forceShutdown()
    },
  }
}

function requestOf(message: Message, bytes: Buffer): Request {
  const sent = message.toObject(message.decode(bytes), { longs: String, bytes: Buffer, defaults: true }) as Record<
    string,
    unknown
  >
  const crc = (field: string): string | undefined => {
    const wrapped = sent[`${field}Crc32c`] as { value?: string } | null | undefined
    return wrapped?.value
  }
  return {
    name: sent.name as string,
    plaintext: sent.plaintext as Buffer,
    ciphertext: sent.ciphertext as Buffer,
    additionalAuthenticatedData: sent.additionalAuthenticatedData as Buffer,
    crc: {
      plaintext: crc('plaintext'),
      ciphertext: crc('ciphertext'),
      additionalAuthenticatedData: crc('additionalAuthenticatedData'),
    },
  }
}
