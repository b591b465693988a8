import { describe, expect, it } from 'vitest'
import type { Aead, KeyWrap } from '../../src/engine/engine.ts'
import { AEADS, bytesOf, ENGINES, refusal, seeded, toHex } from './support.ts'

/** The life of a prepared key: its length is checked, its bytes are copied, and once destroyed it does nothing. */
const WRONG_LENGTHS = [0, 1, 8, 16, 24, 31, 33, 40, 48, 64]
const NOT_BYTES: readonly unknown[] = [undefined, null, 'x'.repeat(32), Array(32).fill(0), new Uint16Array(32)]
const NO_BYTES = new Uint8Array(0)

describe.each(ENGINES)('a prepared key on the $name engine', ({ make }) => {
  const engine = make()
  const PREPARE: readonly { what: string; prepare: (key: Uint8Array) => Aead | KeyWrap }[] = [
    ...AEADS.map((aead) => ({ what: aead, prepare: (key: Uint8Array) => engine.aead(aead, key) })),
    { what: 'key wrap', prepare: (key) => engine.keyWrap(key) },
  ]

  describe.each(PREPARE)('for $what', ({ prepare }) => {
    it.each(WRONG_LENGTHS)('cannot be of %i bytes: CONFIG, with the argument named', (length) => {
      const error = refusal(() => prepare(new Uint8Array(length)))
      expect(error.code).toBe('CONFIG')
      expect(error.argument).toBe('key')
      expect(error.message).toBe(`"key" expected Uint8Array of length 32, got length=${length}`)
    })

    it('cannot be anything but a Uint8Array, and what it was is not printed', () => {
      for (const value of NOT_BYTES) {
        const error = refusal(() => prepare(value as Uint8Array))
        expect(error).toMatchObject({ code: 'CONFIG', argument: 'key' })
        expect(error.message).not.toContain('xxx')
      }
    })
  })

  it.each(AEADS)('%s keeps a copy: wiping the bytes it was made of changes nothing', (aead) => {
    const key = bytesOf(32, 1)
    const prepared = make(seeded(1)).aead(aead, key)
    key.fill(0)
    const untouched = make(seeded(1)).aead(aead, bytesOf(32, 1))
    const sealed = prepared.seal(bytesOf(40, 2), NO_BYTES)
    expect(toHex(sealed)).toBe(toHex(untouched.seal(bytesOf(40, 2), NO_BYTES)))
    expect(toHex(prepared.open(sealed, NO_BYTES)!)).toBe(toHex(bytesOf(40, 2)))
  })

  it.each(AEADS)('%s destroys its own copy only', (aead) => {
    const key = bytesOf(32, 1)
    const [one, other] = [engine.aead(aead, key), engine.aead(aead, key)]
    const sealed = one.seal(NO_BYTES, NO_BYTES)
    one.destroy()
    expect(toHex(key)).toBe(toHex(bytesOf(32, 1)))
    expect(other.open(sealed, NO_BYTES)).not.toBeNull()
  })

  it.each(AEADS)('%s throws once destroyed: it neither seals nor opens', (aead) => {
    const prepared = engine.aead(aead, bytesOf(32, 1))
    const sealed = prepared.seal(bytesOf(40, 2), NO_BYTES)
    prepared.destroy()
    expect(() => prepared.seal(bytesOf(40, 2), NO_BYTES)).toThrow(/destroyed/)
    expect(() => prepared.open(sealed, NO_BYTES)).toThrow(/destroyed/)
    expect(() => prepared.destroy()).not.toThrow()
  })

  it.each(AEADS)('%s never seals under a key of zeros once destroyed', (aead) => {
    const prepared = engine.aead(aead, bytesOf(32, 1))
    prepared.destroy()
    let sealed: Uint8Array | undefined
    try {
      sealed = prepared.seal(bytesOf(40, 2), NO_BYTES)
    } catch {}
    const zeros = engine.aead(aead, new Uint8Array(32))
    expect(sealed && zeros.open(sealed, NO_BYTES)).toBeFalsy()
  })

  it('key wrap keeps a copy: wiping the bytes it was made of changes nothing', () => {
    const kek = bytesOf(32, 1)
    const prepared = engine.keyWrap(kek)
    kek.fill(0)
    expect(toHex(prepared.wrap(bytesOf(32, 2)))).toBe(toHex(engine.keyWrap(bytesOf(32, 1)).wrap(bytesOf(32, 2))))
  })

  it('key wrap throws once destroyed: it neither wraps nor unwraps', () => {
    const prepared = engine.keyWrap(bytesOf(32, 1))
    const wrapped = prepared.wrap(bytesOf(32, 2))
    prepared.destroy()
    expect(() => prepared.wrap(bytesOf(32, 2))).toThrow(/destroyed/)
    expect(() => prepared.unwrap(wrapped)).toThrow(/destroyed/)
    expect(() => prepared.destroy()).not.toThrow()
  })

  it.each(WRONG_LENGTHS)('key wrap does not wrap %i bytes: CONFIG, with the argument named', (length) => {
    const error = refusal(() => engine.keyWrap(bytesOf(32, 1)).wrap(new Uint8Array(length)))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'key' })
  })

  it.each([0, 8, 16, 24, 32, 39, 41, 48, 72])(
    'key wrap does not unwrap %i bytes: a wrong length is a wrong argument, CONFIG, not a failed check',
    (length) => {
      const error = refusal(() => engine.keyWrap(bytesOf(32, 1)).unwrap(new Uint8Array(length)))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'wrapped' })
    },
  )
})
