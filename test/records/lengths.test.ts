import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bigint, boolean, bytes, date, int, json, number, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, unwrapText } from '../envelope/support.ts'

const keys = testKeyring()
const id = { id: int() }

describe('the length of a ciphertext', () => {
  const lengths = (field: unknown, values: unknown[]) => {
    const one = records('t', { id: { id: int() }, fields: { a: field as ReturnType<typeof json> } })
    return new Set(values.map((a) => unwrapText(one.encrypt(keys, { id: 1, a: a as never }).a as string).length))
  }

  it.each<[string, unknown, unknown[]]>([
    [
      'text padded to 32 bytes',
      text({ pad: { to: 32 }, nullable: true }),
      ['', 'a', 'ä'.repeat(16), 'x'.repeat(32), null],
    ],
    [
      'text padded to a multiple of 16',
      text({ pad: { multiple: 16 }, nullable: true }),
      ['', 'a', 'x'.repeat(15), null],
    ],
    ['JSON padded to 100 bytes', json({ pad: { to: 100 }, nullable: true }), [1, { a: 'b' }, null, []]],
    ['bigint padded to 16 bytes', bigint({ pad: { to: 16 } }), [0n, 2n ** 100n, -1n]],
    ['number', number({ nullable: true }), [0, 0.1, Number.NaN, null]],
    ['int', int({ nullable: true }), [0, 2 ** 53 - 1, null]],
    ['date', date({ nullable: true }), [new Date(0), new Date(8.64e15), null]],
    ['boolean', boolean({ nullable: true }), [true, false, null]],
    ['number padded to a multiple of 4', number({ pad: { multiple: 4 }, nullable: true }), [0, 0.1, null]],
    ['date padded to 12 bytes', date({ pad: { to: 12 }, nullable: true }), [new Date(0), null]],
  ])('is one for all values of a field: %s', (_, field, values) => {
    expect([...lengths(field, values)]).toHaveLength(1)
  })

  it('grows by whole multiples where padded so, and by the byte where not padded', () => {
    expect(
      lengths(text({ pad: { multiple: 16 } }), ['x'.repeat(14), 'x'.repeat(15), 'x'.repeat(16), 'x'.repeat(30)]).size,
    ).toBe(2)
    expect(lengths(text(), ['', 'a', 'ab']).size).toBe(3)
  })

  it('a value longer than its padding is LIMIT_EXCEEDED', () => {
    expect(code(() => lengths(text({ pad: { to: 4 } }), ['abcde']))).toBe('LIMIT_EXCEEDED')
  })
})

describe('columnLength', () => {
  const customers = records('customers', { id, fields: { email: text() } })
  const sized = {
    a: text(),
    b: bytes({ maxBytes: 20 }),
    c: text({ pad: { to: 40 } }),
    d: json({ pad: { multiple: 16 } }),
    n: number({ nullable: true }),
  }
  const suites = [1, 2] as const
  const combos = (['text', 'bytes'] as const).flatMap((encoding) => suites.map((suite) => ({ encoding, suite })))

  it.each(combos)('is exactly what a value of that size takes, in $encoding, suite $suite', ({ encoding, suite }) => {
    const one = records('t', { id, encoding, fields: sized })
    const ring = testKeyring({ suite })
    fc.assert(
      fc.property(fc.nat(200), fc.nat(20), fc.nat(40), (a, b, c) => {
        const row = one.encrypt(ring, {
          id: 1,
          a: 'x'.repeat(a),
          b: new Uint8Array(b),
          c: 'x'.repeat(c),
          d: 'x'.repeat(a),
          n: null,
        })
        expect(row.envelope.length).toBe(one.columnLength('envelope', undefined, suite))
        expect(row.a.length).toBe(one.columnLength('a', a, suite))
        expect(row.b.length).toBeLessThanOrEqual(one.columnLength('b', undefined, suite))
        expect(row.b.length).toBe(one.columnLength('b', b, suite))
        expect(row.c.length).toBe(one.columnLength('c', undefined, suite))
        expect(row.d.length).toBe(one.columnLength('d', a + 2, suite))
        expect(row.n.length).toBe(one.columnLength('n', undefined, suite))
      }),
      { numRuns: 40 },
    )
  })

  it.each(combos)(
    'of a packed row is what the largest values take, in $encoding, suite $suite',
    ({ encoding, suite }) => {
      const one = records('t', { id, encoding, shape: 'packed', fields: { b: sized.b, c: sized.c, born: date() } })
      const row = one.encrypt(testKeyring({ suite }), { id: 1, b: new Uint8Array(20), c: '', born: new Date(0) })
      expect(row.envelope.length).toBe(one.columnLength('envelope', undefined, suite))
    },
  )

  it('is for the larger suite unless one is named', () => {
    expect(customers.columnLength('envelope')).toBe(customers.columnLength('envelope', undefined, 2))
    expect(customers.columnLength('email', 10)).toBeGreaterThan(customers.columnLength('email', 10, 1))
  })

  it.each<[string, () => unknown]>([
    ['an unknown name', () => customers.columnLength('mail')],
    ['a field of unbounded values', () => customers.columnLength('email')],
    ['a suite that does not exist', () => customers.columnLength('email', 10, 3 as never)],
    ['a negative size', () => customers.columnLength('email', -1)],
    ['a size that is no number', () => customers.columnLength('email', Number.NaN)],
  ])('of %s is CONFIG', (_, ask) => {
    expect(code(ask)).toBe('CONFIG')
  })
})
