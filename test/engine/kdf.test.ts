import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { kdf, LABELS } from '../../src/engine/kdf.ts'
import { ENGINES, fromHex, toHex } from './support.ts'

/** SP 800-108r1, section 4.1, by hand: counter ‖ Label ‖ 00 ‖ Context ‖ L, with L = 512 bits. */
function reference(key: Uint8Array, prefix: Uint8Array, context: Uint8Array): string {
  const mac = createHmac('sha512', key)
  mac.update(Buffer.from('00000001', 'hex'))
  mac.update(prefix.subarray(4, 20))
  mac.update(Buffer.from('00', 'hex'))
  mac.update(context)
  mac.update(Buffer.from('00000200', 'hex'))
  return mac.digest('hex')
}

/** What OpenSSL's own KBKDF answers (`openssl kdf -keylen 64 -kdfopt mode:COUNTER … KBKDF`, 3.0). */
const OPENSSL = {
  key: fromHex('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'),
  label: LABELS.record,
  context: fromHex('000103000000010007'),
  out:
    'f6977e4b9554b224ef0508b038f93eff9bdfcc891ef6ea4bfa0eddf76ae5373d' +
    '0d7568fa25d9a13f4fc3f6569c9ef3d8997826d3b379aef8cc40beac5cb21fce',
}

const KEY = fc.uint8Array({ minLength: 32, maxLength: 32 })
const LABEL = fc.constantFrom(...Object.values(LABELS))
const CONTEXT = fc.uint8Array({ maxLength: 2000 })

describe('KDF labels', () => {
  it('are 16 ASCII bytes each, and all different', () => {
    const labels = Object.values(LABELS).map((prefix) => Buffer.from(prefix).toString('latin1', 4, 20))
    expect(new Set(labels).size).toBe(labels.length)
    for (const label of labels) expect(label).toMatch(/^waxseal\/[a-z]{6}\/0$/)
  })
})

describe.each(ENGINES)('SP 800-108 KDF on the $name engine', ({ make }) => {
  const engine = make()

  it('gives what OpenSSL gives', () => {
    expect(toHex(kdf(engine, OPENSSL.key, OPENSSL.label, OPENSSL.context))).toBe(OPENSSL.out)
  })

  it('gives what createHmac gives over the input written by hand', () => {
    fc.assert(
      fc.property(KEY, LABEL, CONTEXT, (key, label, context) => {
        expect(toHex(kdf(engine, key, label, context))).toBe(reference(key, label, context))
      }),
    )
  })

  it('joins the parts of a context as they are', () => {
    fc.assert(
      fc.property(KEY, LABEL, fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), (key, label, parts) => {
        expect(toHex(kdf(engine, key, label, ...parts))).toBe(reference(key, label, Buffer.concat(parts)))
      }),
    )
  })

  it('changes nothing in its arguments', () => {
    const [key, label, context] = [
      new Uint8Array(32).fill(7),
      Uint8Array.from(LABELS.subkey),
      new Uint8Array(9).fill(9),
    ]
    kdf(engine, key, label, context)
    expect([key, label, context]).toEqual([new Uint8Array(32).fill(7), LABELS.subkey, new Uint8Array(9).fill(9)])
  })
})

describe.each(ENGINES)('HMAC-SHA-512 on the $name engine', ({ make }) => {
  const engine = make()

  it('gives what createHmac gives, for keys below, at and above the block of 128 bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 2000 }), (key, data) => {
        expect(toHex(engine.hmacSha512(key, [data]))).toBe(createHmac('sha512', key).update(data).digest('hex'))
      }),
    )
    for (const length of [0, 1, 127, 128, 129]) {
      const key = new Uint8Array(length).fill(0x5a)
      expect(toHex(engine.hmacSha512(key, [key]))).toBe(createHmac('sha512', key).update(key).digest('hex'))
    }
  })

  it('remembers nothing of a long call in a short one', () => {
    const key = new Uint8Array(32).fill(1)
    const before = toHex(engine.hmacSha512(key, [new Uint8Array(3)]))
    engine.hmacSha512(new Uint8Array(200).fill(0xff), [new Uint8Array(100_000).fill(0xff)])
    expect(toHex(engine.hmacSha512(key, [new Uint8Array(3)]))).toBe(before)
  })

  it('hands out bytes that a later call does not overwrite', () => {
    const first = engine.hmacSha512(new Uint8Array(32), [new Uint8Array(1)])
    const copy = toHex(first)
    engine.hmacSha512(new Uint8Array(32).fill(1), [new Uint8Array(1)])
    expect(toHex(first)).toBe(copy)
  })
})
