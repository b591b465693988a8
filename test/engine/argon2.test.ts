import { afterEach, describe, expect, it, vi } from 'vitest'
import { argon2id } from '../../src/engine/argon2.ts'
import { toHex } from './support.ts'

const crypto = process.getBuiltinModule('node:crypto')
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte)

/** Node has Argon2 from 24.7 on; @noble does the work where Node's crypto module cannot be reached, or is older. */
const PLATFORMS = [
  ...('argon2' in crypto ? [{ name: 'Node', hide: () => {} }] : []),
  { name: '@noble', hide: () => void vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined as never) },
]

/** From the reference implementation (phc-winner-argon2, test.c, version 0x13), and from OpenSSL 3.5 by Node 24. */
const KNOWN = [
  ['password', 'somesalt', 256, 2, 1, '9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe'],
  ['password', 'somesalt', 256, 2, 2, '6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037'],
] as const

afterEach(() => void vi.restoreAllMocks())

describe.each(PLATFORMS)('Argon2id by $name', ({ hide }) => {
  it('gives the vector of RFC 9106, section 5.3', async () => {
    hide()
    const extra = { secret: filled(8, 3), associatedData: filled(12, 4) }
    const cost = { memoryKiB: 32, passes: 3, lanes: 4 }
    const key = await argon2id(filled(32, 1), filled(16, 2), cost, extra)
    expect(toHex(key)).toBe('0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659')
  })

  it.each(KNOWN)('gives what others give for %s, %s, %d KiB, %d passes, %d lanes', async (...row) => {
    hide()
    const [passphrase, salt, memoryKiB, passes, lanes, expected] = row
    expect(toHex(await argon2id(ascii(passphrase), ascii(salt), { memoryKiB, passes, lanes }))).toBe(expected)
  })
})

describe('Argon2id', () => {
  const cost = { memoryKiB: 64, passes: 2, lanes: 1 }

  it("asks the platform where it has it, for RFC 9106's inputs and nothing else", async () => {
    const given: unknown[] = []
    const argon2 = (...args: unknown[]): void => {
      given.push(...args.slice(0, 2))
      ;(args.at(-1) as (error: null, key: Uint8Array) => void)(null, filled(32, 9))
    }
    vi.spyOn(process, 'getBuiltinModule').mockReturnValue({ ...crypto, argon2 } as never)
    expect(await argon2id(filled(4, 1), filled(16, 2), cost)).toEqual(filled(32, 9))
    const numbers = { parallelism: 1, tagLength: 32, memory: 64, passes: 2 }
    expect(given).toEqual(['argon2id', { message: filled(4, 1), nonce: filled(16, 2), ...numbers }])
  })

  it('falls back to @noble where Node has the call and its OpenSSL has not', async () => {
    const expected = await argon2id(filled(4, 1), filled(16, 2), cost)
    const argon2 = (): void => {
      throw Object.assign(new Error('not supported'), { code: 'ERR_CRYPTO_ARGON2_NOT_SUPPORTED' })
    }
    vi.spyOn(process, 'getBuiltinModule').mockReturnValue({ ...crypto, argon2 } as never)
    expect(toHex(await argon2id(filled(4, 1), filled(16, 2), cost))).toBe(toHex(expected))
  })

  it('passes any other failure of the platform on', async () => {
    const argon2 = (...args: unknown[]): void => (args.at(-1) as (error: Error) => void)(new Error('out of memory'))
    vi.spyOn(process, 'getBuiltinModule').mockReturnValue({ ...crypto, argon2 } as never)
    await expect(argon2id(filled(4, 1), filled(16, 2), cost)).rejects.toThrow('out of memory')
  })
})
