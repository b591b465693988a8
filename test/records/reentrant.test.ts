import { describe, expect, it } from 'vitest'
import { int, type KeyEvent, type Keyring, records, text } from 'waxseal'
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
