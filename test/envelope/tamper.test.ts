import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { array, cell, int, records, text } from 'waxseal'
import { decryptBytes, decryptText, encryptBytes, encryptText } from 'waxseal/envelope'
import { testKeyring } from 'waxseal/testing'
import { asText, code, flip, refusal, SIZES, SUITE_IDS, TAMPERED, unwrapText } from './support.ts'

// Tens of thousands of errors are made here, and nobody reads where.
const { stackTraceLimit } = Error
beforeAll(() => {
  Error.stackTraceLimit = 0
})
afterAll(() => {
  Error.stackTraceLimit = stackTraceLimit
})

/** One thing that somebody who can write to the database may change, and how it is read. */
interface Target {
  readonly what: string
  readonly prefix: string
  /** Native bytes of what is stored. */
  readonly stored: Uint8Array
  read(stored: string | Uint8Array): unknown
}

const SECRET = 'luís@example.org'
const ID = { id: 17 }
const declared = { id: { id: int() }, fields: { email: text(), phone: text() } } as const
const customers = records('customers', declared)
const packed = records('customers', { ...declared, shape: 'packed' })
const note = cell('customers', 'note', { type: text(), bind: { id: int() } })
const PLAIN = { ...ID, email: SECRET, phone: '+47 22 44 22 22' }

const rings = { 1: testKeyring({ suite: 1 }), 2: testKeyring({ suite: 2 }) }

function targetsOf(suite: 1 | 2): Target[] {
  const keys = rings[suite]
  const row = customers.encrypt(keys, PLAIN)
  const { envelope: blob } = packed.encrypt(keys, PLAIN)
  return [
    {
      what: 'header of a row',
      prefix: 'wxh:',
      stored: unwrapText(row.envelope),
      read: (envelope) => customers.decrypt(keys, { ...row, envelope }),
    },
    {
      what: 'sealed field',
      prefix: 'wxf:',
      stored: unwrapText(row.email),
      read: (email) => customers.decrypt(keys, { ...row, email }),
    },
    {
      what: 'packed blob',
      prefix: 'wxp:',
      stored: unwrapText(blob),
      read: (envelope) => packed.decrypt(keys, { ...ID, envelope }),
    },
    {
      what: 'cell',
      prefix: 'wxc:',
      stored: unwrapText(note.encrypt(keys, SECRET, ID)),
      read: (stored) => note.decrypt(keys, stored, ID),
    },
    {
      what: 'stand-alone envelope',
      prefix: 'wxc:',
      stored: unwrapText(encryptText(keys, SECRET, ID)),
      read: (stored) => decryptText(keys, stored, ID),
    },
  ]
}

const targets = SUITE_IDS.flatMap((suite) => targetsOf(suite).map((target) => ({ suite, ...target })))

describe.each(targets)('$what, suite $suite', ({ prefix, stored, read, suite }) => {
  const fails = (value: string | Uint8Array, codes = TAMPERED) => {
    const error = refusal(() => read(value))
    if (!codes.includes(error.code) || error.message.includes(SECRET)) expect(error).toMatchObject({ code: codes })
  }

  it('opens as it is, in both forms', () => {
    expect(JSON.stringify(read(stored))).toContain(SECRET)
    expect(JSON.stringify(read(asText(prefix, stored)))).toContain(SECRET)
  })

  it('does not open with any one bit flipped, as bytes and as text', () => {
    for (let bit = 0; bit < stored.length * 8; bit++) {
      fails(flip(stored, bit))
      fails(asText(prefix, flip(stored, bit)))
    }
  })

  it('does not open with any one bit of its text flipped', () => {
    const characters = new TextEncoder().encode(asText(prefix, stored))
    for (let bit = 0; bit < characters.length * 8; bit++) {
      if (bit % 8 !== 7) fails(new TextDecoder().decode(flip(characters, bit)))
    }
  })

  it('does not open when cut, at any length and either end', () => {
    const whole = asText(prefix, stored)
    for (let length = 0; length < stored.length; length++) {
      fails(stored.subarray(0, length))
      fails(stored.subarray(stored.length - length))
    }
    for (let length = 0; length < whole.length; length++) fails(whole.slice(0, length))
  })

  it.each([1, 2, 3, 16, 1000])('does not open with %i bytes appended or put in front', (count) => {
    fails(Uint8Array.from([...stored, ...new Uint8Array(count)]))
    fails(asText(prefix, Uint8Array.from([...stored, ...new Uint8Array(count)])))
    fails(Uint8Array.from([...new Uint8Array(count), ...stored]))
  })

  it.each(['=', '\n', ' ', '\0', 'A', '==', 'é'])('does not open with %j behind or inside its text', (more) => {
    const whole = asText(prefix, stored)
    fails(whole + more)
    fails(whole.slice(0, 50) + more + whole.slice(50))
    fails(more + whole)
  })

  if (prefix !== 'wxf:') {
    it.each([
      ['version', 0, [1, 2, 255], 'MALFORMED'],
      ['suite', 1, [0, 3 - suite, 3, 128, 143, 255], 'MALFORMED'],
      ['kind', 2, [0, 1, 2, 3, 4, 255], 'MALFORMED'],
      ['wrap type', 3, [0, 2, 3, 4, 255], 'MALFORMED'],
      ['flags', 4, [1, 128, 255], 'MALFORMED'],
      ['reserved byte', 5, [1, 128, 255], 'MALFORMED'],
    ] as const)('is MALFORMED with another %s in its header', (_, offset, values, expected) => {
      for (const value of values) {
        if (stored[offset] === value) continue
        fails(stored.with(offset, value), [expected])
      }
    })

    it('is DECRYPTION_FAILED with any change of commitment or wrapped key', () => {
      for (let bit = 21 * 8; bit < SIZES[suite].header * 8; bit++) fails(flip(stored, bit), ['DECRYPTION_FAILED'])
    })
  }
})

describe('a context that differs', () => {
  const keys = testKeyring()
  const CONTEXT = { table: 'notes', id: 17, tenant: 'a' }
  const sealed = encryptBytes(keys, Uint8Array.of(1, 2, 3), CONTEXT)

  it('is the same context in another order of properties', () => {
    expect(decryptBytes(keys, sealed, { tenant: 'a', id: 17n, table: 'notes' })).toEqual(Uint8Array.of(1, 2, 3))
  })

  it.each<[string, Record<string, string | number | Uint8Array>]>([
    ['lacks a name', { table: 'notes', id: 17 }],
    ['has a name more', { ...CONTEXT, x: '' }],
    ['has another value', { ...CONTEXT, id: 18 }],
    ['has a value of another type', { ...CONTEXT, id: '17' }],
    ['has bytes for text', { ...CONTEXT, tenant: Uint8Array.of(0x61) }],
    ['has another case', { ...CONTEXT, tenant: 'A' }],
    ['has white space', { ...CONTEXT, tenant: 'a ' }],
    ['has values exchanged', { ...CONTEXT, table: 'a', tenant: 'notes' }],
    ['has a name renamed', { table: 'notes', id: 17, Tenant: 'a' }],
    ['moves a boundary between name and value', { table: 'notes', id: 17, tenan: 'ta' }],
  ])('does not open when it %s', (_, context) => {
    expect(code(() => decryptBytes(keys, sealed, context))).toBe('DECRYPTION_FAILED')
  })

  it('tells letters of another normal form apart: nothing is normalised', () => {
    const composed = encryptText(keys, 'x', { name: '\u00e9' })
    expect(code(() => decryptText(keys, composed, { name: 'e\u0301' }))).toBe('DECRYPTION_FAILED')
  })
})

describe('ciphertext that is moved', () => {
  const keys = testKeyring()
  const row = customers.encrypt(keys, PLAIN)
  const other = customers.encrypt(keys, { ...PLAIN, id: 18 })
  const again = customers.encrypt(keys, { ...PLAIN, email: 'later@example.org' })
  const orders = records('orders', declared)
  const failed = (fn: () => unknown) => expect(code(fn)).toBe('DECRYPTION_FAILED')

  it('does not open in another field', () => {
    failed(() => customers.decrypt(keys, { ...row, email: row.phone, phone: row.email }))
    failed(() => customers.decrypt(keys, { ...row, email: row.phone }))
  })

  it('does not open in another row, with or without its header', () => {
    failed(() => customers.decrypt(keys, { ...other, email: row.email }))
    failed(() => customers.decrypt(keys, { ...other, envelope: row.envelope }))
    failed(() => customers.decrypt(keys, { ...row, id: 18 }))
  })

  it('does not open in another table with the same ids and fields', () => {
    failed(() => orders.decrypt(keys, row))
    failed(() =>
      cell('orders', 'note', { type: text(), bind: { id: int() } }).decrypt(keys, note.encrypt(keys, 'x', ID), ID),
    )
  })

  it('does not open in another column', () => {
    const remark = cell('customers', 'remark', { type: text(), bind: { id: int() } })
    failed(() => remark.decrypt(keys, note.encrypt(keys, 'x', ID), ID))
  })

  it('does not open with another keyring', () => {
    const stranger = testKeyring()
    expect(TAMPERED).toContain(code(() => customers.decrypt(stranger, row)))
    expect(TAMPERED).toContain(code(() => decryptText(stranger, encryptText(keys, 'x', ID), ID)))
  })

  it('does not open under the key id of another version of the same keyring', async () => {
    const ring = testKeyring()
    const before = unwrapText(customers.encrypt(ring, PLAIN).envelope)
    const sealed = customers.encrypt(ring, PLAIN)
    await ring.rotate()
    await ring.maintain()
    const next = unwrapText(customers.encrypt(ring, PLAIN).envelope)
    const envelope = Uint8Array.from([...before.subarray(0, 6), ...next.subarray(6, 21), ...before.subarray(21)])
    failed(() => customers.decrypt(ring, { ...sealed, envelope }))
  })

  it('does not open in another shape, even with the kind byte and prefix changed', () => {
    const blob = unwrapText(packed.encrypt(keys, PLAIN).envelope)
    const sealedNote = unwrapText(note.encrypt(keys, SECRET, ID))
    failed(() => note.decrypt(keys, blob.with(2, 3), ID))
    failed(() => packed.decrypt(keys, { ...ID, envelope: sealedNote.with(2, 2) }))
    const header = unwrapText(row.envelope)
    const field = unwrapText(row.email)
    failed(() => packed.decrypt(keys, { ...ID, envelope: Uint8Array.from([...header.with(2, 2), ...field]) }))
    failed(() => customers.decrypt(keys, { ...row, envelope: blob.subarray(0, header.length).with(2, 1) }))
  })

  it('does not open as a stand-alone envelope of the same context, nor the reverse', () => {
    const context = { table: 'customers', column: 'note', id: 17 }
    const bound = cell('customers', 'note', { type: text(), bind: { id: int() } })
    failed(() => bound.decrypt(keys, encryptText(keys, SECRET, context), ID))
    failed(() => decryptText(keys, bound.encrypt(keys, SECRET, ID), context))
  })

  it('does not open in an array of another place', () => {
    const phones = records('customers', { id: { id: int() }, fields: { phones: array(text()) } })
    const sealed = phones.encrypt(keys, { id: 1, phones: ['one', 'two'] })
    const [first, second] = sealed.phones as [string, string]
    failed(() => phones.decrypt(keys, { ...sealed, phones: [second, first] }))
  })

  it('does not open a suite that the caller pinned away, though key and bytes are right', () => {
    const both = testKeyring({ suite: 2 })
    const suite1 = customers.encrypt(rings[1], PLAIN)
    expect(code(() => customers.decrypt(both, suite1))).toBe('MALFORMED')
    expect(code(() => decryptText(rings[2], encryptText(rings[1], 'x', ID), ID))).toBe('MALFORMED')
  })

  // docs/threat-model.md says so: whoever writes the database can put back what was valid once.
  it('opens again when an older whole row, or an older patch of a field, is put back: replay is not detected', () => {
    const { set } = customers.patch(keys, again, { email: 'newest@example.org' })
    expect(customers.decrypt(keys, row)).toMatchObject({ email: SECRET })
    expect(customers.decrypt(keys, { ...again, ...set })).toMatchObject({ email: 'newest@example.org' })
    expect(customers.decrypt(keys, again)).toMatchObject({ email: 'later@example.org' })
    failed(() => customers.decrypt(keys, { ...row, ...set }))
  })

  it("opens in any row when the cell was declared with bind: 'column', which gives that up", () => {
    const loose = cell('customers', 'note', { type: text(), bind: 'column' })
    const sealed = loose.encrypt(keys, 'of row 1')
    expect(loose.decrypt(keys, sealed)).toBe('of row 1')
  })
})
