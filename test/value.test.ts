import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MAX_PLAINTEXT_BYTES } from '../src/envelope/format.ts'
import { decodeValue, encodeValue, type Padding, plaintextBytes, type ValueKind } from '../src/envelope/value.ts'
import { WaxsealError } from '../src/errors.ts'
import { fromHex, refusal, toHex } from './engine/support.ts'

const KINDS: readonly ValueKind[] = ['text', 'bytes', 'number', 'int', 'bigint', 'boolean', 'date', 'json']
/** A plaintext of its own: what encodeValue returns is shared with the next call. */
const encode = (kind: ValueKind, value: unknown, padding?: Padding, maxBytes?: number): Uint8Array =>
  Uint8Array.from(encodeValue(kind, value, padding, maxBytes))
const roundTrip = (kind: ValueKind, value: unknown, padding?: Padding): unknown =>
  decodeValue(kind, encode(kind, value, padding))

const TEXT = fc.string({ unit: 'binary', maxLength: 60 })
const BYTES = fc.uint8Array({ maxLength: 60 })
const NUMBER = fc.double()
const INT = fc.maxSafeInteger()
const BIGINT = fc.bigInt()
const DATE = fc.date({ noInvalidDate: true })
const JSON_VALUE = fc.jsonValue({ stringUnit: 'binary' })
const VALUE: Record<ValueKind, fc.Arbitrary<unknown>> = {
  text: TEXT,
  bytes: BYTES,
  number: NUMBER,
  int: INT,
  bigint: BIGINT,
  boolean: fc.boolean(),
  date: DATE,
  json: JSON_VALUE,
}
/** A kind and a value of it; JSON's own null is the null of every kind. */
const TYPED: fc.Arbitrary<[ValueKind, unknown]> = fc
  .constantFrom(...KINDS)
  .chain((kind) => fc.tuple(fc.constant(kind), fc.option(VALUE[kind], { freq: 8 })))
const PADDING: fc.Arbitrary<Padding> = fc.oneof(
  fc.record({ multiple: fc.integer({ min: 1, max: 300 }) }),
  fc.record({ to: fc.integer({ min: 0, max: 5000 }) }),
)
/** JSON has no −0. */
const expected = (kind: ValueKind, value: unknown): unknown =>
  kind === 'json' ? JSON.parse(JSON.stringify(value)) : value

describe('a value comes back as it went in', () => {
  it('of any kind, null included', () => {
    fc.assert(
      fc.property(TYPED, ([kind, value]) => {
        expect(roundTrip(kind, value)).toStrictEqual(expected(kind, value))
      }),
      { numRuns: 1000 },
    )
  })

  it('under any padding that has room for it', () => {
    fc.assert(
      fc.property(TYPED, PADDING, ([kind, value], padding) => {
        const plain = encode(kind, value)
        fc.pre('multiple' in padding || plain.length - 1 <= padding.to)
        expect(roundTrip(kind, value, padding)).toStrictEqual(expected(kind, value))
      }),
      { numRuns: 1000 },
    )
  })

  const SPECIAL: readonly [kind: ValueKind, what: string, value: unknown, plaintext: string][] = [
    ['text', 'empty text', '', '04'],
    ['text', 'é', 'é', '04c3a9'],
    ['text', 'a byte order mark', '\ufeffx', '04efbbbf78'],
    ['text', 'U+FFFD', '\ufffd', '04efbfbd'],
    ['text', 'NUL', '\0', '0400'],
    ['text', 'a text that looks padded', '\u0080', '04c280'],
    ['bytes', 'no bytes', new Uint8Array(0), '05'],
    ['bytes', 'bytes that look padded', Uint8Array.of(0x80, 0, 0), '05800000'],
    ['boolean', 'false', false, '02'],
    ['boolean', 'true', true, '03'],
    ['number', '1', 1, '063ff0000000000000'],
    ['number', '0', 0, '060000000000000000'],
    ['number', '−0', -0, '068000000000000000'],
    ['number', 'NaN', Number.NaN, '067ff8000000000000'],
    ['number', 'Infinity', Infinity, '067ff0000000000000'],
    ['number', '−Infinity', -Infinity, '06fff0000000000000'],
    ['number', 'the smallest', Number.MIN_VALUE, '060000000000000001'],
    ['number', 'the largest', Number.MAX_VALUE, '067fefffffffffffff'],
    ['int', 'the largest safe one', Number.MAX_SAFE_INTEGER, '06433fffffffffffff'],
    ['int', 'the smallest safe one', Number.MIN_SAFE_INTEGER, '06c33fffffffffffff'],
    ['bigint', '0', 0n, '0700'],
    ['bigint', '−1', -1n, '07ff'],
    ['bigint', '127', 127n, '077f'],
    ['bigint', '128', 128n, '070080'],
    ['bigint', '−128', -128n, '0780'],
    ['bigint', '−129', -129n, '07ff7f'],
    ['bigint', '2^64', 2n ** 64n, '07010000000000000000'],
    ['date', 'the epoch', new Date(0), '080000000000000000'],
    ['date', 'a ms before it', new Date(-1), '08ffffffffffffffff'],
    ['date', 'the latest', new Date(8.64e15), '08001eb208c2dc0000'],
    ['date', 'the earliest', new Date(-8.64e15), '08ffe14df73d240000'],
    ['json', 'an object', { a: [1, 'b', null, true] }, `09${toHex(Buffer.from('{"a":[1,"b",null,true]}'))}`],
    ['json', 'text', 'x', '09227822'],
    ['json', 'false', false, '0966616c7365'],
    ['json', 'a string with a line separator', '\u2028', '0922e280a822'],
  ]
  it.each(SPECIAL)('%s: %s', (kind, _what, value, plaintext) => {
    expect(toHex(encode(kind, value))).toBe(plaintext)
    expect(decodeValue(kind, fromHex(plaintext))).toStrictEqual(value)
  })

  it('as the one NaN that is written, whatever its bits were', () => {
    const odd = new Float64Array(BigUint64Array.of(0xfff8000000000badn).buffer)[0]
    expect(toHex(encode('number', odd))).toBe('067ff8000000000000')
  })

  it('as a bigint at every power of two, in two’s complement as short as can be', () => {
    const shortest = (value: bigint): number => {
      for (let bytes = 1; ; bytes++) if (BigInt.asIntN(bytes * 8, value) === value) return bytes
    }
    const powers = [...Array(140).keys(), ...[255, 256, 257, 1023, 1024, 2047, 4087, 4088, 4093, 4094]]
    for (const k of powers) {
      for (const near of [-1n, 0n, 1n]) {
        for (const value of [2n ** BigInt(k) + near, -(2n ** BigInt(k)) + near]) {
          const plaintext = encode('bigint', value)
          if (plaintext.length !== 1 + shortest(value)) expect.fail(`${value} took ${plaintext.length} bytes`)
          if (decodeValue('bigint', plaintext) !== value) expect.fail(`${value} did not come back`)
        }
      }
    }
  })

  it('as a bigint of at most 512 bytes', () => {
    const limit = 2n ** 4095n
    for (const value of [limit - 1n, -limit]) expect(roundTrip('bigint', value)).toBe(value)
    for (const value of [limit, -limit - 1n, 2n ** 5000n]) {
      expect(refusal(() => encode('bigint', value)).code).toBe('LIMIT_EXCEEDED')
    }
  })

  it('as JSON whose members are undefined: left out, as JSON.stringify does', () => {
    expect(roundTrip('json', { a: undefined, b: 1 })).toStrictEqual({ b: 1 })
  })

  it('as JSON of an object without a prototype', () => {
    expect(roundTrip('json', Object.assign(Object.create(null), { a: 1 }))).toStrictEqual({ a: 1 })
  })

  it('as text of the largest size, and larger than the shared buffer', () => {
    for (const text of ['x'.repeat(4095), 'x'.repeat(4096), '密'.repeat(70_000), 'x'.repeat(1 << 20)]) {
      expect(roundTrip('text', text) === text).toBe(true)
    }
  })

  it('whatever was encoded before it: a longer value leaves nothing behind', () => {
    const before = toHex(encode('date', new Date(1)))
    encode('text', '\u{1f512}'.repeat(900))
    expect(toHex(encode('date', new Date(1)))).toBe(before)
    expect(toHex(encode('number', null))).toBe('818000000000000000')
    expect(toHex(encode('boolean', true, { to: 5 }))).toBe('83800000000000')
  })
})

describe('a value that does not fit', () => {
  const deep = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
  const cyclic: { self?: unknown } = {}
  cyclic.self = cyclic
  class Person {
    name = 'hunter2'
  }
  const REFUSED: readonly [kind: ValueKind, what: string, value: unknown, code: string][] = [
    ['text', 'undefined', undefined, 'SCHEMA'],
    ['text', 'a number', 7771, 'SCHEMA'],
    ['text', 'a String object', new String('hunter2'), 'SCHEMA'],
    ['text', 'bytes', Buffer.from('hunter2'), 'SCHEMA'],
    ['text', 'a list', ['hunter2'], 'SCHEMA'],
    ['text', 'a lone high surrogate', 'hunter2\ud800', 'SCHEMA'],
    ['text', 'a lone low surrogate', '\udc00hunter2', 'SCHEMA'],
    ['text', 'surrogates the wrong way round', 'hunter2\udc00\ud800', 'SCHEMA'],
    ['bytes', 'text', 'hunter2', 'SCHEMA'],
    ['bytes', 'a list', [7771], 'SCHEMA'],
    ['bytes', 'an ArrayBuffer', new ArrayBuffer(4), 'SCHEMA'],
    ['bytes', 'a Uint16Array', new Uint16Array(4), 'SCHEMA'],
    ['bytes', 'a Buffer in JSON form', Buffer.from('hunter2').toJSON(), 'SCHEMA'],
    ['number', 'numeric text', '7771', 'SCHEMA'],
    ['number', 'a bigint', 7771n, 'SCHEMA'],
    ['number', 'a Number object', new Number(7771), 'SCHEMA'],
    ['int', 'a fraction', 7771.5, 'SCHEMA'],
    ['int', '2^53', 2 ** 53, 'SCHEMA'],
    ['int', '−2^53', -(2 ** 53), 'SCHEMA'],
    ['int', 'NaN', Number.NaN, 'SCHEMA'],
    ['int', 'Infinity', Infinity, 'SCHEMA'],
    ['int', 'a bigint', 7771n, 'SCHEMA'],
    ['int', 'numeric text', '7771', 'SCHEMA'],
    ['bigint', 'a number', 7771, 'SCHEMA'],
    ['bigint', 'numeric text', '7771', 'SCHEMA'],
    ['boolean', '0', 0, 'SCHEMA'],
    ['boolean', '"true"', 'true', 'SCHEMA'],
    ['date', 'an invalid Date', new Date(Number.NaN), 'SCHEMA'],
    ['date', 'a text of a date', '1977-07-07T00:00:00Z', 'SCHEMA'],
    ['date', 'milliseconds', 7771, 'SCHEMA'],
    ['json', 'undefined', undefined, 'SCHEMA'],
    ['json', 'a function', () => 'hunter2', 'SCHEMA'],
    ['json', 'a symbol', Symbol('hunter2'), 'SCHEMA'],
    ['json', 'a bigint', 7771n, 'SCHEMA'],
    ['json', 'a lone surrogate', 'hunter2\ud800', 'SCHEMA'],
    ['json', 'a lone surrogate deep within', { a: [{ b: 'hunter2\ud800' }] }, 'SCHEMA'],
    ['json', 'a lone surrogate in a name', { a: { 'hunter2\ud800': 1 } }, 'SCHEMA'],
    ['json', 'a lone surrogate in a name of nothing', { 'hunter2\ud800': undefined }, 'SCHEMA'],
    ['json', 'NaN', { a: [Number.NaN] }, 'SCHEMA'],
    ['json', 'Infinity', { a: Infinity }, 'SCHEMA'],
    ['json', 'a bigint within', { a: 7771n }, 'SCHEMA'],
    ['json', 'a function within', { a: () => 'hunter2' }, 'SCHEMA'],
    ['json', 'undefined in a list', ['hunter2', undefined], 'SCHEMA'],
    // biome-ignore lint/suspicious/noSparseArray: that is the case
    ['json', 'a hole in a list', ['hunter2', , 'x'], 'SCHEMA'],
    ['json', 'a list of holes only', new Array(3), 'SCHEMA'],
    ['json', 'a Date', new Date(7771), 'SCHEMA'],
    ['json', 'a Map', new Map([['hunter2', 1]]), 'SCHEMA'],
    ['json', 'bytes', Buffer.from('hunter2'), 'SCHEMA'],
    ['json', 'an instance of a class', new Person(), 'SCHEMA'],
    ['json', 'an instance of a class within', { a: [new Person()] }, 'SCHEMA'],
    ['json', 'a String object', { a: new String('hunter2') }, 'SCHEMA'],
    ['json', 'an object with toJSON', { toJSON: () => 'hunter2' }, 'SCHEMA'],
    ['json', 'an object with toJSON within', [{ a: 'hunter2', toJSON: () => 1 }], 'SCHEMA'],
    ['json', 'a list with toJSON', Object.assign(['hunter2'], { toJSON: () => 'other' }), 'SCHEMA'],
    [
      'json',
      'a list with toJSON that gives nothing',
      Object.assign(['hunter2'], { toJSON: () => undefined }),
      'SCHEMA',
    ],
    ['json', 'an instance of a subclass of Array', new (class Names extends Array {})(), 'SCHEMA'],
    ['json', 'a cycle', cyclic, 'LIMIT_EXCEEDED'],
    ['json', 'more than 100 levels', deep(103), 'LIMIT_EXCEEDED'],
    ['json', '50,000 levels', deep(50_000), 'LIMIT_EXCEEDED'],
  ]
  it.each(REFUSED)('%s: %s', (kind, _what, value, code) => {
    const error = refusal(() => encode(kind, value))
    expect(error.code).toBe(code)
    expect(error.message).not.toMatch(/hunter2|777|1977/)
    expect(error.cause).toBeUndefined()
  })

  it('may call its constructor by a secret: it is not printed', () => {
    const parsed: unknown = JSON.parse('{"constructor":{"name":"hunter2"}}')
    const inherited: unknown = Object.create({ constructor: { name: 'hunter2' } })
    for (const kind of KINDS) {
      const values = kind === 'json' ? [inherited] : [parsed, inherited]
      for (const value of values) expect(refusal(() => encode(kind, value)).message).not.toContain('hunter2')
    }
  })

  it('json: 100 levels are allowed, and one more is not', () => {
    expect(roundTrip('json', deep(101))).toStrictEqual(deep(101)) // the innermost list is level 100
    expect(refusal(() => encode('json', deep(102))).code).toBe('LIMIT_EXCEEDED')
  })

  const LARGE: readonly [kind: ValueKind, what: string, allowed: unknown, refused: unknown][] = [
    ['text', 'text', 'x'.repeat(10), 'x'.repeat(11)],
    ['text', 'text in UTF-8', 'é'.repeat(5), 'é'.repeat(6)],
    ['bytes', 'bytes', new Uint8Array(10), new Uint8Array(11)],
    ['json', 'JSON with its quotes', 'x'.repeat(8), 'x'.repeat(9)],
    ['bigint', 'a bigint', 2n ** 79n - 1n, 2n ** 79n],
  ]
  it.each(LARGE)('%s: %s of more than maxBytes, or than the padding has room for', (kind, _what, allowed, refused) => {
    for (const bounded of [
      (value: unknown) => encode(kind, value, undefined, 10),
      (value: unknown) => encode(kind, value, { multiple: 7 }, 10),
      (value: unknown) => encode(kind, value, { to: 10 }),
    ]) {
      expect(decodeValue(kind, bounded(allowed))).toStrictEqual(allowed)
      expect(refusal(() => bounded(refused))).toMatchObject({ code: 'LIMIT_EXCEEDED' })
    }
  })

  it('leaves nothing of itself in the shared buffer', () => {
    const shared = Buffer.from(encodeValue('boolean', true, undefined).buffer)
    for (const refuse of [
      () => encodeValue('text', 'hunter2é', undefined, 8),
      () => encodeValue('text', 'hunter2', { to: 3 }),
      () => encodeValue('bytes', Buffer.from('hunter2'), { to: 3 }),
      () => encodeValue('json', 'hunter2', undefined, 3),
    ]) {
      expect(refusal(refuse).code).toBe('LIMIT_EXCEEDED')
      expect(shared.includes('hunter2')).toBe(false)
    }
    encodeValue('text', 'hunter2', { to: 5000 }) // moves into a larger buffer
    expect(shared.includes('hunter2')).toBe(false)
  })

  it('is refused when its padding would make a plaintext that no reader accepts', () => {
    const largest = new Uint8Array(MAX_PLAINTEXT_BYTES - 1)
    expect(encodeValue('bytes', largest, undefined).length).toBe(MAX_PLAINTEXT_BYTES)
    let length = 0
    try {
      length = encodeValue('bytes', largest, { multiple: 65_536 }).length
    } catch (error) {
      expect(error).toMatchObject({ code: 'LIMIT_EXCEEDED' })
    }
    expect(length).toBeLessThanOrEqual(MAX_PLAINTEXT_BYTES)
  })
})

describe('the length of a plaintext', () => {
  it('is what plaintextBytes says of the length of the value', () => {
    fc.assert(
      fc.property(BYTES, fc.option(PADDING, { nil: undefined }), (value, padding) => {
        fc.pre(padding === undefined || 'multiple' in padding || value.length <= padding.to)
        expect(encode('bytes', value, padding).length).toBe(plaintextBytes(value.length, padding))
      }),
    )
  })

  it('is a whole multiple behind the tag, with room for the end mark', () => {
    for (let size = 0; size <= 40; size++) {
      const { length } = encode('bytes', new Uint8Array(size), { multiple: 16 })
      expect(length).toBe(1 + (size < 16 ? 16 : size < 32 ? 32 : 48))
    }
  })

  it('is one for all values, and null, of a field padded to a size', () => {
    fc.assert(
      fc.property(TYPED, fc.integer({ min: 8, max: 5000 }), ([kind, value], to) => {
        fc.pre(encode(kind, value).length <= to + 1)
        expect(encode(kind, value, { to }).length).toBe(to + 2)
      }),
      { numRuns: 500 },
    )
  })

  const CONSTANT: readonly [kind: ValueKind, values: unknown[], length: number][] = [
    ['number', [0, -0, 1.5, Number.NaN, -Infinity, Number.MAX_VALUE, null], 9],
    ['int', [0, -1, Number.MAX_SAFE_INTEGER, null], 9],
    ['date', [new Date(0), new Date(8.64e15), new Date(-8.64e15), null], 9],
    ['boolean', [true, false, null], 1],
  ]
  it.each(CONSTANT)('is the same for every %s: null takes the room of a value', (kind, values, length) => {
    expect(values.map((value) => encode(kind, value).length)).toEqual(values.map(() => length))
  })

  it.each(CONSTANT)('is the same for every %s also where the field is padded to multiples', (kind, values) => {
    for (const multiple of [1, 4, 8, 9, 16, 32]) {
      expect(new Set(values.map((value) => encode(kind, value, { multiple }).length)).size, `of ${multiple}`).toBe(1)
    }
  })

  it('ends at the mark, in zeros', () => {
    expect(toHex(encode('text', 'ab', { to: 5 }))).toBe('846162' + '80000000')
    expect(toHex(encode('text', 'ab', { multiple: 3 }))).toBe('846162' + '80')
    expect(toHex(encode('text', null, { multiple: 3 }))).toBe('81' + '800000')
    expect(toHex(encode('text', 'abc', { to: 3 }))).toBe('84616263' + '80')
  })
})

describe('decoding', () => {
  /** How the parts of a plaintext begin: fuzz near what is valid. */
  const NEARLY = fc
    .tuple(fc.integer({ min: 0, max: 10 }), fc.boolean(), fc.uint8Array({ maxLength: 12 }), fc.nat(3), fc.boolean())
    .map(([tag, padded, body, zeros, marked]) =>
      Uint8Array.of(tag | (padded ? 0x80 : 0), ...body, ...(marked ? [0x80] : []), ...Array<number>(zeros).fill(0)),
    )
  const FUZZ = fc.oneof(
    NEARLY,
    fc.uint8Array({ maxLength: 24 }),
    JSON_VALUE.map((value) => encode('json', value)),
  )

  it('of any bytes throws nothing but MALFORMED and SCHEMA, and reads one plaintext per unpadded value', () => {
    fc.assert(
      fc.property(fc.constantFrom(...KINDS), FUZZ, (kind, plaintext) => {
        let value: unknown
        try {
          value = decodeValue(kind, plaintext)
        } catch (error) {
          expect(error).toBeInstanceOf(WaxsealError)
          expect(['MALFORMED', 'SCHEMA']).toContain((error as WaxsealError).code)
          return
        }
        const padded = plaintext[0]! >= 0x80
        const canonical = value !== null && kind !== 'json' && !Number.isNaN(value)
        if (canonical && !padded) expect(toHex(encode(kind, value))).toBe(toHex(plaintext))
        if (canonical && padded) {
          const unpadded = Buffer.from(plaintext.subarray(0, plaintext.lastIndexOf(0x80)))
          unpadded[0]! &= 0x7f
          expect(toHex(encode(kind, value))).toBe(toHex(unpadded))
        }
      }),
      { numRuns: 2500 },
    )
  })

  const BROKEN: readonly [what: string, kind: ValueKind, plaintext: string, code: string][] = [
    ['no bytes', 'text', '', 'MALFORMED'],
    ['tag 0', 'text', '00', 'MALFORMED'],
    ['an unknown tag', 'text', '0a', 'MALFORMED'],
    ['an unknown tag, padded', 'text', '8a80', 'MALFORMED'],
    ['a null with a value', 'text', '0100', 'MALFORMED'],
    ['a boolean with a value', 'boolean', '0300', 'MALFORMED'],
    ['text that is not UTF-8', 'text', '04ff', 'MALFORMED'],
    ['text with a surrogate', 'text', '04eda080', 'MALFORMED'],
    ['overlong text', 'text', '04c080', 'MALFORMED'],
    ['a number of 7 bytes', 'number', '0600000000000000', 'MALFORMED'],
    ['a number of 9 bytes', 'number', '06000000000000000000', 'MALFORMED'],
    ['a NaN of other bits', 'number', '067ff8000000000001', 'MALFORMED'],
    ['a negative NaN', 'number', '06fff8000000000000', 'MALFORMED'],
    ['a fraction as int', 'int', '063ff8000000000000', 'SCHEMA'],
    ['2^53 as int', 'int', '064340000000000000', 'SCHEMA'],
    ['NaN as int', 'int', '067ff8000000000000', 'SCHEMA'],
    ['a bigint of no bytes', 'bigint', '07', 'MALFORMED'],
    ['a bigint 1 in two bytes', 'bigint', '070001', 'MALFORMED'],
    ['a bigint −1 in two bytes', 'bigint', '07ffff', 'MALFORMED'],
    ['a bigint 0 in two bytes', 'bigint', '070000', 'MALFORMED'],
    ['a bigint of 513 bytes', 'bigint', `0701${'00'.repeat(512)}`, 'MALFORMED'],
    ['a date of 7 bytes', 'date', '0800000000000000', 'MALFORMED'],
    ['a date after the latest', 'date', '08001eb208c2dc0001', 'MALFORMED'],
    ['a date before the earliest', 'date', '08ffe14df73d23ffff', 'MALFORMED'],
    ['the earliest 64-bit integer as date', 'date', '088000000000000000', 'MALFORMED'],
    ['JSON of no bytes', 'json', '09', 'MALFORMED'],
    ['JSON cut short', 'json', '097b', 'MALFORMED'],
    ['JSON with more behind it', 'json', '09317d', 'MALFORMED'],
    ['JSON with a byte order mark', 'json', '09efbbbf31', 'MALFORMED'],
    ['JSON that is not UTF-8', 'json', '0922ff22', 'MALFORMED'],
    ['padding without its mark', 'text', '8461', 'MALFORMED'],
    ['padding of zeros only', 'text', '84000000', 'MALFORMED'],
    ['padding on the tag alone', 'text', '84', 'MALFORMED'],
    ['padding with a byte behind the mark', 'text', '84618001', 'MALFORMED'],
    ['a padded tag as its own mark', 'text', '8000', 'MALFORMED'],
    ['a number too short once unpadded', 'number', '860000000000000080', 'MALFORMED'],
  ]
  it.each(BROKEN)('refuses %s', (_what, kind, plaintext, code) => {
    expect(refusal(() => decodeValue(kind, fromHex(plaintext))).code).toBe(code)
  })

  it('refuses every other kind than the declared one, but for null: SCHEMA, naming both and no value', () => {
    const samples: Record<ValueKind, unknown> = {
      text: 'hunter2',
      bytes: Buffer.from('hunter2'),
      number: 1.5,
      int: 7771,
      bigint: 7771n,
      boolean: true,
      date: new Date(7771),
      json: { a: 'hunter2' },
    }
    for (const stored of KINDS) {
      for (const declared of KINDS) {
        const reads = stored === declared || (declared === 'number' && stored === 'int')
        const decode = () => decodeValue(declared, encode(stored, samples[stored]))
        if (reads) expect(decode).not.toThrow()
        else {
          const error = refusal(decode)
          expect(error.code, `${stored} read as ${declared}`).toBe('SCHEMA')
          expect(error.message).not.toMatch(/hunter2|777/)
        }
        expect(decodeValue(declared, encode(stored, null))).toBeNull()
      }
    }
  })

  it('never quotes broken JSON', () => {
    const error = refusal(() => decodeValue('json', Uint8Array.of(9, ...Buffer.from('{"pin": hunter2}'))))
    expect(error.message).not.toContain('hunter2')
    expect(error.cause).toBeUndefined()
  })

  it('reads JSON a thousand times deeper than it writes without a fault of its own', () => {
    const nested = Buffer.from('['.repeat(100_000) + ']'.repeat(100_000))
    const plaintext = Buffer.concat([Uint8Array.of(9), nested])
    try {
      expect(Array.isArray(decodeValue('json', plaintext))).toBe(true)
    } catch (error) {
      expect(error).toMatchObject({ code: 'MALFORMED' })
    }
  })

  it('makes of "__proto__" in JSON a name like any other', () => {
    const hostile: unknown = JSON.parse('{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}')
    const decoded = roundTrip('json', hostile) as Record<string, unknown>
    expect(JSON.stringify(decoded)).toBe(JSON.stringify(hostile))
    expect(Object.getPrototypeOf(decoded)).toBe(Object.prototype)
    expect(Object.hasOwn(decoded, '__proto__')).toBe(true)
    expect(decoded.admin).toBeUndefined()
    expect(({} as Record<string, unknown>).admin).toBeUndefined()
  })

  it.each([
    ['bytes', Uint8Array.of(1, 2, 3)],
    ['text', 'hunter2'],
    ['json', { a: 'hunter2' }],
    ['date', new Date(7771)],
    ['bigint', 2n ** 100n],
  ] as const)('gives %s that outlive the plaintext, also of a Buffer', (kind, value) => {
    for (const plaintext of [encode(kind, value), Buffer.from(encode(kind, value)), encode(kind, value, { to: 64 })]) {
      const decoded = decodeValue(kind, plaintext)
      plaintext.fill(0)
      expect(decoded).toStrictEqual(value)
    }
  })

  it('changes nothing in the plaintext', () => {
    for (const kind of KINDS) {
      const plaintext = encode(kind, fc.sample(VALUE[kind], { numRuns: 1, seed: 1 })[0], { multiple: 64 })
      const before = toHex(plaintext)
      decodeValue(kind, plaintext)
      expect(toHex(plaintext)).toBe(before)
    }
  })
})
