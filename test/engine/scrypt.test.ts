import { scryptSync } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { scrypt } from '../../src/engine/scrypt.ts'
import { toHex } from './support.ts'

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Where Node's crypto module cannot be reached, @noble does the work. */
const PLATFORMS = [
  { name: 'Node', hide: () => {} },
  { name: '@noble', hide: () => void vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined as never) },
]

const INPUTS: readonly { passphrase: Uint8Array; salt: Uint8Array; log2N: number }[] = [
  { passphrase: ascii('correct horse battery staple'), salt: new Uint8Array(16).fill(0xa5), log2N: 10 },
  { passphrase: ascii('päßwörd – 密码'), salt: Uint8Array.from({ length: 16 }, (_, i) => i), log2N: 4 },
  { passphrase: new Uint8Array(0), salt: new Uint8Array(0), log2N: 1 },
  { passphrase: new Uint8Array(200).fill(1), salt: new Uint8Array(64).fill(2), log2N: 11 },
]

afterEach(() => void vi.restoreAllMocks())

describe.each(PLATFORMS)('scrypt by $name', ({ hide }) => {
  it('gives the vector of RFC 7914, section 12, cut to 32 bytes', async () => {
    hide()
    const key = await scrypt(ascii('pleaseletmein'), ascii('SodiumChloride'), 14)
    expect(toHex(key)).toBe('7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2')
  })

  it.each(INPUTS)('gives what scryptSync gives with r = 8, p = 1 and N = 2^$log2N', async (input) => {
    hide()
    const { passphrase, salt, log2N } = input
    const expected = scryptSync(passphrase, salt, 32, { N: 2 ** log2N, r: 8, p: 1 })
    expect(toHex(await scrypt(passphrase, salt, log2N))).toBe(toHex(expected))
  })
})

describe('scrypt by Node', () => {
  it('is given the memory that it needs, where the default of 32 MiB is too little', async () => {
    const key = await scrypt(ascii('correct horse battery staple'), new Uint8Array(16), 15)
    expect(key.length).toBe(32)
  })
})
