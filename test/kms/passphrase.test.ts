import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { nobleEngine } from 'waxseal/engine'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms, type PassphraseOptions } from 'waxseal/kms/local'
import { encodeContext } from '../../src/context.ts'
import { argon2id } from '../../src/engine/argon2.ts'
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

/** By Argon2id with the least work that is allowed. */
const LEAST = { kdf: 'argon2id', memoryKiB: 19_456, passes: 2, lanes: 1 } as const
const argon = (passphrase = PASSPHRASE, more: Partial<PassphraseOptions> = {}) =>
  localKms({ passphrase, ...LEAST, ...more })

describe('a passphrase by Argon2id', () => {
  let byArgon: Uint8Array
  beforeAll(async () => {
    byArgon = await argon().wrap(KEY, CONTEXT)
  })

  it('is wrapped as 03 ‖ memory ‖ passes ‖ lanes ‖ salt ‖ sealed, and opens as the specification computes it', async () => {
    expect(byArgon.length).toBe(95)
    expect([...byArgon.subarray(0, 7)]).toEqual([3, 0, 0, 0x4c, 0, 2, 1])
    const cost = { memoryKiB: 19_456, passes: 2, lanes: 1 }
    const key = await argon2id(new TextEncoder().encode(PASSPHRASE), byArgon.slice(7, 23), cost)
    const plain = nobleEngine().aead('xchacha20-poly1305', key).open(byArgon.slice(23), encodeContext(CONTEXT))
    expect(plain).toEqual(KEY)
  })

  it('opens whatever the options of the driver say, and so does what scrypt wrapped', async () => {
    expect(Uint8Array.from(await quick().unwrap(byArgon, CONTEXT))).toEqual(KEY)
    expect(stretches()).toBe(0)
    expect(Uint8Array.from(await argon().unwrap(await quick().wrap(KEY, CONTEXT), CONTEXT))).toEqual(KEY)
  })

  it('that is wrong, or under another context, is DECRYPTION_FAILED', async () => {
    const driver = argon()
    const other = { ...CONTEXT, 'waxseal:key': 'B'.repeat(20) }
    expect(await refusal(() => driver.unwrap(byArgon, other))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    expect(await refusal(() => argon(`${PASSPHRASE} `).unwrap(byArgon, CONTEXT))).toMatchObject({
      code: 'DECRYPTION_FAILED',
    })
  })

  it.each<[string, number, number[]]>([
    ['memory of 19,455 KiB', 1, [0, 0, 0x4b, 0xff]],
    ['memory of 1 GiB and 1 KiB', 1, [0, 0x10, 0, 1]],
    ['memory of nearly 4 TiB', 1, [255, 255, 255, 255]],
    ['no memory', 1, [0, 0, 0, 0]],
    ['no pass', 5, [0]],
    ['one pass', 5, [1]],
    ['11 passes', 5, [11]],
    ['no lane', 6, [0]],
    ['17 lanes', 6, [17]],
  ])('with a stored %s is MALFORMED, and nothing is computed', async (_, at, bytes) => {
    const wrapped = Uint8Array.from(byArgon)
    wrapped.set(bytes, at)
    const start = process.cpuUsage()
    expect(await refusal(() => argon().unwrap(wrapped, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    expect(process.cpuUsage(start).user).toBeLessThan(100_000)
  })

  it('that is cut at any length, or longer, is MALFORMED', async () => {
    for (let length = 0; length < byArgon.length; length++) {
      const cut = byArgon.subarray(0, length)
      expect(await refusal(() => argon().unwrap(cut, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    }
    const longer = Uint8Array.of(...byArgon, 0)
    expect(await refusal(() => argon().unwrap(longer, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
  })

  it.each([
    ['type, to that of scrypt', 0, 2, 'MALFORMED'],
    ['passes', 5, 3, 'DECRYPTION_FAILED'],
    ['lanes', 6, 2, 'DECRYPTION_FAILED'],
  ])('does not open with its %s changed', async (_, at, byte, code) => {
    const wrapped = Uint8Array.from(byArgon)
    wrapped[at] = byte
    expect(await refusal(() => argon().unwrap(wrapped, CONTEXT))).toMatchObject({ code })
  })

  it.each<[string, Record<string, unknown>]>([
    ['kdf', { kdf: 'pbkdf2' }],
    ['kdf', { kdf: 'toString' }],
    ['memoryKiB', { kdf: 'argon2id', memoryKiB: 19_455 }],
    ['memoryKiB', { kdf: 'argon2id', memoryKiB: 1_048_577 }],
    ['passes', { kdf: 'argon2id', passes: 1 }],
    ['passes', { kdf: 'argon2id', passes: 2.5 }],
    ['lanes', { kdf: 'argon2id', lanes: 0 }],
    ['lanes', { kdf: 'argon2id', lanes: 17 }],
    ['log2N', { kdf: 'argon2id', log2N: 17 }],
    ['memoryKiB', { memoryKiB: 65_536 }],
    ['passes', { kdf: 'scrypt', passes: 3 }],
  ])('%s out of bounds, or of another KDF, is CONFIG: %o', async (argument, options) => {
    const error = await refusal(() => localKms({ passphrase: PASSPHRASE, ...options } as PassphraseOptions))
    expect(error).toMatchObject({ code: 'CONFIG', argument })
  })

  it('is stretched once for many calls at once, and its stored salt serves later wraps', async () => {
    const driver = argon()
    const opened = await Promise.all(Array.from({ length: 10 }, () => driver.unwrap(byArgon, CONTEXT)))
    expect(opened.map((key) => Uint8Array.from(key))).toEqual(Array(10).fill(KEY))
    const next = await driver.wrap(KEY, CONTEXT)
    expect(next.subarray(0, 23)).toEqual(byArgon.subarray(0, 23))
  })

  it('takes a salt of its own for new wraps where scrypt, or less work, is what is stored', async () => {
    const driver = argon()
    await driver.unwrap(await quick().wrap(KEY, CONTEXT), CONTEXT)
    expect((await driver.wrap(KEY, CONTEXT))[0]).toBe(3)
    const harder = argon(PASSPHRASE, { passes: 3 })
    await harder.unwrap(byArgon, CONTEXT)
    const next = await harder.wrap(KEY, CONTEXT)
    expect([next[5], Buffer.from(next.subarray(7, 23)).equals(byArgon.subarray(7, 23))]).toEqual([3, false])
  })

  it('opens a keyring beside another root key, and without it', async () => {
    const store = memoryKeyStore()
    const keys = await createKeyring({ name: 'crm', store, kms: [localKms(KEY.slice()), argon()] })
    const row = notes.encrypt(keys, { ...NOTE })
    const opened = await openKeyring({ name: 'crm', store, kms: argon() })
    expect(notes.decrypt(opened, row)).toEqual(NOTE)
  })
})
