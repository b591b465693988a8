import { describe, expect, it } from 'vitest'
import { bytes, cell, date, int, json, number, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, refusal } from '../envelope/support.ts'

const keys = testKeyring()
const id = { id: int() }
const ID = { id: 1 }
const SHAPES = ['columns', 'packed'] as const
const full = (shape: 'columns' | 'packed') => records('t', { id, shape, fields: { email: text(), phone: text() } })
const PLAIN = { id: 1, email: 'a@example.org', phone: '1' }

describe('a field that was added', () => {
  it('columns: an old row is SQL NULL there, MALFORMED unless the field says nullable: "sql"', () => {
    const row = { ...full('columns').encrypt(keys, PLAIN), born: null }
    const sealed = records('t', { id, fields: { email: text(), phone: text(), born: date({ nullable: true }) } })
    expect(refusal(() => sealed.decrypt(keys, row))).toMatchObject({ code: 'MALFORMED', field: 'born' })
    const plain = records('t', { id, fields: { email: text(), phone: text(), born: date({ nullable: 'sql' }) } })
    expect(plain.decrypt(keys, row)).toEqual({ ...PLAIN, born: null })
  })

  it('columns: a patch fills it in under the row’s own data key', () => {
    const row = full('columns').encrypt(keys, PLAIN)
    const after = records('t', { id, fields: { email: text(), phone: text(), born: date() } })
    const { set } = after.patch(keys, row, { born: new Date(0) })
    expect(after.decrypt(keys, { ...row, ...set })).toEqual({ ...PLAIN, born: new Date(0) })
  })

  it('packed: an old row has no such property, and a patch adds it', () => {
    const row = full('packed').encrypt(keys, PLAIN)
    const after = records('t', { id, shape: 'packed', fields: { email: text(), phone: text(), born: date() } })
    expect(after.decrypt(keys, row)).toEqual(PLAIN)
    const { set } = after.patch(keys, row, { born: new Date(0) })
    expect(after.decrypt(keys, { ...ID, ...set })).toEqual({ ...PLAIN, born: new Date(0) })
  })
})

describe('a field that was removed', () => {
  const only = (shape: 'columns' | 'packed') => records('t', { id, shape, fields: { email: text() } })

  it('columns: its ciphertext passes through a read as it is, never opened', () => {
    const row = full('columns').encrypt(keys, PLAIN)
    expect(only('columns').decrypt(keys, row)).toEqual({ id: 1, email: PLAIN.email, phone: row.phone })
  })

  it('columns: a whole-row write that would orphan it is SCHEMA, also as re-encrypt and rebind', () => {
    const row = full('columns').encrypt(keys, PLAIN)
    const opened = only('columns').decrypt(keys, row)
    expect(refusal(() => only('columns').encrypt(keys, opened))).toMatchObject({
      code: 'SCHEMA',
      field: 'phone',
      rowId: '1',
    })
    expect(code(() => only('columns').reencrypt(keys, row))).toBe('SCHEMA')
    expect(code(() => only('columns').rebind(keys, row, { ids: ID }, { ids: { id: 2 } }))).toBe('SCHEMA')
  })

  it('columns in bytes: a re-encrypt that would orphan it is SCHEMA too', () => {
    const wide = records('t', { id, encoding: 'bytes', fields: { email: text(), phone: text() } })
    const narrow = records('t', { id, encoding: 'bytes', fields: { email: text() } })
    expect(code(() => narrow.reencrypt(keys, wide.encrypt(keys, PLAIN)))).toBe('SCHEMA')
  })

  it('packed: its entry is skipped', () => {
    expect(only('packed').decrypt(keys, full('packed').encrypt(keys, PLAIN))).toEqual({ id: 1, email: PLAIN.email })
  })

  it('packed: a patch by an instance that does not know a field keeps it', () => {
    const row = full('packed').encrypt(keys, PLAIN)
    const { set } = only('packed').patch(keys, row, { email: 'b@example.org' })
    expect(full('packed').decrypt(keys, { ...row, ...set })).toEqual({ ...PLAIN, email: 'b@example.org' })
  })

  it.each(['reencrypt', 'rebind'] as const)('packed: %s does not lose it without a word', (name) => {
    const row = full('packed').encrypt(keys, PLAIN)
    const narrow = only('packed')
    let moved: typeof row | undefined
    try {
      moved = name === 'reencrypt' ? narrow.reencrypt(keys, row) : narrow.rebind(keys, row, { ids: ID }, { ids: ID })
    } catch (error) {
      expect(error).toMatchObject({ code: 'SCHEMA' })
    }
    if (moved) expect(full('packed').decrypt(keys, moved)).toEqual(PLAIN)
  })
})

describe.each(SHAPES)('%s: a field that is declared otherwise', (shape) => {
  const stored = records('t', { id, shape, fields: { a: text({ nullable: true }) } })
  const row = stored.encrypt(keys, { id: 1, a: 'confidential' })
  const nothing = stored.encrypt(keys, { id: 1, a: null })

  it.each([
    ['int', int()],
    ['number', number()],
    ['date', date()],
    ['bytes', bytes()],
    ['json', json()],
  ] as const)('as %s is SCHEMA, telling what is declared and what is stored', (kind, field) => {
    const other = records('t', { id, shape, fields: { a: field as ReturnType<typeof json> } })
    const error = refusal(() => other.decrypt(keys, row as never))
    expect(error).toMatchObject({ code: 'SCHEMA', field: 'a', message: `declared as ${kind}, but a text is stored` })
  })

  it('int and number read one another where the value allows', () => {
    const as = (field: unknown) => records('t', { id, shape, fields: { a: field as ReturnType<typeof number> } })
    expect(as(number()).decrypt(keys, as(int()).encrypt(keys, { id: 1, a: 5 }))).toMatchObject({ a: 5 })
    expect(as(int()).decrypt(keys, as(number()).encrypt(keys, { id: 1, a: 5 }))).toMatchObject({ a: 5 })
    expect(code(() => as(int()).decrypt(keys, as(number()).encrypt(keys, { id: 1, a: 0.5 })))).toBe('SCHEMA')
  })

  it.each([
    ['to', { to: 64 }],
    ['multiple', { multiple: 7 }],
  ] as const)('with padding (%s) or without: either reads the other', (_, pad) => {
    const padded = records('t', { id, shape, fields: { a: text({ pad, nullable: true }) } })
    for (const a of ['', 'x', null]) {
      expect(padded.decrypt(keys, stored.encrypt(keys, { id: 1, a }))).toEqual({ id: 1, a })
      expect(stored.decrypt(keys, padded.encrypt(keys, { id: 1, a }))).toEqual({ id: 1, a })
    }
  })

  it('not nullable any more: a stored null is SCHEMA', () => {
    const strict = records('t', { id, shape, fields: { a: text() } })
    expect(refusal(() => strict.decrypt(keys, nothing))).toMatchObject({ code: 'SCHEMA', field: 'a' })
    expect(strict.decrypt(keys, row)).toMatchObject({ a: 'confidential' })
  })

  it('with a smaller maxBytes: what is stored is still read', () => {
    const small = records('t', { id, shape, fields: { a: text({ maxBytes: 4 }) } })
    expect(small.decrypt(keys, row)).toMatchObject({ a: 'confidential' })
  })

  it('in the other shape is refused', () => {
    const other = records('t', {
      id,
      shape: shape === 'packed' ? 'columns' : 'packed',
      fields: { a: text({ nullable: true }) },
    })
    expect(code(() => other.decrypt(keys, row as never))).toBe('MALFORMED')
  })
})

describe('text that looks like ciphertext', () => {
  const columns = full('columns')
  const row = columns.encrypt(keys, PLAIN)
  const lookalikes = ['wxf:', 'wxf:AAAA', row.email, row.envelope, full('packed').encrypt(keys, PLAIN).envelope]

  it.each(SHAPES)('%s: is encrypted like any other text, also a ciphertext of the same row', (shape) => {
    const one = full(shape)
    for (const email of lookalikes) {
      const sealed = one.encrypt(keys, { ...PLAIN, email })
      expect(JSON.stringify(sealed)).not.toContain(`"${email}"`)
      expect(one.decrypt(keys, sealed).email).toBe(email)
    }
  })

  it('is encrypted by a patch and by a cell', () => {
    const { set } = columns.patch(keys, row, { phone: row.email })
    expect(columns.decrypt(keys, { ...row, ...set }).phone).toBe(row.email)
    const note = cell('t', 'note', { type: text(), bind: 'column' })
    const once = note.encrypt(keys, 'x')
    expect(note.decrypt(keys, note.encrypt(keys, once))).toBe(once)
  })

  it('a row that is encrypted already is refused, not encrypted twice', () => {
    for (const shape of SHAPES) {
      const one = full(shape)
      const sealed = one.encrypt(keys, PLAIN)
      expect(refusal(() => one.encrypt(keys, { ...PLAIN, ...sealed } as never))).toMatchObject({
        code: 'SCHEMA',
        rowId: '1',
      })
      expect(code(() => one.encrypt(keys, { ...PLAIN, envelope: '' as never }))).toBe('SCHEMA')
    }
    columns.encrypt(keys, { ...PLAIN, envelope: null })
  })
})

describe('strict mode', () => {
  it.each(SHAPES)('%s: never passes plaintext through', (shape) => {
    const one = full(shape)
    expect(code(() => one.decrypt(keys, { ...PLAIN, envelope: null }))).toBe('MALFORMED')
    expect(code(() => one.patch(keys, { ...ID, envelope: null }, { email: 'x' }))).toBe('MALFORMED')
    expect(code(() => one.reencrypt(keys, { ...PLAIN, envelope: null }))).toBe('MALFORMED')
    expect(code(() => one.decrypt(keys, { ...PLAIN, envelope: '' }))).toBe('MALFORMED')
  })

  it('refuses plaintext beside a genuine header', () => {
    const row = full('columns').encrypt(keys, PLAIN)
    expect(refusal(() => full('columns').decrypt(keys, { ...row, phone: '1' }))).toMatchObject({
      code: 'MALFORMED',
      field: 'phone',
    })
  })

  it('packed: a plaintext column beside the blob is not taken for the field', () => {
    const row = full('packed').encrypt(keys, { ...PLAIN, phone: undefined })
    expect(full('packed').decrypt(keys, { ...row, phone: 'forged', email: 'forged' })).toEqual({
      id: 1,
      email: PLAIN.email,
    })
  })

  it('a moved field: what stands in the plaintext column is not taken, and nothing foreign is left in its place', () => {
    const moved = records('t', { id, fields: { born: date({ into: 'born_sealed' }) } })
    const row = moved.encrypt(keys, { id: 1, born: new Date(0) })
    expect(row).toEqual({ id: 1, born_sealed: expect.stringMatching(/^wxf:/), envelope: expect.any(String) })
    expect(moved.decrypt(keys, { ...row, born: new Date(9) })).toEqual({ id: 1, born: new Date(0) })
    const leftOut = { id: 1, born: undefined, born_sealed: 'plaintext' }
    let stored: object = {}
    try {
      stored = moved.encrypt(keys, leftOut)
    } catch (error) {
      expect(error).toMatchObject({ code: 'SCHEMA' })
    }
    expect(Object.values(stored)).not.toContain('plaintext')
  })

  it('an error never comes with a half-written row', () => {
    const row = Object.freeze({ id: 1, email: 'a', phone: 5 as unknown as string })
    expect(refusal(() => full('columns').encrypt(keys, row)).field).toBe('phone')
    expect(row).toEqual({ id: 1, email: 'a', phone: 5 })
  })
})
