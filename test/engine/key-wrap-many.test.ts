import * as crypto from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { unwrapMany, wrapMany } from '../../src/engine/key-wrap.ts'
import { bytesOf, ENGINES, refusal, toHex, unaligned } from './support.ts'

/** Many keys at once: the same bytes and the same answers as one by one, on either engine. */
const KEK = bytesOf(32, 21)
/** Around the 256 that go through AES together. */
const COUNTS = [0, 1, 2, 3, 7, 255, 256, 257, 1000]

const at = (items: Uint8Array, size: number, i: number): Uint8Array => items.subarray(size * i, size * (i + 1))
const join = (items: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(items))

describe.each(ENGINES)('AES key wrap of many keys on the $name engine', ({ make }) => {
  const kek = make().keyWrap(KEK)
  const wrapOnes = (keys: Uint8Array): Uint8Array =>
    join(Array.from({ length: keys.length / 32 }, (_, i) => kek.wrap(at(keys, 32, i))))

  it.each(COUNTS)('wraps and unwraps %i as one by one', (count) => {
    const keys = bytesOf(32 * count, 22)
    const wrapped = kek.wrapMany(keys)
    expect(toHex(wrapped)).toBe(toHex(wrapOnes(keys)))
    const unwrapped = kek.unwrapMany(wrapped)
    expect(toHex(unwrapped.keys)).toBe(toHex(keys))
    expect(unwrapped.intact).toEqual(new Uint8Array(count).fill(1))
  })

  it('tells which are broken, wherever they stand, gives zeros for them and all the others', () => {
    const count = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(255, 256, 257, 600))
    fc.assert(
      fc.property(
        count,
        fc.integer(),
        fc.array(fc.tuple(fc.nat(), fc.nat(319)), { maxLength: 9 }),
        (n, seed, flips) => {
          const keys = bytesOf(32 * n, seed)
          const wrapped = kek.wrapMany(keys)
          const damaged = new Uint8Array(wrapped)
          for (const [which, bit] of flips) damaged[40 * (which % n) + (bit >> 3)]! ^= 1 << (bit & 7)
          const unwrapped = kek.unwrapMany(damaged)
          for (let i = 0; i < n; i++) {
            const isIntact = Buffer.compare(at(damaged, 40, i), at(wrapped, 40, i)) === 0
            expect(unwrapped.intact[i]).toBe(isIntact ? 1 : 0)
            expect(toHex(at(unwrapped.keys, 32, i))).toBe(toHex(isIntact ? at(keys, 32, i) : new Uint8Array(32)))
          }
        },
      ),
      { numRuns: 60 },
    )
  })

  it('opens nothing with any one bit of one of them flipped, and the others all the same', () => {
    const keys = bytesOf(32 * 5, 23)
    const wrapped = kek.wrapMany(keys)
    for (let bit = 0; bit < 320; bit++) {
      const damaged = new Uint8Array(wrapped)
      damaged[40 * 2 + (bit >> 3)]! ^= 1 << (bit & 7)
      const unwrapped = kek.unwrapMany(damaged)
      expect([...unwrapped.intact]).toEqual([1, 1, 0, 1, 1])
      expect(toHex(unwrapped.keys)).toBe(toHex(join([at(keys, 64, 0), new Uint8Array(32), keys.subarray(96)])))
    }
  })

  it('opens nothing under another key, and nothing of random bytes', () => {
    const other = make().keyWrap(bytesOf(32, 24))
    const { keys, intact } = other.unwrapMany(kek.wrapMany(bytesOf(32 * 300, 25)))
    expect([keys.some((byte) => byte !== 0), intact.some((flag) => flag !== 0)]).toEqual([false, false])
    expect(kek.unwrapMany(bytesOf(40 * 300, 26)).intact.some((flag) => flag !== 0)).toBe(false)
  })

  it('does not mind where its argument lies in memory, and changes nothing in it', () => {
    const [keys, same] = [bytesOf(32 * 3, 27), bytesOf(32 * 3, 27)]
    const wrapped = kek.wrapMany(keys)
    const kept = new Uint8Array(wrapped)
    expect(toHex(kek.wrapMany(unaligned(keys)))).toBe(toHex(wrapped))
    expect(toHex(kek.wrapMany(Buffer.from(keys)))).toBe(toHex(wrapped))
    expect(toHex(kek.unwrapMany(unaligned(wrapped)).keys)).toBe(toHex(keys))
    expect([keys, wrapped]).toEqual([same, kept])
  })

  it('gives bytes of its own: a later call does not change them', () => {
    const wrapped = kek.wrapMany(bytesOf(64, 28))
    const first = kek.unwrapMany(wrapped)
    const before = [toHex(wrapped), toHex(first.keys), toHex(first.intact)]
    kek.unwrapMany(kek.wrapMany(bytesOf(64, 29)))
    expect([toHex(wrapped), toHex(first.keys), toHex(first.intact)]).toEqual(before)
  })

  it('refuses bytes that are no number of keys, and what is no bytes: CONFIG, with the argument named', () => {
    for (const wrong of [new Uint8Array(31), new Uint8Array(33), 'x'.repeat(32), undefined, [1]]) {
      expect(refusal(() => kek.wrapMany(wrong as Uint8Array))).toMatchObject({ code: 'CONFIG', argument: 'keys' })
      const error = refusal(() => kek.unwrapMany(wrong as Uint8Array))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'wrapped' })
      expect(error.message).not.toContain('xxx')
    }
  })

  it('throws once destroyed', () => {
    const gone = make().keyWrap(KEK)
    gone.destroy()
    expect(() => gone.wrapMany(new Uint8Array(32))).toThrow(/destroyed/)
    expect(() => gone.unwrapMany(new Uint8Array(40))).toThrow(/destroyed/)
  })
})

it('both engines agree on any keys', () => {
  const [a, b] = [ENGINES[0]!.make().keyWrap(KEK), ENGINES[1]!.make().keyWrap(KEK)]
  fc.assert(
    fc.property(fc.nat(40), fc.integer(), (count, seed) => {
      const keys = bytesOf(32 * count, seed)
      expect(toHex(a.wrapMany(keys))).toBe(toHex(b.wrapMany(keys)))
      const wrapped = a.wrapMany(keys)
      if (count > 0) wrapped[seed & 31]! ^= 1
      expect(a.unwrapMany(wrapped)).toEqual(b.unwrapMany(wrapped))
    }),
  )
})

describe('what AES gave back', () => {
  const aes = () => {
    const given: Uint8Array[] = []
    const lent: Uint8Array[] = []
    const blocks = (cipher: crypto.Cipher) => (input: Uint8Array) => {
      lent.push(new Uint8Array(input.buffer))
      given.push(cipher.update(input))
      return given.at(-1)!
    }
    return { given, lent, blocks }
  }
  const encrypts = () => crypto.createCipheriv('aes-256-ecb', KEK, null).setAutoPadding(false) as crypto.Cipher
  const decrypts = () => crypto.createDecipheriv('aes-256-ecb', KEK, null).setAutoPadding(false) as crypto.Decipher
  const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0)

  it('is wiped, and so is what it was given, also when it fails', () => {
    const { given, lent, blocks } = aes()
    const wrapped = wrapMany(blocks(encrypts()), bytesOf(32 * 3, 1))
    unwrapMany(blocks(decrypts()), wrapped)
    expect(given.length).toBe(48)
    expect([given.every(isZero), lent.every(isZero)]).toEqual([true, true])
    const failing = vi.fn(blocks(encrypts())).mockImplementationOnce(() => {
      throw new Error('no AES here')
    })
    expect(() => wrapMany(failing, bytesOf(32 * 3, 1))).toThrow('no AES here')
    expect(lent.every(isZero)).toBe(true)
  })
})
