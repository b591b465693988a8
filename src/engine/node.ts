import { hchacha } from '@noble/ciphers/chacha.js'
import { expectBytes } from '../bytes.ts'
import { type Aead, type AeadName, alive, type Engine, type FillRandom, type KeyWrap } from './engine.ts'
import { randomPool, unpooled } from './random.ts'

type NodeCrypto = typeof import('node:crypto')

/** RFC 3394, section 2.2.3.1: the default initial value. */
const KEY_WRAP_IV = new Uint8Array(8).fill(0xa6)
const GCM_OPTIONS = { authTagLength: 16 } as const // Node accepts tags of 4 bytes unless told
const NO_BYTES = new Uint8Array(0)

/** Node's built-in module, without an import that a browser bundler would follow; undefined elsewhere. */
export function nodeCrypto(): NodeCrypto | undefined {
  const load = (globalThis as { process?: { getBuiltinModule?: (id: string) => unknown } }).process?.getBuiltinModule
  const crypto = load?.('crypto') as NodeCrypto | undefined
  return typeof crypto?.hash === 'function' && crypto.getCiphers().includes('id-aes256-wrap') ? crypto : undefined
}

/**
 * The engine of Node (and of what speaks its crypto module): OpenSSL. Keys are KeyObjects: on some Node versions a
 * raw key costs four times as much per call.
 */
export function nodeEngine(crypto: NodeCrypto, fillRandom?: FillRandom): Engine {
  const fill = fillRandom ?? ((bytes: Uint8Array) => void crypto.randomFillSync(bytes))
  const randomBytes = randomPool(fill)

  function gcm(keyBytes: Uint8Array): Aead {
    let key: import('node:crypto').KeyObject | undefined = crypto.createSecretKey(keyBytes)
    return {
      seal(plaintext, aad) {
        const nonce = randomBytes(12)
        const cipher = crypto.createCipheriv('aes-256-gcm', alive(key), nonce, GCM_OPTIONS)
        cipher.setAAD(aad)
        const body = cipher.update(plaintext)
        cipher.final()
        return joinSealed(nonce, body, cipher.getAuthTag())
      },
      open(sealed, aad) {
        const end = sealed.length - 16
        if (end < 12) return null
        const decipher = crypto.createDecipheriv('aes-256-gcm', alive(key), sealed.subarray(0, 12), GCM_OPTIONS)
        decipher.setAAD(aad)
        decipher.setAuthTag(sealed.subarray(end))
        return finish(decipher, decipher.update(sealed.subarray(12, end)))
      },
      destroy() {
        key = undefined
      },
    }
  }

  /** draft-irtf-cfrg-xchacha-03, section 2.3: HChaCha20 makes a key of 16 nonce bytes; the last 8 follow 4 zeros. */
  function xchacha(keyBytes: Uint8Array): Aead {
    let key: Uint32Array | undefined = words(keyBytes)
    const cipherKey = (nonce: Uint8Array): [import('node:crypto').KeyObject, Uint8Array] => {
      const out = new Uint32Array(8)
      hchacha(SIGMA, alive(key), words(nonce.subarray(0, 16)), out)
      const shortNonce = new Uint8Array(12)
      shortNonce.set(nonce.subarray(16), 4)
      const derived = littleEndian(out)
      const keyObject = crypto.createSecretKey(derived)
      derived.fill(0)
      out.fill(0)
      return [keyObject, shortNonce]
    }
    return {
      seal(plaintext, aad) {
        const nonce = randomBytes(24)
        const cipher = crypto.createCipheriv('chacha20-poly1305', ...cipherKey(nonce), GCM_OPTIONS)
        cipher.setAAD(aad, { plaintextLength: plaintext.length })
        const body = cipher.update(plaintext)
        cipher.final()
        return joinSealed(nonce, body, cipher.getAuthTag())
      },
      open(sealed, aad) {
        const end = sealed.length - 16
        if (end < 24) return null
        const decipher = crypto.createDecipheriv('chacha20-poly1305', ...cipherKey(sealed.subarray(0, 24)), GCM_OPTIONS)
        decipher.setAAD(aad, { plaintextLength: end - 24 })
        decipher.setAuthTag(sealed.subarray(end))
        return finish(decipher, decipher.update(sealed.subarray(24, end)))
      },
      destroy() {
        key?.fill(0)
        key = undefined
      },
    }
  }

  const AEADS: Record<AeadName, (key: Uint8Array) => Aead> = { 'aes-256-gcm': gcm, 'xchacha20-poly1305': xchacha }

  function keyWrap(keyBytes: Uint8Array): KeyWrap {
    let kek: import('node:crypto').KeyObject | undefined = crypto.createSecretKey(expectBytes('key', keyBytes, 32))
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
      destroy() {
        kek = undefined
      },
    }
  }

  return {
    name: 'node',
    preferredSuite: 1,
    randomKey: unpooled(fill),
    randomBytes,
    sha256: (data) => crypto.hash('sha256', data, 'buffer'),
    hmacSha512: hmacSha512(crypto),
    equal: (a, b) => a.length === b.length && crypto.timingSafeEqual(a, b),
    aead: (name, key) => AEADS[name](expectBytes('key', key, 32)),
    keyWrap,
  }
}

const BLOCK = 128
const DIGEST = 64

/**
 * HMAC (RFC 2104) as two one-shot hashes: a third of the time of createHmac for short input, and no raw-key trap.
 * The blocks are reused, because calls are synchronous, and wiped after each.
 */
function hmacSha512(crypto: NodeCrypto): (key: Uint8Array, data: Uint8Array) => Uint8Array {
  const outer = new Uint8Array(BLOCK + DIGEST)
  let inner = new Uint8Array(BLOCK + 512)
  return (key, data) => {
    const short = key.length > BLOCK ? crypto.hash('sha512', key, 'buffer') : key
    const length = BLOCK + data.length
    if (inner.length < length) inner = new Uint8Array(length)
    for (let i = 0; i < BLOCK; i++) {
      const byte = i < short.length ? short[i]! : 0
      inner[i] = byte ^ 0x36
      outer[i] = byte ^ 0x5c
    }
    inner.set(data, BLOCK)
    outer.set(crypto.hash('sha512', inner.subarray(0, length), 'buffer'), BLOCK)
    const mac = crypto.hash('sha512', outer, 'buffer')
    inner.fill(0, 0, length)
    outer.fill(0)
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

function joinSealed(nonce: Uint8Array, body: Uint8Array, tag: Uint8Array): Uint8Array {
  const out = new Uint8Array(nonce.length + body.length + tag.length)
  out.set(nonce, 0)
  out.set(body, nonce.length)
  out.set(tag, nonce.length + body.length)
  return out
}

/** `final` is where the tag is checked; before it the plaintext is not released, after a failure it is wiped. */
function finish(decipher: { final(): Uint8Array }, plaintext: Uint8Array): Uint8Array | null {
  try {
    decipher.final()
    return plaintext.length === 0 ? NO_BYTES : plaintext
  } catch {
    plaintext.fill(0)
    return null
  }
}
