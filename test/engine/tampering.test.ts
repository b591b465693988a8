import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesOf, ENGINES, SEALERS } from './support.ts'

/** What was changed does not open: null, never an exception and never other bytes. */
const NO_BYTES = new Uint8Array(0)
const KEY = bytesOf(32, 11)
const AAD = bytesOf(21, 12)
const SIZE = fc.oneof(fc.nat(300), fc.constantFrom(0, 1, 4095, 4096, 65_535, 65_536, 71_680))

function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const flipped = Uint8Array.from(bytes)
  flipped[bit >> 3]! ^= 1 << (bit & 7)
  return flipped
}

describe.each(SEALERS)('$aead on the $engine engine', ({ make }) => {
  const sealer = make(KEY)

  it('opens nothing with any one bit flipped, in nonce, ciphertext or tag', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    for (let bit = 0; bit < sealed.length * 8; bit++) expect(sealer.open(flip(sealed, bit), AAD)).toBeNull()
    expect(sealer.open(sealed, AAD)).not.toBeNull()
  })

  it('opens nothing with one bit flipped, at any size', () => {
    fc.assert(
      fc.property(SIZE, fc.nat(), (size, random) => {
        const sealed = sealer.seal(bytesOf(size, 1), AAD)
        expect(sealer.open(flip(sealed, random % (sealed.length * 8)), AAD)).toBeNull()
      }),
      { numRuns: 60 },
    )
  })

  it('opens nothing that was cut, at either end, down to no bytes at all', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    for (let length = 0; length < sealed.length; length++) {
      expect(sealer.open(sealed.subarray(0, length), AAD)).toBeNull()
      expect(sealer.open(sealed.subarray(sealed.length - length), AAD)).toBeNull()
    }
  })

  it('opens nothing that was extended, at either end', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    expect(sealer.open(Uint8Array.of(...sealed, 0), AAD)).toBeNull()
    expect(sealer.open(Uint8Array.of(0, ...sealed), AAD)).toBeNull()
  })

  it('opens nothing under any other associated data', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    for (let bit = 0; bit < AAD.length * 8; bit++) expect(sealer.open(sealed, flip(AAD, bit))).toBeNull()
    for (let length = 0; length < AAD.length; length++) {
      expect(sealer.open(sealed, AAD.subarray(0, length))).toBeNull()
    }
    expect(sealer.open(sealed, Uint8Array.of(...AAD, 0))).toBeNull()
  })

  it('does not let bytes move between associated data and ciphertext', () => {
    const sealed = sealer.seal(NO_BYTES, NO_BYTES)
    expect(sealer.open(sealed, NO_BYTES)).toEqual(new Uint8Array(0))
    expect(sealer.open(sealed, Uint8Array.of(0))).toBeNull()
  })

  it('opens nothing under any other key', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    for (let bit = 0; bit < 256; bit++) expect(make(flip(KEY, bit)).open(sealed, AAD)).toBeNull()
  })

  it('opens nothing of random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
        expect(sealer.open(bytes, NO_BYTES)).toBeNull()
      }),
    )
  })

  it('still opens the right bytes after wrong ones', () => {
    const sealed = sealer.seal(bytesOf(19, 1), AAD)
    expect(sealer.open(flip(sealed, 200), AAD)).toBeNull()
    expect(Uint8Array.from(sealer.open(sealed, AAD)!)).toEqual(bytesOf(19, 1))
  })
})

describe.each(ENGINES)('AES key wrap on the $name engine', ({ make }) => {
  const kek = make().keyWrap(KEY)
  const key = bytesOf(32, 13)
  const wrapped = kek.wrap(key)

  it('unwraps nothing with any one bit flipped', () => {
    for (let bit = 0; bit < 320; bit++) expect(kek.unwrap(flip(wrapped, bit))).toBeNull()
    expect(Uint8Array.from(kek.unwrap(wrapped)!)).toEqual(key)
  })

  it('unwraps nothing under any other key', () => {
    for (let bit = 0; bit < 256; bit++) expect(make().keyWrap(flip(KEY, bit)).unwrap(wrapped)).toBeNull()
  })

  it('unwraps nothing of random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 40, maxLength: 40 }), (bytes) => {
        expect(kek.unwrap(bytes)).toBeNull()
      }),
    )
  })
})
