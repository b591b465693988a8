import { describe, expect, it } from 'vitest'
import type { KeyEvent } from 'waxseal'
import { type Aead, type Engine, nodeEngine } from 'waxseal/engine'
import { SOURCE } from '../../src/envelope/keys.ts'
import type { CacheLimits } from '../../src/keyring/cache.ts'
import { activeOf, countingEngine, MINUTE, NOTE, notes, type Options, refusal, rotated, setup } from './support.ts'

/** A keyring with a cache, and the number of data keys that its engine has unwrapped. */
async function started(limits: Partial<CacheLimits> | undefined = {}, options: Options = {}) {
  const bench = setup()
  const engine = countingEngine()
  const other = await bench.create()
  const cache = limits && { cache: { entries: 100, ...limits } }
  const keys = await bench.open({ engine, suite: 1, ...cache, ...options })
  const row = notes.encrypt(keys, { ...NOTE })
  /** How many data keys `work` unwraps. */
  const unwraps = (work: () => unknown): number => {
    const before = engine.unwraps
    work()
    return engine.unwraps - before
  }
  return { ...bench, keys, other, row, unwraps }
}

/** Header and rest of a stored envelope, with one byte of the header flipped. */
function flipped(envelope: string, at: number): string {
  const bytes = Buffer.from(envelope.slice(4), 'base64url')
  bytes[at]! ^= 1
  return envelope.slice(0, 4) + bytes.toString('base64url')
}

describe('without a cache', () => {
  it('every read unwraps its data key', async () => {
    const { keys, row, unwraps } = await started(undefined, {})
    const bare = await setup().create()
    expect(bare[SOURCE].recordKeys).toBeUndefined()
    expect(unwraps(() => [1, 2, 3].map(() => notes.decrypt(keys, row)))).toBeGreaterThan(0)
  })
})

describe('a cached record key', () => {
  it('serves the same row again', async () => {
    const { keys, row, unwraps } = await started()
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(1)
    expect(unwraps(() => expect(notes.decrypt(keys, row)).toEqual(NOTE))).toBe(0)
    expect(unwraps(() => notes.decrypt(keys.as({ actor: 'ann' }), { ...row, tag: row.tag }))).toBe(0)
  })

  it('is never served for the header of one row with the context of another', async () => {
    const { keys, row, unwraps } = await started()
    notes.decrypt(keys, row)
    const moved = { ...row, id: 18 }
    expect(await refusal(() => notes.decrypt(keys, moved))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    const real = notes.encrypt(keys, { ...NOTE, id: 18 })
    notes.decrypt(keys, real)
    const stolen = { ...real, envelope: row.envelope }
    expect(await refusal(() => notes.decrypt(keys, stolen))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(0)
  })

  it('is not served when any one byte of the header differs', async () => {
    const { keys, row } = await started()
    notes.decrypt(keys, row)
    for (let at = 0; at < 93; at++) {
      const error = await refusal(() => notes.decrypt(keys, { ...row, envelope: flipped(row.envelope, at) }))
      const expected = at < 6 ? 'MALFORMED' : at < 21 ? 'KEY_NOT_LOADED' : 'DECRYPTION_FAILED'
      expect([at, error.code]).toEqual([at, expected])
    }
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('still checks every value that it opens', async () => {
    const { keys, row } = await started()
    notes.decrypt(keys, row)
    const swapped = { ...row, body: row.tag, tag: row.body }
    expect(await refusal(() => notes.decrypt(keys, swapped))).toMatchObject({
      code: 'DECRYPTION_FAILED',
      field: 'body',
    })
  })

  it('is used for reading only: a patch and a re-encryption unwrap, and so does reading what they wrote', async () => {
    const { keys, row, unwraps } = await started()
    expect(unwraps(() => notes.decrypt(keys, notes.encrypt(keys, { ...NOTE })))).toBe(1)
    expect(unwraps(() => notes.patch(keys, row, { tag: 'new' }))).toBe(1)
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(1)
    expect(unwraps(() => notes.patch(keys, row, { tag: 'new' }))).toBe(1)
    const again = notes.reencrypt(keys, row)
    expect(unwraps(() => notes.decrypt(keys, again))).toBe(1)
  })
})

describe('the cache is bounded', () => {
  it('in entries: the oldest goes first', async () => {
    const { keys, unwraps } = await started({ entries: 3 })
    const rows = [1, 2, 3, 4].map((id) => notes.encrypt(keys, { ...NOTE, id }))
    for (const row of rows) notes.decrypt(keys, row)
    expect(rows.slice(1).map((row) => unwraps(() => notes.decrypt(keys, row)))).toEqual([0, 0, 0])
    expect(unwraps(() => notes.decrypt(keys, rows[0]!))).toBe(1)
    expect(unwraps(() => notes.decrypt(keys, rows[1]!))).toBe(1)
  })

  it.each([
    { limits: {}, maxAgeMs: 60_000 },
    { limits: { maxAgeMs: 1000 }, maxAgeMs: 1000 },
  ])('in age: $maxAgeMs ms by the clock of the keyring', async ({ limits, maxAgeMs }) => {
    const { keys, row, unwraps, clock } = await started(limits)
    notes.decrypt(keys, row)
    clock.now += maxAgeMs - 1
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(0)
    clock.now += 1
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(1)
    clock.now += maxAgeMs - 1
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(0)
  })

  it.each([
    { limits: {}, maxUses: 1000 },
    { limits: { maxUses: 3 }, maxUses: 3 },
    { limits: { maxUses: 1 }, maxUses: 1 },
  ])('in uses: $maxUses', async ({ limits, maxUses }) => {
    const { keys, row, unwraps } = await started(limits)
    for (let round = 0; round < 2; round++) {
      expect(unwraps(() => Array.from({ length: maxUses }, () => notes.decrypt(keys, row)))).toBe(1)
    }
  })

  it.each([
    ['entries', 0],
    ['entries', 1.5],
    ['entries', -1],
    ['entries', 1_000_001],
    ['entries', Number.NaN],
    ['entries', Number.POSITIVE_INFINITY],
    ['entries', undefined],
    ['entries', '10'],
    ['maxAgeMs', 0],
    ['maxAgeMs', 86_400_001],
    ['maxAgeMs', Number.POSITIVE_INFINITY],
    ['maxUses', 0],
    ['maxUses', 0.5],
    ['maxUses', null],
  ])('and %s of %s are refused as CONFIG', async (name, value) => {
    const { open } = await started()
    const cache = { entries: 1, [name]: value } as CacheLimits
    expect(await refusal(() => open({ cache }))).toMatchObject({ code: 'CONFIG', argument: `cache.${name}` })
  })
})

describe('the state of the version', () => {
  it('is asked on every hit', async () => {
    const { keys, row } = await started()
    notes.decrypt(keys, row)
    await keys.suspend(activeOf(keys))
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'suspended' })
  })

  it('when reported is reported on every hit', async () => {
    const { keys, row, events } = await started()
    await keys.markCompromised(activeOf(keys), {})
    for (let i = 0; i < 3; i++) notes.decrypt(keys, row)
    expect(events.filter(({ type }) => type === 'key.use')).toHaveLength(3)
  })

  it('when changed purges what was opened with that version, and nothing else', async () => {
    const { keys, row, unwraps } = await started()
    const { old, fresh } = await rotated(keys)
    const newer = notes.encrypt(keys, { ...NOTE })
    const read = () => [unwraps(() => notes.decrypt(keys, row)), unwraps(() => notes.decrypt(keys, newer))]
    expect([read(), read()]).toEqual([
      [1, 1],
      [0, 0],
    ])
    await keys.retire(old, { references: 0 })
    expect(read()).toEqual([1, 0])
    await keys.suspend(fresh)
    await keys.reinstate(fresh)
    expect(read()).toEqual([0, 1])
  })

  it('when changed elsewhere purges here, also when a listener throws', async () => {
    let audit: (event: KeyEvent) => void = () => {}
    const { keys, other, row, unwraps, clock } = await started({}, { onEvent: (event: KeyEvent) => audit(event) })
    const { old, fresh } = await rotated(keys)
    const newer = notes.encrypt(keys, { ...NOTE })
    notes.decrypt(keys, row)
    notes.decrypt(keys, newer)
    await other.suspend(fresh)
    await other.reinstate(fresh)
    await other.retire(old, { references: 0 })
    audit = (event) => {
      if (event.type === 'key.state') throw new Error('audit log is full')
    }
    clock.now += 6 * MINUTE
    await keys.ready().catch(() => {})
    audit = () => {}
    clock.now -= 6 * MINUTE // so that age purges nothing
    expect(unwraps(() => notes.decrypt(keys, row))).toBe(1)
    expect(unwraps(() => notes.decrypt(keys, newer))).toBe(1)
  })
})

describe('a key that leaves the cache', () => {
  /** Node's engine, with the record keys that it made and those that were wiped. */
  function watchingEngine() {
    const inner = nodeEngine()!
    const made: Aead[] = []
    const wiped = new Set<Aead>()
    const aead: Engine['aead'] = (...given) => {
      const key = inner.aead(...given)
      const watched: Aead = {
        seal: (...value) => key.seal(...value),
        sealInto: (...value) => key.sealInto(...value),
        open: (...value) => key.open(...value),
        destroy() {
          wiped.add(watched)
          key.destroy()
        },
      }
      made.push(watched)
      return watched
    }
    return { engine: { ...inner, aead }, made, wiped }
  }

  async function watched(limits: Partial<CacheLimits>, options: Options = {}) {
    const { engine, made, wiped } = watchingEngine()
    const scene = await started(limits, { engine, ...options })
    const rows = [1, 2, 3, 4, 5].map((id) => notes.encrypt(scene.keys, { ...NOTE, id }))
    made.length = 0
    const wipedOf = () => made.map((key) => wiped.has(key))
    return { ...scene, rows, made, wipedOf }
  }

  it('for a newer one is wiped when the call has ended', async () => {
    const { keys, rows, wipedOf } = await watched({ entries: 2 })
    for (const row of rows) {
      expect(notes.decrypt(keys, row).body).toBe(NOTE.body)
      await null
    }
    expect(wipedOf()).toEqual([true, true, true, false, false])
  })

  it('by age, by use or for one of the same place is wiped too', async () => {
    const { keys, rows, clock, wipedOf } = await watched({ entries: 9, maxAgeMs: MINUTE, maxUses: 2 })
    const read = () => notes.decrypt(keys, rows[0]!)
    for (let i = 0; i < 3; i++) read()
    clock.now += MINUTE
    read()
    await null
    expect(wipedOf()).toEqual([true, true, false])
  })

  it('is not wiped under a call that uses it, though a listener inside reads until it is evicted', async () => {
    let inside = (): void => {}
    const onEvent = ({ type }: KeyEvent): void => {
      if (type === 'key.use') inside()
    }
    const { keys, rows, wipedOf } = await watched({ entries: 1 }, { onEvent })
    await keys.markCompromised(activeOf(keys), { reason: 'leaked', decrypt: 'report' })
    inside = () => {
      inside = () => {}
      for (const row of rows.slice(1)) expect(notes.decrypt(keys, row).body).toBe(NOTE.body)
    }
    expect(notes.decrypt(keys, rows[0]!)).toMatchObject({ body: NOTE.body, tag: NOTE.tag })
    await null
    expect(wipedOf()[0]).toBe(true)
  })

  it('is dropped unwiped only where one call drops more than the cache holds', async () => {
    const { keys, rows, wipedOf } = await watched({ entries: 1 })
    for (const row of rows) notes.decrypt(keys, row) // no turn between them
    await null
    expect(wipedOf()).toEqual([true, false, false, false, false])
  })
})
