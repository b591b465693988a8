import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { AeadName } from '../../src/engine/engine.ts'
import { AEADS, bytesOf, ENGINES, seeded, toHex, unaligned } from './support.ts'

/** Both engines, given the same randomness, are one: every operation gives the same bytes. */
const [node, noble] = [ENGINES[0]!, ENGINES[1]!]
const NO_BYTES = new Uint8Array(0)
const KIB = 1024

/** Sizes around the blocks of AES (16), ChaCha20 (64), SHA-512 (128), the random pool (4 KiB) and 64 KiB. */
const BOUNDARIES = [16, 32, 64, 128, 256, 512, 4096, 16_384, 65_536, 70 * KIB].flatMap((n) => [n - 1, n, n + 1])
const SIZE = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 600 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1, ...BOUNDARIES) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 70 * KIB }) },
)
const SEED = fc.integer()
const KEY = fc.uint8Array({ minLength: 32, maxLength: 32 })
const AAD = fc.oneof(
  fc.uint8Array({ maxLength: 80 }),
  SIZE.map((size) => bytesOf(size, 3)),
)

/** The same bytes, printed only when they differ: a diff of 70 KiB helps nobody. */
function expectSame(a: Uint8Array | null, b: Uint8Array | null): void {
  expect(a === null || b === null ? a === b : Buffer.compare(a, b) === 0).toBe(true)
}

/** Seals with both, compares, and opens each with the other. */
function sealBothWays(aead: AeadName, key: Uint8Array, plaintext: Uint8Array, aad: Uint8Array, seed: number): void {
  const a = node.make(seeded(seed)).aead(aead, key)
  const b = noble.make(seeded(seed)).aead(aead, key)
  const sealed = [a.seal(plaintext, aad), b.seal(plaintext, aad)] as const
  expectSame(sealed[0], sealed[1])
  expectSame(a.open(sealed[1], aad), plaintext)
  expectSame(b.open(sealed[0], aad), plaintext)
}

describe.each(AEADS)('%s', (aead) => {
  it('seals to the same bytes and opens what the other sealed, for any key, size and associated data', () => {
    fc.assert(
      fc.property(KEY, SIZE, AAD, SEED, (key, size, aad, seed) => {
        sealBothWays(aead, key, bytesOf(size, seed + 1), aad, seed)
      }),
      { numRuns: 60 },
    )
  })

  it('does so for every size from 0 to 300 and at every boundary up to 70 KiB', () => {
    const key = bytesOf(32, 5)
    for (const size of [...Array(301).keys(), ...BOUNDARIES]) {
      sealBothWays(aead, key, bytesOf(size, size + 1), bytesOf(size % 37, 9), size)
    }
  })

  it('does so for every size of associated data from 0 to 300', () => {
    const key = bytesOf(32, 6)
    for (let size = 0; size <= 300; size++)
      sealBothWays(aead, key, bytesOf(20, size + 1), bytesOf(size, size + 2), size)
  })

  it('does not mind where its arguments lie in memory, nor whether they are Buffers', () => {
    const [key, plaintext, aad] = [bytesOf(32, 1), bytesOf(99, 2), bytesOf(33, 3)]
    const plain = node.make(seeded(8)).aead(aead, key).seal(plaintext, aad)
    for (const { make } of ENGINES) {
      for (const form of [unaligned, (bytes: Uint8Array) => Buffer.from(bytes)]) {
        const sealer = make(seeded(8)).aead(aead, form(key))
        expectSame(sealer.seal(form(plaintext), form(aad)), plain)
        expectSame(sealer.open(form(plain), form(aad)), plaintext)
      }
    }
  })

  it('changes nothing in its arguments', () => {
    for (const { make } of ENGINES) {
      const [key, plaintext, aad] = [bytesOf(32, 1), bytesOf(99, 2), bytesOf(33, 3)]
      const sealer = make().aead(aead, key)
      const sealed = sealer.seal(plaintext, aad)
      const stored = Uint8Array.from(sealed)
      expectSame(sealer.open(sealed, aad), plaintext)
      sealer.open(sealed, NO_BYTES)
      expect([key, plaintext, aad, Uint8Array.from(sealed)]).toEqual([
        bytesOf(32, 1),
        bytesOf(99, 2),
        bytesOf(33, 3),
        stored,
      ])
    }
  })

  it('draws a fresh nonce for each seal of one prepared key', () => {
    for (const { make } of ENGINES) {
      const sealer = make().aead(aead, bytesOf(32, 1))
      const sealed = Array.from({ length: 300 }, () => toHex(sealer.seal(NO_BYTES, NO_BYTES)))
      expect(new Set(sealed).size).toBe(300)
    }
  })
})

describe('AES key wrap', () => {
  it('wraps to the same 40 bytes and unwraps what the other wrapped', () => {
    fc.assert(
      fc.property(KEY, KEY, (kek, key) => {
        const [a, b] = [node.make().keyWrap(kek), noble.make().keyWrap(unaligned(kek))]
        const wrapped = [a.wrap(key), b.wrap(unaligned(key))] as const
        expect(wrapped[0].length).toBe(40)
        expectSame(wrapped[0], wrapped[1])
        expectSame(a.unwrap(unaligned(wrapped[1])), key)
        expectSame(b.unwrap(wrapped[0]), key)
      }),
    )
  })

  it('gives the vector of RFC 3394, section 4.6', () => {
    const kek = Uint8Array.from({ length: 32 }, (_, i) => i)
    const key = Buffer.from('00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f', 'hex')
    for (const { make } of ENGINES) {
      expect(toHex(make().keyWrap(kek).wrap(key))).toBe(
        '28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21',
      )
    }
  })
})

describe('hashes', () => {
  it('are the same for any data', () => {
    const [a, b] = [node.make(), noble.make()]
    fc.assert(
      fc.property(SIZE, fc.integer({ min: 0, max: 300 }), SEED, (size, keySize, seed) => {
        const [data, key] = [bytesOf(size, seed), bytesOf(keySize, seed + 1)]
        expectSame(a.sha512(data), b.sha512(data))
        expectSame(a.sha512(data), b.sha512(unaligned(data)))
        expectSame(a.hmacSha512(key, [data]), b.hmacSha512(key, [data]))
        expectSame(a.hmacSha512(unaligned(key), [unaligned(data)]), b.hmacSha512(key, [data]))
      }),
      { numRuns: 60 },
    )
  })

  it('give the vectors of FIPS 180-4 for "abc"', () => {
    for (const { make } of ENGINES) {
      expect(toHex(make().sha512(Buffer.from('abc')))).toBe(
        'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a' +
          '2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
      )
    }
  })
})

describe('equality', () => {
  it('is the same: all bytes and the length', () => {
    const engines = ENGINES.map(({ make }) => make())
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.uint8Array({ maxLength: 70 }), fc.nat(559), (a, b, bit) => {
        const flipped = Uint8Array.from(a)
        if (a.length > 0) flipped[(bit >> 3) % a.length]! ^= 1 << (bit & 7)
        for (const { equal } of engines) {
          expect(equal(a, unaligned(a))).toBe(true)
          expect(equal(a, b)).toBe(Buffer.compare(a, b) === 0)
          expect(equal(a, flipped)).toBe(a.length === 0)
          expect(equal(a, new Uint8Array([...a, 0]))).toBe(false)
        }
      }),
    )
  })
})

describe('randomness', () => {
  it('is the same in both, from one source, whatever is drawn', () => {
    const draws = fc.array(fc.tuple(fc.boolean(), fc.oneof(fc.nat(100), fc.nat(9000))), { maxLength: 40 })
    fc.assert(
      fc.property(draws, SEED, (list, seed) => {
        const [a, b] = [node.make(seeded(seed)), noble.make(seeded(seed))]
        for (const [key, length] of list) {
          const draw = key ? 'randomKey' : 'randomBytes'
          expectSame(a[draw](length), b[draw](length))
        }
      }),
      { numRuns: 40 },
    )
  })
})
