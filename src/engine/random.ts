import type { FillRandom } from './engine.ts'

const POOL_BYTES = 4096

/** Bytes for nonces and ids, a few at a time. */
export interface RandomPool {
  /** Writes `length` bytes, at most 4,096, at `at`. */
  into(out: Uint8Array, at: number, length: number): void
  take(length: number): Uint8Array
}

/** Small draws from one large one; what was handed out is wiped, so that no later reader of memory finds it here. */
export function randomPool(fill: FillRandom): RandomPool {
  const pool = new Uint8Array(POOL_BYTES)
  let next = POOL_BYTES

  function into(out: Uint8Array, at: number, length: number): void {
    if (next + length > POOL_BYTES) {
      fill(pool)
      next = 0
    }
    for (let i = at; i < at + length; i++, next++) {
      out[i] = pool[next]!
      pool[next] = 0
    }
  }

  return {
    into,
    take(length) {
      const out = new Uint8Array(length)
      if (length > POOL_BYTES) fill(out)
      else into(out, 0, length)
      return out
    },
  }
}

/** Straight from the generator: for keys. */
export const unpooled =
  (fill: FillRandom) =>
  (length: number): Uint8Array => {
    const out = new Uint8Array(length)
    fill(out)
    return out
  }
