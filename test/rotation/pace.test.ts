import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { jobControl, type Pace, pacer } from '../../src/rotation/pace.ts'

/** Pacing on a clock of our own. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

/** Whether a promise is settled after `ms` more. */
async function settledAfter(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let settled = false
  promise.then(
    () => {
      settled = true
    },
    () => {
      settled = true
    },
  )
  await vi.advanceTimersByTimeAsync(ms)
  return settled
}

describe('rows per second', () => {
  it('waits for the rest of the time that a batch may take', async () => {
    const pace = pacer({ rowsPerSecond: 100 }, 500, undefined, undefined)
    const wait = pace.took(50, 100)
    expect(await settledAfter(wait, 399)).toBe(false)
    expect(await settledAfter(wait, 1)).toBe(true)
    expect(await settledAfter(pace.took(50, 600), 0)).toBe(true)
  })

  it.each([
    [100, 100],
    [0.5, 1],
    [2_000, 500],
  ])('%d: batches are of a second at most, %d rows, so that a lease does not end meanwhile', (rowsPerSecond, size) => {
    expect(pacer({ rowsPerSecond }, 500, undefined, undefined).batchSize).toBe(size)
  })
})

describe('the time of a batch', () => {
  it('halves it while it is too long, and lets it grow again slowly', async () => {
    const pace = pacer({ maxBatchMs: 100 }, 400, undefined, undefined)
    const sizes: number[] = []
    for (const ms of [101, 101, 99, 51, 49, 0, 0, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]) {
      await pace.took(pace.batchSize, ms)
      sizes.push(pace.batchSize)
    }
    expect(sizes).toEqual([200, 100, 100, 100, 140, 180, 220, 110, 55, 28, 14, 10, 10])
    for (let i = 0; i < 20; i++) await pace.took(pace.batchSize, 0)
    expect(pace.batchSize).toBe(400)
  })

  it('never makes a batch larger than was asked for', async () => {
    const pace = pacer({ maxBatchMs: 100 }, 4, undefined, undefined)
    await pace.took(4, 1_000)
    expect(pace.batchSize).toBe(4)
  })
})

describe('the lag of replicas', () => {
  it('is asked once a second, and waited for while it is too large', async () => {
    const lags = [50, 101, 5_000, 100]
    const lag = vi.fn(async () => lags.shift() ?? 0)
    const pace = pacer({ lag, maxLagMs: 100 }, 500, undefined, undefined)
    expect(await settledAfter(pace.turn(), 0)).toBe(true)
    expect(await settledAfter(pace.turn(), 999)).toBe(true)
    expect(lag).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(1)
    const turn = pace.turn()
    expect(await settledAfter(turn, 1_999)).toBe(false)
    expect(await settledAfter(turn, 1)).toBe(true)
    expect(lag).toHaveBeenCalledTimes(4)
  })

  it('that cannot be told stops the job', async () => {
    const failing = pacer(
      { lag: () => Promise.reject(new Error('no replica')), maxLagMs: 1 },
      500,
      undefined,
      undefined,
    )
    await expect(failing.turn()).rejects.toThrow('no replica')
    const unknown = pacer({ lag: async () => undefined as never, maxLagMs: 1 }, 500, undefined, undefined)
    await expect(unknown.turn()).rejects.toMatchObject({ code: 'CONFIG', argument: 'pace.lag' })
  })
})

describe('a pause', () => {
  it('holds the next batch until it ends', async () => {
    const control = jobControl()
    const pace = pacer({}, 500, control, new AbortController().signal)
    expect(await settledAfter(pace.turn(), 0)).toBe(true)
    control.pause()
    control.pause()
    expect(control.isPaused).toBe(true)
    const turn = pace.turn()
    expect(await settledAfter(turn, 1e6)).toBe(false)
    control.resume()
    control.pause()
    expect(await settledAfter(turn, 1e6)).toBe(false)
    control.resume()
    control.resume()
    expect(control.isPaused).toBe(false)
    expect(await settledAfter(turn, 0)).toBe(true)
  })

  it.each<[string, Pace]>([
    ['a pause', {}],
    ['a lag', { lag: async () => 1e9, maxLagMs: 1 }],
    ['a second', { rowsPerSecond: 1 }],
  ])('%s ends when the job is aborted', async (what, options) => {
    const control = jobControl()
    const stop = new AbortController()
    const pace = pacer(options, 500, control, stop.signal)
    if (what === 'a pause') control.pause()
    const turn = what === 'a second' ? pace.took(1_000, 0) : pace.turn()
    expect(await settledAfter(turn, 10_000)).toBe(false)
    stop.abort()
    expect(await settledAfter(turn, 0)).toBe(true)
    expect(await settledAfter(pace.turn(), 0)).toBe(true)
  })

  it('without a control and without a signal there is nothing to wait for', async () => {
    expect(await settledAfter(pacer({}, 500, undefined, undefined).turn(), 0)).toBe(true)
  })
})

it.each<[string, Pace]>([
  ['pace.rowsPerSecond', { rowsPerSecond: 0 }],
  ['pace.rowsPerSecond', { rowsPerSecond: Number.NaN }],
  ['pace.maxBatchMs', { maxBatchMs: -1 }],
  ['pace.maxLagMs', { maxLagMs: 1 }],
  ['pace.maxLagMs', { lag: async () => 0 }],
])('%s is refused when it is wrong: %o', (argument, pace) => {
  expect(() => pacer(pace, 500, undefined, undefined)).toThrow(expect.objectContaining({ code: 'CONFIG', argument }))
})
