import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { FillRandom } from '../../src/engine/engine.ts'
import { randomPool, unpooled } from '../../src/engine/random.ts'
import { ENGINES, seeded, toHex } from './support.ts'

const POOL_BYTES = 4096
const WINDOW = 8

/** A source that never gives a zero byte, and remembers every array it was asked to fill. */
function watched(seed = 1): { fill: FillRandom; filled: Uint8Array[] } {
  const stream = seeded(seed)
  const filled: Uint8Array[] = []
  return {
    filled,
    fill(bytes) {
      filled.push(bytes)
      stream(bytes)
      for (let i = 0; i < bytes.length; i++) bytes[i]! |= 1
    },
  }
}

/** How many runs of 8 bytes occur in more than one place of the draws. */
function repeats(draws: readonly Uint8Array[]): number {
  const seen = new Set<string>()
  let windows = 0
  for (const draw of draws) {
    for (let at = 0; at + WINDOW <= draw.length; at++, windows++) seen.add(toHex(draw.subarray(at, at + WINDOW)))
  }
  return windows - seen.size
}

describe('the random pool', () => {
  it('never hands out the same bytes twice, whatever sizes are drawn', () => {
    const length = fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0, max: 64 }) },
      { weight: 1, arbitrary: fc.constantFrom(4095, 4096, 4097, 5000) },
    )
    fc.assert(
      fc.property(fc.array(length, { maxLength: 150 }), fc.integer(), (lengths, seed) => {
        const draw = randomPool(seeded(seed)).take
        const draws = lengths.map((n) => draw(n))
        expect(draws.map((bytes) => bytes.length)).toEqual(lengths)
        expect(repeats(draws)).toBe(0)
      }),
      { numRuns: 30 },
    )
  })

  it('wipes what it hands out, and only that', () => {
    const { fill, filled } = watched()
    const draw = randomPool(fill).take
    let used = 0
    for (const length of [12, 24, 15, 0, 1, 300]) {
      const bytes = draw(length)
      used += length
      expect(bytes.includes(0)).toBe(false)
      expect(filled[0]!.subarray(0, used).every((byte) => byte === 0)).toBe(true)
      expect(filled[0]!.subarray(used).includes(0)).toBe(false)
    }
    expect(filled.length).toBe(1)
  })

  it('holds nothing once it was drawn to its end', () => {
    const { fill, filled } = watched()
    const draw = randomPool(fill).take
    for (let i = 0; i < POOL_BYTES / 16; i++) draw(16)
    expect(filled.length).toBe(1)
    expect(filled[0]!.some((byte) => byte !== 0)).toBe(false)
  })

  it('fills itself again as a whole when too little is left, and passes the rest by', () => {
    const { fill, filled } = watched()
    const draw = randomPool(fill).take
    const first = draw(POOL_BYTES - 10)
    expect(draw(24).includes(0)).toBe(false)
    expect(filled.map((bytes) => bytes.length)).toEqual([POOL_BYTES, POOL_BYTES])
    expect(first.includes(0)).toBe(false)
  })

  it('asks the source directly for more than it holds', () => {
    const { fill, filled } = watched()
    const draw = randomPool(fill).take
    draw(POOL_BYTES + 1)
    expect(filled.map((bytes) => bytes.length)).toEqual([POOL_BYTES + 1])
  })

  it('hands out arrays of their own, not views of itself', () => {
    const draw = randomPool(watched().fill).take
    const first = draw(16)
    const copy = toHex(first)
    expect(first.buffer.byteLength).toBe(16)
    first.fill(0xee)
    expect(toHex(draw(16))).not.toBe(copy)
    expect(first.every((byte) => byte === 0xee)).toBe(true)
  })

  it('passes on the failure of its source, and hands out nothing but fresh bytes after it', () => {
    const { fill, filled } = watched()
    let broken = true
    const draw = randomPool((bytes) => {
      if (broken) throw new Error('no entropy')
      fill(bytes)
    }).take
    expect(() => draw(12)).toThrow('no entropy')
    expect(() => draw(12)).toThrow('no entropy')
    broken = false
    expect(draw(12).includes(0)).toBe(false)
    draw(POOL_BYTES - 12)
    broken = true
    expect(() => draw(1)).toThrow('no entropy')
    expect(filled.length).toBe(1)
  })
})

describe('unpooled randomness', () => {
  it('asks its source for exactly what is wanted, each time', () => {
    const { fill, filled } = watched()
    const draw = unpooled(fill)
    const draws = [draw(32), draw(32), draw(16)]
    expect(filled.map((bytes) => bytes.length)).toEqual([32, 32, 16])
    expect(repeats(draws)).toBe(0)
  })
})

describe.each(ENGINES)('randomness of the $name engine', ({ make }) => {
  it('draws keys past the pool, which they leave as it is', () => {
    const { fill, filled } = watched()
    const engine = make(fill)
    engine.randomBytes(12)
    const pool = Uint8Array.from(filled[0]!)
    const key = engine.randomKey(32)
    expect(filled.map((bytes) => bytes.length)).toEqual([POOL_BYTES, 32])
    expect(filled[1]).toEqual(key)
    expect(filled[0]).toEqual(pool)
  })

  it('draws the nonces of seals from the pool', () => {
    const { fill, filled } = watched()
    const engine = make(fill)
    const aead = engine.aead('xchacha20-poly1305', new Uint8Array(32))
    for (let i = 0; i < 100; i++) aead.seal(new Uint8Array(1), new Uint8Array(0))
    expect(filled.map((bytes) => bytes.length)).toEqual([POOL_BYTES])
  })

  it('does not repeat itself on the system generator', () => {
    const engine = make()
    const draws = Array.from({ length: 500 }, (_, i) => (i % 2 ? engine.randomBytes(24) : engine.randomKey(32)))
    expect(repeats(draws)).toBe(0)
  })

  it.each([0, 1, 65_535, 65_536, 65_537, 200_000])('serves %i bytes at once, to the last', (length) => {
    const engine = make()
    for (const bytes of [engine.randomBytes(length), engine.randomKey(length)]) {
      expect(bytes.length).toBe(length)
      if (length > 16) expect(bytes.subarray(-16).some((byte) => byte !== 0)).toBe(true)
    }
  })
})
