import { afterEach, expect, it, vi } from 'vitest'
import { unwrapMany, wrapMany } from '../../src/engine/key-wrap.ts'

afterEach(() => vi.unstubAllGlobals())

it('wipes what it has unwrapped when the AES of the platform fails in a later part', () => {
  const through = (blocks: Uint8Array): Uint8Array => blocks.map((byte) => byte ^ 0x55)
  const wrapped = wrapMany(through, new Uint8Array(32 * 300).fill(7))
  const made: Uint8Array[] = []
  const Bytes = Uint8Array
  vi.stubGlobal(
    'Uint8Array',
    new Proxy(Bytes, {
      construct(target, args) {
        const bytes = new target(...(args as [number]))
        made.push(bytes)
        return bytes
      },
    }),
  )
  let calls = 0
  let before: boolean | undefined
  const failing = (blocks: Uint8Array): Uint8Array => {
    if (++calls <= 24) return through(blocks)
    before = made.some((bytes) => bytes.length === 32 * 300 && bytes.subarray(0, 32 * 256).every((byte) => byte === 7))
    throw new Error('no more')
  }
  expect(() => unwrapMany(failing, wrapped)).toThrow('no more')
  expect(before).toBe(true)
  const keys = made.find((bytes) => bytes.length === 32 * 300)!
  expect(keys.every((byte) => byte === 0)).toBe(true)
})
