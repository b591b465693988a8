import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { mostBroken } from '../../src/rotation/bound.ts'

/** The probability of at most `k` hits, by the definition: for small numbers. */
function atMost(k: number, n: number, p: number): number {
  let sum = 0
  for (let i = 0; i <= k; i++) {
    let ways = 1
    for (let j = 0; j < i; j++) ways = (ways * (n - j)) / (j + 1)
    sum += ways * p ** i * (1 - p) ** (n - i)
  }
  return sum
}

describe('what a sample says of the whole', () => {
  it.each([
    // One-sided 95 % bounds of Clopper and Pearson, from tables of the beta distribution.
    [0, 10, 0.2589],
    [0, 100, 0.0295],
    [1, 10, 0.3942],
    [1, 100, 0.0466],
    [5, 100, 0.1023],
    [10, 20, 0.698],
    [9, 10, 0.9949],
  ])('%d of %d: at most %d', (broken, drawn, expected) => {
    expect(mostBroken(broken, drawn)).toBeCloseTo(expected, 3)
  })

  it('none broken: about 3 in the number that was drawn', () => {
    for (const drawn of [100, 10_000, 10_000_000]) {
      expect(mostBroken(0, drawn) * drawn).toBeCloseTo(3, 0)
      expect(mostBroken(0, drawn)).toBeCloseTo(1 - 0.05 ** (1 / drawn), 12)
    }
  })

  it('nothing drawn, or all broken: 1', () => {
    expect([mostBroken(0, 0), mostBroken(3, 3)]).toEqual([1, 1])
  })

  it('is where so few broken rows have a probability of 5 %', () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 59 })).filter(([n, k]) => k < n)
    const holds = ([n, k]: [number, number]): void => {
      expect(atMost(k, n, mostBroken(k, n))).toBeCloseTo(0.05, 6)
    }
    fc.assert(fc.property(sizes, holds))
  })

  it('does not underflow with many rows, many of them broken', () => {
    const bound = mostBroken(50_000, 100_000)
    expect(bound).toBeGreaterThan(0.5025)
    expect(bound).toBeLessThan(0.5027)
  })
})
