import { wipe } from '../bytes.ts'
import { countOf, type Unwrapped } from './engine.ts'

/**
 * AES key wrap (RFC 3394, section 2.2) of many 32-byte keys at once. Its 24 steps follow from one another, but those of
 * different keys do not: each step is one call of the platform's AES, over a block of every key. Nothing branches on
 * a key, or on whether one is intact.
 */

/** The platform's AES: every block of 16 bytes by itself, into new bytes. */
export type Blocks = (blocks: Uint8Array) => Uint8Array

const KEY = 32
const WRAPPED = 40
const BLOCK = 16
/** n: semiblocks of 64 bits in a key. */
const SEMIBLOCKS = 4
/** s = 6n. */
const STEPS = 6 * SEMIBLOCKS
/** Half of the default initial value (section 2.2.3.1), the same in any byte order. */
const IV = 0xa6a6a6a6 | 0

/** Keys that go through AES together: few enough for a processor's cache. */
const TOGETHER = 256

/**
 * Reused, because calls are synchronous, and wiped after each. As words of 32 bits in the machine's own order: they are
 * only moved and compared.
 */
const blocks = new Uint32Array((TOGETHER * BLOCK) / 4)
const registers = new Uint32Array((TOGETHER * KEY) / 4)
const outside = new Uint32Array((TOGETHER * WRAPPED) / 4)
const blockBytes = new Uint8Array(blocks.buffer)
const registerBytes = new Uint8Array(registers.buffer)
const outsideBytes = new Uint8Array(outside.buffer)

/** Section 2.2.1. `keys` of 32 bytes, end to end → as many of 40. */
export function wrapMany(encrypt: Blocks, keys: Uint8Array): Uint8Array {
  const out = new Uint8Array(countOf('keys', keys, KEY) * WRAPPED)
  eachPart(keys, KEY, (part, n, first) => {
    registerBytes.set(part)
    blocks.fill(IV)
    for (let t = 1; t <= STEPS; t++) step(encrypt, n, t, 0, t)
    for (let k = 0; k < n; k++) {
      outside[10 * k] = blocks[4 * k]!
      outside[10 * k + 1] = blocks[4 * k + 1]!
      for (let i = 0; i < 8; i++) outside[10 * k + 2 + i] = registers[8 * k + i]!
    }
    out.set(outsideBytes.subarray(0, n * WRAPPED), first * WRAPPED)
  })
  return out
}

/** Section 2.2.2. `wrapped` of 40 bytes, end to end → as many of 32; zeros where the check of section 2.2.3 fails. */
export function unwrapMany(decrypt: Blocks, wrapped: Uint8Array): Unwrapped {
  const count = countOf('wrapped', wrapped, WRAPPED)
  const keys = new Uint8Array(count * KEY)
  const intact = new Uint8Array(count)
  try {
    eachPart(wrapped, WRAPPED, (part, n, first) => {
      outsideBytes.set(part)
      for (let k = 0; k < n; k++) {
        blocks[4 * k] = outside[10 * k]!
        blocks[4 * k + 1] = outside[10 * k + 1]!
        for (let i = 0; i < 8; i++) registers[8 * k + i] = outside[10 * k + 2 + i]!
      }
      for (let t = STEPS; t >= 1; t--) step(decrypt, n, t, t, 0)
      for (let k = 0; k < n; k++) {
        const difference = (blocks[4 * k]! ^ IV) | (blocks[4 * k + 1]! ^ IV)
        const same = 1 ^ ((difference | -difference) >>> 31)
        intact[first + k] = same
        for (let i = 0; i < 8; i++) registers[8 * k + i]! &= -same
      }
      keys.set(registerBytes.subarray(0, n * KEY), first * KEY)
    })
  } catch (error) {
    wipe(keys) // of the parts before
    throw error
  }
  return { keys, intact }
}

/**
 * Step t of n keys: A ‖ R[i] through AES and back, with t added to A before (unwrapping) or after (wrapping). t is at
 * most 24, so that it only reaches the last byte of A.
 */
function step(aes: Blocks, n: number, t: number, before: number, after: number): void {
  const i = 2 * ((t - 1) % SEMIBLOCKS)
  const [a, bytes, r] = [blocks, blockBytes, registers] // a bundler's constants are variables: a seventh of the time
  for (let block = 0, key = i; block < 4 * n; block += 4, key += 8) {
    a[block + 2] = r[key]!
    a[block + 3] = r[key + 1]!
    bytes[4 * block + 7]! ^= before
  }
  const through = aes(bytes.subarray(0, n * BLOCK))
  bytes.set(through)
  wipe(through)
  for (let block = 0, key = i; block < 4 * n; block += 4, key += 8) {
    bytes[4 * block + 7]! ^= after
    r[key] = a[block + 2]!
    r[key + 1] = a[block + 3]!
  }
}

/** Lends `work` the items in parts of at most {@link TOGETHER}, and forgets what was worked on, whatever happens. */
function eachPart(items: Uint8Array, size: number, work: (part: Uint8Array, n: number, first: number) => void): void {
  try {
    for (let first = 0; first * size < items.length; first += TOGETHER) {
      const part = items.subarray(first * size, (first + TOGETHER) * size)
      work(part, part.length / size, first)
    }
  } finally {
    blocks.fill(0)
    registers.fill(0)
    outside.fill(0)
  }
}
