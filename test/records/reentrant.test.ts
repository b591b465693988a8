import { describe, expect, it } from 'vitest'
import { cell, int, json, type KeyEvent, type Keyring, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'

/** Calls share bytes between their steps; user code that runs inside a call must not make one see another's. */
const SHAPES = ['columns', 'packed'] as const

describe.each(SHAPES)('a row in the %s shape', (shape) => {
  const notes = records('notes', { id: { id: int() }, shape, fields: { a: text(), b: text(), c: text() } })
  const plain = (id: number) => ({ id, a: `a${id}`, b: `b${id}`, c: `c${id}` })

  it('is read once: a getter that encrypts another row changes neither', () => {
    const keys = testKeyring()
    const other: { row?: ReturnType<typeof notes.encrypt> } = {}
    let reads = 0
    const row = notes.encrypt(keys, {
      id: 1,
      a: 'a1',
      get b() {
        reads++
        other.row = notes.encrypt(keys, plain(2))
        return 'b1'
      },
      c: 'c1',
    })
    expect(reads).toBe(1)
    expect(notes.decrypt(keys, row)).toEqual(plain(1))
    expect(notes.decrypt(keys, other.row as never)).toEqual(plain(2))
  })

  it('is opened right by a listener that opens and seals others in between', async () => {
    let inside: (event: KeyEvent) => void = () => {}
    const keys: Keyring = testKeyring({ onEvent: (event) => inside(event) })
    const rows = [1, 2, 3].map((id) => notes.encrypt(keys, plain(id)))
    await keys.markCompromised(keys.status().active!, { reason: 'so that a use is told of in the middle of a call' })
    const seen: unknown[] = []
    inside = (event) => {
      if (event.type !== 'key.use') return
      inside = () => {}
      seen.push(notes.decrypt(keys, rows[1]!), notes.encrypt(keys, plain(4)))
    }
    expect(notes.decrypt(keys, rows[0]!)).toEqual(plain(1))
    expect(seen[0]).toEqual(plain(2))
    expect(notes.decrypt(keys, seen[1] as never)).toEqual(plain(4))
  })
})

describe('what user code does while a row is packed', () => {
  const packed = records('packed', { id: { id: int() }, shape: 'packed', fields: { a: text(), j: json<object>() } })

  it('loses nothing when a getter inside a JSON value packs another row', () => {
    const keys = testKeyring()
    const j = {
      get k() {
        packed.encrypt(keys, { id: 9, a: 'inner', j: {} })
        return 1
      },
    }
    const row = packed.encrypt(keys, { id: 4, a: 'FIRST', j })
    expect(packed.decrypt(keys, row)).toEqual({ id: 4, a: 'FIRST', j: { k: 1 } })
  })

  it('keeps the row’s own header when a getter inside a patched JSON value opens another row', () => {
    const keys = testKeyring()
    const [one, two] = [1, 2].map((id) => packed.encrypt(keys, { id, a: `ROW-${id}`, j: {} }))
    const j = {
      get x() {
        return packed.decrypt(keys, two!).a
      },
    }
    const { set } = packed.patch(keys, one!, { j })
    expect(packed.decrypt(keys, { ...one!, ...set })).toEqual({ id: 1, a: 'ROW-1', j: { x: 'ROW-2' } })
  })
})

describe('a cell', () => {
  it('is the one that was asked for when its context is a getter that opens another', () => {
    const keys = testKeyring()
    const secret = cell('c', 'v', { type: text(), bind: { tenant: text() } })
    const [a, b] = ['SECRET-A', 'SECRET-B'].map((value) => secret.encrypt(keys, value, { tenant: 't' }))
    const context = {
      get tenant() {
        secret.decrypt(keys, b!, { tenant: 't' })
        return 't'
      },
    }
    expect(secret.decrypt(keys, a!, context)).toBe('SECRET-A')
  })
})

it('rewrapping is not disturbed by a listener that opens a row of its own', async () => {
  let inside: (event: KeyEvent) => void = () => {}
  const keys: Keyring = testKeyring({ onEvent: (event) => inside(event) })
  const people = records('people', { id: { id: int() }, fields: { name: text() } })
  const hook = people.encrypt(keys, { id: 0, name: 'hook' })
  const row = people.encrypt(keys, { id: 1, name: 'Ann' })
  const old = keys.status().active!
  await keys.rotate()
  await keys.maintain()
  await keys.retire(old, { references: 0 })
  let isBusy = false
  inside = (event) => {
    if (event.type !== 'key.use' || isBusy) return
    isBusy = true
    people.decrypt(keys, hook)
    isBusy = false
  }
  const { envelope } = people.rewrap(keys, row)!
  inside = () => {}
  expect(people.decrypt(keys, { ...row, envelope: envelope as string })).toEqual({ id: 1, name: 'Ann' })
})
