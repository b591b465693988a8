import * as nodeCrypto from 'node:crypto'
import type { Aead, AeadName, Engine, FillRandom } from '../../src/engine/engine.ts'
import { nobleEngine } from '../../src/engine/noble.ts'
import { nodeEngine } from '../../src/engine/node.ts'
import { WaxsealError } from '../../src/errors.ts'

/** Every engine runs every test of this folder. */
export const ENGINES: readonly { name: string; make: (fill?: FillRandom) => Engine }[] = [
  { name: 'node', make: (fill) => nodeEngine(nodeCrypto, fill) },
  { name: 'noble', make: (fill) => nobleEngine(fill) },
]

export const AEADS: readonly AeadName[] = ['aes-256-gcm', 'xchacha20-poly1305']

/** Both engines and both ciphers, for `describe.each`. */
export const SEALERS: readonly {
  engine: string
  aead: AeadName
  make: (key: Uint8Array, fill?: FillRandom) => Aead
}[] = ENGINES.flatMap(({ name, make }) =>
  AEADS.map((aead) => ({ engine: name, aead, make: (key, fill) => make(fill).aead(aead, key) })),
)

/** An endless, reproducible stream of bytes: xorshift32, good enough to be different everywhere. */
export function seeded(seed: number): FillRandom {
  let state = seed | 0 || 1
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      bytes[i] = state >>> 11
    }
  }
}

/** `length` reproducible bytes. */
export function bytesOf(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  seeded(seed)(bytes)
  return bytes
}

/** The same bytes in the middle of a larger buffer, at an odd address. */
export function unaligned(bytes: Uint8Array): Uint8Array {
  const larger = new Uint8Array(bytes.length + 8)
  larger.set(bytes, 3)
  return larger.subarray(3, 3 + bytes.length)
}

export const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'))
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** The WaxsealError that `fn` throws; anything else, and nothing, fails the test. */
export function refusal(fn: () => unknown): WaxsealError {
  try {
    fn()
  } catch (error) {
    if (error instanceof WaxsealError) return error
    throw new Error('expected a WaxsealError', { cause: error })
  }
  throw new Error('expected a WaxsealError, but nothing was thrown')
}
