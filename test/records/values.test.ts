import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytes, cell, int, json, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, refusal } from '../envelope/support.ts'
import { fieldOf, given, KIND_NAMES, type Kind } from './support.ts'

const ints = fc.oneof(fc.maxSafeInteger(), fc.constantFrom(0, -0, 1, -1, 2 ** 53 - 1, -(2 ** 53 - 1)))
/** −0 is not JSON; `__proto__` as a name would not survive an object literal. */
const jsonValue = fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown)
const ANY: Record<Kind, fc.Arbitrary<unknown>> = {
  text: fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.constantFrom('', '\0', '\ufeffbom', '\ufffd', 'wxf:AA'),
  ),
  bytes: fc.uint8Array({ maxLength: 80 }),
  number: fc.oneof(fc.double(), fc.constantFrom(-0, 0, Number.NaN, Infinity, -Infinity, Number.MIN_VALUE)),
  int: ints,
  bigint: fc.oneof(
    fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
    fc.constantFrom(0n, -1n, 127n, 128n, -128n, -129n),
  ),
  boolean: fc.boolean(),
  date: fc.oneof(
    fc.date({ noInvalidDate: true }),
    fc.constantFrom(new Date(8.64e15), new Date(-8.64e15), new Date(-0)),
  ),
  json: fc.oneof(jsonValue, fc.constantFrom(null, [], {}, '', 0, [[[]]], { a: null })),
}

const keys = testKeyring()
const fields = Object.fromEntries(KIND_NAMES.map((kind) => [kind, fieldOf(kind, { nullable: true })]))
const row = fc.record(
  Object.fromEntries(
    Object.entries(ANY).map(([kind, any]) => [
      kind,
      fc.oneof({ weight: 6, arbitrary: any }, fc.constant(null), fc.constant(undefined)),
    ]),
  ),
) as fc.Arbitrary<Record<Kind, never>>

const shapes = (['columns', 'packed'] as const).flatMap((shape) =>
  (['text', 'bytes'] as const).flatMap((encoding) => ([1, 2] as const).map((suite) => ({ shape, encoding, suite }))),
)

describe.each(shapes)('$shape in $encoding, suite $suite', ({ shape, encoding, suite }) => {
  const ring = testKeyring({ suite })
  const every = records('every', { id: { id: int() }, fields, shape, encoding })

  it('any values of every kind come back as they went in; null is a value and undefined stays out', () => {
    fc.assert(
      fc.property(row, (values) => {
        const plain = { id: 1, ...values, name: 'not protected' }
        const before = structuredClone(plain)
        const sealed = every.encrypt(ring, plain) as Record<string, unknown>
        const isStored = (value: unknown) =>
          encoding === 'text' ? typeof value === 'string' : value instanceof Uint8Array
        expect(isStored(sealed.envelope)).toBe(true)
        const frozen = Object.freeze({ ...sealed }) as typeof sealed
        const opened = every.decrypt(ring, frozen as never) as Record<string, unknown>
        expect(given(opened)).toStrictEqual({ id: 1, name: 'not protected', ...given(values) })
        expect(plain).toStrictEqual(before)
        expect(sealed).toStrictEqual({ ...frozen })
      }),
      { numRuns: 60 },
    )
  })

  it('a ciphertext of the other encoding is read as well', () => {
    const other = records('every', {
      id: { id: int() },
      fields,
      shape,
      encoding: encoding === 'text' ? 'bytes' : 'text',
    })
    const sealed = other.encrypt(ring, { id: 1, text: 'a', bytes: Uint8Array.of(1) } as never)
    expect(every.decrypt(ring, sealed as never)).toMatchObject({ text: 'a', bytes: Uint8Array.of(1) })
  })
})

describe.each(KIND_NAMES)('a cell of kind %s', (kind) => {
  it.each(['text', 'bytes'] as const)('gives any value back, as %s', (encoding) => {
    const one = cell('t', 'c', {
      type: fieldOf(kind, { nullable: true }),
      bind: 'column',
      encoding,
    })
    fc.assert(
      fc.property(fc.oneof(ANY[kind], fc.constant(null)), (value) => {
        const sealed: unknown = one.encrypt(keys, value as never)
        expect(typeof sealed === 'string').toBe(encoding === 'text')
        expect(one.decrypt(keys, sealed as string)).toStrictEqual(value)
      }),
      { numRuns: 40 },
    )
  })
})

describe('values that do not fit', () => {
  const bad: [Kind, unknown][] = [
    ...['text', 'bytes', 'int', 'bigint', 'boolean', 'date', 'number'].map((kind): [Kind, unknown] => [
      kind as Kind,
      { a: 1 },
    ]),
    ...['bytes', 'number', 'int', 'bigint', 'boolean', 'date'].map((kind): [Kind, unknown] => [
      kind as Kind,
      'confidential',
    ]),
    ...['text', 'bytes', 'bigint', 'boolean', 'date'].map((kind): [Kind, unknown] => [kind as Kind, 4711]),
    ['text', '\ud800'],
    ['int', 1.5],
    ['int', 2 ** 53],
    ['int', Number.NaN],
    ['int', 1n],
    ['date', new Date(Number.NaN)],
    ['bytes', [1, 2]],
    ['bytes', new Uint16Array(2)],
    ['json', Number.NaN],
    ['json', 1n],
    ['json', [undefined]],
    ['json', new Array(2)],
    ['json', new Date(0)],
    ['json', { a: () => 1 }],
    ['json', { a: '\udc00' }],
    ['json', Symbol('confidential')],
  ]

  it.each(
    bad.flatMap(([kind, value]) => [
      { shape: 'columns' as const, kind, value },
      { shape: 'packed' as const, kind, value },
    ]),
  )('$shape: SCHEMA names table, field and row, and no value: $kind', ({ shape, kind, value }) => {
    const one = records('every', {
      id: { id: int() },
      shape,
      fields: { [kind]: fieldOf(kind) },
    })
    const error = refusal(() => one.encrypt(keys, { id: 4, [kind]: value } as never))
    expect(error).toMatchObject({ code: 'SCHEMA', table: 'every', field: kind, rowId: '4' })
    expect(error.message).not.toMatch(/confidential|4711/)
  })

  it.each(KIND_NAMES)('null is SCHEMA for a %s that is not nullable', (kind) => {
    const one = records('every', { id: { id: int() }, fields: { [kind]: fieldOf(kind) } })
    expect(code(() => one.encrypt(keys, { id: 4, [kind]: null } as never))).toBe('SCHEMA')
    const sealed = cell('t', 'c', { type: fieldOf(kind), bind: 'column' })
    expect(code(() => sealed.encrypt(keys, null as never))).toBe('SCHEMA')
  })

  it('JSON deeper than 100 levels is LIMIT_EXCEEDED, and a loop of objects too', () => {
    const one = records('t', { id: { id: int() }, fields: { a: json() } })
    let deep: unknown = 1
    for (let i = 0; i < 102; i++) deep = [deep]
    const loop: Record<string, unknown> = {}
    loop.loop = loop
    expect(code(() => one.encrypt(keys, { id: 1, a: deep as never }))).toBe('LIMIT_EXCEEDED')
    expect(code(() => one.encrypt(keys, { id: 1, a: loop as never }))).toBe('LIMIT_EXCEEDED')
  })

  it.each<[string, unknown, number]>([
    ['text', 'äb', 2],
    ['bytes', new Uint8Array(5), 4],
    ['bigint', 2n ** 31n, 4],
    ['json', { a: 'b' }, 8],
  ])('a %s above maxBytes is LIMIT_EXCEEDED; one of that size is not', (kind, value, maxBytes) => {
    const size = (most: number) =>
      records('t', {
        id: { id: int() },
        fields: { a: fieldOf(kind as Kind, { maxBytes: most }) },
      })
    expect(refusal(() => size(maxBytes).encrypt(keys, { id: 1, a: value as never }))).toMatchObject({
      code: 'LIMIT_EXCEEDED',
      field: 'a',
    })
    size(maxBytes + 1).encrypt(keys, { id: 1, a: value as never })
  })
})

describe('null', () => {
  const one = records('t', {
    id: { id: int() },
    fields: { sealed: text({ nullable: true }), plain: text({ nullable: 'sql' }) },
  })

  it("is sealed with nullable: true, and SQL NULL with 'sql'", () => {
    const row = one.encrypt(keys, { id: 1, sealed: null, plain: null })
    expect(row.sealed).toMatch(/^wxf:/)
    expect(row.plain).toBeNull()
    expect(one.decrypt(keys, row)).toEqual({ id: 1, sealed: null, plain: null })
  })

  it('beside a header is MALFORMED where null would be sealed', () => {
    const row = one.encrypt(keys, { id: 1, sealed: null, plain: 'a' })
    expect(refusal(() => one.decrypt(keys, { ...row, sealed: null }))).toMatchObject({
      code: 'MALFORMED',
      field: 'sealed',
    })
    expect(one.decrypt(keys, { ...row, plain: null })).toMatchObject({ plain: null })
  })

  it('in a packed row is sealed either way: there is no column for SQL NULL', () => {
    const packed = records('t', { id: { id: int() }, shape: 'packed', fields: one.declaration.fields })
    const row = packed.encrypt(keys, { id: 1, sealed: null, plain: null })
    expect(packed.decrypt(keys, row)).toEqual({ id: 1, sealed: null, plain: null })
  })

  it("of a cell cannot be nullable: 'sql': a cell has no SQL NULL, and the declaration is refused", () => {
    const declare = () => cell('t', 'c', { type: text({ nullable: 'sql' }), bind: 'column' })
    expect(declare).toThrow(expect.objectContaining({ code: 'CONFIG', argument: 'type' }))
  })
})

describe('bytes', () => {
  it.each(['columns', 'packed'] as const)('opened from %s share no memory with the row or one another', (shape) => {
    const one = records('t', { id: { id: int() }, shape, fields: { a: bytes(), b: bytes() } })
    const given = Uint8Array.of(1, 2, 3)
    const row = one.encrypt(keys, { id: 1, a: given, b: given })
    given.fill(0)
    const first = one.decrypt(keys, row)
    expect(first.a.constructor).toBe(Uint8Array)
    expect(first.a.buffer.byteLength).toBe(3)
    first.a.fill(9)
    expect(first.b).toEqual(Uint8Array.of(1, 2, 3))
    expect(one.decrypt(keys, row).a).toEqual(Uint8Array.of(1, 2, 3))
  })

  it('may come as a Buffer, also one inside a larger pool', () => {
    const one = records('t', { id: { id: int() }, encoding: 'bytes', fields: { a: bytes() } })
    const row = one.encrypt(keys, { id: 1, a: Buffer.from('abc') })
    const pooled = { ...row, a: Buffer.from(row.a), envelope: Buffer.from(row.envelope) }
    expect(Buffer.from(one.decrypt(keys, pooled).a).toString()).toBe('abc')
    expect(pooled.a.equals(row.a)).toBe(true)
  })
})

describe('a row', () => {
  it.each(['columns', 'packed'] as const)('with a __proto__ of its own gets no other prototype in %s', (shape) => {
    const one = records('t', { id: { id: int() }, shape, fields: { a: text() } })
    const given = JSON.parse('{"id":1,"a":"x","__proto__":{"city":"Oslo"}}') as { id: number; a: string }
    const stored = one.encrypt(keys, given)
    const opened = one.decrypt(keys, stored)
    expect([stored, opened].map((row) => Object.getPrototypeOf(row))).toEqual([Object.prototype, Object.prototype])
    expect(opened).toEqual({ id: 1, a: 'x' })
  })

  it.each(['columns', 'packed'] as const)(
    'is read once, and its symbols stay behind when it is opened in %s',
    (shape) => {
      const one = records('t', { id: { id: int() }, shape, fields: { a: text() } })
      const stored = one.encrypt(keys, { id: 1, a: 'x' })
      let reads = 0
      const envelope = { get: () => (reads++ === 0 ? stored.envelope : undefined), enumerable: true }
      const row = Object.defineProperties({ ...stored, [Symbol('origin')]: 'a cache' }, { envelope })
      const opened = one.decrypt(keys, row)
      expect(opened).toEqual({ id: 1, a: 'x' })
      expect([reads, Object.getOwnPropertySymbols(opened)]).toEqual([1, []])
    },
  )
})
