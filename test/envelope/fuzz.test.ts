import { inspect as show } from 'node:util'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cell, int, json, records, text, WaxsealError } from 'waxseal'
import { decryptBytes, decryptText, encryptText, inspect, rewrap } from 'waxseal/envelope'
import { testKeyring } from 'waxseal/testing'
import { writeU16, writeU32 } from '../../src/bytes.ts'
import { createEnvelope } from '../../src/envelope/envelope.ts'
import { SOURCE } from '../../src/envelope/keys.ts'
import { PACKED_AAD } from '../../src/records/packed.ts'
import { contextBytes } from '../../src/records/record.ts'
import { asText, code, refusal, unwrapText } from './support.ts'

const { stackTraceLimit } = Error
beforeAll(() => {
  Error.stackTraceLimit = 0
})
afterAll(() => {
  Error.stackTraceLimit = stackTraceLimit
})

const keys = testKeyring()
const ID = { id: 17 }
const SECRET = 'correct horse battery staple'
const declared = { id: { id: int() }, fields: { email: text(), profile: json({ nullable: true }) } } as const
const customers = records('customers', declared)
const packed = records('customers', { ...declared, shape: 'packed' })
const note = cell('customers', 'note', { type: text(), bind: { id: int() } })
const PLAIN = { ...ID, email: SECRET, profile: { a: [SECRET] } }
const row = customers.encrypt(keys, PLAIN)
const blob = packed.encrypt(keys, PLAIN).envelope
const sealedNote = note.encrypt(keys, SECRET, ID)
const alone = encryptText(keys, SECRET, ID)

type Stored = string | Uint8Array
/** Everything that takes stored bytes from outside. */
const READERS: Record<string, (stored: Stored) => unknown> = {
  'records.decrypt of a header': (envelope) => customers.decrypt(keys, { ...row, envelope }),
  'records.decrypt of a field': (email) => customers.decrypt(keys, { ...row, email }),
  'records.decrypt of a packed blob': (envelope) => packed.decrypt(keys, { ...ID, envelope }),
  'records.patch': (envelope) => customers.patch(keys, { ...ID, envelope }, { email: 'x' }),
  'packed records.patch': (envelope) => packed.patch(keys, { ...ID, envelope }, { email: 'x' }),
  'records.rewrap': (envelope) => customers.rewrap(keys, { ...ID, envelope }),
  'records.needsRotation': (envelope) => customers.needsRotation(keys, { ...ID, envelope }),
  'packed records.needsRotation': (envelope) => packed.needsRotation(keys, { ...ID, envelope }),
  'cell.decrypt': (stored) => note.decrypt(keys, stored, ID),
  decryptText: (stored) => decryptText(keys, stored, ID),
  decryptBytes: (stored) => decryptBytes(keys, stored, ID),
  inspect: (stored) => inspect(stored),
  rewrap: (stored) => rewrap(keys, stored),
}

const VALID = [row.envelope, row.email, blob, sealedNote, alone]
const prefix = fc.constantFrom('', 'wxh:', 'wxf:', 'wxp:', 'wxc:', 'wxs:')

/** A valid ciphertext with bytes overwritten, cut out or put in, in either form. */
const mutated = fc
  .tuple(
    fc.constantFrom(...VALID),
    fc.array(fc.tuple(fc.nat(250), fc.nat(255), fc.constantFrom('set', 'cut', 'insert')), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.boolean(),
  )
  .map(([stored, changes, asBytes]) => {
    const bytes = [...unwrapText(stored)]
    for (const [at, value, how] of changes)
      bytes.splice(at, how === 'insert' ? 0 : 1, ...(how === 'cut' ? [] : [value]))
    return asBytes ? Uint8Array.from(bytes) : asText(stored.slice(0, 4), Uint8Array.from(bytes))
  })

const input: fc.Arbitrary<Stored> = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.tuple(prefix, fc.string({ unit: 'binary', maxLength: 300 })).map((parts) => parts.join('')),
  fc.tuple(prefix, fc.base64String({ maxLength: 300 })).map(([p, body]) => p + body.replaceAll('=', '')),
  fc.uint8Array({ minLength: 90, maxLength: 300 }).map((bytes) => {
    bytes.set([0, 1 + (bytes[1]! & 1), 1 + (bytes[2]! % 3), 1, 0, 0])
    return bytes
  }),
  mutated,
  mutated,
)

describe.each(Object.entries(READERS))('%s', (_, read) => {
  it('gives a value or a WaxsealError for any bytes and any text, and tells neither', () => {
    fc.assert(
      fc.property(input, (stored) => {
        try {
          read(stored)
        } catch (error) {
          if (!(error instanceof WaxsealError)) throw error
          const told = `${error.message} ${show(error)} ${JSON.stringify(error)}`
          if (told.includes(SECRET)) throw new Error('the error holds the plaintext')
          const long = typeof stored === 'string' ? stored.slice(4) : Buffer.from(stored).toString('base64url')
          if (long.length > 30 && told.includes(long.slice(0, 30))) throw new Error('the error holds the ciphertext')
        }
      }),
      { numRuns: 1_000 },
    )
  })

  it.each([null, undefined, 1, true, {}, [], new Date(0)])(
    'is a WaxsealError for what is no ciphertext: %j',
    (what) => {
      try {
        read(what as unknown as Stored)
      } catch (error) {
        expect(error).toBeInstanceOf(WaxsealError)
      }
    },
  )
})

describe('an authentic packed plaintext that lies about its lengths', () => {
  /** A blob that opens, around entries that a broken or hostile writer with the key made. */
  function craft(plaintext: Uint8Array): { id: number; envelope: Uint8Array } {
    const { header, key } = createEnvelope(keys[SOURCE], 'packed', contextBytes(packed.schema, ID, undefined))
    return { ...ID, envelope: Uint8Array.from([...header, ...key.seal(plaintext, PACKED_AAD)]) }
  }

  function entry(label: string, labelLength: number, value: number[], valueLength: number): number[] {
    const head = new Uint8Array(2)
    const length = new Uint8Array(4)
    writeU16(head, 0, labelLength)
    writeU32(length, 0, valueLength)
    return [...head, ...new TextEncoder().encode(label), ...length, ...value]
  }
  const EMAIL = entry('email', 5, [4, 0x61], 2)

  it('opens when it does not lie', () => {
    expect(packed.decrypt(keys, craft(Uint8Array.from(EMAIL)))).toEqual({ ...ID, email: 'a' })
  })

  it.each<[string, number[]]>([
    ['a value of 4 GiB', entry('email', 5, [4, 0x61], 0xffff_ffff)],
    ['a value of 2 GiB', entry('email', 5, [4, 0x61], 0x8000_0000)],
    ['a value one byte longer than there is', entry('email', 5, [4, 0x61], 3)],
    ['a label of 65,535 bytes', entry('email', 0xffff, [4, 0x61], 2)],
    ['an entry cut off', EMAIL.slice(0, -1)],
    ['bytes behind the last entry', [...EMAIL, 0, 0]],
    ['an empty value', entry('email', 5, [], 0)],
    ['an entry twice', [...EMAIL, ...EMAIL]],
    ['entries out of order', [...entry('profile', 7, [1], 1), ...EMAIL]],
    ['an unknown type tag', entry('email', 5, [0x7f], 1)],
    ['padding without its mark', entry('email', 5, [0x84, 0, 0, 0], 4)],
    ['text that is not UTF-8', entry('email', 5, [4, 0xff], 2)],
    ['a null with a value', entry('email', 5, [1, 0], 2)],
    ['JSON that does not parse', entry('profile', 7, [9, 0x7b], 2)],
  ])('is MALFORMED with %s', (_, plaintext) => {
    expect(code(() => packed.decrypt(keys, craft(Uint8Array.from(plaintext))))).toBe('MALFORMED')
  })

  it('never makes a reader allocate what it claims', () => {
    const crafted = craft(Uint8Array.from(entry('email', 5, [4, 0x61], 0xffff_ffff)))
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 50; i++) code(() => packed.decrypt(keys, crafted))
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024)
  })

  it('gives a value or a WaxsealError for any plaintext', () => {
    const pieces = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc
        .array(fc.tuple(fc.constantFrom('email', 'profile', 'a', ''), fc.uint8Array({ maxLength: 20 })), {
          maxLength: 4,
        })
        .map((list) => Uint8Array.from(list.flatMap(([l, v]) => entry(l, l.length, [...v], v.length)))),
    )
    fc.assert(
      fc.property(pieces, (plaintext) => {
        try {
          packed.decrypt(keys, craft(plaintext))
        } catch (error) {
          if (!(error instanceof WaxsealError)) throw error
        }
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('sizes beyond the limits', () => {
  const huge = 'A'.repeat(24 * 1024 * 1024)

  it.each(['wxh:', 'wxp:', 'wxc:'])(
    'text of 24 Mi characters behind %s is LIMIT_EXCEEDED and is not decoded',
    (start) => {
      const before = process.memoryUsage().arrayBuffers
      expect(code(() => inspect(start + huge))).toBe('LIMIT_EXCEEDED')
      expect(code(() => rewrap(keys, start + huge))).toBe('LIMIT_EXCEEDED')
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024)
    },
  )

  it('bytes above 16 MiB and a header are LIMIT_EXCEEDED', () => {
    const bytes = new Uint8Array((1 << 24) + 1000)
    bytes.set(unwrapText(alone))
    expect(code(() => decryptBytes(keys, bytes, ID))).toBe('LIMIT_EXCEEDED')
    expect(code(() => customers.decrypt(keys, { ...row, email: bytes }))).toBe('LIMIT_EXCEEDED')
  })
})

describe('an error about a value', () => {
  const strict = records('customers', { id: { id: int() }, fields: { email: text({ maxBytes: 40 }), profile: json() } })
  const told = (fn: () => unknown): string => {
    const error = refusal(fn)
    return `${error.message} ${error.stack} ${show(error, { depth: 9 })} ${JSON.stringify(error)} ${String(error)}`
  }

  it.each<[string, unknown]>([
    ['an object for text', { secret: SECRET }],
    ['an array for text', [SECRET]],
    ['a text that is too long', SECRET.repeat(2)],
    ['a lone surrogate', `${SECRET}\ud800`],
    ['an object that says what its constructor is called', { constructor: { name: SECRET } }],
    ['bytes for text', new TextEncoder().encode(SECRET)],
  ])('does not tell it: %s', (_, email) => {
    expect(told(() => strict.encrypt(keys, { ...ID, email: email as string, profile: {} }))).not.toContain(SECRET)
  })

  it.each<[string, unknown]>([
    ['a function inside', { a: () => SECRET }],
    ['a lone surrogate as a name', { [`${SECRET}\ud800`]: 1 }],
    ['a bigint inside', { [SECRET]: 1n }],
    ['a Date inside', { [SECRET]: new Date(0) }],
    ['a toJSON of its own', { toJSON: () => SECRET }],
  ])('does not tell JSON with %s', (_, profile) => {
    const encrypt = () => strict.encrypt(keys, { ...ID, email: '', profile: profile as never })
    expect(told(encrypt)).not.toContain(SECRET)
  })

  it('does not tell what is stored when another type was declared', () => {
    const asNumber = records('customers', { id: { id: int() }, fields: { email: int() } })
    const message = told(() => asNumber.decrypt(keys, { ...ID, envelope: row.envelope, email: row.email }))
    expect(message).not.toContain(SECRET)
    expect(message).not.toContain(row.email.slice(4))
    expect(message).not.toContain(row.envelope.slice(60))
  })
})
