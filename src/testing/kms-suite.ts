import { concat, copyBytes, toBase64url, toHex } from '../bytes.ts'
import { defaultEngine } from '../engine/index.ts'
import { WaxsealError } from '../errors.ts'
import { type KmsContext, type KmsDriver, MAX_WRAPPED_BYTES } from '../kms/kms.ts'
import { checkPatience, request } from '../kms/portable.ts'
import { type RootKeys, unwrapKey, wrapKey } from '../kms/wraps.ts'
import type { SuiteFramework } from './framework.ts'

/** A driver to be tested. Every factory may be called many times. */
export interface KmsSuiteSubject {
  readonly name: string
  /** A driver, always of the same root key. */
  make(): KmsDriver | Promise<KmsDriver>
  /** A driver of the same kind with another root key. */
  other?(): KmsDriver | Promise<KmsDriver>
  /** A driver whose service takes requests and never answers: it has to give up when it is aborted. */
  hanging?(): KmsDriver | Promise<KmsDriver>
  /** Whether two wraps of one key differ; true by default, false for AES key wrap. */
  readonly randomises?: boolean
  /** Texts that must not show when a driver or an error is printed: a PIN, a token, the root key. */
  readonly secrets?: readonly string[]
}

const KEY = Uint8Array.from({ length: 32 }, (_, i) => (i * 89 + 173) & 255)
const CONTEXT: KmsContext = Object.freeze({ 'waxseal:keyring': 'AAAAAAAAAAAAAAAAAAAAAA', 'waxseal:key': 'integrity' })
const OTHERS: Record<string, KmsContext> = {
  'of another keyring': { ...CONTEXT, 'waxseal:keyring': 'BBBBBBBBBBBBBBBBBBBBBB' },
  'of another key': { ...CONTEXT, 'waxseal:key': 'BBBBBBBBBBBBBBBBBBBB' },
  'with a pair left out': { 'waxseal:key': 'integrity' },
  'with a pair added': { ...CONTEXT, 'waxseal:more': 'x' },
  'with the values swapped': { 'waxseal:keyring': 'integrity', 'waxseal:key': 'AAAAAAAAAAAAAAAAAAAAAA' },
}
/** How a blob may be refused. What is no blob at all may also look like that of a key which is not there. */
const REFUSED = ['DECRYPTION_FAILED', 'MALFORMED']
const REFUSED_OR_DENIED = [...REFUSED, 'KMS_DENIED']
const SETTLES_WITHIN_MS = 3_000

/**
 * What every KMS driver has to do, as tests: round trips, binding to the context, refusal of changed blobs and of those
 * of another root key, typed errors, concurrency, aborts, nothing secret in what is printed. About 100 requests to the
 * service; none needs a fault of it but those of `hanging`.
 *
 * @example
 * ```ts
 * // compile only
 * import { inspect } from 'node:util'
 * import { kmsSuite, memoryKms } from 'waxseal/testing'
 * import { describe, expect, it } from 'vitest'
 *
 * const kms = memoryKms()
 * kmsSuite({ describe, it, expect, inspect }, { name: 'memoryKms', make: () => kms, other: () => memoryKms() })
 * ```
 */
export function kmsSuite({ describe, it, expect, inspect }: SuiteFramework, subject: KmsSuiteSubject): void {
  const { name, make, other, hanging, randomises = true, secrets = [] } = subject
  const patience = { ...checkPatience(), timeoutMs: 60_000 }
  const roots = (...drivers: readonly KmsDriver[]): RootKeys => ({ drivers, patience, engine: defaultEngine() })
  const isKey = (key: Uint8Array): boolean => toHex(key) === toHex(KEY)
  /** A copy each time: a driver that wipes what it is given must not spoil the other tests. */
  const wrap = (driver: KmsDriver): Promise<Uint8Array> => driver.wrap(copyBytes(KEY), CONTEXT)
  const unwrapOnce = (driver: KmsDriver, blob: Uint8Array): Promise<Uint8Array> =>
    request(driver, 'unwrap', blob, CONTEXT, patience)

  /** `refused`, or what happened instead. */
  async function verdict(work: Promise<unknown>, codes = REFUSED): Promise<string> {
    const error = await work.then(
      () => undefined,
      (thrown: unknown) => ({ thrown }),
    )
    if (!error) return 'accepted'
    if (!WaxsealError.is(error.thrown)) return 'an error that is not ours'
    if (showing(error.thrown)) return 'an error that shows a secret'
    return codes.includes(error.thrown.code) ? 'refused' : error.thrown.code
  }

  /** Whether a print of `value` shows the key or a secret. */
  function showing(value: unknown): boolean {
    const printed = [JSON.stringify(value), String(value), inspect?.(value), (value as Error)?.stack].join('\n')
    const key = [toHex(KEY), toBase64url(KEY), KEY.join(), KEY.join(', '), toHex(KEY).match(/../g)!.join(' ')]
    return [...key.map((text) => text.slice(0, 20)), ...secrets].some((text) => printed.includes(text))
  }

  describe(`${name} as a KMS driver`, () => {
    it('has a URI that is the same every time, is short, and tells no secret', async () => {
      const [first, second] = [await make(), await make()]
      expect(second.keyUri).toEqual(first.keyUri)
      expect(/^[a-z][a-z0-9+.-]*:\S+$/.test(first.keyUri)).toEqual(true)
      expect(first.keyUri.length <= 2048).toEqual(true)
      expect(showing(first.keyUri)).toEqual(false)
    })

    it('unwraps what it wrapped, also with a driver made anew: 32 bytes', async () => {
      const blob = await wrap(await make())
      expect(blob.length > 0 && blob.length <= MAX_WRAPPED_BYTES).toEqual(true)
      expect(toHex(blob).includes(toHex(KEY))).toEqual(false)
      expect(toHex(await (await make()).unwrap(blob, CONTEXT))).toEqual(toHex(KEY))
    })

    it('does so whatever the order of the pairs', async () => {
      const driver = await make()
      const reversed = Object.fromEntries(Object.entries(CONTEXT).reverse())
      expect(isKey(await driver.unwrap(await wrap(driver), reversed))).toEqual(true)
    })

    it('wraps keys of any bytes, and those that are a part of a larger buffer', async () => {
      const driver = await make()
      for (const key of [new Uint8Array(32), new Uint8Array(32).fill(255)]) {
        expect(toHex(await driver.unwrap(await driver.wrap(key, CONTEXT), CONTEXT))).toEqual(toHex(key))
      }
      const blob = await driver.wrap(concat(new Uint8Array(7).fill(7), KEY, KEY).subarray(7, 39), CONTEXT)
      const part = concat(new Uint8Array(5), blob, blob).subarray(5, 5 + blob.length)
      expect(toHex(await driver.unwrap(part, CONTEXT))).toEqual(toHex(KEY))
    })

    it('changes nothing that it is given, and keeps nothing of what it hands out', async () => {
      const driver = await make()
      const key = copyBytes(KEY)
      const blob = await driver.wrap(key, CONTEXT)
      expect(isKey(key)).toEqual(true)
      const kept = copyBytes(blob)
      const answer = await driver.unwrap(blob, CONTEXT)
      expect(toHex(blob)).toEqual(toHex(kept))
      answer.fill(0)
      key.fill(0)
      expect(isKey(await driver.unwrap(blob, CONTEXT))).toEqual(true)
    })

    if (randomises) {
      it('gives another blob every time', async () => {
        const driver = await make()
        const [first, second] = [await wrap(driver), await wrap(driver)]
        expect(toHex(first) === toHex(second)).toEqual(false)
      })
    }

    for (const [which, context] of Object.entries(OTHERS)) {
      it(`refuses a context ${which}`, async () => {
        const driver = await make()
        const wraps = await wrapKey(roots(driver), copyBytes(KEY), CONTEXT)
        expect(isKey(await unwrapKey(roots(driver), wraps, CONTEXT, isKey))).toEqual(true)
        expect(await verdict(unwrapKey(roots(driver), wraps, context, isKey))).toEqual('refused')
        if (driver.ignoresContext) return
        expect(await verdict(request(driver, 'unwrap', await wrap(driver), context, patience))).toEqual('refused')
      })
    }

    it('refuses a blob with a bit flipped', async () => {
      const driver = await make()
      const blob = await wrap(driver)
      const last = blob.length - 1
      for (const at of [...new Set([0, 1, 2, 3, 4, 5, 6].map((sixth) => Math.round((last * sixth) / 6)))]) {
        const flipped = copyBytes(blob)
        flipped[at]! ^= 0x10
        const got = await verdict(unwrapOnce(driver, flipped), at === last ? REFUSED : REFUSED_OR_DENIED)
        expect({ at, got }).toEqual({ at, got: 'refused' })
      }
    })

    it('refuses a blob that is cut, longer, empty, or no blob', async () => {
      const driver = await make()
      const blob = await wrap(driver)
      const garbage: Record<string, Uint8Array> = {
        'one byte short': blob.slice(0, -1),
        'cut by half': blob.slice(0, blob.length >> 1),
        'without its first byte': blob.slice(1),
        'one byte longer': concat(blob, Uint8Array.of(0)),
        twice: concat(blob, blob),
        empty: new Uint8Array(0),
        'a byte': Uint8Array.of(1),
        'zeros of its length': new Uint8Array(blob.length),
        '16 KiB': new Uint8Array(MAX_WRAPPED_BYTES).fill(7),
      }
      for (const [what, bytes] of Object.entries(garbage)) {
        const got = await verdict(unwrapOnce(driver, bytes), REFUSED_OR_DENIED)
        expect({ what, got }).toEqual({ what, got: 'refused' })
      }
    })

    if (other) {
      it('refuses what another root key wrapped, and has another URI', async () => {
        const [mine, theirs] = [await make(), await other()]
        const blob = await wrap(theirs)
        expect(isKey(await theirs.unwrap(blob, CONTEXT))).toEqual(true)
        expect(await verdict(unwrapOnce(mine, blob), REFUSED_OR_DENIED)).toEqual('refused')
        expect(mine.keyUri === theirs.keyUri).toEqual(false)
      })
    }

    it('serves 16 callers at once', async () => {
      const driver = await make()
      const keys = Array.from({ length: 16 }, (_, i) => KEY.map((byte) => byte ^ i))
      const back = await Promise.all(keys.map(async (key) => driver.unwrap(await driver.wrap(key, CONTEXT), CONTEXT)))
      expect(back.map(toHex)).toEqual(keys.map(toHex))
    })

    it('settles when it is called with an aborted signal, and serves on', async () => {
      const driver = await make()
      const blob = await wrap(driver)
      const { signal } = aborted()
      expect(await settles(driver.wrap(copyBytes(KEY), CONTEXT, signal))).toEqual(true)
      expect(await settles(driver.unwrap(blob, CONTEXT, signal))).toEqual(true)
      expect(isKey(await driver.unwrap(blob, CONTEXT, new AbortController().signal))).toEqual(true)
    })

    if (hanging) {
      it('gives up when it is aborted, and what it throws is KMS_UNAVAILABLE', async () => {
        // A blob of its kind: what is none may be refused before anything is asked.
        const inputs = { wrap: KEY, unwrap: await wrap(await make()) }
        const driver = await hanging()
        for (const operation of ['wrap', 'unwrap'] as const) {
          const controller = new AbortController()
          const call = driver[operation](copyBytes(inputs[operation]), CONTEXT, controller.signal)
          call.catch(() => undefined)
          setTimeout(() => controller.abort(), 20)
          expect(await settles(call)).toEqual(true)
          const failed = request(driver, operation, inputs[operation], CONTEXT, { ...patience, timeoutMs: 50 })
          expect(await verdict(failed, ['KMS_UNAVAILABLE'])).toEqual('refused')
        }
      })
    }

    it('shows no key and no secret when it is printed', async () => {
      const driver = await make()
      await driver.unwrap(await wrap(driver), CONTEXT)
      expect(showing(driver)).toEqual(false)
    })
  })
}

function aborted(): AbortController {
  const controller = new AbortController()
  controller.abort()
  return controller
}

/** False when nothing came of it in time. */
function settles(work: Promise<unknown>): Promise<boolean> {
  return new Promise((done) => {
    const timer = setTimeout(() => done(false), SETTLES_WITHIN_MS)
    const settled = (): void => {
      clearTimeout(timer)
      done(true)
    }
    work.then(settled, settled)
  })
}
