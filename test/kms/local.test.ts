import { describe, expect, it } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { refusal } from '../keyring/support.ts'

const ROOT = Uint8Array.from({ length: 32 }, (_, i) => (i * 37 + 0xfb) & 255)
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'A'.repeat(22), 'waxseal:key': 'integrity' }

const encoded = (encoding: BufferEncoding): string => Buffer.from(ROOT).toString(encoding)

describe('a root key', () => {
  it.each([
    ['bytes', ROOT],
    ['a Buffer', Buffer.from(ROOT)],
    ['the middle of a larger buffer', Uint8Array.of(1, 2, 3, ...ROOT, 4).subarray(3, 35)],
    ['hexadecimal text', encoded('hex')],
    ['hexadecimal text in capitals', encoded('hex').toUpperCase()],
    ['base64url', encoded('base64url')],
    ['base64 with padding', encoded('base64')],
    ['base64 without padding', encoded('base64').replace('=', '')],
  ])('may be given as %s, and is the same key', async (_, root) => {
    const driver = localKms(root)
    expect(driver.keyUri).toBe(localKms(ROOT).keyUri)
    expect(Uint8Array.from(await localKms(ROOT).unwrap(await driver.wrap(KEY, CONTEXT), CONTEXT))).toEqual(KEY)
  })

  it('is tested with text that needs all of base64', () => {
    expect(encoded('base64')).toMatch(/[+/]/)
    expect(encoded('base64')).toMatch(/=$/)
  })

  it.each<[string, unknown]>([
    ['undefined, as an environment variable that is not set', undefined],
    ['null', null],
    ['empty text', ''],
    ['no bytes', new Uint8Array(0)],
    ['31 bytes', ROOT.subarray(1)],
    ['33 bytes', Uint8Array.of(...ROOT, 0)],
    ['64 bytes', new Uint8Array(64)],
    ['31 bytes in hexadecimal', encoded('hex').slice(2)],
    ['hexadecimal text with another letter', `${encoded('hex').slice(1)}g`],
    ['33 bytes in base64url', Buffer.from([...ROOT, 1]).toString('base64url')],
    ['16 bytes in base64url', Buffer.from(ROOT.subarray(16)).toString('base64url')],
    ['base64 with two paddings', `${encoded('base64')}=`],
    ['base64 with a line end', `${encoded('base64')}\n`],
    ['base64url with a set bit behind the end', `${encoded('base64url').slice(0, -1)}1`],
    ['a passphrase that is not said to be one', 'correct horse battery staple'],
    ['a number', 32],
    ['a bigint', 32n],
    ['true', true],
    ['a function', () => ROOT],
    ['an ArrayBuffer', ROOT.buffer],
    ['a list of numbers', [...ROOT]],
    ['an object', {}],
    ['words of 16 bits', new Uint16Array(32)],
  ])('is refused as CONFIG at construction when it is %s, and not echoed', async (_, root) => {
    const error = await refusal(() => localKms(root as never))
    expect(error.code).toBe('CONFIG')
    expect(error.argument).toMatch(/^(root|passphrase)$/)
    const echo = `${error.message} ${error.cause}`
    for (const shown of [String(root), encoded('hex'), encoded('base64'), encoded('base64url'), [...ROOT].join()]) {
      if (shown.length > 12 && !shown.startsWith('[object')) expect(echo).not.toContain(shown.slice(4, -4))
    }
  })

  it.each([
    ['bytes', Uint8Array.from(ROOT)],
    ['a Buffer', Buffer.from(ROOT)],
    ['a Buffer from the pool', Buffer.from(encoded('hex'), 'hex')],
  ])('given as %s is not changed, and may be wiped by the caller', async (_, root) => {
    const driver = localKms(root)
    const wrapped = await driver.wrap(KEY, CONTEXT)
    expect(Uint8Array.from(root)).toEqual(ROOT)
    root.fill(0)
    expect(Uint8Array.from(await driver.unwrap(wrapped, CONTEXT))).toEqual(KEY)
  })

  it('that is wrong is CONFIG from openKeyring, which names both URIs and asks nothing of it', async () => {
    const store = memoryKeyStore()
    const right = localKms(ROOT)
    const wrong = localKms(KEY)
    await createKeyring({ name: 'crm', store, kms: right })
    const error = await refusal(() => openKeyring({ name: 'crm', store, kms: wrong }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'kms', retryable: false })
    expect(error.message).toContain(right.keyUri)
    expect(error.message).toContain(wrong.keyUri)
  })

  it('is told by a URI that gives away nothing of it', () => {
    const { keyUri } = localKms(ROOT)
    expect(keyUri).toMatch(/^local:[A-Za-z0-9_-]{20}$/)
    expect(encoded('base64url')).not.toContain(keyUri.slice(6))
  })
})

describe('a wrapped key', () => {
  const driver = localKms(ROOT)

  it('is 73 bytes, new every time, and does not contain the key', async () => {
    const [a, b] = await Promise.all([driver.wrap(KEY, CONTEXT), driver.wrap(KEY, CONTEXT)])
    expect([a!.length, b!.length]).toEqual([73, 73])
    expect(a).not.toEqual(b)
    expect(Buffer.from(a!).includes(Buffer.from(KEY))).toBe(false)
  })

  it('leaves the key that was given as it was', async () => {
    const given = Uint8Array.from(KEY)
    const wrapped = await driver.wrap(given, CONTEXT)
    expect(given).toEqual(KEY)
    const kept = Uint8Array.from(wrapped)
    await driver.unwrap(wrapped, CONTEXT)
    expect(wrapped).toEqual(kept)
  })

  it.each<[string, Record<string, string>]>([
    ['of another keyring', { ...CONTEXT, 'waxseal:keyring': 'B'.repeat(22) }],
    ['of another key', { ...CONTEXT, 'waxseal:key': 'B'.repeat(20) }],
    ['with a pair left out', { 'waxseal:key': 'integrity' }],
    ['with a pair added', { ...CONTEXT, more: '' }],
    ['with the values swapped', { 'waxseal:keyring': 'integrity', 'waxseal:key': 'A'.repeat(22) }],
    ['that is cut elsewhere', { 'waxseal:keyring': `${'A'.repeat(22)}i`, 'waxseal:key': 'ntegrity' }],
    ['in other letters', { ...CONTEXT, 'waxseal:key': 'Integrity' }],
  ])('does not open under a context %s', async (_, context) => {
    const wrapped = await driver.wrap(KEY, CONTEXT)
    expect(await refusal(() => driver.unwrap(wrapped, context))).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })

  it('opens whatever the order of the pairs', async () => {
    const wrapped = await driver.wrap(KEY, CONTEXT)
    const reversed = Object.fromEntries(Object.entries(CONTEXT).reverse())
    expect(Uint8Array.from(await driver.unwrap(wrapped, reversed))).toEqual(KEY)
  })

  it('does not open under another root key', async () => {
    const wrapped = await driver.wrap(KEY, CONTEXT)
    expect(await refusal(() => localKms(KEY).unwrap(wrapped, CONTEXT))).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })

  it('does not open with any one bit flipped', async () => {
    const wrapped = await driver.wrap(KEY, CONTEXT)
    for (let bit = 0; bit < wrapped.length * 8; bit++) {
      const flipped = Uint8Array.from(wrapped)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      const { code } = await refusal(() => driver.unwrap(flipped, CONTEXT))
      expect(code).toBe(bit < 8 ? 'MALFORMED' : 'DECRYPTION_FAILED')
    }
  })

  it('does not open when it is cut at any length, or longer', async () => {
    const wrapped = await driver.wrap(KEY, CONTEXT)
    for (let length = 0; length < wrapped.length; length++) {
      const cut = wrapped.subarray(0, length)
      expect(await refusal(() => driver.unwrap(cut, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    }
    const longer = Uint8Array.of(...wrapped, 0)
    expect(await refusal(() => driver.unwrap(longer, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
  })
})
