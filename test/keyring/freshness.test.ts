import { describe, expect, it } from 'vitest'
import type { KeyEvent, Keyring } from 'waxseal'
import {
  DAY,
  MINUTE,
  NOTE,
  notes,
  type Options,
  quiet,
  refusal,
  rotated,
  setup,
  standing,
  versionOf,
} from './support.ts'

const REFRESH = 5 * MINUTE
/** From here on a read is begun in the background. */
const EARLY = (REFRESH * 3) / 4
const MAX_AGE = 60 * MINUTE
const GRACE = 180 * MINUTE

/** An instance under test, the events it raised, and another that changes things behind its back. */
async function started(options: Options = {}) {
  const bench = setup()
  const other = await bench.create()
  const events: KeyEvent[] = []
  const keys = await bench.open({ onEvent: (event: KeyEvent) => void events.push(event), ...options })
  const row = notes.encrypt(keys, { ...NOTE })
  events.length = 0
  bench.store.loads = 0
  bench.kms.unwraps = 0
  return { ...bench, keys, other, row, events }
}

const failures = (events: readonly KeyEvent[]) => events.filter(({ type }) => type === 'keyring.failure')

describe('ready()', () => {
  it('does no I/O while the keys are fresh', async () => {
    const { keys, store, kms, clock } = await started()
    await keys.ready()
    clock.now += EARLY
    await keys.as({ actor: 'ann' }).ready()
    await quiet()
    expect([store.loads, kms.unwraps]).toEqual([0, 0])
  })

  it('reads the store once they are older than refreshMs, and asks the KMS nothing that it knows', async () => {
    const { keys, store, kms, clock } = await started()
    clock.now += REFRESH + 1
    await keys.ready()
    await keys.ready()
    expect([store.loads, kms.unwraps]).toEqual([1, 0])
  })

  it('unwraps what is new, and nothing else', async () => {
    const { keys, other, kms, clock } = await started()
    const staged = await other.rotate()
    kms.unwraps = 0
    clock.now += REFRESH + 1
    await keys.ready()
    expect([kms.unwraps, versionOf(keys, staged).state]).toEqual([1, 'pre-active'])
  })

  it('called 3,000 times at once reads the store once', async () => {
    const { keys, other, store, kms, clock } = await started()
    await other.rotate()
    clock.now += REFRESH + 1
    store.loads = kms.unwraps = 0
    const handle = keys.as({ actor: 'ann' })
    await Promise.all(Array.from({ length: 3000 }, (_, i) => (i % 2 ? keys : handle).ready()))
    expect([store.loads, kms.unwraps]).toEqual([1, 1])
  })

  it('waits for nobody before refreshMs: the read is begun early, in the background', async () => {
    const { keys, store, clock } = await started()
    clock.now += EARLY + 1
    let resolve = (): void => undefined
    const held = new Promise<void>((done) => {
      resolve = done
    })
    const load = store.load
    store.load = async (name) => held.then(() => load(name))
    await keys.ready()
    await keys.ready()
    expect(store.loads).toBe(0)
    resolve()
    await quiet()
    expect(store.loads).toBe(1)
    clock.now += EARLY
    await keys.ready()
    expect(store.loads).toBe(1)
  })

  it('tells all who wait of a failure once the keys are too old, and does not remember it', async () => {
    const { keys, store, clock } = await started()
    store.broken = new Error('away')
    clock.now += MAX_AGE + GRACE + 1
    const failed = await Promise.all([1, 2, 3].map(() => refusal(() => keys.ready())))
    for (const error of failed) {
      expect(error).toMatchObject({
        code: 'KMS_UNAVAILABLE',
        retryable: true,
        cause: { name: 'Error', message: 'away' },
      })
    }
    expect(store.loads).toBe(1)
    store.broken = undefined
    await keys.ready()
    expect(store.loads).toBe(2)
  })

  it('reads again when the clock was set back', async () => {
    const { keys, store, clock } = await started()
    clock.now -= DAY
    await keys.ready()
    expect(store.loads).toBe(1)
  })
})

describe('a synchronous call', () => {
  it('starts one refresh in the background when the keys are stale, however many calls there are', async () => {
    const { keys, row, store, clock } = await started()
    clock.now += REFRESH + 1
    for (let i = 0; i < 300; i++) notes.decrypt(keys, row)
    await quiet()
    expect(store.loads).toBe(1)
  })

  it('is KEY_NOT_LOADED, retryable, after maxAgeMs + graceMs, and works again after the upkeep that it started', async () => {
    const { keys, row, clock } = await started()
    clock.now += MAX_AGE + GRACE
    notes.decrypt(keys, row)
    await quiet()
    clock.now += MAX_AGE + GRACE + 1
    const late = { code: 'KEY_NOT_LOADED', retryable: true }
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject(late)
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject(late)
    expect(await refusal(() => notes.patch(keys, row, { tag: 'new' }))).toMatchObject(late)
    await quiet()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('works after maxAgeMs + graceMs when ready() was awaited first', async () => {
    const { keys, row, clock } = await started()
    clock.now += DAY
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })
})

describe('while the key store fails', () => {
  it('the keyring works on until maxAgeMs + graceMs, and tells listeners', async () => {
    const { keys, row, store, clock, events } = await started()
    store.broken = new Error('away')
    clock.now += MAX_AGE + GRACE
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    await quiet()
    expect(failures(events)).toEqual([expect.objectContaining({ operation: 'refresh', code: 'KMS_UNAVAILABLE' })])
    clock.now += 1
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    await quiet()
    store.broken = undefined
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('a refresh that failed is told of once, however many calls wanted it', async () => {
    const { keys, row, store, clock, events } = await started()
    store.broken = new Error('away')
    clock.now += REFRESH + 1
    for (let i = 0; i < 300; i++) notes.decrypt(keys, row)
    await quiet()
    expect([store.loads, failures(events).length]).toEqual([1, 1])
  })

  it('and when the KMS fails, what is known goes on working', async () => {
    const { keys, other, row, kms, clock } = await started()
    await other.rotate()
    kms.broken = new Error('away')
    clock.now += REFRESH + 1
    await keys.ready()
    expect(keys.status().versions.map(({ loaded }) => loaded)).toEqual([true, false])
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    kms.broken = undefined
    clock.now += REFRESH + 1
    await keys.ready()
    expect(keys.status().versions.map(({ loaded }) => loaded)).toEqual([true, true])
  })
})

describe('instances whose clocks disagree', () => {
  it.each([-DAY, -MINUTE, MINUTE, DAY])('by %d ms read each other, and refresh by their own clock', async (skew) => {
    const { clock, store, other, open } = await started()
    const keys = await open({ clock: () => clock.now + skew })
    await rotated(other)
    const row = notes.encrypt(other, { ...NOTE })
    store.loads = 0
    clock.now += REFRESH + 1
    await keys.ready()
    await keys.ready()
    expect(store.loads).toBe(1)
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    await keys.rotate()
    expect(standing(await open())).toEqual(standing(keys))
  })
})

describe('what was done elsewhere while the KMS hangs', () => {
  it('counts at once: a compromise does not wait for the successor to be unwrapped', async () => {
    const { keys, other, row, kms, clock } = await started()
    const old = keys.status().active!
    await other.markCompromised(old, { decrypt: 'refuse' })
    kms.unwrap = () => new Promise(() => undefined)
    clock.now += REFRESH + 1
    void keys.ready()
    await quiet()
    expect(versionOf(keys, old).state).toBe('compromised')
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'compromised' })
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  })
})

describe('a change of the keyring as a whole', () => {
  it('is told of here when it was made elsewhere', async () => {
    const { keys, other, clock, events } = await started()
    await other.setPolicy({ propagationMs: 1, reason: 'one process' })
    clock.now += REFRESH + 1
    await keys.ready()
    expect(events).toContainEqual(
      expect.objectContaining({ type: 'keyring.change', what: 'policy changed', reason: 'one process' }),
    )
  })
})

describe('a propagation time that is shorter than refreshMs', () => {
  it.each([
    ['at creating', async (keys: Keyring) => keys, { propagationMs: MINUTE }],
    ['by a later policy', async (keys: Keyring) => keys.setPolicy({ propagationMs: MINUTE }), {}],
  ])(
    'set %s, is how often instances read: nobody meets a row under a version that he does not know',
    async (_, set, options) => {
      const { create, open, clock } = setup()
      const writer = await create(options)
      await set(writer)
      const reader = await open({ refreshMs: 60 * MINUTE })
      await reader.ready()
      const staged = await writer.rotate()
      clock.now += MINUTE
      await reader.ready() // its first call in this minute
      clock.now += 1
      expect((await writer.maintain()).promoted).toEqual([staged])
      await reader.ready()
      expect(notes.decrypt(reader, notes.encrypt(writer, { ...NOTE }))).toEqual(NOTE)
    },
  )

  it('of 0, for a single process, leaves refreshMs as it is; and one without end stays without', async () => {
    for (const [propagationMs, refreshMs, later] of [
      [0, REFRESH, EARLY],
      [MINUTE, Number.POSITIVE_INFINITY, 30 * MINUTE],
    ] as const) {
      const { create, clock, store } = setup()
      const keys = await create({ propagationMs, refreshMs })
      store.loads = 0
      clock.now += later
      await keys.ready()
      expect([propagationMs, store.loads]).toEqual([propagationMs, 0])
    }
  })
})
