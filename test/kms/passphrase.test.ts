import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { NOTE, notes, refusal, rotated } from '../keyring/support.ts'

const PASSPHRASE = 'correct horse battery staple'
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'A'.repeat(22), 'waxseal:key': 'integrity' }
/** The least work that is allowed, for speed. */
const quick = (passphrase = PASSPHRASE, more: { label?: string; log2N?: number } = {}) =>
  localKms({ passphrase, log2N: 14, ...more })

const crypto = process.getBuiltinModule('node:crypto')
let stretched: { mock: { calls: unknown[][] } }
beforeEach(() => {
  stretched = vi.spyOn(crypto, 'scrypt')
})
afterEach(() => void vi.restoreAllMocks())
const stretches = (): number => stretched.mock.calls.length

describe('a passphrase', () => {
  it('opens in another driver instance what it wrapped in one', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    expect(wrapped.length).toBe(90)
    expect(Uint8Array.from(await quick().unwrap(wrapped, CONTEXT))).toEqual(KEY)
    expect(Uint8Array.from(await quick(PASSPHRASE, { log2N: 15 }).unwrap(wrapped, CONTEXT))).toEqual(KEY)
  })

  it('that is wrong is DECRYPTION_FAILED', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    for (const wrong of [`${PASSPHRASE} `, PASSPHRASE.toUpperCase(), 'another passphrase']) {
      expect(await refusal(() => quick(wrong).unwrap(wrapped, CONTEXT))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    }
  })

  it('opens nothing under another context', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    const other = { ...CONTEXT, 'waxseal:key': 'B'.repeat(20) }
    expect(await refusal(() => quick().unwrap(wrapped, other))).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })

  it('is the same however its accents are composed', async () => {
    const composed = 'b\u00e9b\u00e9 cr\u00e8me \u00c5ngstr\u00f6m'
    const decomposed = composed.normalize('NFD')
    expect(decomposed).not.toBe(composed)
    expect(Uint8Array.from(await quick(decomposed).unwrap(await quick(composed).wrap(KEY, CONTEXT), CONTEXT))).toEqual(
      KEY,
    )
    expect(Uint8Array.from(await quick(composed).unwrap(await quick(decomposed).wrap(KEY, CONTEXT), CONTEXT))).toEqual(
      KEY,
    )
  })

  it.each<[string, unknown]>([
    ['short', 'elevenchars'],
    ['short once its accents are composed', 'e\u0301'.repeat(6)],
    ['empty', ''],
    ['undefined', undefined],
    ['null', null],
    ['bytes', new Uint8Array(32)],
    ['a number', 123_456_789_012],
    ['text with a lone surrogate', 'correct horse \ud800 staple'],
  ])('that is %s is CONFIG at construction, and not echoed', async (_, passphrase) => {
    const error = await refusal(() => localKms({ passphrase: passphrase as string, log2N: 14 }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'passphrase' })
    if (passphrase) expect(error.message).not.toContain(String(passphrase))
    expect(stretches()).toBe(0)
  })

  it.each([13, 21, 0, 255, 14.5, Number.NaN, '17', null])('with work factor %s is CONFIG', async (log2N) => {
    const error = await refusal(() => localKms({ passphrase: PASSPHRASE, log2N: log2N as number }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'log2N' })
  })

  it('is known in the store by its label alone', () => {
    expect(quick().keyUri).toBe('local-passphrase:default')
    expect(quick(PASSPHRASE, { label: 'safe in Oslo' }).keyUri).toBe('local-passphrase:safe in Oslo')
  })
})

describe('a stored wrap by passphrase', () => {
  it.each([0, 1, 13, 21, 32, 255])('with work factor 2^%d is MALFORMED, and nothing is computed', async (log2N) => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    wrapped[1] = log2N
    const before = stretches()
    expect(await refusal(() => quick().unwrap(wrapped, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    expect(stretches()).toBe(before)
  })

  it('that is cut at any length, or longer, is MALFORMED, and nothing is computed', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    const before = stretches()
    for (let length = 0; length < wrapped.length; length++) {
      const cut = wrapped.subarray(0, length)
      expect(await refusal(() => quick().unwrap(cut, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    }
    expect(await refusal(() => quick().unwrap(Uint8Array.of(...wrapped, 0), CONTEXT))).toMatchObject({
      code: 'MALFORMED',
    })
    expect(stretches()).toBe(before)
  })

  it('does not open with any byte of what is sealed flipped, for one stretch in all', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    const driver = quick()
    const before = stretches()
    for (let at = 18; at < wrapped.length; at++) {
      const flipped = Uint8Array.from(wrapped)
      flipped[at]! ^= 0x80
      expect(await refusal(() => driver.unwrap(flipped, CONTEXT))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    }
    expect(stretches()).toBe(before + 1)
  })

  it.each([
    ['type', 0, 'MALFORMED'],
    ['work factor', 1, 'DECRYPTION_FAILED'],
    ['salt', 2, 'DECRYPTION_FAILED'],
    ['salt, at its end', 17, 'DECRYPTION_FAILED'],
  ])('does not open with its %s changed', async (_, at, code) => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    wrapped[at]! ^= 1
    expect(await refusal(() => quick().unwrap(wrapped, CONTEXT))).toMatchObject({ code })
  })

  it('is not opened by a root key, nor one by a root key by a passphrase', async () => {
    const byPassphrase = await quick().wrap(KEY, CONTEXT)
    const byBytes = await localKms(KEY).wrap(KEY, CONTEXT)
    expect(await refusal(() => localKms(KEY).unwrap(byPassphrase, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    expect(await refusal(() => quick().unwrap(byBytes, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
  })
})

describe('stretching', () => {
  it('happens once for many wraps and unwraps at once', async () => {
    const driver = quick()
    const wraps = await Promise.all(Array.from({ length: 20 }, () => driver.wrap(KEY, CONTEXT)))
    expect(stretches()).toBe(1)
    expect(new Set(wraps.map((wrapped) => Buffer.from(wrapped.subarray(0, 18)).toString('hex'))).size).toBe(1)
    const other = quick()
    await Promise.all(wraps.map((wrapped) => other.unwrap(wrapped, CONTEXT)))
    expect(stretches()).toBe(2)
  })

  it('happens once for the whole life of a keyring in a process, which keeps its salt', async () => {
    const store = memoryKeyStore()
    const keys = await createKeyring({ name: 'crm', store, kms: quick() })
    const row = notes.encrypt(keys, { ...NOTE })
    await rotated(keys)
    await rotated(keys)
    expect(stretches()).toBe(1)
    const kms = quick()
    const opened = await openKeyring({ name: 'crm', store, kms })
    await rotated(opened)
    await openKeyring({ name: 'crm', store, kms })
    expect(notes.decrypt(opened, row)).toEqual(NOTE)
    expect(stretches()).toBe(2)
  })

  it('is done anew, harder, for new wraps when the stored work factor is below the chosen one', async () => {
    const weak = await quick().wrap(KEY, CONTEXT)
    const driver = quick(PASSPHRASE, { log2N: 15 })
    await driver.unwrap(weak, CONTEXT)
    const strong = await driver.wrap(KEY, CONTEXT)
    expect([weak[1], strong[1]]).toEqual([14, 15])
    expect(strong.subarray(2, 18)).not.toEqual(weak.subarray(2, 18))
  })

  it('that failed is tried again', async () => {
    const wrapped = await quick().wrap(KEY, CONTEXT)
    const driver = quick()
    vi.spyOn(crypto, 'scrypt').mockImplementationOnce(((...args: unknown[]) =>
      (args.at(-1) as (error: Error) => void)(new Error('out of memory'))) as never)
    await expect(driver.unwrap(wrapped, CONTEXT)).rejects.toThrow('out of memory')
    expect(Uint8Array.from(await driver.unwrap(wrapped, CONTEXT))).toEqual(KEY)
  })
})
