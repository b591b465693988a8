import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import { bodyOf, type Fault, listen, type Reply } from './server.ts'

const AEADS = { 'aes256-gcm96': 'aes-256-gcm', 'chacha20-poly1305': 'chacha20-poly1305' } as const
interface Key {
  readonly type: keyof typeof AEADS | 'rsa-4096'
  readonly versions: Buffer[]
  minDecryptionVersion: number
}
type Capability = 'create' | 'update'
type Body = Readonly<Record<string, string | undefined>>

/** Transit of Vault 1.13 and later, or of an older one: its requests, answers, errors and policies. */
export class VaultImitation {
  /** By path: `transit/keys/crm`, or `team/transit/keys/crm` in a namespace. */
  readonly keys = new Map<string, Key>()
  readonly mounts = new Set(['transit'])
  /** Token → path → capabilities. */
  readonly tokens = new Map<string, Record<string, readonly Capability[]>>()
  readonly faults: Fault[] = []
  readonly calls: { path: string; headers: IncomingHttpHeaders; body: Body }[] = []
  isSealed = false
  /** Before 1.13: `associated_data` is a field that is not known, and ignored. */
  isOld = false
  private readonly running: Awaited<ReturnType<typeof listen>>

  private constructor(running: Awaited<ReturnType<typeof listen>>) {
    this.running = running
  }

  static async start(): Promise<VaultImitation> {
    const server = createServer(async (request, response) => {
      const text = (await bodyOf(request)).toString()
      const reply = imitation.answer(request.method!, request.url!, request.headers, text)
      if (reply === 'hang') return
      response.writeHead(reply.status, {
        'Content-Type': 'application/json',
        'Cache-Control': 'no-store',
        ...reply.headers,
      })
      response.end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body))
    })
    const imitation = new VaultImitation(await listen(server))
    return imitation
  }

  get url(): string {
    return this.running.url
  }

  close(): Promise<void> {
    return this.running.close()
  }

  create(path: string, type: Key['type'] = 'aes256-gcm96'): Key {
    const key = { type, versions: [randomBytes(32)], minDecryptionVersion: 1 }
    this.keys.set(path, key)
    return key
  }

  /** A token that may use the key, and nothing else. */
  token(path = 'transit/keys/crm', capabilities: readonly Capability[] = ['update']): string {
    const token = `hvs.${randomBytes(16).toString('hex')}`
    const paths = ['encrypt', 'decrypt'].map((verb) => [path.replace('/keys/', `/${verb}/`), capabilities])
    this.tokens.set(token, Object.fromEntries(paths))
    return token
  }

  private answer(method: string, url: string, headers: IncomingHttpHeaders, text: string): Reply | 'hang' {
    const body = (text ? JSON.parse(text) : {}) as Body
    const namespace = headers['x-vault-namespace']
    const path = (namespace ? `${String(namespace)}/` : '') + url.replace(/^\/v1\//, '')
    this.calls.push({ path, headers, body })
    const reply =
      method === 'POST' || method === 'PUT' ? this.serve(path, headers, body) : errors(405, 'unsupported operation')
    return this.faults.shift()?.(reply) ?? reply
  }

  private serve(path: string, headers: IncomingHttpHeaders, body: Body): Reply {
    if (this.isSealed) return errors(503, 'Vault is sealed')
    const policy = this.tokens.get(String(headers['x-vault-token']))
    if (!policy) return errors(403, 'permission denied', 'invalid token')
    const [, mount, verb, name] = /^(.+)\/(encrypt|decrypt)\/([\w.-]+)$/.exec(path) ?? []
    if (!mount || !this.mounts.has(mount)) {
      return errors(404, `no handler for route ${JSON.stringify(path)}. route entry not found.`)
    }
    const at = `${mount}/keys/${name}`
    const needed = verb === 'encrypt' && !this.keys.has(at) ? 'create' : 'update'
    if (!policy[path]?.includes(needed)) return errors(403, '1 error occurred:\n\t* permission denied\n\n')
    // Encrypting under a name that is free makes a key.
    const key = this.keys.get(at) ?? (verb === 'encrypt' ? this.create(at) : undefined)
    if (!key) return errors(400, 'encryption key not found')
    if (key.type === 'rsa-4096') {
      return errors(400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-4096")
    }
    return verb === 'encrypt' ? this.encrypt(key, body) : this.decrypt(key, body)
  }

  private encrypt({ type, versions }: Key, body: Body): Reply {
    const version = versions.length
    const iv = randomBytes(12)
    const cipher = createCipheriv(AEADS[type as keyof typeof AEADS] as 'aes-256-gcm', versions[version - 1]!, iv)
    cipher.setAAD(this.aad(body))
    const sealed = [cipher.update(Buffer.from(body.plaintext!, 'base64')), cipher.final(), cipher.getAuthTag()]
    const ciphertext = `vault:v${version}:${Buffer.concat([iv, ...sealed]).toString('base64')}`
    return ok({ ciphertext, key_version: version })
  }

  private decrypt({ type, versions, minDecryptionVersion }: Key, body: Body): Reply {
    const [, version, text] = /^vault:v(\d+):(.+)$/.exec(body.ciphertext ?? '') ?? []
    if (!text) return errors(400, 'invalid ciphertext: no prefix')
    if (Number(version) > versions.length) return errors(400, 'invalid ciphertext: version is too new')
    if (Number(version) < minDecryptionVersion) {
      return errors(400, 'ciphertext or signature version is disallowed by policy (too old)')
    }
    const bytes = Buffer.from(text, 'base64')
    try {
      const aead = AEADS[type as keyof typeof AEADS] as 'aes-256-gcm'
      const decipher = createDecipheriv(aead, versions[Number(version) - 1]!, bytes.subarray(0, 12), {
        authTagLength: 16,
      })
      decipher.setAAD(this.aad(body)).setAuthTag(bytes.subarray(-16))
      const plaintext = Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()])
      return ok({ plaintext: plaintext.toString('base64') })
    } catch {
      return errors(400, 'cipher: message authentication failed')
    }
  }

  private aad(body: Body): Buffer {
    return Buffer.from(this.isOld ? '' : (body.associated_data ?? ''), 'base64')
  }
}

export const errors = (status: number, ...errors: string[]): Reply => ({ status, body: { errors } })

const ok = (data: object): Reply => ({
  status: 200,
  body: {
    request_id: randomUUID(),
    lease_id: '',
    renewable: false,
    lease_duration: 0,
    data,
    wrap_info: null,
    warnings: null,
    auth: null,
  },
})
