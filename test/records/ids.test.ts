import { describe, expect, it } from 'vitest'
import { bytes, cell, int, records, text, uuid } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, refusal } from '../envelope/support.ts'

const keys = testKeyring()
const UUID = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
const failed = (fn: () => unknown) => expect(code(fn)).toBe('DECRYPTION_FAILED')

/** A record of one id, under a name that says its type. */
const byInt = records('t', { id: { id: int() }, fields: { a: text() } })
const byText = records('t', { id: { id: text() }, fields: { a: text() } })
const byUuid = records('t', { id: { id: uuid() }, fields: { a: text() } })
const byBytes = records('t', { id: { id: bytes() }, fields: { a: text() } })

describe('one id in the forms that drivers give it', () => {
  it.each([
    ['number, string and bigint', [17, '17', 17n]],
    ['the largest safe integer', [2 ** 53 - 1, '9007199254740991', 9007199254740991n]],
    ['above the safe integers', ['9223372036854775807', 9223372036854775807n]],
    ['negative', [-5, '-5', -5n]],
    ['zero, minus zero', [0, -0, '0', 0n]],
  ])('is one id as int: %s', (_, forms) => {
    for (const id of forms) {
      const sealed = byInt.encrypt(keys, { id, a: 'x' })
      for (const other of forms) expect(byInt.decrypt(keys, { ...sealed, id: other }).a).toBe('x')
    }
  })

  it('is one UUID in either case, and another with one digit changed', () => {
    const sealed = byUuid.encrypt(keys, { id: UUID.toUpperCase(), a: 'x' })
    expect(byUuid.decrypt(keys, { ...sealed, id: UUID }).a).toBe('x')
    failed(() => byUuid.decrypt(keys, { ...sealed, id: UUID.replace('c8', 'c9') }))
  })

  it('is one id as Uint8Array and Buffer', () => {
    const sealed = byBytes.encrypt(keys, { id: Uint8Array.of(0, 255), a: 'x' })
    expect(byBytes.decrypt(keys, { ...sealed, id: Buffer.from([0, 255]) }).a).toBe('x')
    failed(() => byBytes.decrypt(keys, { ...sealed, id: Uint8Array.of(0) }))
  })

  it('is compared exactly as text: case, white space and normal form count', () => {
    const sealed = byText.encrypt(keys, { id: 'é', a: 'x' })
    for (const id of ['É', 'é ', 'e\u0301', '']) failed(() => byText.decrypt(keys, { ...sealed, id }))
  })

  it('is not the same id when the declared type differs', () => {
    const sealed = byInt.encrypt(keys, { id: '17', a: 'x' })
    failed(() => byText.decrypt(keys, { ...sealed, id: '17' }))
  })
})

describe('ids that are refused', () => {
  it.each<[string, { encrypt(keys: unknown, row: unknown): unknown }, unknown]>([
    ['no id', byInt as never, undefined],
    ['a null id', byInt as never, null],
    ['a fraction', byInt as never, 1.5],
    ['an unsafe integer', byInt as never, 2 ** 53],
    ['a decimal with a leading zero', byInt as never, '017'],
    ['a decimal with a plus', byInt as never, '+17'],
    ['a decimal with white space', byInt as never, ' 17'],
    ['minus zero as text', byInt as never, '-0'],
    ['an empty decimal', byInt as never, ''],
    ['hexadecimal', byInt as never, '0x11'],
    ['a boolean', byInt as never, true],
    ['a UUID without hyphens', byUuid as never, UUID.replaceAll('-', '')],
    ['a UUID in braces', byUuid as never, `{${UUID}}`],
    ['a UUID with a line feed behind it', byUuid as never, `${UUID}\n`],
    ['a number for text', byText as never, 17],
    ['a lone surrogate', byText as never, '\ud800'],
    ['text for bytes', byBytes as never, 'ff'],
  ])('%s is SCHEMA, naming the id and not its value', (_, one, id) => {
    const error = refusal(() => one.encrypt(keys, { id, a: 'x' }))
    expect(error).toMatchObject({ code: 'SCHEMA', table: 't', argument: 'id.id' })
    if (typeof id === 'string' && id.length > 1) expect(error.message).not.toContain(id)
  })

  it('an id above its limit is LIMIT_EXCEEDED', () => {
    expect(code(() => byText.encrypt(keys, { id: 'x'.repeat(1025), a: 'x' }))).toBe('LIMIT_EXCEEDED')
    expect(code(() => byBytes.encrypt(keys, { id: new Uint8Array(1025), a: 'x' }))).toBe('LIMIT_EXCEEDED')
    expect(code(() => byInt.encrypt(keys, { id: 10n ** 40n, a: 'x' }))).toBe('LIMIT_EXCEEDED')
  })
})

describe('compound ids', () => {
  const pair = records('t', { id: { tenant: text(), no: int() }, fields: { a: text() } })
  const two = records('t', { id: { x: text(), y: text() }, fields: { a: text() } })

  it('bind every part, in any order of properties', () => {
    const sealed = pair.encrypt(keys, { a: 'x', no: 1, tenant: 'A' })
    expect(pair.decrypt(keys, { envelope: sealed.envelope, no: '1', a: sealed.a, tenant: 'A' }).a).toBe('x')
    failed(() => pair.decrypt(keys, { ...sealed, tenant: 'B' }))
    failed(() => pair.decrypt(keys, { ...sealed, no: 2 }))
  })

  it('are encoded injectively: moving a boundary gives another id', () => {
    const sealed = two.encrypt(keys, { x: 'a', y: 'b_c', a: 'x' })
    failed(() => two.decrypt(keys, { ...sealed, x: 'a_b', y: 'c' }))
    failed(() => two.decrypt(keys, { ...sealed, x: 'b_c', y: 'a' }))
  })

  it('may not lack one part', () => {
    expect(code(() => pair.encrypt(keys, { tenant: 'A', no: null as never, a: 'x' }))).toBe('SCHEMA')
  })
})

describe('labels', () => {
  const sealed = byInt.encrypt(keys, { id: 1, a: 'x' })

  it('let properties, columns and tables be renamed: nothing changes', () => {
    const renamed = records('t', {
      table: 'crm.people',
      envelope: 'sealed',
      envelopeColumn: 'sealed_col',
      id: { personId: int({ label: 'id', column: 'person_id' }) },
      fields: { alias: text({ label: 'a', column: 'alias_col' }) },
    })
    expect(renamed.decrypt(keys, { personId: 1, alias: sealed.a, sealed: sealed.envelope })).toEqual({
      personId: 1,
      alias: 'x',
    })
    const back = renamed.encrypt(keys, { personId: 1, alias: 'y' })
    expect(byInt.decrypt(keys, { id: 1, a: back.alias, envelope: back.sealed }).a).toBe('y')
  })

  it.each([
    ["the record's", records('u', { id: { id: int() }, fields: { a: text() } })],
    ["an id's", records('t', { id: { id: int({ label: 'no' }) }, fields: { a: text() } })],
    ["a field's", records('t', { id: { id: int() }, fields: { a: text({ label: 'b' }) } })],
  ])('that change open nothing: %s', (_, changed) => {
    failed(() => changed.decrypt(keys, sealed))
  })

  it.each<[string, () => unknown]>([
    ['an empty one', () => records('', { id: { id: int() }, fields: { a: text() } })],
    ['one of 256 bytes', () => records('t', { id: { id: int() }, fields: { a: text({ label: 'ä'.repeat(128) }) } })],
    ['one with a lone surrogate', () => records('\ud800', { id: { id: int() }, fields: { a: text() } })],
    ['one twice', () => records('t', { id: { id: int() }, fields: { a: text(), b: text({ label: 'a' }) } })],
    ['an id label twice', () => records('t', { id: { id: int(), no: int({ label: 'id' }) }, fields: { a: text() } })],
  ])('are refused by CONFIG when declared: %s', (_, declare) => {
    expect(code(declare)).toBe('CONFIG')
  })
})

describe('context facts', () => {
  const fields = { a: text() }
  const orders = records('orders', { id: { id: int() }, context: { tenant: text(), region: text() }, fields })
  const sealed = orders.encrypt(keys, { id: 1, a: 'x' }, { tenant: 'A', region: 'EU' })

  it('are bound: the same facts open, others do not', () => {
    expect(orders.decrypt(keys, sealed, { region: 'EU', tenant: 'A' }).a).toBe('x')
    failed(() => orders.decrypt(keys, sealed, { tenant: 'B', region: 'EU' }))
    failed(() => orders.decrypt(keys, sealed, { tenant: 'EU', region: 'A' }))
  })

  it('are required at run time too, by every call that opens or seals', () => {
    // @ts-expect-error the context is a required argument
    expect(code(() => orders.encrypt(keys, { id: 1, a: 'x' }))).toBe('CONFIG')
    // @ts-expect-error the context is a required argument
    expect(code(() => orders.decrypt(keys, sealed))).toBe('CONFIG')
    // @ts-expect-error the context is a required argument
    expect(code(() => orders.patch(keys, sealed, { a: 'y' }))).toBe('CONFIG')
    // @ts-expect-error one fact is missing
    expect(code(() => orders.decrypt(keys, sealed, { tenant: 'A' }))).toBe('SCHEMA')
  })

  it('may be called column in a record, since only cells have that entry', () => {
    const one = records('t', { id: { id: int() }, context: { column: text() }, fields })
    expect(one.decrypt(keys, one.encrypt(keys, { id: 1, a: 'x' }, { column: 'c' }), { column: 'c' }).a).toBe('x')
  })

  it.each<[string, () => unknown]>([
    ['table', () => records('t', { id: { id: int() }, context: { table: text() }, fields })],
    ['a name with a dot', () => records('t', { id: { id: int() }, context: { 'id.no': int() }, fields })],
    ['the label table', () => records('t', { id: { id: int() }, context: { x: text({ label: 'table' }) }, fields })],
    ['a label with a dot', () => records('t', { id: { id: int() }, context: { x: int({ label: 'id.no' }) }, fields })],
    ['column, in a cell', () => cell('t', 'c', { type: text(), bind: { column: text() } })],
    ['table, in a cell', () => cell('t', 'c', { type: text(), bind: { table: text() } })],
    ['a label with a dot, in a cell', () => cell('t', 'c', { type: text(), bind: { x: int({ label: 'id.no' }) } })],
  ])('are refused under a reserved name: %s', (_, declare) => {
    expect(code(declare)).toBe('CONFIG')
  })

  it.each<[string, () => unknown]>([
    ['an id and a field', () => records('t', { id: { a: int() }, fields })],
    ['a field and the envelope', () => records('t', { id: { id: int() }, envelope: 'a', fields })],
    ['a context fact and an id', () => records('t', { id: { id: int() }, context: { id: int() }, fields })],
    [
      'a moved field and a field',
      () => records('t', { id: { id: int() }, fields: { a: text(), b: text({ into: 'a' }) } }),
    ],
    ['no id', () => records('t', { id: {}, fields })],
    ['no field', () => records('t', { id: { id: int() }, fields: {} })],
    [
      'an id of a kind that is none',
      () => records('t', { id: { id: { kind: 'date', options: {} } as never }, fields }),
    ],
  ])('a declaration with one name for two things, or nothing, is CONFIG: %s', (_, declare) => {
    expect(code(declare)).toBe('CONFIG')
  })
})

describe('rebind', () => {
  const orders = records('orders', {
    id: { id: int() },
    context: { tenant: text() },
    fields: { a: text(), b: text({ nullable: 'sql' }) },
  })
  const from = { ids: { id: 1 }, context: { tenant: 'A' } }
  const to = { ids: { id: 2 }, context: { tenant: 'B' } }
  const sealed = orders.encrypt(keys, { id: 1, a: 'x', b: null, open: true }, from.context)

  it('moves a row to new ids and a new context, under a new data key', () => {
    const moved = orders.rebind(keys, sealed, from, to)
    expect(orders.decrypt(keys, moved, to.context)).toEqual({ id: 2, a: 'x', b: null, open: true })
    expect(moved.envelope).not.toBe(sealed.envelope)
    failed(() => orders.decrypt(keys, { ...moved, id: 1 }, from.context))
    expect(orders.decrypt(keys, sealed, from.context).a).toBe('x')
  })

  it('works when the row already shows the new id', () => {
    expect(orders.decrypt(keys, orders.rebind(keys, { ...sealed, id: 2 }, from, to), to.context).id).toBe(2)
  })

  it('refuses wrong old ids and facts', () => {
    failed(() => orders.rebind(keys, sealed, { ...from, ids: { id: 3 } }, to))
    failed(() => orders.rebind(keys, sealed, { ...from, context: { tenant: 'B' } }, to))
  })

  it.each(['rebind', 'reencrypt'] as const)(
    '%s refuses a row that lacks a protected column, or it would be lost',
    (name) => {
      const { b: _, ...lacking } = sealed
      const run = () =>
        name === 'rebind' ? orders.rebind(keys, lacking, from, to) : orders.reencrypt(keys, lacking, from.context)
      expect(refusal(run)).toMatchObject({ code: 'SCHEMA', table: 'orders', field: 'b' })
    },
  )

  it('reencrypt keeps ids, values and other columns, and changes every ciphertext', () => {
    const again = orders.reencrypt(keys, sealed, from.context)
    expect(orders.decrypt(keys, again, from.context)).toEqual({ id: 1, a: 'x', b: null, open: true })
    expect(again.a).not.toBe(sealed.a)
    failed(() => orders.decrypt(keys, { ...again, a: sealed.a }, from.context))
  })
})
