import { describe, expect, it } from 'vitest'
import { cell, date, int, object, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, listening, refusal } from '../envelope/support.ts'

const DAY = 86_400_000
const NOW = Date.UTC(2026, 0, 1)
const UNTIL = new Date(NOW + 100 * DAY)
const id = { id: int() }
const PLAIN = { id: 1, email: 'a@example.org', born: new Date(0) }
const fields = { email: text({ nullable: true }), born: date({ into: 'born_sealed' }) }
const SHAPES = ['columns', 'packed'] as const
type Shape = (typeof SHAPES)[number]
const PHASES = ['prepare', 'encrypt', 'strict'] as const
type Phase = (typeof PHASES)[number]
type Row = Record<string, unknown>
/** The phase is a fact of the running instance, so the tests see all of them with one loose type. */
interface Loose {
  encrypt(keys: unknown, row: Row): Row
  decrypt(keys: unknown, row: Row): Row
  patch(keys: unknown, row: Row, changes: Row): { set: Row; guard: { expression: string; value: unknown } }
  reencrypt(keys: unknown, row: Row): Row
}

function instance(shape: Shape, phase: Phase, until = UNTIL): Loose {
  const declared = { id, shape, fields: shape === 'columns' ? fields : { email: fields.email, born: date() } }
  return (
    phase === 'strict' ? records('people', declared) : records('people', { ...declared, migrate: { phase, until } })
  ) as never
}

const ring = () => {
  let now = NOW
  const { keys, events } = listening({ clock: () => now })
  return {
    keys,
    events,
    at: (ms: number) => {
      now = ms
    },
  }
}

describe.each(SHAPES)('%s: a rolling deploy', (shape) => {
  const { keys } = ring()
  /** What each phase leaves in the table: an application before waxseal writes plaintext as well. */
  const written: Record<'before waxseal' | Phase, Row> = {
    'before waxseal': { ...PLAIN, envelope: null, ...(shape === 'columns' && { born_sealed: null }) },
    prepare: instance(shape, 'prepare').encrypt(keys, PLAIN),
    encrypt: instance(shape, 'encrypt').encrypt(keys, PLAIN),
    strict: instance(shape, 'strict').encrypt(keys, PLAIN),
  }
  const isPlain = { 'before waxseal': true, prepare: true, encrypt: false, strict: false }
  /** Neighbours in a deploy and its rollback must read one another; plaintext ends with the last phase. */
  const matrix = Object.keys(written).flatMap((writer) => PHASES.map((reader) => ({ writer: writer as Phase, reader })))

  it.each(matrix)('a row written by $writer, read by $reader', ({ writer, reader }) => {
    const read = () => instance(shape, reader).decrypt(keys, written[writer])
    if (isPlain[writer] && reader === 'strict') expect(code(read)).toBe('MALFORMED')
    else expect(read()).toEqual(PLAIN)
  })

  it.each(PHASES)('%s writes plaintext or ciphertext, never both', (phase) => {
    const row = written[phase]
    const stored = JSON.stringify(row)
    expect(stored.includes(PLAIN.email)).toBe(isPlain[phase])
    expect(/wx[fhp]:/.test(stored)).toBe(!isPlain[phase])
    expect(row.envelope === null).toBe(isPlain[phase])
  })

  it('encrypt empties the plaintext columns, prepare the ciphertext columns, strict names neither', () => {
    if (shape === 'columns') {
      expect(written.prepare).toEqual({ ...PLAIN, born_sealed: null, envelope: null })
      expect(written.encrypt).toMatchObject({ born: null, born_sealed: expect.stringMatching(/^wxf:/) })
      expect(written.strict).not.toHaveProperty('born')
    } else {
      expect(written.encrypt).toMatchObject({ email: null, born: null })
      expect(Object.keys(written.strict)).toEqual(['id', 'envelope'])
    }
  })

  it('rolled back from encrypt to prepare: a row that was encrypted is read and, written again, is plaintext', () => {
    const opened = instance(shape, 'prepare').decrypt(keys, written.encrypt)
    expect(instance(shape, 'prepare').encrypt(keys, opened)).toMatchObject({ ...PLAIN, envelope: null })
  })

  it('prepare checks values and context as if it sealed them', () => {
    const prepare = instance(shape, 'prepare')
    expect(refusal(() => prepare.encrypt(keys, { ...PLAIN, email: 5 }))).toMatchObject({
      code: 'SCHEMA',
      field: 'email',
    })
    expect(code(() => prepare.encrypt(keys, { ...PLAIN, id: null }))).toBe('SCHEMA')
    expect(code(() => prepare.encrypt(keys, { ...PLAIN, envelope: 'x' }))).toBe('SCHEMA')
  })

  it.each(['prepare', 'encrypt'] as const)('%s: a ciphertext is opened strictly, whatever the phase', (phase) => {
    expect(code(() => instance(shape, phase).decrypt(keys, { ...written.encrypt, id: 2 }))).toBe('DECRYPTION_FAILED')
    const reading = {
      ...written.encrypt,
      ...(shape === 'columns' ? { email: 'plaintext' } : { envelope: 'plaintext' }),
    }
    expect(code(() => instance(shape, phase).decrypt(keys, reading))).toBe('MALFORMED')
  })

  it('a patch of a plaintext row: prepare writes plaintext where the row still is, encrypt and strict refuse', () => {
    const plain = written['before waxseal']
    const { set, guard } = instance(shape, 'prepare').patch(keys, plain, { email: 'b' })
    expect(set).toMatchObject({ email: 'b' })
    expect(set).not.toHaveProperty('envelope')
    expect(guard).toMatchObject({ expression: `coalesce("envelope", '')`, value: '' })
    expect(code(() => instance(shape, 'encrypt').patch(keys, plain, { email: 'b' }))).toBe('SCHEMA')
    expect(code(() => instance(shape, 'strict').patch(keys, plain, { email: 'b' }))).toBe('MALFORMED')
    expect(code(() => instance(shape, 'prepare').patch(keys, plain, { email: 5 }))).toBe('SCHEMA')
  })

  it.each(PHASES)('%s: a patch of an encrypted row seals, in every phase', (phase) => {
    const { set } = instance(shape, phase).patch(keys, written.encrypt, { email: 'b' })
    expect(JSON.stringify(set)).not.toContain('"b"')
    expect(instance(shape, 'strict').decrypt(keys, { ...written.encrypt, ...set })).toEqual({ ...PLAIN, email: 'b' })
  })

  it('encrypt seals a plaintext row by reencrypt', () => {
    const moved = instance(shape, 'encrypt').reencrypt(keys, written['before waxseal'])
    expect(instance(shape, 'strict').decrypt(keys, moved)).toEqual(PLAIN)
  })

  it('until is the end: from then on the declaration is strict, and not a ms earlier', () => {
    const clock = ring()
    const phase = instance(shape, 'prepare')
    clock.at(UNTIL.getTime() - 1)
    expect(phase.decrypt(clock.keys, written['before waxseal'])).toEqual(PLAIN)
    expect(phase.encrypt(clock.keys, PLAIN)).toMatchObject({ envelope: null })
    clock.at(UNTIL.getTime())
    expect(code(() => phase.decrypt(clock.keys, written['before waxseal']))).toBe('MALFORMED')
    expect(phase.encrypt(clock.keys, PLAIN).envelope).toMatch(/^wx[hp]:/)
  })

  it('the end is announced 30 days ahead, at most once an hour, and reported after it', () => {
    const clock = ring()
    const phase = instance(shape, 'encrypt')
    const seen = () => clock.events.filter((event) => event.type.startsWith('migrate')).map((event) => event.type)
    phase.encrypt(clock.keys, PLAIN)
    expect(seen()).toEqual([])
    clock.at(UNTIL.getTime() - 30 * DAY)
    for (let i = 0; i < 5; i++) phase.encrypt(clock.keys, PLAIN)
    expect(seen()).toEqual(['migrate.ending'])
    clock.at(UNTIL.getTime() - 30 * DAY + 3_599_999)
    phase.encrypt(clock.keys, PLAIN)
    expect(seen()).toHaveLength(1)
    clock.at(UNTIL.getTime() - 30 * DAY + 3_600_000)
    phase.encrypt(clock.keys, PLAIN)
    expect(seen()).toEqual(['migrate.ending', 'migrate.ending'])
    clock.at(UNTIL.getTime())
    phase.encrypt(clock.keys, PLAIN)
    phase.encrypt(clock.keys, PLAIN)
    expect(seen().slice(2)).toEqual(['migrate.ended'])
    expect(clock.events.find((event) => event.type === 'migrate.ended')).toMatchObject({
      table: 'people',
      until: UNTIL,
    })
  })
})

describe('a JSON column that migrates', () => {
  it('is read as plaintext and as ciphertext, and written as the phase says', () => {
    const { keys } = ring()
    const one = (phase: 'prepare' | 'encrypt') =>
      records('people', { id, fields: { contact: object({ phone: text() }) }, migrate: { phase, until: UNTIL } })
    const plain = { id: 1, contact: { phone: '1', preferred: 'mail' } }
    const sealed = one('encrypt').encrypt(keys, plain)
    expect(sealed.contact).toEqual({ phone: expect.stringMatching(/^wxf:/), preferred: 'mail' })
    expect(one('prepare').encrypt(keys, plain)).toEqual({ ...plain, envelope: null })
    for (const phase of ['prepare', 'encrypt'] as const) {
      expect(one(phase).decrypt(keys, sealed)).toEqual(plain)
      expect(one(phase).decrypt(keys, { ...plain, envelope: null })).toEqual(plain)
    }
  })
})

it('the guard of a plaintext row quotes its column as every other expression does', () => {
  const { keys } = ring()
  const migrate = { phase: 'prepare', until: UNTIL } as const
  const one = records('people', { id, envelopeColumn: 'a"b', fields: { email: text() }, migrate })
  const { guard } = one.patch(keys, { id: 1, envelope: null }, { email: 'x' })
  expect(guard.expression).toBe(`coalesce("a""b", '')`)
})

describe('a cell that migrates', () => {
  const { keys } = ring()
  const make = (phase: Phase) =>
    cell('notes', 'body', {
      type: text(),
      bind: 'column',
      ...(phase !== 'strict' && { migrate: { phase, until: UNTIL } }),
    })
  const written = {
    prepare: make('prepare').encrypt(keys, 'a note'),
    encrypt: make('encrypt').encrypt(keys, 'a note'),
    strict: make('strict').encrypt(keys, 'a note'),
  }

  it.each(PHASES.flatMap((writer) => PHASES.map((reader) => ({ writer, reader }))))(
    'written by $writer, read by $reader',
    ({ writer, reader }) => {
      const read = () => make(reader).decrypt(keys, written[writer])
      if (writer === 'prepare' && reader === 'strict') expect(code(read)).toBe('MALFORMED')
      else expect(read()).toBe('a note')
    },
  )

  it('prepare writes the plaintext itself, but refuses one that would be taken for a cell', () => {
    expect(written.prepare).toBe('a note')
    const error = refusal(() => make('prepare').encrypt(keys, written.encrypt))
    expect(error).toMatchObject({ code: 'SCHEMA', table: 'notes', field: 'body' })
    expect(error.message).not.toContain(written.encrypt)
    expect(make('prepare').encrypt(keys, 'wxc: is a prefix')).toBe('wxc: is a prefix')
    expect(make('encrypt').decrypt(keys, make('encrypt').encrypt(keys, written.encrypt))).toBe(written.encrypt)
  })

  it('what parses as a cell must open: a damaged one is never given back as plaintext', () => {
    const damaged = `${written.encrypt.slice(0, -4)}AAAA`
    expect(code(() => make('prepare').decrypt(keys, damaged))).toBe('DECRYPTION_FAILED')
    expect(
      code(() =>
        cell('notes', 'other', { type: text(), bind: 'column', migrate: { phase: 'encrypt', until: UNTIL } }).decrypt(
          keys,
          written.encrypt,
        ),
      ),
    ).toBe('DECRYPTION_FAILED')
  })

  it('prepare checks values as if it sealed them', () => {
    expect(code(() => make('prepare').encrypt(keys, 5 as never))).toBe('SCHEMA')
    expect(code(() => make('prepare').encrypt(keys, null as never))).toBe('SCHEMA')
  })

  it('is strict from until on', () => {
    const late = testKeyring({ clock: () => UNTIL.getTime() })
    expect(code(() => make('prepare').decrypt(late, 'a note'))).toBe('MALFORMED')
    expect(make('prepare').encrypt(late, 'a note')).toMatch(/^wxc:/)
  })
})

describe('a declaration of migrate', () => {
  it.each<[string, unknown]>([
    ['without an end', { phase: 'prepare' }],
    ['with an end that is no Date', { phase: 'prepare', until: '2026-01-01' }],
    ['with an invalid Date', { phase: 'prepare', until: new Date(Number.NaN) }],
    ['with an unknown phase', { phase: 'strict', until: UNTIL }],
  ])('is CONFIG %s', (_, migrate) => {
    expect(code(() => records('t', { id, fields, migrate: migrate as never }))).toBe('CONFIG')
    expect(code(() => cell('t', 'c', { type: text(), bind: 'column', migrate: migrate as never }))).toBe('CONFIG')
  })

  it('is CONFIG for a cell whose column cannot hold both forms', () => {
    const migrate = { phase: 'prepare', until: UNTIL } as const
    expect(code(() => cell('t', 'c', { type: int(), bind: 'column', migrate }))).toBe('CONFIG')
    expect(code(() => cell('t', 'c', { type: text(), bind: 'column', encoding: 'bytes', migrate }))).toBe('CONFIG')
  })
})
