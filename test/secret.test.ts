import { Console } from 'node:console'
import { Writable } from 'node:stream'
import { format, inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { printsAs, Secret } from '../src/secret.ts'

/** Bytes that are easy to find in any print: decimal, hexadecimal, base64 and text. */
const BYTES = Uint8Array.from(Buffer.from('hunter2!hunter2!'))
const TRACES = ['hunter2', '104, 117', '104,117', '68 75 6e', '68756e', 'aHVudGVy', '"0":104']
const make = (): Secret => new Secret(Uint8Array.from(BYTES))

/** What console.log and its kin write. */
function printed(print: (console: Console) => void): string {
  let text = ''
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk)
      done()
    },
  })
  print(new Console({ stdout: stream, stderr: stream }))
  return text.trimEnd()
}

const PRINTS: readonly [how: string, print: (secret: Secret) => string, expected: string][] = [
  ['String()', (secret) => String(secret), '[redacted]'],
  ['toString()', (secret) => secret.toString(), '[redacted]'],
  ['a template', (secret) => `${secret}`, '[redacted]'],
  ['concatenation', (secret) => `key: ${secret}`, 'key: [redacted]'],
  ['Array.join', (secret) => [1, secret].join(), '1,[redacted]'],
  ['JSON.stringify', (secret) => JSON.stringify(secret), '"[redacted]"'],
  [
    'JSON.stringify of an object that holds it',
    (key) => JSON.stringify({ a: [{ key }] }),
    '{"a":[{"key":"[redacted]"}]}',
  ],
  ['inspect', (secret) => inspect(secret), '[redacted]'],
  ['inspect of an object that holds it', (key) => inspect({ key }), '{ key: [redacted] }'],
  [
    'inspect to any depth',
    (key) => inspect({ a: { b: { c: { key } } } }, { depth: Infinity }).replace(/\s+/g, ' '),
    '{ a: { b: { c: { key: [redacted] } } } }',
  ],
  [
    'inspect with hidden properties',
    (secret) => inspect(secret, { showHidden: true, depth: Infinity, getters: true, showProxy: true }),
    '[redacted]',
  ],
  [
    'inspect without its own printer',
    (secret) => inspect(secret, { customInspect: false, depth: Infinity }),
    'Secret {}',
  ],
  ['format %s', (secret) => format('%s', secret), '[redacted]'],
  ['format %o', (secret) => format('%o', secret), '[redacted]'],
  ['format %O', (secret) => format('%O', secret), '[redacted]'],
  ['format %j', (secret) => format('%j', secret), '"[redacted]"'],
  ['console.log', (secret) => printed((console) => console.log(secret)), '[redacted]'],
  ['console.error', (secret) => printed((console) => console.error('key', secret)), 'key [redacted]'],
  ['console.dir', (secret) => printed((console) => console.dir(secret, { depth: null })), 'Secret {}'],
  ['an error message', (secret) => new Error(`bad key ${secret}`).message, 'bad key [redacted]'],
  ['Object.entries', (secret) => JSON.stringify(Object.entries(secret)), '[]'],
  ['all its own keys', (secret) => String(Reflect.ownKeys(secret)), ''],
  ['a spread', (secret) => JSON.stringify({ ...secret }), '{}'],
  ['structuredClone', (secret) => inspect(structuredClone(secret)), '{}'],
]

describe('a Secret', () => {
  it.each(PRINTS)('shows no bytes in %s', (_how, print, expected) => {
    expect(print(make())).toBe(expected)
  })

  it.each(PRINTS)('shows no bytes in %s after it was destroyed either', (_how, print, expected) => {
    const secret = make()
    secret.destroy()
    expect(print(secret)).toBe(expected)
  })

  it('would be found by these tests if it showed its bytes', () => {
    const shown = [String(BYTES), inspect(BYTES), inspect(Buffer.from(BYTES)), JSON.stringify(BYTES)]
    for (const text of shown) expect(TRACES.some((trace) => text.includes(trace))).toBe(true)
    for (const [, print] of PRINTS) expect(TRACES.filter((trace) => print(make()).includes(trace))).toEqual([])
  })

  it('lends its bytes, and gives back what the borrower returns', () => {
    expect(make().use((bytes) => Buffer.from(bytes).toString())).toBe('hunter2!hunter2!')
  })

  it('lends them again after a borrower threw', () => {
    const secret = make()
    expect(() =>
      secret.use(() => {
        throw new Error('borrower')
      }),
    ).toThrow('borrower')
    expect(secret.use((bytes) => bytes.length)).toBe(16)
  })

  it('takes the bytes over, and wipes them when it is destroyed', () => {
    const bytes = Uint8Array.from(BYTES)
    const secret = new Secret(bytes)
    expect(secret.use((lent) => lent)).toBe(bytes)
    expect(secret.destroyed).toBe(false)
    secret.destroy()
    expect(bytes).toEqual(new Uint8Array(16))
    expect(secret.destroyed).toBe(true)
  })

  it('lends nothing once destroyed: use throws before the borrower is called', () => {
    const secret = make()
    secret.destroy()
    let called = false
    const use = () =>
      secret.use(() => {
        called = true
      })
    expect(use).toThrow(RangeError)
    expect(use).toThrow('"secret" was destroyed')
    expect(called).toBe(false)
  })

  it('can be destroyed twice', () => {
    const secret = make()
    secret.destroy()
    expect(() => secret.destroy()).not.toThrow()
    expect(secret.destroyed).toBe(true)
  })
})

describe('printsAs', () => {
  const labelled = () => printsAs({ key: BYTES, nested: { key: BYTES } }, '[localKms local:abc]')

  it('prints the label and nothing of the object', () => {
    expect(inspect(labelled(), { showHidden: true, depth: Infinity })).toBe('[localKms local:abc]')
    expect(inspect({ kms: labelled() }, { depth: Infinity })).toBe('{ kms: [localKms local:abc] }')
    expect(JSON.stringify({ kms: labelled() })).toBe('{"kms":"[localKms local:abc]"}')
    expect(printed((console) => console.log(labelled()))).toBe('[localKms local:abc]')
  })

  it('returns the same object, with nothing enumerable added', () => {
    const target = { a: 1 }
    expect(printsAs(target, 'x')).toBe(target)
    expect(Object.keys(target)).toEqual(['a'])
  })
})
