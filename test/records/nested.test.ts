import { describe, expect, it } from 'vitest'
import { array, date, int, json, object, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, refusal } from '../envelope/support.ts'

const keys = testKeyring()
const id = { id: int() }
const failed = (fn: () => unknown) => expect(code(fn)).toBe('DECRYPTION_FAILED')
const people = records('people', {
  id,
  fields: {
    contact: object({
      phone: text(),
      born: date({ nullable: true }),
      note: text({ nullable: 'sql' }),
      address: object({ street: text() }),
    }),
    aliases: array(text()),
    accounts: array(object({ iban: text(), tags: array(text()) })),
  },
})
const PLAIN = {
  id: 1,
  contact: {
    phone: '1',
    born: new Date(0),
    note: null,
    address: { street: 'Hill 2', city: 'Oslo' },
    preferred: 'mail',
  },
  aliases: ['ann', 'bea', 'cy'],
  accounts: [
    { iban: 'NO1', bank: 'x', tags: ['a', 'b'] },
    { iban: 'NO2', bank: 'y', tags: [] },
  ],
}
const sealed = people.encrypt(keys, PLAIN)

describe('protected leaves inside JSON', () => {
  it('are sealed where they stand; members that are not declared stay readable', () => {
    expect(sealed.contact).toEqual({
      phone: expect.stringMatching(/^wxf:/),
      born: expect.stringMatching(/^wxf:/),
      note: null,
      address: { street: expect.stringMatching(/^wxf:/), city: 'Oslo' },
      preferred: 'mail',
    })
    expect(sealed.accounts.map(({ bank, tags }) => [bank, tags.length])).toEqual([
      ['x', 2],
      ['y', 0],
    ])
    expect(JSON.stringify(sealed)).not.toMatch(/Hill|NO1|ann/)
  })

  it('come back after a turn through JSON, as JSONB gives them, and the plain row is not changed', () => {
    const before = structuredClone(PLAIN)
    expect(people.decrypt(keys, JSON.parse(JSON.stringify(sealed)) as typeof sealed)).toEqual(before)
    expect(PLAIN).toEqual(before)
  })

  it('may be text inside a record whose own columns are bytes', () => {
    const inBytes = records('people', {
      id,
      encoding: 'bytes',
      fields: { name: text(), contact: object({ phone: text() }) },
    })
    const row = inBytes.encrypt(keys, { id: 1, name: 'a', contact: { phone: '1' } })
    expect(row.name).toBeInstanceOf(Uint8Array)
    expect(row.contact.phone).toMatch(/^wxf:/)
    expect(inBytes.decrypt(keys, row).contact.phone).toBe('1')
  })

  it('may be absent, undefined, or null as a whole', () => {
    const row = people.encrypt(keys, {
      id: 1,
      contact: { phone: undefined, other: 1 },
      aliases: null,
      accounts: [],
    } as never)
    expect(people.decrypt(keys, row as never)).toEqual({
      id: 1,
      contact: { phone: undefined, other: 1 },
      aliases: null,
      accounts: [],
    })
    expect(people.decrypt(keys, { id: 1, envelope: sealed.envelope, contact: { preferred: 'mail' } })).toEqual({
      id: 1,
      contact: { preferred: 'mail' },
    })
  })

  it('are patched by column: all leaves of it are sealed again', () => {
    const { set } = people.patch(keys, sealed, { aliases: ['dot'] })
    expect(people.decrypt(keys, { ...sealed, ...set }).aliases).toEqual(['dot'])
  })
})

describe('places', () => {
  it('a label with a dot is not two labels, and an object is not a field with its name', () => {
    const dotted = records('t', { id, fields: { 'a.b': text(), a: object({ b: text(), c: text() }) } })
    const row = dotted.encrypt(keys, { id: 1, 'a.b': 'one', a: { b: 'two', c: 'three' } })
    expect(dotted.decrypt(keys, row)).toEqual({ id: 1, 'a.b': 'one', a: { b: 'two', c: 'three' } })
    failed(() => dotted.decrypt(keys, { ...row, 'a.b': row.a.b }))
    failed(() => dotted.decrypt(keys, { ...row, a: { ...row.a, b: row['a.b'] } }))
    failed(() => dotted.decrypt(keys, { ...row, a: { b: row.a.c, c: row.a.b } }))
  })

  it('a member is bound to its own object', () => {
    const two = records('t', { id, fields: { home: object({ phone: text() }), work: object({ phone: text() }) } })
    const row = two.encrypt(keys, { id: 1, home: { phone: '1' }, work: { phone: '2' } })
    failed(() => two.decrypt(keys, { ...row, home: row.work }))
  })

  it('a member keeps its place by its label when its property is renamed', () => {
    const renamed = records('people', { id, fields: { contact: object({ tel: text({ label: 'phone' }) }) } })
    const opened = renamed.decrypt(keys, { id: 1, envelope: sealed.envelope, contact: { tel: sealed.contact.phone } })
    expect(opened.contact).toEqual({ tel: '1' })
  })

  it.each<[string, (list: string[]) => string[]]>([
    ['two are swapped', ([a, b, c]) => [b!, a!, c!]],
    ['the last is removed', (list) => list.slice(0, -1)],
    ['the first is removed', (list) => list.slice(1)],
    ['one is repeated', (list) => [...list, list[2]!]],
    ['one overwrites another', ([a, , c]) => [a!, a!, c!]],
    ['they are reversed', (list) => list.toReversed()],
  ])('elements of an array are bound to place and length: %s', (_, change) => {
    failed(() => people.decrypt(keys, { ...sealed, aliases: change(sealed.aliases) }))
  })

  it('elements that are objects are bound too, and arrays in arrays', () => {
    const [first, second] = sealed.accounts as [(typeof sealed.accounts)[0], (typeof sealed.accounts)[0]]
    failed(() => people.decrypt(keys, { ...sealed, accounts: [second, first] }))
    failed(() => people.decrypt(keys, { ...sealed, accounts: [first] }))
    failed(() => people.decrypt(keys, { ...sealed, accounts: [{ ...first, tags: first.tags.toReversed() }, second] }))
    failed(() =>
      people.decrypt(keys, {
        ...sealed,
        accounts: [
          { ...first, tags: second.tags },
          { ...second, tags: first.tags },
        ],
      }),
    )
  })

  // docs/threat-model.md: the structure of JSON is not authenticated.
  it('an emptied array, a deleted member and a nulled column read as absent: that is not detected', () => {
    const { phone: _, ...contact } = sealed.contact
    const opened = people.decrypt(keys, { ...sealed, aliases: [], contact, accounts: null })
    expect(opened).toMatchObject({ aliases: [], accounts: null, contact: { preferred: 'mail' } })
    expect(opened.contact).not.toHaveProperty('phone')
  })

  it('a nulled leaf is MALFORMED, as in a column', () => {
    expect(code(() => people.decrypt(keys, { ...sealed, contact: { ...sealed.contact, phone: null } }))).toBe(
      'MALFORMED',
    )
    expect(code(() => people.decrypt(keys, { ...sealed, aliases: [null, null, null] }))).toBe('MALFORMED')
  })
})

describe('a structure that does not fit', () => {
  it.each<[string, Record<string, unknown>]>([
    ['text for an object', { contact: 'a' }],
    ['an array for an object', { contact: [] }],
    ['bytes for an object', { contact: Uint8Array.of(1) }],
    ['a Date for an object', { contact: new Date(0) }],
    ['a Map for an object', { contact: new Map([['phone', '1']]) }],
    ['an object for an array', { aliases: { 0: 'a' } }],
    ['text for an array', { aliases: 'abc' }],
    ['an array with undefined', { aliases: ['a', undefined] }],
    ['an array with holes', { aliases: new Array(2) }],
    ['an array with null', { aliases: ['a', null] }],
    ['an object for a leaf', { contact: { phone: { number: 1 } } }],
    ['a null leaf', { contact: { phone: null } }],
    ['a wrong leaf deep inside', { accounts: [{ iban: 'a', tags: [1] }] }],
  ])('is SCHEMA with table, field and row: %s', (_, fields) => {
    const error = refusal(() => people.encrypt(keys, { ...PLAIN, ...fields } as never))
    expect(error).toMatchObject({ code: 'SCHEMA', table: 'people', field: Object.keys(fields)[0], rowId: '1' })
  })

  it('is SCHEMA on the way out as well, and plaintext in a leaf is MALFORMED', () => {
    expect(code(() => people.decrypt(keys, { ...sealed, contact: 'wxf:AA' as never }))).toBe('SCHEMA')
    expect(code(() => people.decrypt(keys, { ...sealed, aliases: {} as never }))).toBe('SCHEMA')
    expect(code(() => people.decrypt(keys, { ...sealed, aliases: ['ann', 'bea', 'cy'] }))).toBe('MALFORMED')
  })

  it.each<[string, () => unknown]>([
    ['object() in packed', () => records('t', { id, shape: 'packed', fields: { a: object({ b: text() }) } })],
    ['array() in packed', () => records('t', { id, shape: 'packed', fields: { a: array(text()) } })],
    ['array() of bytes', () => records('t', { id, encoding: 'bytes', fields: { a: array(text()) } })],
    ['object() without members', () => records('t', { id, fields: { a: object({}) } })],
    ['one label twice', () => records('t', { id, fields: { a: object({ b: text(), c: text({ label: 'b' }) }) } })],
    [
      'a member moved elsewhere, which is not possible',
      () => records('t', { id, fields: { a: object({ b: text({ into: 'c' }) }) } }),
    ],
  ])('is CONFIG when declared: %s', (_, declare) => {
    expect(code(declare)).toBe('CONFIG')
  })

  it('json() in the packed shape seals a structure whole, so that emptying it is detected', () => {
    const packed = records('t', { id, shape: 'packed', fields: { a: json<{ b: string[] }>() } })
    expect(packed.decrypt(keys, packed.encrypt(keys, { id: 1, a: { b: ['c'] } })).a).toEqual({ b: ['c'] })
  })

  it('of 513 fields is CONFIG, and 512 fields work', () => {
    const fields = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, text()]))
    expect(code(() => records('t', { id, fields: fields(513) }))).toBe('CONFIG')
    const row = Object.fromEntries(Array.from({ length: 512 }, (_, i) => [`f${i}`, String(i)]))
    const wide = records('t', { id, fields: fields(512) })
    expect(wide.decrypt(keys, wide.encrypt(keys, { id: 1, ...row } as never) as never)).toEqual({ id: 1, ...row })
  })
})
