import fc from 'fast-check'
import { afterAll, describe, expect, it, vi } from 'vitest'
import * as native from '../src/bytes.ts'
import * as plainJs from '../src/codecs/portable.ts'
import { WaxsealError } from '../src/errors.ts'

/** The same module as a platform without Buffer sees it: everything runs through the portable code. */
vi.stubGlobal('Buffer', undefined)
vi.resetModules()
const portable = await import('../src/bytes.ts')
vi.unstubAllGlobals()
afterAll(() => void vi.resetModules())

const CODECS = [
  { name: 'native', codecs: native },
  { name: 'portable', codecs: portable },
]

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const BYTES = fc.uint8Array({ maxLength: 300 })
const TEXT = fc.string({ unit: 'binary', maxLength: 200 })
/** Any UTF-16, lone surrogates included. */
const UTF16 = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0xd7ff, max: 0xe000 })), { maxLength: 40 })
  .map((units) => String.fromCharCode(...units))
/** Mostly base64url, with now and then what does not belong there. */
const NEARLY_BASE64URL = fc
  .array(
    fc.oneof(
      { weight: 20, arbitrary: fc.constantFrom(...ALPHABET) },
      { weight: 1, arbitrary: fc.constantFrom('+', '/', '=', ' ', '\n', '.', '\u0141', '\u00c1', '\0', '\u{1f512}') },
    ),
    { maxLength: 24 },
  )
  .map((characters) => characters.join(''))

const plain = (bytes: Uint8Array | undefined): Uint8Array | undefined => bytes && Uint8Array.from(bytes)
const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
const parse = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))

it('loads a portable variant that is not the native one', () => {
  expect(portable.toBase64url.toString()).toBe(plainJs.toBase64url.toString())
  expect(native.toBase64url).not.toBe(plainJs.toBase64url)
})

describe.each(CODECS)('base64url, $name', ({ codecs }) => {
  const { toBase64url, fromBase64url } = codecs

  it('encodes as Node does, without padding', () => {
    fc.assert(
      fc.property(BYTES, (bytes) => {
        expect(toBase64url(bytes)).toBe(Buffer.from(bytes).toString('base64url'))
      }),
    )
  })

  it('gives back what it encoded, from any position in a text', () => {
    fc.assert(
      fc.property(BYTES, fc.string({ maxLength: 9 }), (bytes, prefix) => {
        expect(plain(fromBase64url(toBase64url(bytes)))).toEqual(bytes)
        expect(plain(fromBase64url(prefix + toBase64url(bytes), prefix.length))).toEqual(bytes)
      }),
    )
  })

  it('reads one text per byte string: what it reads, it writes', () => {
    fc.assert(
      fc.property(fc.oneof(NEARLY_BASE64URL, UTF16), (text) => {
        const bytes = fromBase64url(text)
        if (bytes !== undefined) expect(toBase64url(bytes)).toBe(text)
      }),
      { numRuns: 1000 },
    )
  })

  const REFUSED: readonly [what: string, text: string][] = [
    ['padding', 'AA=='],
    ['padding of one', 'AAA='],
    ['padding after whole groups', 'AAAA='],
    ['padding alone', '='],
    ['"+" of the other alphabet', 'AA+A'],
    ['"/" of the other alphabet', 'AA/A'],
    ['a space', 'AA AA'],
    ['a space at the end', 'AAAA '],
    ['a space at the front', ' AAAA'],
    ['a line break', 'AAAA\nAAAA'],
    ['a line break at the end', 'AAAA\n'],
    ['a tab', 'AA\tAA'],
    ['a NUL', 'AA\0A'],
    ['a full stop', 'AA.A'],
    ['U+0141, whose low byte is "A"', '\u0141AAA'],
    ['U+0141 at the end', 'AAA\u0141'],
    ['U+FF21, a full-width "A"', 'AAA\uff21'],
    ['U+0410, a Cyrillic "А"', 'AAA\u0410'],
    ['U+2010, a hyphen', 'AAA\u2010'],
    ['U+00C1, "A" with its high bit set', 'AAA\u00c1'],
    ['a pair of surrogates', 'AA\u{1f512}'],
    ['one character', 'A'],
    ['five characters', 'AAAAA'],
    ['nine characters', 'AAAAAAAAA'],
    ['set trailing bits in two characters', 'AB'],
    ['the highest trailing bit of two characters', 'AI'],
    ['set trailing bits in three characters', 'AAB'],
    ['the highest trailing bit of three characters', 'AAC'],
  ]
  it.each(REFUSED)('refuses %s', (_what, text) => {
    expect(fromBase64url(text)).toBeUndefined()
    expect(fromBase64url(`wxc:${text}`, 4)).toBeUndefined()
  })

  it('reads exactly 4 of 64 endings with two characters left, and 16 of 64 with three', () => {
    const readable = (prefix: string): number => [...ALPHABET].filter((last) => fromBase64url(prefix + last)).length
    expect(readable('A')).toBe(4)
    expect(readable('AA')).toBe(16)
    expect(readable('AAA')).toBe(64)
  })

  it('reads no character but those of the alphabet', () => {
    for (let unit = 0; unit <= 0xffff; unit++) {
      const character = String.fromCharCode(unit)
      const read = fromBase64url(`AAA${character}`) !== undefined
      if (read !== ALPHABET.includes(character)) expect.fail(`U+${unit.toString(16)} was ${read ? 'read' : 'refused'}`)
    }
  })

  it('reads nothing as no bytes', () => {
    expect(plain(fromBase64url(''))).toEqual(new Uint8Array(0))
    expect(plain(fromBase64url('wxc:', 4))).toEqual(new Uint8Array(0))
  })
})

describe('base64url, native and portable', () => {
  it('encode to the same text', () => {
    fc.assert(
      fc.property(BYTES, (bytes) => {
        expect(native.toBase64url(bytes)).toBe(plainJs.toBase64url(bytes))
      }),
    )
  })

  it('read, or refuse, the same texts', () => {
    fc.assert(
      fc.property(fc.oneof(NEARLY_BASE64URL, UTF16), fc.nat(3), (text, from) => {
        fc.pre(from <= text.length)
        expect(plain(native.fromBase64url(text, from))).toEqual(plainJs.fromBase64url(text, from))
      }),
      { numRuns: 1000 },
    )
  })
})

describe.each(CODECS)('UTF-8, $name', ({ codecs }) => {
  const { readUtf8, utf8, writeUtf8 } = codecs

  it('gives back any well-formed text, a byte order mark and U+FFFD included', () => {
    fc.assert(
      fc.property(TEXT, (text) => {
        expect(readUtf8(utf8(text)!)).toBe(text)
      }),
    )
    for (const text of ['', '\ufeffx', '\ufffd', 'a\ufffdb\u{1f512}', '\0', '\uffff', '\u{10ffff}', '\ud7ff\ue000']) {
      expect(readUtf8(utf8(text)!)).toBe(text)
    }
  })

  it('has no bytes for a lone surrogate, and bytes for everything else', () => {
    fc.assert(
      fc.property(UTF16, (text) => {
        expect(plain(utf8(text))).toEqual(text.isWellFormed() ? plain(Buffer.from(text)) : undefined)
      }),
    )
  })

  it('writes in place what it encodes, and touches nothing else', () => {
    fc.assert(
      fc.property(TEXT, fc.nat(5), (text, at) => {
        const out = new Uint8Array(at + text.length * 3 + 4).fill(0xee)
        const written = writeUtf8(out, text, at)
        expect(out.subarray(at, at + written)).toEqual(plain(utf8(text)))
        expect(out.subarray(0, at).every((byte) => byte === 0xee)).toBe(true)
        expect(out.subarray(at + written).every((byte) => byte === 0xee)).toBe(true)
      }),
    )
  })

  const INVALID: readonly [what: string, bytes: string][] = [
    ['a lone continuation byte', '80'],
    ['a continuation byte after ASCII', '61bf'],
    ['two bytes cut to one', 'c3'],
    ['three bytes cut to two', 'e282'],
    ['four bytes cut to three', 'f09f92'],
    ['two bytes followed by ASCII', 'c361'],
    ['an overlong NUL', 'c080'],
    ['an overlong "/"', 'c0af'],
    ['the last overlong of two bytes', 'c1bf'],
    ['an overlong of three bytes', 'e08080'],
    ['the last overlong of three bytes', 'e09fbf'],
    ['an overlong of four bytes', 'f0808080'],
    ['the last overlong of four bytes', 'f08fbfbf'],
    ['the first surrogate', 'eda080'],
    ['the last surrogate', 'edbfbf'],
    ['a pair of surrogates (CESU-8)', 'eda0bdedb49e'],
    ['a character above U+10FFFF', 'f4908080'],
    ['a lead byte of five', 'f888808080'],
    ['the byte FE', 'fe'],
    ['the byte FF', 'ff'],
    ['U+FFFD, then an error', 'efbfbdff'],
    ['an error at the end of a long text', `${'61'.repeat(5000)}c3`],
  ]
  it.each(INVALID)('refuses %s', (_what, bytes) => {
    expect(readUtf8(parse(bytes))).toBeUndefined()
  })

  it('reads one byte string per text: what it reads, it writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (bytes) => {
        const text = readUtf8(bytes)
        if (text !== undefined) expect(plain(utf8(text))).toEqual(bytes)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('UTF-8, native and portable', () => {
  it('read, or refuse, the same bytes', () => {
    const likely = fc.array(fc.constantFrom(0x61, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xa0, 0xef, 0xbd, 0xf0, 0x9f, 0xf4), {
      maxLength: 8,
    })
    fc.assert(
      fc.property(likely, (list) => {
        const bytes = Uint8Array.from(list)
        expect(native.readUtf8(bytes)).toBe(portable.readUtf8(bytes))
      }),
      { numRuns: 2000 },
    )
  })
})

describe('brief bytes', () => {
  it('are zeros that no other has, whatever their length', () => {
    const taken = [1, 93, 200, 1024, 1025, 5000].flatMap((length) => Array.from({ length: 20 }, () => length))
    const pieces = taken.map((length) => native.briefBytes(length))
    expect(pieces.map((piece) => piece.length)).toEqual(taken)
    expect(pieces.every((piece) => piece.every((byte) => byte === 0))).toBe(true)
    for (const [i, piece] of pieces.entries()) piece.fill(i + 1)
    expect(pieces.every((piece, i) => piece.every((byte) => byte === i + 1))).toBe(true)
  })
})

describe('hexadecimal', () => {
  it('gives back what it encoded, in lower case', () => {
    fc.assert(
      fc.property(BYTES, (bytes) => {
        expect(native.toHex(bytes)).toBe(hex(bytes))
        expect(native.fromHex(hex(bytes))).toEqual(bytes)
        expect(native.fromHex(hex(bytes).toUpperCase())).toEqual(bytes)
      }),
    )
  })

  it.each(['0', 'abc', '0g', 'zz', '0x00', ' 00', '00 ', '00\n', '-1', '+1', '1.', '\uff10\uff10'])(
    'refuses %j',
    (text) => {
      expect(native.fromHex(text)).toBeUndefined()
    },
  )
})

describe('compareBytes', () => {
  const { compareBytes } = native

  it('orders as unsigned bytes, a prefix first, as Buffer.compare does', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 6 }), fc.uint8Array({ maxLength: 6 }), (a, b) => {
        expect(Math.sign(compareBytes(a, b))).toBe(Buffer.compare(a, b))
        expect(Math.sign(compareBytes(b, a))).toBe(-Buffer.compare(a, b) + 0)
      }),
    )
  })

  const ORDER: readonly [string, string][] = [
    ['', '00'],
    ['7f', '80'],
    ['00', 'ff'],
    ['61', '6100'],
    ['6100', '62'],
    ['ff', 'ff00'],
  ]
  it.each(ORDER)('puts <%s> before <%s>', (first, second) => {
    expect(compareBytes(parse(first), parse(second))).toBeLessThan(0)
    expect(compareBytes(parse(second), parse(first))).toBeGreaterThan(0)
    expect(compareBytes(parse(first), parse(first))).toBe(0)
  })

  it('agrees with sameBytes about equality', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3, max: 1 }), fc.uint8Array({ maxLength: 3, max: 1 }), (a, b) => {
        expect(native.sameBytes(a, b)).toBe(compareBytes(a, b) === 0)
      }),
    )
  })
})

describe('big-endian integers', () => {
  it('come back from where they were written', () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.integer({ min: 0, max: 0xffffffff }), fc.nat(4), (small, large, at) => {
        const out = new Uint8Array(16).fill(0xee)
        native.writeU16(out, at, small)
        native.writeU32(out, at + 2, large)
        expect(native.readU16(out, at)).toBe(small)
        expect(native.readU32(out, at + 2)).toBe(large)
        const view = new DataView(out.buffer)
        expect([view.getUint16(at), view.getUint32(at + 2)]).toEqual([small, large])
        expect(out.filter((_, i) => i < at || i >= at + 6).every((byte) => byte === 0xee)).toBe(true)
      }),
    )
  })
})

describe('copies', () => {
  it('of a Buffer are copies: wiping the one leaves the other', () => {
    const buffer = Buffer.from('secret')
    const copy = native.copyBytes(buffer)
    buffer.fill(0)
    expect(hex(copy)).toBe('736563726574')
    expect(Buffer.isBuffer(copy)).toBe(false)
  })

  it('are joined in order', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 9 }), { maxLength: 5 }), (parts) => {
        expect(native.concat(...parts)).toEqual(Uint8Array.from(parts.flatMap((part) => [...part])))
      }),
    )
  })
})

describe('expectBytes', () => {
  it('passes bytes of the right length on', () => {
    const bytes = new Uint8Array(5)
    expect(native.expectBytes('key', bytes, 5)).toBe(bytes)
  })

  const WRONG: readonly [what: unknown, got: string][] = [
    [new Uint8Array(4).fill(0x41), 'length=4'],
    ['hunter2', 'string'],
    [undefined, 'undefined'],
    [null, 'object'],
    [[1, 2, 3, 4, 5], 'object'],
    [new Uint16Array(5), 'object'],
  ]
  it.each(WRONG)('refuses %j by name, with what was expected and what came, and never prints it', (value, got) => {
    const check = () => native.expectBytes('key', value, 5)
    expect(check).toThrow(WaxsealError)
    expect(check).toThrow(`"key" expected Uint8Array of length 5, got ${got}`)
    expect(check).toThrow(expect.objectContaining({ code: 'CONFIG', argument: 'key' }))
  })
})
