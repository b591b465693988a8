import type { FillRandom } from './engine.ts'

const POOL_BYTES = 4096

/** Small draws from one large one; what was handed out is wiped, so that memory holds no used nonce source twice. */
export function randomPool(fill: FillRandom): (length: number) => Uint8Array {
  const pool = new Uint8Array(POOL_BYTES)
  let at = POOL_BYTES
  return (length) => {
    const out = new Uint8Array(length)
    if (length > POOL_BYTES) {
      fill(out)
      return out
    }
    if (at + length > POOL_BYTES) {
      fill(pool)
      at = 0
    }
    for (let i = 0; i < length; i++, at++) {
      out[i] = pool[at]!
      pool[at] = 0
    }
    return out
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
