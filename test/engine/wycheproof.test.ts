import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { AeadName } from '../../src/engine/engine.ts'
import { ENGINES, fromHex, refusal, toHex } from './support.ts'

/**
 * Every vector of four Wycheproof files against both engines. Vectors outside of what an engine offers (other key
 * sizes, other nonces, keys to wrap that are not 32 bytes) are run too, and must be refused: none is skipped.
 */

interface Vector {
  readonly tcId: number
  readonly key: string
  readonly iv: string
  readonly aad: string
  readonly msg: string
  readonly ct: string
  readonly tag: string
  readonly result: 'valid' | 'invalid' | 'acceptable'
  readonly keySize: number
  readonly ivSize: number
  readonly tagSize: number
}

function load(file: string): readonly Vector[] {
  const url = new URL(`../vectors/wycheproof/${file}`, import.meta.url)
  const { testGroups, numberOfTests } = JSON.parse(readFileSync(url, 'utf8')) as {
    numberOfTests: number
    testGroups: { tests: Vector[] }[]
  }
  const vectors = testGroups.flatMap(({ tests, ...group }) => tests.map((test) => ({ ...group, ...test })))
  expect(vectors.length, 'vectors in the file').toBe(numberOfTests)
  return vectors
}

/** Runs `check` over vectors and returns the ids of those that fail it. */
const failing = (vectors: readonly Vector[], check: (vector: Vector) => boolean): number[] =>
  vectors.filter((vector) => !check(vector)).map((vector) => vector.tcId)

const isConfig = (fn: () => unknown, argument: string): boolean => {
  const { code, argument: named } = refusal(fn)
  return code === 'CONFIG' && named === argument
}

const AEAD_FILES: readonly {
  file: string
  aead: AeadName
  ivSize: number
  counts: { valid: number; invalid: number; otherNonces: number; otherKeys: number }
}[] = [
  {
    file: 'aes_gcm_test.json',
    aead: 'aes-256-gcm',
    ivSize: 96,
    counts: { valid: 39, invalid: 27, otherNonces: 39, otherKeys: 211 },
  },
  {
    file: 'xchacha20_poly1305_test.json',
    aead: 'xchacha20-poly1305',
    ivSize: 192,
    counts: { valid: 246, invalid: 60, otherNonces: 9, otherKeys: 0 },
  },
]

describe.each(ENGINES)('Wycheproof on the $name engine', ({ make }) => {
  const engine = make()

  describe.each(AEAD_FILES)('$file', ({ file, aead, ivSize, counts }) => {
    const vectors = load(file)
    const ours = vectors.filter(
      (vector) => vector.keySize === 256 && vector.ivSize === ivSize && vector.tagSize === 128,
    )
    const valid = ours.filter((vector) => vector.result === 'valid')
    const invalid = ours.filter((vector) => vector.result === 'invalid')
    const otherNonces = vectors.filter((vector) => vector.keySize === 256 && vector.ivSize !== ivSize)
    const otherKeys = vectors.filter((vector) => vector.keySize !== 256)
    const open = ({ key, iv, ct, tag, aad }: Vector): Uint8Array | null =>
      engine.aead(aead, fromHex(key)).open(fromHex(iv + ct + tag), fromHex(aad))

    it(`has all ${vectors.length} vectors in one of the groups below, and none is "acceptable"`, () => {
      expect(Object.values(counts).reduce((a, b) => a + b)).toBe(vectors.length)
      expect({
        valid: valid.length,
        invalid: invalid.length,
        otherNonces: otherNonces.length,
        otherKeys: otherKeys.length,
      }).toEqual(counts)
    })

    it(`opens the ${counts.valid} valid ones`, () => {
      expect(failing(valid, (vector) => toHex(open(vector) ?? new Uint8Array(1)) === vector.msg)).toEqual([])
    })

    it(`seals the ${counts.valid} valid ones to the same bytes when the nonce is drawn`, () => {
      const seals = ({ key, iv, aad: associated, msg, ct, tag }: Vector): boolean => {
        const drawsNonce = make((pool) => pool.set(fromHex(iv)))
        return toHex(drawsNonce.aead(aead, fromHex(key)).seal(fromHex(msg), fromHex(associated))) === iv + ct + tag
      }
      expect(failing(valid, seals)).toEqual([])
    })

    it(`answers null to the ${counts.invalid} invalid ones`, () => {
      expect(failing(invalid, (vector) => open(vector) === null)).toEqual([])
    })

    it(`answers null to the ${counts.otherNonces} ones with nonces of another length`, () => {
      expect(failing(otherNonces, (vector) => open(vector) === null)).toEqual([])
    })

    it(`refuses the keys of the ${counts.otherKeys} ones with another key length`, () => {
      expect(failing(otherKeys, (vector) => isConfig(() => open(vector), 'key'))).toEqual([])
    })
  })

  describe('aes_wrap_test.json', () => {
    const vectors = load('aes_wrap_test.json')
    const kek256 = vectors.filter((vector) => vector.keySize === 256)
    // A key of 256 bits: 32 bytes, 40 when wrapped. One "acceptable" vector (ShortKey: wrapping 8 bytes) is refused,
    // like every other length.
    const key256 = kek256.filter((vector) => vector.ct.length === 80)
    const valid = key256.filter((vector) => vector.result === 'valid')
    const invalid = key256.filter((vector) => vector.result === 'invalid')
    const otherKeks = vectors.filter((vector) => vector.keySize !== 256)
    const otherCiphertexts = kek256.filter((vector) => vector.ct.length !== 80)
    const otherKeys = kek256.filter((vector) => vector.msg.length !== 64)
    const unwrap = ({ key, ct }: Vector) => engine.keyWrap(fromHex(key)).unwrap(fromHex(ct))
    const wrap = ({ key, msg }: Vector) => engine.keyWrap(fromHex(key)).wrap(fromHex(msg))

    it('has all 165 vectors in one of the groups below', () => {
      expect({
        valid: valid.length,
        invalid: invalid.length,
        otherKeks: otherKeks.length,
        otherCiphertexts: otherCiphertexts.length,
      }).toEqual({ valid: 4, invalid: 12, otherKeks: 97, otherCiphertexts: 52 })
      expect(4 + 12 + 97 + 52).toBe(vectors.length)
      expect(otherKeys.length).toBe(52)
    })

    it('wraps and unwraps the valid ones', () => {
      expect(failing(valid, (vector) => toHex(wrap(vector)) === vector.ct)).toEqual([])
      expect(failing(valid, (vector) => toHex(unwrap(vector) ?? new Uint8Array(1)) === vector.msg)).toEqual([])
    })

    it('answers null to the invalid ones', () => {
      expect(failing(invalid, (vector) => unwrap(vector) === null)).toEqual([])
    })

    it('does all that for many at once too: a broken one among the good ones', () => {
      const amongGood = ({ key, ct }: Vector) => {
        const kek = engine.keyWrap(fromHex(key))
        const good = toHex(kek.wrap(new Uint8Array(32).fill(7)))
        return kek.unwrapMany(fromHex(good + ct + good))
      }
      const opens = (vector: Vector): boolean => {
        const { keys, intact } = amongGood(vector)
        return toHex(keys) === '07'.repeat(32) + vector.msg + '07'.repeat(32) && toHex(intact) === '010101'
      }
      const wraps = (vector: Vector): boolean =>
        toHex(engine.keyWrap(fromHex(vector.key)).wrapMany(fromHex(vector.msg + vector.msg))) === vector.ct + vector.ct
      const refuses = (vector: Vector): boolean => {
        const { keys, intact } = amongGood(vector)
        return toHex(keys) === '07'.repeat(32) + '00'.repeat(32) + '07'.repeat(32) && toHex(intact) === '010001'
      }
      expect(failing(valid, opens)).toEqual([])
      expect(failing(valid, wraps)).toEqual([])
      expect(failing(invalid, refuses)).toEqual([])
      expect(failing(otherKeks, (vector) => isConfig(() => amongGood(vector), 'key'))).toEqual([])
    })

    it('refuses key-encryption keys of another length', () => {
      expect(failing(otherKeks, (vector) => isConfig(() => unwrap(vector), 'key'))).toEqual([])
    })

    it('never unwraps a wrapped key of another length, valid for others or not', () => {
      const refuses = (vector: Vector): boolean => {
        try {
          return unwrap(vector) === null
        } catch {
          return isConfig(() => unwrap(vector), 'wrapped')
        }
      }
      expect(failing(otherCiphertexts, refuses)).toEqual([])
    })

    it('refuses to wrap a key of another length, also where Wycheproof calls it acceptable', () => {
      expect(failing(otherKeys, (vector) => isConfig(() => wrap(vector), 'key'))).toEqual([])
    })
  })

  describe('hmac_sha512_test.json', () => {
    const vectors = load('hmac_sha512_test.json')
    const agrees = ({ key, msg, tag, tagSize }: Vector): boolean =>
      engine.equal(engine.hmacSha512(fromHex(key), [fromHex(msg)]).subarray(0, tagSize / 8), fromHex(tag))
    const valid = vectors.filter((vector) => vector.result === 'valid')
    const invalid = vectors.filter((vector) => vector.result === 'invalid')

    it('has 174 vectors, half of them truncated, with keys of 256, 512 and 520 bits', () => {
      expect([valid.length, invalid.length]).toEqual([66, 108])
      expect(vectors.filter((vector) => vector.tagSize === 256).length).toBe(87)
      expect(new Set(vectors.map((vector) => vector.keySize))).toEqual(new Set([256, 512, 520]))
    })

    it('makes the 66 valid tags, whole or truncated', () => {
      expect(failing(valid, agrees)).toEqual([])
    })

    it('tells the 108 modified tags', () => {
      expect(failing(invalid, (vector) => !agrees(vector))).toEqual([])
    })
  })
})
