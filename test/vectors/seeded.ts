import { createHash } from 'node:crypto'
import type { Engine, FillRandom } from '../../src/engine/engine.ts'
import { LABELS } from '../../src/engine/kdf.ts'

/** Bytes that look random and are the same at every run: SHA-256 of the seed and a counter. For vectors only. */
export function seededRandom(seed: string): FillRandom {
  let counter = 0
  let pool = Buffer.alloc(0)
  return (bytes) => {
    while (pool.length < bytes.length) {
      pool = Buffer.concat([pool, createHash('sha256').update(`${seed} ${counter++}`).digest()])
    }
    bytes.set(pool.subarray(0, bytes.length))
    pool = pool.subarray(bytes.length)
  }
}

/** An engine that remembers the last data key and the last 64 bytes derived from it. */
export function recordingEngine(engine: Engine) {
  let dataKey = new Uint8Array(0)
  let derived = new Uint8Array(0)
  return {
    ...engine,
    fillKey(out: Uint8Array) {
      engine.fillKey(out)
      dataKey = Uint8Array.from(out)
    },
    hmacSha512(key: Uint8Array, parts: readonly Uint8Array[]) {
      const mac = engine.hmacSha512(key, parts)
      if (parts[0] === LABELS.record) derived = Uint8Array.from(mac)
      return mac
    },
    recorded: () => ({ dataKey, derived }),
  }
}
