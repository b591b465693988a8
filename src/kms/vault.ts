import { ascii, concat, readUtf8, wipe } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsContext, KmsDriver, KmsFailure } from './kms.ts'
import { dataOfJson, fromBase64, toBase64, toJson } from './vault-json.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** What is used of a client of node-vault. */
export interface VaultClient {
  readonly endpoint: string
  write(path: string, data: Readonly<Record<string, string>>): Promise<unknown>
}

/** A token, or what gives the current one: asked before every request, so a renewed one is used at once. */
export type VaultToken = string | (() => string | Promise<string>)

export interface VaultKey {
  /** The name of the key. Its type must be `aes256-gcm96`, `aes128-gcm96` or `chacha20-poly1305`, not derived. */
  readonly key: string
  /** Where the Transit engine is mounted: `transit` by default. */
  readonly mount?: string
  /** Of Vault Enterprise, HCP and OpenBao. A node-vault client sends its own: name the same one here. */
  readonly namespace?: string
  /** Recorded in place of the address, for a cluster that is reached by several: 1 to 128 of `A-Z a-z 0-9 . _ -`. */
  readonly cluster?: string
}

export interface VaultByClient extends VaultKey {
  readonly client: VaultClient
}

export interface VaultByFetch extends VaultKey {
  /** `https://vault.example.com:8200`, perhaps with a path before `/v1`. */
  readonly address: string
  readonly token: VaultToken
  /** Allows http:// to another machine: token and keys are then readable on the way. */
  readonly allowInsecure?: boolean
}

export type VaultTransitOptions = VaultByClient | VaultByFetch

/** One request, its bytes sent as base64: the `data` of the answer, its `plaintext` as bytes. */
type Write = (path: string, body: Body, signal?: AbortSignal) => Promise<Record<string, unknown>>
type Body = Readonly<Record<string, string | Uint8Array>>

/** Of an answer over fetch, in bytes; one of Transit is below 1 KiB. */
const MAX_ANSWER_BYTES = 65_536
const CIPHERTEXT = /^vault:v[1-9]\d{0,9}:([A-Za-z0-9+/]{40,1000}={0,2})$/
const OTHER_CONTEXT: KmsContext = { 'waxseal:probe': 'a context that nothing is wrapped under' }

/**
 * A root key in the Transit engine of HashiCorp Vault (1.13 or later) or OpenBao, by a node-vault client or by the
 * platform's `fetch`.
 *
 * The `associated_data` is the base64 of the UTF-8 of JSON: an array of the context's `[key, value]` pairs, sorted by
 * key in UTF-16 code units, without white space. Transit refuses it for key types that cannot bind it, and versions
 * before 1.13 do not know it: so the first wrap of a driver also asks that what was wrapped be opened under another
 * context, and fails unless Vault refuses. Stored is the text `vault:v<n>:…` as ASCII: 90 bytes or so, at most 1,020.
 *
 * Over fetch: https only, except to this machine; no redirect is followed; an answer is at most 65,536 bytes. Keys are in no
 * string there; node-vault makes strings of them, which JavaScript cannot wipe.
 *
 * Errors: CONFIG at once for names or an address of another form, and from the first wrap when the context is not
 * bound; MALFORMED from `unwrap` for a blob of another form. From a keyring: KMS_DENIED for HTTP 403, 404, for 400 when
 * wrapping (key type), and when unwrapping for a key that is not there or a version that is retired; DECRYPTION_FAILED
 * for any other 400; KMS_UNAVAILABLE else (412, 429, 472, 473, 5xx, sealed, no connection).
 *
 * @example
 * ```ts
 * // compile only
 * import { readFile } from 'node:fs/promises'
 * import { vaultTransit } from 'waxseal/kms/vault'
 *
 * const kms = vaultTransit({
 *   address: 'https://vault.example.com:8200',
 *   token: async () => (await readFile('/run/vault/token', 'utf8')).trim(), // kept fresh by Vault Agent
 *   key: 'crm',
 * })
 * console.log(kms.keyUri) // vault-transit:https://vault.example.com:8200/v1/transit/keys/crm
 * ```
 */
export function vaultTransit(options: VaultTransitOptions): KmsDriver {
  const { key, mount = 'transit', namespace, cluster } = options
  if (typeof key !== 'string' || !NAME.test(key)) throw config('key', 'the name of a Transit key', key)
  const path = (name: string, text: string): string => {
    if (typeof text === 'string' && text.length <= 512 && text.split('/').every((part) => NAME.test(part))) return text
    throw config(name, 'names with / between them', text)
  }
  path('mount', mount)
  const below = namespace === undefined ? '' : `${path('namespace', namespace)}/`
  if (cluster !== undefined && !(typeof cluster === 'string' && NAME.test(cluster))) {
    throw config('cluster', 'a name of 1 to 128 characters', cluster)
  }
  const [address, write] = 'client' in options ? byClient(options.client) : byFetch(options)

  const open = async (ciphertext: string, context: KmsContext, signal?: AbortSignal): Promise<Uint8Array> => {
    const body = { ciphertext, associated_data: associated(context) }
    const { plaintext } = await write(`${mount}/decrypt/${key}`, body, signal)
    if (plaintext instanceof Uint8Array) return plaintext
    throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Vault answered without a plaintext')
  }

  let bindsContext = false
  const prove = async (ciphertext: string, signal?: AbortSignal): Promise<void> => {
    try {
      wipe(await open(ciphertext, OTHER_CONTEXT, signal))
    } catch (error) {
      if (failureOf(error) !== 'rejected') throw error
      if (told(error).length === 0) throw new WaxsealError('KMS_UNAVAILABLE', 'kms: it is not Vault that refuses')
      bindsContext = true
      return
    }
    throw new WaxsealError('CONFIG', '"key" expected one that binds associated_data, got one that ignores it', {
      argument: 'key',
    })
  }

  return {
    keyUri: `vault-transit:${cluster ?? address}/v1/${below}${mount}/keys/${key}`,

    async wrap(plain, context, signal) {
      signal?.throwIfAborted()
      const body = { plaintext: plain, associated_data: associated(context) }
      const { ciphertext } = await write(`${mount}/encrypt/${key}`, body, signal).catch((error: unknown) => {
        throw statusOf(error) === 400 ? unfit() : error
      })
      if (!isCiphertext(ciphertext)) {
        throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Vault answered without a ciphertext')
      }
      if (!bindsContext) await prove(ciphertext, signal)
      return ascii(ciphertext)
    },

    async unwrap(wrapped, context, signal) {
      signal?.throwIfAborted()
      const ciphertext = readUtf8(wrapped)
      if (!isCiphertext(ciphertext)) {
        throw new WaxsealError('MALFORMED', 'kms: not a blob of Vault Transit')
      }
      return open(ciphertext, context, signal)
    },

    failureOf,
  }
}

/** In its one canonical form: Vault itself reads several as the same. */
const isCiphertext = (text: unknown): text is string =>
  typeof text === 'string' && fromText(CIPHERTEXT.exec(text)?.[1]) !== undefined

/** As Vault allows in the paths of Transit. */
const NAME = /^\w(?:[\w.-]{0,126}\w)?$/

function byClient(client: VaultClient): [address: string, write: Write] {
  if (typeof client?.write !== 'function' || typeof client.endpoint !== 'string') {
    throw config('client', 'a node-vault client', client)
  }
  const { base } = parsed('client', client.endpoint)
  const write: Write = async (path, body, signal) => {
    const texts = Object.entries(body).map(([name, value]) => [name, typeof value === 'string' ? value : toText(value)])
    const answer = await abortable(client.write(path, Object.fromEntries(texts)), signal)
    const data = expectData((answer as { data?: unknown } | null | undefined)?.data)
    return { ...data, plaintext: fromText(data.plaintext) }
  }
  return [base, write]
}

/** The client knows texts alone. */
const toText = (bytes: Uint8Array): string => readUtf8(toBase64(bytes))!
const fromText = (text: unknown): Uint8Array | undefined =>
  typeof text === 'string' && text.length <= 1024 ? fromBase64(ascii(text)) : undefined

/** The client takes no signal: its answer is waited for no longer. */
function abortable<T>(call: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return call
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    call.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function byFetch({ address, token, namespace, allowInsecure = false }: VaultByFetch): [address: string, write: Write] {
  const { base, isSafe } = parsed('address', address)
  if (!isSafe && !allowInsecure) throw config('address', 'https://, or allowInsecure: true', address)
  if (typeof token !== 'string' && typeof token !== 'function') {
    throw config('token', 'a string, or a function that gives one', token)
  }
  const write: Write = async (path, body, signal) => {
    const sent = typeof token === 'function' ? await token() : token
    if (typeof sent !== 'string' || !/^[\x21-\x7e]{1,8192}$/.test(sent)) {
      const message = '"token" expected 1 to 8192 characters without white space, got something else'
      throw new WaxsealError('CONFIG', message, { argument: 'token' })
    }
    const json = toJson(body) as Uint8Array<ArrayBuffer>
    let answer = new Uint8Array(0)
    try {
      const response = await fetch(`${base}/v1/${path}`, {
        method: 'POST',
        headers: {
          'Content-Type': 'application/json',
          'X-Vault-Request': 'true',
          'X-Vault-Token': sent,
          ...(namespace === undefined ? {} : { 'X-Vault-Namespace': namespace }),
        },
        body: json,
        redirect: 'manual',
        signal: signal ?? null,
      })
      answer = await bounded(response)
      if (response.status === 200) return expectData(dataOfJson(answer))
      throw new VaultRefusal(response.status, errorsOf(answer))
    } finally {
      wipe(json)
      wipe(answer)
    }
  }
  return [base, write]
}

function parsed(argument: string, address: string): { base: string; isSafe: boolean } {
  const url = typeof address === 'string' && URL.canParse(address) ? new URL(address) : undefined
  // `https://host/?` has an empty query that its text keeps: the path of the key would be part of it.
  const isPlain = url?.username === '' && url.password === '' && !/[?#]/.test(address)
  if (!url || !isPlain || !/^https?:$/.test(url.protocol) || address.length > 1024) {
    throw config(argument, 'an http(s) address without credentials or query', address)
  }
  const isHere = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname)
  return { base: url.href.replace(/\/+$/, ''), isSafe: url.protocol === 'https:' || isHere }
}

async function bounded(response: Response): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = []
  let length = 0
  const reader = response.body?.getReader()
  try {
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined }
      if (done) return concat(...chunks) as Uint8Array<ArrayBuffer>
      chunks.push(value)
      length += value.length
      if (length > MAX_ANSWER_BYTES) {
        reader?.cancel().catch(() => undefined)
        throw new WaxsealError('KMS_UNAVAILABLE', `kms: Vault answered more than ${MAX_ANSWER_BYTES} bytes`)
      }
    }
  } finally {
    for (const chunk of chunks) wipe(chunk)
  }
}

function expectData(data: unknown): Record<string, unknown> {
  if (typeof data === 'object' && data !== null) return data as Record<string, unknown>
  throw new WaxsealError('KMS_UNAVAILABLE', 'kms: Vault answered without data')
}

function errorsOf(answer: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(answer))
  } catch {
    return undefined
  }
}

/** In the form of node-vault's errors, so that both are read alike. */
class VaultRefusal extends Error {
  override readonly name = 'VaultRefusal'
  readonly response: { readonly statusCode: number; readonly body: unknown }

  constructor(statusCode: number, body: unknown) {
    super('Vault refused')
    this.response = { statusCode, body }
  }
}

/** Of node-vault's errors and ours. */
function statusOf(error: unknown): unknown {
  return (error as { response?: { statusCode?: unknown } } | null | undefined)?.response?.statusCode
}

/** Transit says 400 for these too, where decrypting; the rest of its 400 is a ciphertext that does not open. */
const GONE = /encryption key not found|disallowed by policy|no longer available/i

function failureOf(error: unknown): KmsFailure | undefined {
  if (statusOf(error) !== 400) return undefined
  return told(error).some((text) => GONE.test(text)) ? 'denied' : 'rejected'
}

/** Vault's own words; none from a proxy. */
function told(error: unknown): string[] {
  const { errors } = ((error as { response?: { body?: unknown } }).response?.body ?? {}) as { errors?: unknown }
  return Array.isArray(errors) ? errors.map(String) : []
}

const unfit = (): WaxsealError =>
  new WaxsealError('KMS_DENIED', 'kms.wrap: Vault refuses the request: the key is not of an AEAD type, or is derived?')

function associated(context: KmsContext): Uint8Array {
  const pairs = Object.entries(context).sort(([a], [b]) => (a < b ? -1 : 1))
  return ascii(JSON.stringify(pairs))
}
