import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CONTEXT_LIMITS,
  type Context,
  type ContextEntry,
  type ContextType,
  canonicalId,
  contextShape,
  encodeContext,
} from '../src/context.ts'
import { refusal, toHex } from './engine/support.ts'

/** One entry as the specification sees it: a name, a declared type, and the value's own bytes. */
interface Entry {
  readonly name: string
  readonly type: ContextType
  readonly value: Uint8Array
}

/** docs/spec/envelope.md, "Context", written by hand and slowly. */
function reference(entries: readonly Entry[]): string {
  const u = (size: 2 | 4, n: number): Buffer => {
    const bytes = Buffer.alloc(size)
    bytes.writeUIntBE(n, 0, size)
    return bytes
  }
  const sorted = [...entries].sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
  const parts: Uint8Array[] = [u(2, sorted.length)]
  for (const { name, type, value } of sorted) {
    const typeByte = { text: 1, bytes: 2, int: 3, uuid: 4 }[type]
    parts.push(u(2, Buffer.from(name).length), Buffer.from(name), Uint8Array.of(typeByte), u(4, value.length), value)
  }
  return Buffer.concat(parts).toString('hex')
}

/** Encodes values of declared types: the way records do it. */
const shaped = (entries: readonly (ContextEntry & { value: unknown })[]): string =>
  toHex(contextShape(entries).encode(entries.map((entry) => entry.value)))
const one = (type: ContextType, value: unknown): string => shaped([{ name: 'id', type, value }])

const NAME = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 16 })
  .filter((name) => Buffer.from(name).length <= 64 && name !== '__proto__')
const UUID = fc.uuid()
const INT = fc.oneof(fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n }), fc.constantFrom(0n, -1n, 10n ** 39n))
/** A declared entry, a value of its type, and the bytes the specification gives it. */
const TYPED = fc.oneof(
  fc
    .string({ unit: 'binary', maxLength: 40 })
    .map((value) => ({ type: 'text' as const, value, bytes: Buffer.from(value) })),
  fc.uint8Array({ maxLength: 40 }).map((value) => ({ type: 'bytes' as const, value, bytes: value })),
  INT.map((value) => ({ type: 'int' as const, value, bytes: Buffer.from(value.toString(10)) })),
  UUID.map((value) => ({ type: 'uuid' as const, value, bytes: Buffer.from(value.replaceAll('-', ''), 'hex') })),
)
const ENTRIES = fc.uniqueArray(fc.tuple(NAME, TYPED), { minLength: 1, maxLength: 16, selector: ([name]) => name })

describe('the canonical encoding of a context', () => {
  it('is, for {purpose, row, tenant}, these bytes', () => {
    expect(toHex(encodeContext({ tenant: 'acme', row: 42n, purpose: Uint8Array.of(0xff) }))).toBe(
      [
        '0003',
        '0007 707572706f7365 02 00000001 ff',
        '0003 726f77 03 00000002 3432',
        '0006 74656e616e74 01 00000004 61636d65',
      ]
        .join('')
        .replaceAll(' ', ''),
    )
  })

  it('is what the reference encoder writes, for any names and declared types', () => {
    fc.assert(
      fc.property(ENTRIES, (entries) => {
        const shape = entries.map(([name, { type, value }]) => ({ name, type, value }))
        expect(shaped(shape)).toBe(reference(entries.map(([name, { type, bytes }]) => ({ name, type, value: bytes }))))
      }),
      { numRuns: 300 },
    )
  })

  it('is the same for an ad-hoc context: strings are text, numbers and bigints are int', () => {
    fc.assert(
      fc.property(ENTRIES, (entries) => {
        const adHoc = entries.filter(([, { type }]) => type !== 'uuid')
        fc.pre(adHoc.length > 0)
        const context: Context = Object.fromEntries(adHoc.map(([name, { value }]) => [name, value]))
        expect(toHex(encodeContext(context))).toBe(
          reference(adHoc.map(([name, { type, bytes }]) => ({ name, type, value: bytes }))),
        )
      }),
    )
  })

  it('does not tell constants of the declaration from values of a call', () => {
    fc.assert(
      fc.property(ENTRIES, fc.infiniteStream(fc.boolean()), (entries, coin) => {
        const asValues = entries.map(([name, { type, value }]) => ({ name, type, value }))
        const declared = asValues.map(({ name, type, value }) =>
          typeof value === 'string' && coin.next().value === true
            ? { name, type, constant: value, value }
            : { name, type, value },
        )
        const values = declared.filter((entry) => !('constant' in entry)).map((entry) => entry.value)
        expect(toHex(contextShape(declared).encode(values))).toBe(shaped(asValues))
      }),
    )
  })

  it('comes out of a prepared shape the same every time', () => {
    const shape = contextShape([
      { name: 'table', type: 'text', constant: 'users' },
      { name: 'id', type: 'int' },
    ])
    const first = toHex(shape.encode([1]))
    const long = shape.encode(['1'.repeat(40)])
    long.fill(0xee)
    expect(toHex(shape.encode([1]))).toBe(first)
  })

  it('keeps no hold on the bytes it was given', () => {
    const tenant = Uint8Array.of(1, 2, 3)
    const encoded = encodeContext({ tenant })
    const before = toHex(encoded)
    tenant.fill(0)
    expect(toHex(encoded)).toBe(before)
  })
})

describe('different contexts', () => {
  const CONTEXT: fc.Arbitrary<Context> = fc.dictionary(
    fc.string({ unit: fc.constantFrom('a', 'b', '|', ':', '\0', '.'), minLength: 1, maxLength: 3 }),
    fc.oneof(
      fc.string({ unit: fc.constantFrom('a', 'b', '|', ':', '\0', '1'), maxLength: 3 }),
      fc.bigInt({ min: -2n, max: 12n }),
      fc.uint8Array({ maxLength: 2, max: 2 }),
    ),
    { minKeys: 1, maxKeys: 3, noNullPrototype: true },
  )
  /** Equality of contexts, written without any encoding of ours. */
  const plain = (context: Context): string =>
    JSON.stringify(
      Object.keys(context)
        .sort()
        .map((name) => {
          const value = context[name]
          return [name, typeof value, value instanceof Uint8Array ? [...value] : String(value)]
        }),
    )

  it('have different bytes, and equal ones the same', () => {
    fc.assert(
      fc.property(CONTEXT, CONTEXT, (a, b) => {
        expect(toHex(encodeContext(a)) === toHex(encodeContext(b))).toBe(plain(a) === plain(b))
      }),
      { numRuns: 1200 },
    )
  })

  const PAIRS: readonly [what: string, a: Context, b: Context][] = [
    ['a separator in the name', { a: 'b|c' }, { 'a|b': 'c' }],
    ['a byte moved from name to value', { ab: 'c' }, { a: 'bc' }],
    ['a NUL in name or value', { a: '\0b' }, { 'a\0': 'b' }],
    ['one entry or two', { a: 'b', c: 'd' }, { a: 'b\0\u0001c\u0001\0\0\0\u0001d' }],
    ['values swapped', { a: 'x', b: 'y' }, { a: 'y', b: 'x' }],
    ['text or int', { id: '42' }, { id: 42 }],
    ['text or bytes', { id: 'a' }, { id: Uint8Array.of(0x61) }],
    ['int or bytes', { id: 1 }, { id: Uint8Array.of(0x31) }],
    ['an empty value or none', { a: 'x', b: '' }, { a: 'x' }],
    ['empty text or no bytes', { a: '' }, { a: new Uint8Array(0) }],
    ['upper and lower case', { id: 'A' }, { id: 'a' }],
    ['composed and decomposed é', { id: '\u00e9' }, { id: 'e\u0301' }],
    ['a space at the end', { id: 'a' }, { id: 'a ' }],
    ['signs', { id: 1 }, { id: -1 }],
  ]
  it.each(PAIRS)('differ by %s', (_what, a, b) => {
    expect(toHex(encodeContext(a))).not.toBe(toHex(encodeContext(b)))
  })

  it('differ by the declared type: a uuid, and its text', () => {
    const uuid = '00112233-4455-6677-8899-aabbccddeeff'
    expect(one('uuid', uuid)).not.toBe(one('text', uuid))
    expect(one('uuid', uuid)).not.toBe(one('bytes', Buffer.from(uuid.replaceAll('-', ''), 'hex')))
  })
})

describe('the order of entries', () => {
  it('is not the order of the keys', () => {
    fc.assert(
      fc.property(ENTRIES, fc.nat(), (entries, turn) => {
        const shape = entries.map(([name, { type, value }]) => ({ name, type, value }))
        const turned = [...shape.slice(turn % shape.length), ...shape.slice(0, turn % shape.length)].reverse()
        expect(shaped(turned)).toBe(shaped(shape))
      }),
    )
    expect(encodeContext({ b: 'x', a: 'y' })).toEqual(encodeContext({ a: 'y', b: 'x' }))
    expect(encodeContext({ b: 'x', 10: 'ten', 9: 'nine' })).toEqual(encodeContext({ 9: 'nine', 10: 'ten', b: 'x' }))
  })

  const ORDER: readonly [what: string, first: string, second: string][] = [
    ['upper case before lower, unlike a locale', 'Z', 'a'],
    ['é after z, unlike a locale', 'z', 'é'],
    ['digits as text: 10 before 9', '10', '9'],
    ['a prefix first', 'a', 'aa'],
    ['"-" before "_", unlike some locales', 'a-b', 'a_b'],
    ['"." before letters', 'id.a', 'ida'],
    ['U+FFFF before U+10000, unlike UTF-16', '\uffff', '\u{10000}'],
    ['U+E000 before U+1F512, unlike UTF-16', '\ue000', '\u{1f512}'],
    ['NUL before all', '\0', '\u0001'],
  ]
  it.each(ORDER)('is that of UTF-8 bytes: %s', (_what, first, second) => {
    for (const context of [
      { [first]: '', [second]: '' },
      { [second]: '', [first]: '' },
    ]) {
      const at = (name: string): number =>
        toHex(encodeContext(context)).indexOf(`${toHex(Buffer.from(name))}0100000000`)
      expect(toHex(encodeContext(context)).slice(8)).toMatch(new RegExp(`^${toHex(Buffer.from(first))}0100000000`))
      expect(at(second)).toBeGreaterThan(0)
    }
  })
})

describe('an int', () => {
  const SAME: readonly (readonly [string, number, bigint])[] = [
    ['0', 0, 0n],
    ['42', 42, 42n],
    ['-7', -7, -7n],
    ['9007199254740991', Number.MAX_SAFE_INTEGER, 9007199254740991n],
    ['-9007199254740991', Number.MIN_SAFE_INTEGER, -9007199254740991n],
  ]
  it.each(SAME)('has the same bytes as string %j, number %d and bigint %s', (text, number, bigint) => {
    expect(new Set([one('int', text), one('int', number), one('int', bigint)]).size).toBe(1)
    expect([text, number, bigint].map((value) => canonicalId('int', value, 'id'))).toEqual([text, text, text])
  })

  it('has the same bytes as string and bigint beyond the safe integers', () => {
    fc.assert(
      fc.property(INT, (id) => {
        expect(one('int', String(id))).toBe(one('int', id))
      }),
    )
  })

  it('has one zero', () => {
    expect(one('int', -0)).toBe(one('int', 0))
    expect(encodeContext({ id: -0 })).toEqual(encodeContext({ id: 0n }))
  })

  const REFUSED: readonly unknown[] = [
    ...['01', '00', '+1', '1.0', '1.', '.5', '-0', '-01', '--1', '-', '', ' 1', '1 ', '1\n', '\t1', '1_000', '1,000'],
    ...['1e3', '0x10', '0b1', '1n', 'NaN', 'Infinity', '٣', '１', '−1', 'hunter2'],
    ...[1.5, -0.1, Number.NaN, Infinity, -Infinity, 2 ** 53, -(2 ** 53), 1e300, Number.MIN_VALUE],
    ...[true, null, undefined, [1], { valueOf: () => 1 }, new Date(0), Uint8Array.of(0x31), Symbol('1')],
  ]
  it.each(REFUSED.map((value) => [value]))('is not %j: SCHEMA, with the argument named and no value', (value) => {
    const error = refusal(() => contextShape([{ name: 'id', type: 'int' }]).encode([value]))
    expect(error).toMatchObject({ code: 'SCHEMA', argument: 'id' })
    expect(error.message).toMatch(/^"id" expected a safe integer, a bigint or a canonical decimal string, got /)
    expect(error.message.split(', got ')[1]).toMatch(
      /^(string of length \d+|NaN|-?Infinity|Uint8Array of length 1|array of length 1|[A-Za-z]+)$/,
    )
  })

  it('is not a fraction or unsafe in an ad-hoc context either', () => {
    for (const id of [1.5, Number.NaN, Infinity, 2 ** 53]) {
      expect(refusal(() => encodeContext({ id }))).toMatchObject({ code: 'SCHEMA', argument: 'id' })
    }
  })
})

describe('a uuid', () => {
  it('has the same bytes in either case', () => {
    fc.assert(
      fc.property(UUID, (uuid) => {
        expect(one('uuid', uuid.toUpperCase())).toBe(one('uuid', uuid.toLowerCase()))
        expect(canonicalId('uuid', uuid.toUpperCase(), 'id')).toBe(uuid)
      }),
    )
  })

  const REFUSED: readonly unknown[] = [
    '00112233445566778899aabbccddeeff',
    '{00112233-4455-6677-8899-aabbccddeeff}',
    'urn:uuid:00112233-4455-6677-8899-aabbccddeeff',
    '00112233-4455-6677-8899-aabbccddeef',
    '00112233-4455-6677-8899-aabbccddeefff',
    '00112233-4455-6677-8899-aabbccddeefg',
    '00112233-4455-6677-8899-aabbccddeeff\n',
    ' 00112233-4455-6677-8899-aabbccddeeff',
    '0011223-34455-6677-8899-aabbccddeeff',
    '',
    new Uint8Array(16),
    1,
    null,
    undefined,
  ]
  it.each(REFUSED.map((value) => [value]))('is not %j: SCHEMA, without the value', (value) => {
    const error = refusal(() => contextShape([{ name: 'id', type: 'uuid' }]).encode([value]))
    expect(error).toMatchObject({ code: 'SCHEMA', argument: 'id' })
    expect(error.message).not.toContain('00112233')
  })
})

describe('text and bytes', () => {
  const LONE = ['\ud800', 'hunter2\udfff', '\udc00\ud800', 'a\ud83d']

  it.each(LONE)('do not take a lone surrogate as a value: SCHEMA, without the value', (value) => {
    for (const encode of [() => encodeContext({ tenant: value }), () => canonicalId('text', value, 'tenant')]) {
      const error = refusal(encode)
      expect(error).toMatchObject({ code: 'SCHEMA', argument: 'tenant' })
      expect(error.message).not.toContain('hunter2')
    }
  })

  it.each(LONE)('do not take a lone surrogate as a name: CONFIG', (name) => {
    expect(refusal(() => encodeContext({ [name]: 'x' }))).toMatchObject({ code: 'CONFIG', argument: 'context' })
  })

  it.each(['text', 'bytes'] as const)('do not take another type where %s is declared', (type) => {
    for (const value of [
      1,
      1n,
      true,
      null,
      undefined,
      {},
      ['hunter2'],
      type === 'text' ? Uint8Array.of(1) : 'hunter2',
    ]) {
      const error = refusal(() => contextShape([{ name: 'id', type }]).encode([value]))
      expect(error).toMatchObject({ code: 'SCHEMA', argument: 'id' })
      expect(error.message).not.toContain('hunter2')
    }
  })
})

describe('the limits of a context', () => {
  const names = (count: number): Context => Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, i]))

  it('are those of the specification', () => {
    expect(CONTEXT_LIMITS).toEqual({ entries: 16, nameBytes: 64, valueBytes: 1024, intLength: 40 })
  })

  it('allow 16 entries, not 17', () => {
    expect(toHex(encodeContext(names(16))).slice(0, 4)).toBe('0010')
    expect(refusal(() => encodeContext(names(17)))).toMatchObject({ code: 'CONFIG', argument: 'context' })
  })

  it('allow names of 64 bytes, counted in UTF-8, not of 65 and not of none', () => {
    expect(() => encodeContext({ ['n'.repeat(64)]: 1, ['é'.repeat(32)]: 1 })).not.toThrow()
    for (const name of ['n'.repeat(65), `${'é'.repeat(32)}n`, '']) {
      expect(refusal(() => encodeContext({ [name]: 1 }))).toMatchObject({ code: 'CONFIG', argument: 'context' })
    }
  })

  const LARGE: readonly [what: string, allowed: Context[string], refused: Context[string]][] = [
    ['text of 1,024 bytes', 'x'.repeat(1024), 'x'.repeat(1025)],
    ['text of 1,024 bytes in UTF-8', 'é'.repeat(512), `${'é'.repeat(512)}x`],
    ['1,024 bytes', new Uint8Array(1024), new Uint8Array(1025)],
    ['ints of 40 digits', 10n ** 39n, 10n ** 40n],
    ['ints of 40 characters, the sign counted', -(10n ** 38n), -(10n ** 39n)],
  ]
  it.each(LARGE)('allow %s, and no more: LIMIT_EXCEEDED', (_what, allowed, refused) => {
    expect(() => encodeContext({ id: allowed })).not.toThrow()
    expect(refusal(() => encodeContext({ id: refused }))).toMatchObject({ code: 'LIMIT_EXCEEDED', argument: 'id' })
  })

  it('count an int of too many digits the same whether it comes as a string or as a bigint', () => {
    for (const int of [10n ** 40n, 10n ** 41n, 10n ** 100n, -(10n ** 39n), -(10n ** 41n)]) {
      expect(refusal(() => one('int', String(int))).code).toBe(refusal(() => one('int', int)).code)
    }
  })
})

describe('a context that binds nothing', () => {
  const NOTHING: readonly unknown[] = [
    undefined,
    null,
    {},
    '',
    'tenant',
    1,
    true,
    [],
    ['a'],
    new Uint8Array(4),
    new Map([['a', 'b']]),
  ]
  it.each(NOTHING.map((value) => [value]))('is a mistake of the program: %j is CONFIG', (context) => {
    expect(refusal(() => encodeContext(context as Context))).toMatchObject({ code: 'CONFIG', argument: 'context' })
  })

  it('does not take inherited entries', () => {
    const inherited: Context = Object.create({ tenant: 'acme' })
    expect(refusal(() => encodeContext(inherited))).toMatchObject({ code: 'CONFIG', argument: 'context' })
  })

  const VALUES: readonly unknown[] = [
    undefined,
    null,
    true,
    { id: 1 },
    ['hunter2'],
    new Date(0),
    () => 'hunter2',
    Symbol('hunter2'),
  ]
  it.each(VALUES.map((value) => [value]))('has no value %j: CONFIG, with the entry named and no value', (value) => {
    const error = refusal(() => encodeContext({ tenant: 'acme', id: value } as unknown as Context))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'context.id' })
    expect(error.message).not.toContain('hunter2')
  })

  it('never prints what a value calls its constructor', () => {
    const id = { constructor: { name: 'hunter2' } }
    expect(refusal(() => encodeContext({ id } as unknown as Context)).message).not.toContain('hunter2')
  })

  it('does not take the same name twice', () => {
    const twice: readonly ContextEntry[] = [
      { name: 'id', type: 'int' },
      { name: 'table', type: 'text', constant: 'users' },
      { name: 'id', type: 'text' },
    ]
    expect(refusal(() => contextShape(twice))).toMatchObject({ code: 'CONFIG', argument: 'context' })
  })

  it('does not leave out a declared entry', () => {
    const shape = contextShape([
      { name: 'a', type: 'int' },
      { name: 'b', type: 'int' },
    ])
    expect(refusal(() => shape.encode([1]))).toMatchObject({ code: 'SCHEMA', argument: 'b' })
  })
})
