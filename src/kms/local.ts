import { concat, copyBytes, fromBase64url, fromHex, toBase64url, utf8 } from '../bytes.ts'
import { encodeContext } from '../context.ts'
import { defaultEngine } from '../engine/index.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import { config, WaxsealError } from '../errors.ts'
import { printsAs, Secret } from '../secret.ts'
import type { KmsContext, KmsDriver } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** First byte of a blob. */
const RAW = 1
const PASSPHRASE = 2
const SALT_BYTES = 16
const SEALED_BYTES = 24 + 32 + 16
/** Work factor of scrypt as log2 N (r = 8, p = 1): 2^17 takes 128 MiB. A stored one outside the bounds is refused. */
const LOG2N = { least: 14, default: 17, most: 20 } as const
const MAX_DERIVED = 16

export interface PassphraseOptions {
  /** At least 12 characters; NFC is applied. A generated one of 6 words or more is what this is for. */
  readonly passphrase: string
  /** log2 of scrypt's N: 14 to 20, 17 by default (128 MiB, about half a second). */
  readonly log2N?: number
  /** A name to tell passphrases apart, recorded in clear. */
  readonly label?: string
}

/**
 * A KMS in this process: the root key is 32 bytes, or is stretched from a passphrase by scrypt. For development,
 * tests, single servers and break-glass copies; whoever reads the process's environment has the root key.
 *
 * `root` is a Uint8Array of 32 bytes, or their base64url, base64 (with or without padding) or hexadecimal text, or
 * `{ passphrase }`. Wraps are XChaCha20-Poly1305 with the context as AAD: 73 bytes, 90 for a passphrase.
 *
 * Errors: CONFIG at once for a root key that is missing or of a wrong length; DECRYPTION_FAILED from `unwrap` for
 * another root key, passphrase or context; MALFORMED for stored scrypt parameters out of bounds.
 *
 * @example
 * ```ts
 * import { localKms } from 'waxseal/kms/local'
 *
 * const kms = localKms('AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8') // 32 bytes; yours are random
 * console.log(kms.keyUri)
 * ```
 */
export function localKms(root: Uint8Array | string | undefined | PassphraseOptions): KmsDriver {
  const driver =
    typeof root === 'object' && root !== null && !(root instanceof Uint8Array)
      ? fromPassphrase(root)
      : fromBytes(rootBytes(root))
  return printsAs(driver, `[localKms ${driver.keyUri}]`)
}

function rootBytes(root: Uint8Array | string | undefined): Uint8Array {
  const bytes = typeof root === 'string' ? fromText(root) : root
  if (bytes instanceof Uint8Array && bytes.length === 32) return copyBytes(bytes)
  const got = bytes instanceof Uint8Array ? `${bytes.length} bytes` : root === undefined ? 'undefined' : 'other text'
  throw new WaxsealError(
    'CONFIG',
    `"root" expected 32 bytes, or their base64url, base64 or hexadecimal text, got ${got}`,
    {
      argument: 'root',
    },
  )
}

function fromText(text: string): Uint8Array | undefined {
  if (text.length === 64) return fromHex(text)
  return fromBase64url(text.replaceAll('+', '-').replaceAll('/', '_').replace(/=$/, ''))
}

function fromBytes(root: Uint8Array): KmsDriver {
  const engine = defaultEngine()
  // First half: the wrapping key. Second: a fingerprint, so that a wrong root key is told by name.
  const derived = kdf(engine, root, LABELS.localKms, Uint8Array.of(RAW))
  const key = new Secret(copyBytes(derived.subarray(0, 32)))
  const keyUri = `local:${toBase64url(derived.subarray(32, 47))}`
  derived.fill(0)
  root.fill(0)
  return {
    keyUri,
    async wrap(plain, context) {
      return concat(Uint8Array.of(RAW), seal(key, plain, context))
    },
    async unwrap(blob, context) {
      if (blob[0] !== RAW || blob.length !== 1 + SEALED_BYTES) throw malformed()
      return open(key, blob.subarray(1), context)
    },
  }
}

function fromPassphrase(options: PassphraseOptions): KmsDriver {
  const { passphrase, log2N = LOG2N.default, label = 'default' } = options
  if (typeof passphrase !== 'string' || passphrase.normalize('NFC').length < 12) {
    throw config('passphrase', 'at least 12 characters', passphrase)
  }
  const secret = utf8(passphrase.normalize('NFC'))
  if (!secret) throw config('passphrase', 'well-formed text', passphrase)
  if (!Number.isInteger(log2N) || log2N < LOG2N.least || log2N > LOG2N.most) {
    throw config('log2N', 'an integer from 14 to 20', log2N)
  }
  const stretched = stretcher(new Secret(secret))
  /** Salt and work factor are chosen once and reused by later wraps, so that opening many keys stretches once. */
  let parameters: Uint8Array | undefined
  return {
    keyUri: `local-passphrase:${label}`,
    async wrap(plain, context) {
      parameters ??= concat(Uint8Array.of(log2N), defaultEngine().randomBytes(SALT_BYTES))
      const key = await stretched(parameters)
      return concat(Uint8Array.of(PASSPHRASE), parameters, seal(key, plain, context))
    },
    async unwrap(blob, context) {
      if (blob[0] !== PASSPHRASE || blob.length !== 2 + SALT_BYTES + SEALED_BYTES) throw malformed()
      const stored = copyBytes(blob.subarray(1, 2 + SALT_BYTES))
      if (stored[0]! < LOG2N.least || stored[0]! > LOG2N.most) {
        throw new WaxsealError('MALFORMED', `kms: stored scrypt work factor 2^${stored[0]} is outside 2^14 to 2^20`)
      }
      const key = await open(await stretched(stored), blob.subarray(2 + SALT_BYTES), context)
      if (stored[0]! >= log2N) parameters ??= stored
      return key
    },
  }
}

/** Stretches once per salt, also under concurrent calls; a failure is not remembered. */
function stretcher(passphrase: Secret): (parameters: Uint8Array) => Promise<Secret> {
  const derived = new Map<string, Promise<Secret>>()
  return (parameters) => {
    const id = toBase64url(parameters)
    let key = derived.get(id)
    if (!key) {
      if (derived.size >= MAX_DERIVED) derived.delete(derived.keys().next().value!)
      key = import('../engine/scrypt.ts').then(({ scrypt }) =>
        passphrase.use((bytes) => scrypt(bytes, parameters.subarray(1), parameters[0]!)).then((out) => new Secret(out)),
      )
      derived.set(id, key)
      key.catch(() => derived.delete(id))
    }
    return key
  }
}

function seal(key: Secret, plain: Uint8Array, context: KmsContext): Uint8Array {
  const aead = key.use((bytes) => defaultEngine().aead('xchacha20-poly1305', bytes))
  return aead.seal(plain, encodeContext(context))
}

async function open(key: Secret, sealed: Uint8Array, context: KmsContext): Promise<Uint8Array> {
  const aead = key.use((bytes) => defaultEngine().aead('xchacha20-poly1305', bytes))
  const plain = aead.open(sealed, encodeContext(context))
  if (!plain) throw new WaxsealError('DECRYPTION_FAILED', 'kms: another root key or passphrase, or a changed key store')
  return plain
}

const malformed = () => new WaxsealError('MALFORMED', 'kms: not a blob of this local KMS')
