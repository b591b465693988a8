import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Keys } from 'waxseal'
import { cell, int, records, text } from 'waxseal'
import { type Context, decryptBytes, decryptText, encryptBytes, encryptText, inspect, rewrap } from 'waxseal/envelope'
import { testKeyring } from 'waxseal/testing'
import { asText, code, ENGINES, listening, refusal, SIZES, unwrapText } from './support.ts'

const ID = { table: 'notes', id: 17 }
const cases = ENGINES.flatMap(({ engineName, engine }) =>
  ([1, 2] as const).map((suite) => ({ engineName, suite, keys: testKeyring({ engine, suite }) })),
)

describe.each(cases)('stand-alone envelopes, $engineName engine, suite $suite', ({ keys, suite }) => {
  const overhead = { 1: 122, 2: 166 }[suite]

  it('any text comes back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (value) => {
        expect(decryptText(keys, encryptText(keys, value, ID), ID)).toBe(value)
      }),
      { numRuns: 50 },
    )
  })

  it('any bytes come back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (value) => {
        expect(decryptBytes(keys, encryptBytes(keys, value, ID), ID)).toEqual(value)
      }),
      { numRuns: 50 },
    )
  })

  it.each([0, 1, 2, 3, 100, 70_000])('%i bytes take exactly what is documented', (length) => {
    const plain = new Uint8Array(length).fill(0x61)
    const sealed = encryptBytes(keys, plain, ID)
    expect(sealed.length).toBe(length + overhead)
    const sealedText = encryptText(keys, 'a'.repeat(length), ID)
    expect(sealedText).toMatch(/^wxc:[A-Za-z0-9_-]+$/)
    expect(sealedText.length).toBe(4 + Math.ceil(((length + overhead) * 4) / 3))
    expect(inspect(sealed)).toEqual({
      version: 0,
      suite,
      kind: 'cell',
      wrapType: 1,
      keyId: keys.status().active,
      headerBytes: SIZES[suite].header,
      wrappedKeyBytes: SIZES[suite].header - 53,
      bodyBytes: length + overhead - SIZES[suite].header,
    })
    expect(inspect(sealedText)).toMatchObject({ bodyBytes: length + overhead - SIZES[suite].header })
  })

  it('the same value twice gives different bytes everywhere behind the key id', () => {
    const [a, b] = [encryptBytes(keys, Uint8Array.of(1), ID), encryptBytes(keys, Uint8Array.of(1), ID)]
    expect(a.subarray(0, 21)).toEqual(b.subarray(0, 21))
    for (const [from, to] of [
      [21, 53],
      [53, SIZES[suite].header],
      [SIZES[suite].header, a.length],
    ] as const)
      expect(a.subarray(from, to)).not.toEqual(b.subarray(from, to))
  })

  it('a rewrap changes key id and wrapped key, and nothing else, in both forms', async () => {
    const ring = testKeyring({ suite })
    const sealed = encryptBytes(ring, Uint8Array.of(1, 2, 3), ID)
    const sealedText = encryptText(ring, 'a note', ID)
    expect(rewrap(ring, sealed)).toBe(sealed)
    expect(rewrap(ring, sealedText)).toBe(sealedText)
    await ring.rotate()
    await ring.maintain()
    const moved = rewrap(ring, sealed)
    expect(moved.subarray(0, 6)).toEqual(sealed.subarray(0, 6))
    expect(moved.subarray(21, 53)).toEqual(sealed.subarray(21, 53))
    expect(moved.subarray(SIZES[suite].header)).toEqual(sealed.subarray(SIZES[suite].header))
    expect(inspect(moved).keyId).toBe(ring.status().active)
    expect(decryptBytes(ring, moved, ID)).toEqual(Uint8Array.of(1, 2, 3))
    expect(decryptText(ring, rewrap(ring, sealedText), ID)).toBe('a note')
  })
})

describe('either form', () => {
  const keys = testKeyring()

  it('opens from text and from bytes', () => {
    const sealed = encryptBytes(keys, Uint8Array.of(7), ID)
    expect(decryptBytes(keys, asText('wxc:', sealed), ID)).toEqual(Uint8Array.of(7))
    expect(decryptText(keys, unwrapText(encryptText(keys, 'x', ID)), ID)).toBe('x')
  })

  it('text is not bytes: the wrong function is SCHEMA and tells both kinds', () => {
    const bytesAsText = refusal(() => decryptText(keys, encryptBytes(keys, Uint8Array.of(0x61), ID), ID))
    expect(bytesAsText).toMatchObject({ code: 'SCHEMA', message: 'declared as text, but a bytes is stored' })
    expect(code(() => decryptBytes(keys, encryptText(keys, 'a', ID), ID))).toBe('SCHEMA')
  })

  it('decoded bytes are a Uint8Array of their own', () => {
    const sealed = encryptBytes(keys, Uint8Array.of(1, 2, 3), ID)
    const [first, second] = [decryptBytes(keys, sealed, ID), decryptBytes(keys, sealed, ID)]
    expect(first.buffer.byteLength).toBe(3)
    first.fill(9)
    expect(second).toEqual(Uint8Array.of(1, 2, 3))
    expect(decryptBytes(keys, sealed, ID)).toEqual(Uint8Array.of(1, 2, 3))
  })

  it.each<[string, unknown]>([
    ['a number', 1],
    ['undefined', undefined],
    ['null', null],
    ['bytes', Uint8Array.of(1)],
    ['a String object', Object('x')],
  ])('encryptText refuses %s with SCHEMA', (_, value) => {
    expect(code(() => encryptText(keys, value as string, ID))).toBe('SCHEMA')
  })

  it('encryptText refuses a lone surrogate, and text or bytes over 16 MiB', () => {
    expect(code(() => encryptText(keys, '\ud800', ID))).toBe('SCHEMA')
    expect(code(() => encryptText(keys, 'a'.repeat(1 << 24), ID))).toBe('LIMIT_EXCEEDED')
    expect(code(() => encryptBytes(keys, new Uint8Array(1 << 24), ID))).toBe('LIMIT_EXCEEDED')
  })
})

describe('the context argument', () => {
  const keys = testKeyring()
  const sealed = encryptText(keys, 'x', ID)

  it.each<[string, unknown, string]>([
    ['undefined', undefined, 'CONFIG'],
    ['null', null, 'CONFIG'],
    ['text', 'notes', 'CONFIG'],
    ['an empty object', {}, 'CONFIG'],
    ['an array', ['notes'], 'CONFIG'],
    ['bytes', Uint8Array.of(1), 'CONFIG'],
    ['an undefined value', { id: undefined }, 'CONFIG'],
    ['a null value', { id: null }, 'CONFIG'],
    ['a boolean', { id: true }, 'CONFIG'],
    ['an object as value', { id: {} }, 'CONFIG'],
    ['an empty name', { '': 'x' }, 'CONFIG'],
    ['a name of 65 bytes', { ['n'.repeat(65)]: 'x' }, 'CONFIG'],
    ['17 entries', Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`n${i}`, i])), 'CONFIG'],
    ['a fraction', { id: 1.5 }, 'SCHEMA'],
    ['an unsafe integer', { id: 2 ** 53 }, 'SCHEMA'],
    ['NaN', { id: Number.NaN }, 'SCHEMA'],
    ['a lone surrogate', { id: '\udfff' }, 'SCHEMA'],
    ['a text of 1,025 bytes', { id: 'x'.repeat(1025) }, 'LIMIT_EXCEEDED'],
    ['an integer of 41 digits', { id: 10n ** 40n }, 'LIMIT_EXCEEDED'],
  ])('is refused, on the way in and out: %s', (_, context, expected) => {
    expect(code(() => encryptText(keys, 'x', context as Context))).toBe(expected)
    expect(code(() => decryptText(keys, sealed, context as Context))).toBe(expected)
  })

  it.each<[string, Context]>([
    ['16 entries', Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`n${i}`, i]))],
    ['a name of 64 bytes', { ['n'.repeat(64)]: '' }],
    ['a text of 1,024 bytes', { id: 'x'.repeat(1024) }],
    ['an integer of 40 digits', { id: 10n ** 40n - 1n }],
    ['a name like a property of every object', { constructor: 'x', toString: 'y' }],
    ['minus zero, which is zero', { id: -0 }],
  ])('may have %s', (_, context) => {
    expect(decryptText(keys, encryptText(keys, 'x', context), context)).toBe('x')
  })

  it('tells 0 and -0 as one integer, and a number and a bigint of one value', () => {
    expect(decryptText(keys, encryptText(keys, 'x', { id: -0 }), { id: 0n })).toBe('x')
  })
})

describe('what is not an envelope', () => {
  const keys = testKeyring()
  const row = records('t', { id: { id: int() }, fields: { a: text() } }).encrypt(keys, { id: 1, a: 'x' })
  const sealed = unwrapText(encryptText(keys, 'x', ID))

  it('a field of a row has no header to inspect or rewrap: MALFORMED says what to give', () => {
    expect(refusal(() => inspect(row.a))).toMatchObject({
      code: 'MALFORMED',
      message: expect.stringContaining('header'),
    })
    expect(code(() => rewrap(keys, row.a))).toBe('MALFORMED')
  })

  it.each(['inspect', 'rewrap'] as const)('%s: a cell cut behind its header is MALFORMED [D1]', async (name) => {
    const ring = testKeyring({ suite: 1 })
    const whole = encryptBytes(ring, Uint8Array.of(1), ID)
    await ring.rotate()
    await ring.maintain()
    const cut = whole.subarray(0, 93 + 12 + 15)
    expect(code(() => (name === 'inspect' ? inspect(cut) : rewrap(ring, cut)))).toBe('MALFORMED')
    expect(
      code(() => (name === 'inspect' ? inspect(whole.subarray(0, 93)) : rewrap(ring, whole.subarray(0, 93)))),
    ).toBe('MALFORMED')
  })

  it('other things than text or bytes are CONFIG', () => {
    expect(code(() => inspect(1 as unknown as string))).toBe('CONFIG')
    expect(code(() => rewrap(keys, undefined as unknown as string))).toBe('CONFIG')
  })

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['an object that is no keyring', {}],
  ])('%s in place of the keys is CONFIG', (_, noKeys) => {
    expect(code(() => encryptText(noKeys as Keys, 'x', ID))).toBe('CONFIG')
    expect(code(() => decryptText(noKeys as Keys, sealed, ID))).toBe('CONFIG')
    expect(code(() => rewrap(noKeys as Keys, sealed))).toBe('CONFIG')
  })
})

describe('events of stand-alone envelopes', () => {
  it('tell a listener what was done with which key, by whom, without values', () => {
    const { keys, events } = listening()
    const who = keys.as({ actor: 'ann', purpose: 'support' })
    const sealed = encryptText(who, 'a secret', ID)
    decryptText(who, sealed, ID)
    expect(events).toEqual(
      ['encrypt', 'decrypt'].map((type) => ({
        type,
        keyId: keys.status().active,
        actor: 'ann',
        purpose: 'support',
        keyring: 'test',
        time: expect.any(Number),
      })),
    )
  })

  it('tell a failure as records and cells do', () => {
    const { keys, events } = listening()
    const note = cell('notes', 'body', { type: text(), bind: 'column' })
    code(() => note.decrypt(keys, encryptText(keys, 'x', ID)))
    code(() => decryptText(keys, encryptText(keys, 'x', ID), { id: 18 }))
    expect(events.filter((event) => event.type === 'failure').map((event) => event.code)).toEqual([
      'DECRYPTION_FAILED',
      'DECRYPTION_FAILED',
    ])
  })
})
