import { aeskw, gcm } from '@noble/ciphers/aes.js'
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js'
import { sha512 } from '@noble/hashes/sha2.js'
import { copyBytes, expectBytes, wipe } from '../bytes.ts'
import {
  AEAD_SIZES,
  type Aead,
  type AeadName,
  alive,
  countOf,
  type Engine,
  type FillRandom,
  type KeyWrap,
  sealNew,
} from './engine.ts'
import { randomPool, unpooled } from './random.ts'

const CIPHERS = { 'aes-256-gcm': gcm, 'xchacha20-poly1305': xchacha20poly1305 } as const

/** getRandomValues serves at most 65,536 bytes a call. */
const systemRandom: FillRandom = (bytes) => {
  for (let at = 0; at < bytes.length; at += 65536) {
    globalThis.crypto.getRandomValues(bytes.subarray(at, at + 65536) as Uint8Array<ArrayBuffer>)
  }
}

/** The portable engine: pure JavaScript, for browsers, workers and everything that is not Node. */
export function nobleEngine(fillRandom: FillRandom = systemRandom): Engine {
  const pool = randomPool(fillRandom)

  function aead(name: AeadName, keyBytes: Uint8Array): Aead {
    let key: Uint8Array | undefined = copyBytes(expectBytes('key', keyBytes, 32)) // noble borrows what it is given
    const cipher = CIPHERS[name]
    const { nonce: nonceBytes, tag } = AEAD_SIZES[name]
    function sealInto(plaintext: Uint8Array, aad: Uint8Array, out: Uint8Array, at: number): number {
      const bodyAt = at + nonceBytes
      pool.into(out, at, nonceBytes)
      const end = bodyAt + plaintext.length + tag
      out.set(cipher(alive(key), out.subarray(at, bodyAt), aad).encrypt(plaintext), bodyAt)
      return end
    }
    return {
      sealInto,
      seal: (plaintext, aad) => sealNew({ sealInto }, name, plaintext, aad),
      open(sealed, aad, at = 0) {
        const bodyAt = at + nonceBytes
        if (sealed.length < bodyAt + tag) return null
        const opener = cipher(alive(key), sealed.subarray(at, bodyAt), aad)
        return orNull(() => opener.decrypt(sealed.subarray(bodyAt)))
      },
      destroy() {
        key?.fill(0)
        key = undefined
      },
    }
  }

  function keyWrap(keyBytes: Uint8Array): KeyWrap {
    let kek: Uint8Array | undefined = copyBytes(expectBytes('key', keyBytes, 32))
    const wrapOne = (key: Uint8Array) => aeskw(alive(kek)).encrypt(key) // an instance of noble's encrypts only once
    const unwrapOne = (wrapped: Uint8Array) => {
      const opener = aeskw(alive(kek))
      return orNull(() => opener.decrypt(wrapped))
    }
    return {
      wrap: (key) => wrapOne(expectBytes('key', key, 32)),
      unwrap: (wrapped) => unwrapOne(expectBytes('wrapped', wrapped, 40)),
      wrapMany(keys) {
        const wrapped = new Uint8Array(countOf('keys', keys, 32) * 40)
        for (let i = 0; i * 32 < keys.length; i++) wrapped.set(wrapOne(keys.subarray(i * 32, i * 32 + 32)), i * 40)
        return wrapped
      },
      unwrapMany(wrapped) {
        const intact = new Uint8Array(countOf('wrapped', wrapped, 40))
        const keys = new Uint8Array(intact.length * 32)
        for (let i = 0; i < intact.length; i++) {
          const key = unwrapOne(wrapped.subarray(i * 40, i * 40 + 40))
          if (!key) continue
          intact[i] = 1
          keys.set(key, i * 32)
          wipe(key)
        }
        return { keys, intact }
      },
      destroy() {
        kek?.fill(0)
        kek = undefined
      },
    }
  }

  return {
    name: 'noble',
    preferredSuite: 2,
    randomKey: unpooled(fillRandom),
    fillKey: fillRandom,
    randomBytes: pool.take,
    sha512: (data) => sha512(data),
    hmacSha512,
    equal(a, b) {
      if (a.length !== b.length) return false
      let difference = 0
      for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!
      return difference === 0
    },
    aead,
    keyWrap,
  }
}

const BLOCK = 128

/** HMAC (RFC 2104) as the two hashes it is; @noble's own is three times the code, for algorithms not used here. */
function hmacSha512(key: Uint8Array, parts: readonly Uint8Array[]): Uint8Array {
  const padded = new Uint8Array(BLOCK)
  padded.set(key.length > BLOCK ? sha512(key) : key)
  const keyed = (pad: number, data: readonly Uint8Array[]): Uint8Array => {
    const block = padded.map((byte) => byte ^ pad)
    const hash = sha512.create().update(block)
    for (const part of data) hash.update(part)
    wipe(block)
    return hash.digest()
  }
  const mac = keyed(0x5c, [keyed(0x36, parts)])
  wipe(padded)
  return mac
}

/** noble throws when a tag or an integrity check fails; lengths were checked before. */
function orNull(open: () => Uint8Array): Uint8Array | null {
  try {
    return open()
  } catch {
    return null
  }
}
