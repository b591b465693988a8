import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import { activeOf, DAY, MINUTE, NOTE, notes, quiet, setup } from './support.ts'

/**
 * Instances whose clocks are wrong by up to ten minutes either way, all of which run maintain() every few minutes for
 * a year of weekly rotations. Whatever they do at once, one version is staged at a time, none is lost, and whatever one
 * has written all can read.
 */
const PROPAGATION = 30 * MINUTE
const WEEK = 7 * DAY

async function instances(count: number) {
  const { clock, create, open, store } = setup()
  // The first is fast by ten minutes, the last slow by ten.
  const skews = Array.from({ length: count }, (_, i) => Math.round((10 - (20 * i) / (count - 1)) * MINUTE))
  const options = (skew: number) => ({ clock: () => clock.now + skew })
  const first = await create({ ...options(skews[0]!), cryptoperiodMs: WEEK, propagationMs: PROPAGATION } as never)
  const others = await Promise.all(skews.slice(1).map((skew) => open(options(skew))))
  return { clock, store, open, all: [first, ...others] as Keyring[] }
}

/** What must hold of every document that was ever in the store. */
function sane(keys: Keyring, seen: Set<string>): void {
  const { versions } = keys.status()
  const count = (state: string) => versions.filter((version) => version.state === state).length
  expect([count('active'), count('pre-active') <= 1]).toEqual([1, true])
  for (const id of seen) expect(versions.map((version) => version.id)).toContain(id)
  for (const { id } of versions) seen.add(id)
}

describe.each([2, 8])('%i instances with clocks ten minutes off', (count) => {
  it('that all maintain() at once rotate every week, once, and read what all have written', async () => {
    const { clock, all } = await instances(count)
    const seen = new Set<string>()
    const rows = []
    for (let step = 0; step < 4 * 7 * 24; step++) {
      // Every hour, and every 5 minutes around a rotation.
      clock.now += 60 * MINUTE
      await Promise.all(all.map((keys) => keys.ready()))
      const done = await Promise.all(all.map((keys) => keys.maintain()))
      const staged = done.flatMap((result) => result.staged)
      expect(new Set(staged).size).toBe(staged.length)
      expect(done.flatMap(({ promoted }) => promoted).length).toBeLessThanOrEqual(1)
      for (const keys of all) sane(keys, seen)
      if (step % 12 === 0) rows.push(...all.map((keys) => notes.encrypt(keys, { ...NOTE })))
    }
    await Promise.all(all.map((keys) => keys.ready()))
    for (const keys of all) for (const row of rows) expect(notes.decrypt(keys, row)).toEqual(NOTE)
    // Four weeks: the first version and three or four successors.
    expect([4, 5]).toContain(seen.size)
  })

  it('never encrypt under a version that another has not had the time to learn', async () => {
    const { clock, all } = await instances(count)
    for (let step = 0; step < 2 * 7 * 24 * 6; step++) {
      clock.now += 10 * MINUTE
      // Nobody but one runs maintain(), in turns; the others only serve requests.
      await all[step % count]!.maintain()
      await Promise.all(all.map((keys) => keys.ready()))
      await quiet()
      if (step % 6 !== 0) continue
      const rows = all.map((keys) => notes.encrypt(keys, { ...NOTE }))
      for (const keys of all) for (const row of rows) expect(notes.decrypt(keys, row)).toEqual(NOTE)
    }
    expect(new Set(all.map((keys) => keys.status().versions.length > 1))).toEqual(new Set([true]))
  })
})

describe('an instance whose clock is off', () => {
  it('promotes no earlier than the propagation time less the skew, which leaves time to refresh', async () => {
    const { clock, all } = await instances(2)
    const [fast, slow] = all as [Keyring, Keyring]
    await slow.rotate()
    clock.now += PROPAGATION - 20 * MINUTE - 1
    expect((await fast.maintain()).promoted).toEqual([])
    clock.now += 1
    expect((await fast.maintain()).promoted).toHaveLength(1)
    await slow.ready()
    clock.now += 5 * MINUTE
    await slow.ready()
    expect(activeOf(slow)).toBe(activeOf(fast))
  })
})
