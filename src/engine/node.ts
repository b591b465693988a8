import { hchacha } from '@noble/ciphers/chacha.js'
import { copyBytes, expectBytes, partOf, wipe } from '../bytes.ts'
import { viewsOf } from '../codecs/views.ts'
import { type Aead, type AeadName, alive, type Engine, type FillRandom, type KeyWrap, sealNew } from './engine.ts'
import { type Blocks, unwrapMany, wrapMany } from './key-wrap.ts'
import { randomPool, unpooled } from './random.ts'

type NodeCrypto = typeof import('node:crypto')
type KeyObject = import('node:crypto').KeyObject
type CipherGCM = import('node:crypto').CipherGCM

/** RFC 3394, section 2.2.3.1: the default initial value. */
const KEY_WRAP_IV = new Uint8Array(8).fill(0xa6)
const GCM_OPTIONS = { authTagLength: 16 } as const // Node accepts tags of 4 bytes unless told
const NO_BYTES = new Uint8Array(0)

/** Node's built-in module, without an import that a browser bundler would follow; undefined elsewhere. */
export function nodeCrypto(): NodeCrypto | undefined {
  const load = (globalThis as { process?: { getBuiltinModule?: (id: string) => unknown } }).process?.getBuiltinModule
  const crypto = load?.('crypto') as NodeCrypto | undefined
  return typeof crypto?.hash === 'function' && crypto.getCipherInfo('id-aes256-wrap') ? crypto : undefined
}

/**
 * The engine of Node (and of what speaks its crypto module): OpenSSL. Keys are KeyObjects: on some Node versions a
 * raw key costs four times as much per call.
 */
export function nodeEngine(crypto: NodeCrypto, fillRandom?: FillRandom): Engine {
  const fill = fillRandom ?? ((bytes: Uint8Array) => void crypto.randomFillSync(bytes))
  const pool = randomPool(fill)
  /** Copied here for OpenSSL, which copies them again at once: a view takes five times as long to make. */
  const nonce = new Uint8Array(12)
  const tag = new Uint8Array(16)

  /** Seals with a cipher of 12-byte nonces whose nonce stands in `out` already, before `bodyAt`. */
  function finishSeal(
    cipher: CipherGCM,
    plaintext: Uint8Array,
    aad: Uint8Array,
    out: Uint8Array,
    bodyAt: number,
  ): number {
    cipher.setAAD(aad)
    const body = cipher.update(plaintext)
    cipher.final()
    out.set(body, bodyAt)
    const tagAt = bodyAt + body.length
    out.set(cipher.getAuthTag(), tagAt)
    return tagAt + 16
  }

  /** A class: an object of closures for the key of every record took longer to make than to use. */
  class Gcm implements Aead {
    #key: KeyObject | Uint8Array | undefined

    constructor(key: Uint8Array, once: boolean) {
      this.#key = once && RAW_KEYS_ARE_CHEAP ? copyBytes(key) : crypto.createSecretKey(key)
    }

    seal(plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
      return sealNew(this, 'aes-256-gcm', plaintext, aad)
    }

    sealInto(plaintext: Uint8Array, aad: Uint8Array, out: Uint8Array, at: number): number {
      const key = alive(this.#key)
      pool.into(nonce, 0, 12)
      for (let i = 0; i < 12; i++) out[at + i] = nonce[i]!
      const cipher = crypto.createCipheriv('aes-256-gcm', key, nonce, GCM_OPTIONS)
      return finishSeal(cipher, plaintext, aad, out, at + 12)
    }

    open(sealed: Uint8Array, aad: Uint8Array, at = 0): Uint8Array | null {
      const bodyAt = at + 12
      const end = sealed.length - 16
      if (end < bodyAt) return null
      const key = alive(this.#key)
      for (let i = 0; i < 12; i++) nonce[i] = sealed[at + i]!
      for (let i = 0; i < 16; i++) tag[i] = sealed[end + i]!
      const decipher = crypto.createDecipheriv('aes-256-gcm', key, nonce, GCM_OPTIONS)
      decipher.setAAD(aad)
      decipher.setAuthTag(tag)
      return finish(decipher, decipher.update(partOf(sealed, bodyAt, end)))
    }

    destroy(): void {
      if (this.#key instanceof Uint8Array) wipe(this.#key)
      this.#key = undefined
    }
  }

  /** draft-irtf-cfrg-xchacha-03, section 2.3: HChaCha20 makes a key of 16 nonce bytes; the last 8 follow 4 zeros. */
  function xchacha(keyBytes: Uint8Array): Aead {
    let key: Uint32Array | undefined = words(keyBytes)
    const cipherKey = (nonce: Uint8Array): [KeyObject, Uint8Array] => {
      const out = new Uint32Array(8)
      hchacha(SIGMA, alive(key), words(nonce.subarray(0, 16)), out)
      const shortNonce = new Uint8Array(12)
      shortNonce.set(nonce.subarray(16), 4)
      const derived = littleEndian(out)
      const keyObject = crypto.createSecretKey(derived)
      wipe(derived)
      out.fill(0)
      return [keyObject, shortNonce]
    }
    function sealInto(plaintext: Uint8Array, aad: Uint8Array, out: Uint8Array, at: number): number {
      alive(key)
      pool.into(out, at, 24)
      const keyAndNonce = cipherKey(out.subarray(at, at + 24))
      return finishSeal(
        crypto.createCipheriv('chacha20-poly1305', ...keyAndNonce, GCM_OPTIONS),
        plaintext,
        aad,
        out,
        at + 24,
      )
    }
    return {
      sealInto,
      seal: (plaintext, aad) => sealNew({ sealInto }, 'xchacha20-poly1305', plaintext, aad),
      open(sealed, aad, at = 0) {
        const bodyAt = at + 24
        const end = sealed.length - 16
        if (end < bodyAt) return null
        const decipher = crypto.createDecipheriv(
          'chacha20-poly1305',
          ...cipherKey(sealed.subarray(at, bodyAt)),
          GCM_OPTIONS,
        )
        decipher.setAAD(aad, { plaintextLength: end - bodyAt })
        decipher.setAuthTag(sealed.subarray(end))
        return finish(decipher, decipher.update(sealed.subarray(bodyAt, end)))
      },
      destroy() {
        key?.fill(0)
        key = undefined
      },
    }
  }

  const AEADS: Record<AeadName, (key: Uint8Array, once: boolean) => Aead> = {
    'aes-256-gcm': (key, once) => new Gcm(key, once),
    'xchacha20-poly1305': xchacha,
  }

  function keyWrap(keyBytes: Uint8Array): KeyWrap {
    let kek: KeyObject | undefined = crypto.createSecretKey(expectBytes('key', keyBytes, 32))
    return {
      // OpenSSL's wrap accepts wrong lengths, even none, without a word: the lengths are checked first.
      wrap(key) {
        const cipher = crypto.createCipheriv('id-aes256-wrap', alive(kek), KEY_WRAP_IV)
        return cipher.update(expectBytes('key', key, 32))
      },
      unwrap(wrapped) {
        const decipher = crypto.createDecipheriv('id-aes256-wrap', alive(kek), KEY_WRAP_IV)
        expectBytes('wrapped', wrapped, 40)
        try {
          const key = decipher.update(wrapped)
          return key.length === 32 ? key : null
        } catch {
          return null
        }
      },
      wrapMany: (keys) => wrapMany(blockwise(crypto.createCipheriv('aes-256-ecb', alive(kek), null)), keys),
      unwrapMany: (wrapped) => unwrapMany(blockwise(crypto.createDecipheriv('aes-256-ecb', alive(kek), null)), wrapped),
      destroy() {
        kek = undefined
      },
    }
  }

  return {
    name: 'node',
    preferredSuite: 1,
    randomKey: unpooled(fill),
    fillKey: fill,
    randomBytes: pool.take,
    sha512: (data) => crypto.hash('sha512', data, 'buffer'),
    hmacSha512: hmacSha512(crypto),
    equal: (a, b) => a.length === b.length && crypto.timingSafeEqual(a, b),
    aead: (name, key, once = false) => AEADS[name](expectBytes('key', key, 32), once),
    keyWrap,
  }
}

/** AES alone, block by block: what key wrap is made of. */
function blockwise(cipher: ReturnType<NodeCrypto['createCipheriv']>): Blocks {
  cipher.setAutoPadding(false)
  return (blocks) => cipher.update(blocks)
}

/**
 * A key for one value costs less as raw bytes than as a KeyObject, except on Node 24.21 and what follows, where every
 * raw key costs ten microseconds more.
 */
const RAW_KEYS_ARE_CHEAP = Number.parseInt(globalThis.process?.versions?.node ?? '99', 10) < 24

const BLOCK = 128
const DIGEST = 64

/**
 * HMAC (RFC 2104) as two one-shot hashes: two thirds of the time of createHmac for short input, and no raw-key trap.
 * The blocks are reused, because calls are synchronous, and wiped after each. The inner digest comes as a string, which
 * costs half as much: it is neither a key nor of use without one.
 */
function hmacSha512(crypto: NodeCrypto): Engine['hmacSha512'] {
  const outer = Buffer.alloc(BLOCK + DIGEST)
  const shortInner = new Uint8Array(BLOCK + 512)
  const { beginning } = viewsOf(shortInner)
  return (key, parts) => {
    const short = key.length > BLOCK ? crypto.hash('sha512', key, 'buffer') : key
    let length = BLOCK
    for (const part of parts) length += part.length
    const inner = length <= shortInner.length ? beginning(length) : new Uint8Array(length)
    inner.fill(0x36, short.length, BLOCK)
    outer.fill(0x5c, short.length, BLOCK)
    for (let i = 0; i < short.length; i++) {
      const byte = short[i]!
      inner[i] = byte ^ 0x36
      outer[i] = byte ^ 0x5c
    }
    let at = BLOCK
    for (const part of parts) {
      inner.set(part, at)
      at += part.length
    }
    outer.write(crypto.hash('sha512', inner, 'binary'), BLOCK, 'binary')
    const mac = crypto.hash('sha512', outer, 'buffer')
    wipe(inner)
    wipe(outer)
    return mac
  }
}

/** "expand 32-byte k", as little-endian words. */
const SIGMA = words(new TextEncoder().encode('expand 32-byte k'))

function words(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true))
}

function littleEndian(from: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(from.length * 4)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < from.length; i++) view.setUint32(4 * i, from[i]!, true)
  return bytes
}

/** `final` is where the tag is checked; before it the plaintext is not released, after a failure it is wiped. */
function finish(decipher: { final(): Uint8Array }, plaintext: Uint8Array): Uint8Array | null {
  try {
    decipher.final()
    return plaintext.length === 0 ? NO_BYTES : plaintext
  } catch {
    wipe(plaintext)
    return null
  }
}
