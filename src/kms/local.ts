import { concat, copyBytes, fromBase64url, fromHex, toBase64url, utf8 } from '../bytes.ts'
import { encodeContext } from '../context.ts'
import { defaultEngine } from '../engine/index.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import { config, typeName, WaxsealError } from '../errors.ts'
import { printsAs, Secret } from '../secret.ts'
import type { KmsContext, KmsDriver } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

/** First byte of a blob under a root key of 32 bytes; {@link KDFS} has those of passphrases. */
const RAW = 1
const SALT_BYTES = 16
const SEALED_BYTES = 24 + 32 + 16
const MAX_DERIVED = 16

export interface PassphraseOptions {
  /** At least 12 characters; NFC is applied. A generated one of 6 words or more is what this is for. */
  readonly passphrase: string
  /**
   * What stretches the passphrase for what is wrapped from now on; what is stored opens by what it was wrapped with.
   * scrypt by default: as fast as OpenSSL on every Node, where Argon2id is so from Node 24.7 on only.
   */
  readonly kdf?: 'scrypt' | 'argon2id'
  /** log2 of scrypt's N: 14 to 20, 17 by default (128 MiB, about half a second). */
  readonly log2N?: number
  /** Argon2id's memory in KiB: 19,456 (19 MiB) to 1,048,576 (1 GiB), 65,536 by default. */
  readonly memoryKiB?: number
  /** Argon2id's passes over the memory: 2 to 10, 3 by default. */
  readonly passes?: number
  /** Argon2id's lanes: 1 to 16, 1 by default; no engine here computes them side by side. */
  readonly lanes?: number
  /** A name to tell passphrases apart, recorded in clear. */
  readonly label?: string
}

/** One stored number of a KDF. `bytes` big-endian; outside of the bounds an option is CONFIG, a stored one MALFORMED. */
interface Parameter {
  readonly option: 'log2N' | 'memoryKiB' | 'passes' | 'lanes'
  readonly bytes: number
  readonly least: number
  readonly default: number
  readonly most: number
}

interface Kdf {
  /** First byte of a blob. */
  readonly type: number
  readonly parameters: readonly Parameter[]
  stretch(passphrase: Uint8Array, salt: Uint8Array, numbers: readonly number[]): Promise<Uint8Array>
}

/**
 * Everything about one way to stretch a passphrase. The least: scrypt's of interactive logins (Percival, 2009), and the
 * Argon2id of OWASP's password storage cheat sheet (19 MiB, 2 passes). The most keeps an edited store to 1 GiB.
 */
const KDFS: Readonly<Record<NonNullable<PassphraseOptions['kdf']>, Kdf>> = {
  scrypt: {
    type: 2,
    parameters: [{ option: 'log2N', bytes: 1, least: 14, default: 17, most: 20 }],
    stretch: async (passphrase, salt, [log2N]) =>
      (await import('../engine/scrypt.ts')).scrypt(passphrase, salt, log2N!),
  },
  argon2id: {
    type: 3,
    parameters: [
      { option: 'memoryKiB', bytes: 4, least: 19_456, default: 65_536, most: 1_048_576 },
      { option: 'passes', bytes: 1, least: 2, default: 3, most: 10 },
      { option: 'lanes', bytes: 1, least: 1, default: 1, most: 16 },
    ],
    stretch: async (passphrase, salt, [memoryKiB, passes, lanes]) =>
      (await import('../engine/argon2.ts')).argon2id(passphrase, salt, {
        memoryKiB: memoryKiB!,
        passes: passes!,
        lanes: lanes!,
      }),
  },
}

/**
 * A KMS in this process: the root key is 32 bytes, or is stretched from a passphrase by scrypt or Argon2id. For
 * development, tests, single servers and break-glass copies; whoever reads the process's environment has the root key.
 *
 * `root` is a Uint8Array of 32 bytes, or their base64url, base64 (with or without padding) or hexadecimal text, or
 * `{ passphrase }`. Wraps are XChaCha20-Poly1305 with the context as AAD: 73 bytes, 90 for a passphrase
 * (95 by Argon2id).
 *
 * Errors: CONFIG at once for a root key that is missing or of a wrong length; DECRYPTION_FAILED from `unwrap` for
 * another root key, passphrase or context; MALFORMED for stored parameters of a KDF out of bounds.
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
  const { passphrase, label = 'default', kdf: chosen = 'scrypt' } = options
  if (typeof passphrase !== 'string' || passphrase.normalize('NFC').length < 12) {
    const got = typeName(typeof passphrase === 'string' ? passphrase.normalize('NFC') : passphrase)
    throw new WaxsealError('CONFIG', `"passphrase" expected at least 12 characters, got ${got}`, {
      argument: 'passphrase',
    })
  }
  const secret = utf8(passphrase.normalize('NFC'))
  if (!secret) {
    // Not by config(), which would tell its length: here it was long enough.
    throw new WaxsealError('CONFIG', '"passphrase" expected well-formed text, got a lone surrogate', {
      argument: 'passphrase',
    })
  }
  if (!Object.hasOwn(KDFS, chosen)) throw config('kdf', "'scrypt' or 'argon2id'", chosen)
  const kdf = KDFS[chosen]
  const numbers = numbersOf(options, chosen)
  const stretched = stretcher(new Secret(secret))
  /** The salt is chosen once and reused by later wraps, so that opening many keys stretches once. */
  let head: Uint8Array | undefined
  return {
    keyUri: `local-passphrase:${label}`,
    async wrap(plain, context) {
      head ??= concat(Uint8Array.of(kdf.type), encode(kdf, numbers), defaultEngine().randomBytes(SALT_BYTES))
      return concat(head, seal(await stretched(head), plain, context))
    },
    async unwrap(blob, context) {
      const stored = copyBytes(headOf(blob))
      const key = await open(await stretched(stored), blob.subarray(stored.length), context)
      const isHardEnough = stored[0] === kdf.type && decode(kdf, stored).every((number, i) => number >= numbers[i]!)
      if (isHardEnough) head ??= stored
      return key
    },
  }
}

/** The chosen numbers of a KDF, or its defaults; CONFIG for one out of bounds, and for one of another KDF. */
function numbersOf(options: PassphraseOptions, chosen: NonNullable<PassphraseOptions['kdf']>): number[] {
  for (const [name, { parameters }] of Object.entries(KDFS)) {
    for (const { option } of parameters) {
      if (name !== chosen && options[option] !== undefined) throw config(option, `kdf: '${name}'`, options[option])
    }
  }
  return KDFS[chosen].parameters.map(({ option, least, most, default: usual }) => {
    const { [option]: number = usual } = options
    if (Number.isInteger(number) && number >= least && number <= most) return number
    throw config(option, `an integer from ${least} to ${most}`, number)
  })
}

function encode({ parameters }: Kdf, numbers: readonly number[]): Uint8Array {
  return Uint8Array.from(
    parameters.flatMap(({ bytes }, i) =>
      Array.from({ length: bytes }, (_, at) => numbers[i]! >>> (8 * (bytes - 1 - at))),
    ),
  )
}

/** The numbers behind the type byte. */
function decode({ parameters }: Kdf, head: Uint8Array): number[] {
  let at = 1
  return parameters.map(({ bytes }) => {
    let number = 0
    for (const end = at + bytes; at < end; at++) number = number * 256 + head[at]!
    return number
  })
}

const kdfOf = (type: number | undefined): Kdf | undefined => Object.values(KDFS).find((kdf) => kdf.type === type)

/** Type, numbers and salt of a blob; MALFORMED for numbers out of bounds, before anything is computed. */
function headOf(blob: Uint8Array): Uint8Array {
  const kdf = kdfOf(blob[0])
  if (!kdf) throw malformed()
  const length = 1 + kdf.parameters.reduce((sum, { bytes }) => sum + bytes, 0) + SALT_BYTES
  if (blob.length !== length + SEALED_BYTES) throw malformed()
  const numbers = decode(kdf, blob)
  for (const [i, { option, least, most }] of kdf.parameters.entries()) {
    if (numbers[i]! >= least && numbers[i]! <= most) continue
    throw new WaxsealError('MALFORMED', `kms: stored ${option} ${numbers[i]} is outside ${least} to ${most}`)
  }
  return blob.subarray(0, length)
}

/** Stretches once per head (KDF, numbers, salt), also under concurrent calls; a failure is not remembered. */
function stretcher(passphrase: Secret): (head: Uint8Array) => Promise<Secret> {
  const derived = new Map<string, Promise<Secret>>()
  return (head) => {
    const id = toBase64url(head)
    let key = derived.get(id)
    if (!key) {
      if (derived.size >= MAX_DERIVED) derived.delete(derived.keys().next().value!)
      const kdf = kdfOf(head[0])!
      key = passphrase
        .use((bytes) => kdf.stretch(bytes, head.subarray(-SALT_BYTES), decode(kdf, head)))
        .then((out) => new Secret(out))
      derived.set(id, key)
      key.catch(() => derived.delete(id))
    }
    return key
  }
}

function seal(key: Secret, plain: Uint8Array, context: KmsContext): Uint8Array {
  const aead = key.use((bytes) => defaultEngine().aead('xchacha20-poly1305', bytes))
  const sealed = aead.seal(plain, encodeContext(context))
  aead.destroy()
  return sealed
}

async function open(key: Secret, sealed: Uint8Array, context: KmsContext): Promise<Uint8Array> {
  const aead = key.use((bytes) => defaultEngine().aead('xchacha20-poly1305', bytes))
  const plain = aead.open(sealed, encodeContext(context))
  aead.destroy()
  if (!plain) throw new WaxsealError('DECRYPTION_FAILED', 'kms: another root key or passphrase, or a changed key store')
  return plain
}

const malformed = () => new WaxsealError('MALFORMED', 'kms: not a blob of this local KMS')
