import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { WaxsealError } from 'waxseal'
import { checkPatience, type KmsPatience } from '../../src/kms/portable.ts'
import { unwrapKey, wrapKey } from '../../src/kms/wraps.ts'
import { refusal, setup } from '../keyring/support.ts'
import { CONTEXT, deferred, type FakeKms, fakeKms, KEY, rootsOf, STORED, URI } from './requests.ts'

/** How long a keyring waits for its KMS. Time is vitest's: nothing here sleeps. */
beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const unwrap = (kms: FakeKms, patience: KmsPatience = {}) =>
  unwrapKey(rootsOf([kms], patience), STORED, CONTEXT, () => true)

/** What a promise came to, without waiting for it. */
function watched<T>(promise: Promise<T>) {
  const outcome: { value?: T; error?: unknown } = {}
  promise.then(
    (value) => void Object.assign(outcome, { value }),
    (error) => void Object.assign(outcome, { error }),
  )
  return outcome
}

describe('a request without an answer', () => {
  const silent = () => fakeKms(() => new Promise(() => undefined))

  it.each([
    ['wrap', (kms: FakeKms, patience: KmsPatience) => wrapKey(rootsOf([kms], patience), KEY, CONTEXT)],
    ['unwrap', unwrap],
  ] as const)(
    'is KMS_UNAVAILABLE after timeoutMs and not 1 ms before, and aborts the signal: %s',
    async (what, call) => {
      const kms = silent()
      const outcome = watched(call(kms, { timeoutMs: 500, attempts: 1 }) as Promise<unknown>)
      await vi.advanceTimersByTimeAsync(499)
      expect([outcome, kms.asked[0]!.signal!.aborted]).toEqual([{}, false])
      await vi.advanceTimersByTimeAsync(1)
      expect(outcome.error).toBeInstanceOf(WaxsealError)
      expect(outcome.error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect((outcome.error as Error).message).toBe(`kms.${what}: no answer from ${URI} in 500 ms`)
      expect(kms.asked[0]!.signal!.aborted).toBe(true)
    },
  )

  it('takes 10 s by default, and each of the 4 tries has a signal of its own', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0)
    const kms = silent()
    const outcome = watched(unwrap(kms))
    await vi.advanceTimersByTimeAsync(39_999)
    expect([kms.asked.length, outcome]).toEqual([4, {}])
    expect(new Set(kms.asked.map(({ signal }) => signal)).size).toBe(4)
    expect(kms.asked.map(({ signal }) => signal!.aborted)).toEqual([true, true, true, false])
    await vi.advanceTimersByTimeAsync(10) // a fake timer of 0 ms takes 1 within a tick
    expect(outcome.error).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    expect(kms.asked).toHaveLength(4)
  })

  it('whose client fails because of the abort is one failure, and nothing is left unhandled', async () => {
    const unhandled = vi.fn()
    process.on('unhandledRejection', unhandled)
    const kms = fakeKms(
      ({ signal }) =>
        new Promise((_, reject) => signal!.addEventListener('abort', () => reject(new Error('AbortError')))),
    )
    const outcome = watched(unwrap(kms, { timeoutMs: 10, attempts: 1 }))
    await vi.advanceTimersByTimeAsync(10)
    expect((outcome.error as Error).message).toContain('in 10 ms')
    vi.useRealTimers()
    await new Promise((done) => setImmediate(done))
    expect(unhandled).not.toHaveBeenCalled()
    process.off('unhandledRejection', unhandled)
  })

  it('leaves no timer behind, and neither does one that was answered', async () => {
    const kms = fakeKms(() => Uint8Array.from(KEY))
    await unwrap(kms)
    expect([vi.getTimerCount(), kms.asked[0]!.signal!.aborted]).toEqual([0, false])
    const outcome = watched(unwrap(silent(), { timeoutMs: 10, attempts: 1 }))
    await vi.advanceTimersByTimeAsync(10)
    expect([vi.getTimerCount(), outcome.error]).toEqual([0, expect.any(WaxsealError)])
  })
})

describe('an answer that is late', () => {
  it('is wiped, and the key that the next try brings is not', async () => {
    const late = deferred<Uint8Array>()
    const first = Uint8Array.from(KEY)
    const second = Uint8Array.from(KEY)
    const kms = fakeKms((_, count) => (count === 1 ? late.promise : second))
    const outcome = watched(unwrap(kms, { timeoutMs: 10 }))
    await vi.advanceTimersByTimeAsync(11)
    expect(outcome.value).toBe(second)
    late.resolve(first)
    await vi.advanceTimersByTimeAsync(0)
    expect(first).toEqual(new Uint8Array(32))
    expect(second).toEqual(KEY)
  })

  it('that is no bytes harms nobody', async () => {
    const late = deferred<unknown>()
    const outcome = watched(
      unwrap(
        fakeKms(() => late.promise),
        { timeoutMs: 10, attempts: 1 },
      ),
    )
    await vi.advanceTimersByTimeAsync(10)
    late.resolve('late')
    await vi.advanceTimersByTimeAsync(0)
    expect(outcome.error).toMatchObject({ code: 'KMS_UNAVAILABLE' })
  })
})

describe('a request that failed', () => {
  const unavailable = () => fakeKms(() => Promise.reject(new Error('socket hang up')))

  it.each([1, 2, 4, 20])('as KMS_UNAVAILABLE is made %i times, if that is `attempts`', async (attempts) => {
    for (const operation of ['wrap', 'unwrap'] as const) {
      const kms = unavailable()
      const roots = rootsOf([kms], { attempts })
      const work = operation === 'wrap' ? wrapKey(roots, KEY, CONTEXT) : unwrapKey(roots, STORED, CONTEXT, () => true)
      const outcome = watched<unknown>(work)
      await vi.runAllTimersAsync()
      expect(outcome.error).toMatchObject({ code: 'KMS_UNAVAILABLE' })
      expect(kms.asked.map((asked) => asked.operation)).toEqual(Array(attempts).fill(operation))
    }
  })

  it('is tried again until it is answered, and then no more', async () => {
    const kms = fakeKms((_, count) => {
      if (count < 3) throw new Error('throttled')
      return Uint8Array.from(KEY)
    })
    const outcome = watched(unwrap(kms))
    await vi.runAllTimersAsync()
    expect([outcome.value, kms.asked.length]).toEqual([KEY, 3])
  })

  it.each([
    ['KMS_DENIED', 'denied'],
    ['DECRYPTION_FAILED', 'rejected'],
  ] as const)('as %s is made once', async (code, failure) => {
    for (const operation of ['wrap', 'unwrap'] as const) {
      const kms = fakeKms(() => Promise.reject(new Error('no')), { failureOf: () => failure })
      const roots = rootsOf([kms])
      const work = operation === 'wrap' ? wrapKey(roots, KEY, CONTEXT) : unwrapKey(roots, STORED, CONTEXT, () => true)
      const outcome = watched<unknown>(work)
      await vi.runAllTimersAsync()
      expect([outcome.error, kms.asked.length]).toEqual([expect.objectContaining({ code }), 1])
    }
  })

  it.each([
    ['no bytes', () => new Uint8Array(0)],
    ['31 bytes', () => new Uint8Array(31)],
  ])('to give a key, with %s, is not tried again', async (_, answer) => {
    const kms = fakeKms(answer)
    const outcome = watched(unwrap(kms))
    await vi.runAllTimersAsync()
    expect([outcome.error, kms.asked.length]).toEqual([expect.objectContaining({ code: 'DECRYPTION_FAILED' }), 1])
  })
})

describe('the pause before a retry', () => {
  /** When the tries were made, in ms since the first. */
  async function tries(random: number, patience: KmsPatience) {
    vi.spyOn(Math, 'random').mockReturnValue(random)
    const began = Date.now()
    const at: number[] = []
    const kms = fakeKms(() => {
      at.push(Date.now() - began)
      throw new Error('away')
    })
    watched(unwrap(kms, patience))
    await vi.runAllTimersAsync()
    return at
  }

  it('doubles its upper bound from backoffMs on: 200, 400, 800', async () => {
    expect(await tries(0.5, { attempts: 4, backoffMs: 200 })).toEqual([0, 100, 300, 700])
  })

  it('is 200 ms · 2ⁿ⁻¹ at most by default', async () => {
    const { backoffMs } = checkPatience()
    expect(await tries(0.25, { attempts: 3, backoffMs })).toEqual([0, 50, 150])
  })

  it('may be nothing at all: full jitter', async () => {
    expect(await tries(0, { attempts: 4, backoffMs: 200 })).toEqual([0, 0, 0, 0])
  })

  it('is never above 10 s, however many tries there were', async () => {
    const at = await tries(0.999_999, { attempts: 20, backoffMs: 60_000 })
    const pauses = at.slice(1).map((time, i) => time - at[i]!)
    expect(pauses).toHaveLength(19)
    expect(Math.max(...pauses)).toBeLessThanOrEqual(10_000)
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(9_999)
  })

  it('is drawn anew every time', async () => {
    const random = vi.spyOn(Math, 'random')
    watched(
      unwrap(
        fakeKms(() => Promise.reject(new Error('away'))),
        { attempts: 4, backoffMs: 10 },
      ),
    )
    await vi.runAllTimersAsync()
    expect(random).toHaveBeenCalledTimes(3)
  })
})

describe('the bounds of patience', () => {
  it('are these by default', () => {
    expect(checkPatience()).toEqual({ timeoutMs: 10_000, attempts: 4, backoffMs: 200 })
  })

  it.each<KmsPatience>([
    { timeoutMs: 1, attempts: 1, backoffMs: 0 },
    { timeoutMs: 600_000, attempts: 20, backoffMs: 60_000 },
  ])('include %j', (patience) => {
    expect(checkPatience(patience)).toEqual(patience)
  })

  it.each<[keyof KmsPatience, unknown]>([
    ['timeoutMs', 0],
    ['timeoutMs', 600_001],
    ['timeoutMs', 1.5],
    ['timeoutMs', Number.POSITIVE_INFINITY],
    ['timeoutMs', '10'],
    ['attempts', 0],
    ['attempts', 21],
    ['attempts', Number.NaN],
    ['attempts', -1],
    ['backoffMs', -1],
    ['backoffMs', 60_001],
    ['backoffMs', null],
    ['backoffMs', 10n],
  ])('refuse %s of %s as CONFIG, for creating and for opening', async (key, value) => {
    const { create, open, kms, store } = setup({ patience: { [key]: value } })
    for (const work of [create, open]) {
      expect(await refusal(() => work())).toMatchObject({ code: 'CONFIG', argument: `patience.${key}` })
    }
    expect([kms.wraps, kms.unwraps, store.loads]).toEqual([0, 0, 0])
  })
})
