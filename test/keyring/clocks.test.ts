import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import { activeOf, DAY, MINUTE, NOTE, notes, quiet, refusal, rotated, START, setup, versionOf } from './support.ts'

const YEAR = 365 * DAY

/** A store with a clock, and instances whose own clocks are off by so many ms. */
async function started({ propagationMs = 30 * MINUTE } = {}) {
  const bench = setup({ propagationMs })
  const { clock, store } = bench
  const server = { skew: 0, asked: 0 }
  store.now = async () => {
    server.asked++
    return clock.now + server.skew
  }
  const instance = (skew: number) => bench.open({ clock: () => clock.now + skew })
  const right = await bench.create()
  return { ...bench, server, instance, right }
}

/** The same, with a retired version whose destruction `by` has scheduled in ten days. */
async function pending(skew = 0, pendingMs = 10 * DAY) {
  const scene = await started()
  const row = notes.encrypt(scene.right, { ...NOTE })
  const { old } = await rotated(scene.right)
  await scene.right.retire(old, { references: 0 })
  const by = await scene.instance(skew)
  const due = await by.destroy(old, { backupsExpire: new Date(0), pendingMs })
  return { ...scene, row, old, due: due.getTime() }
}

const NOTHING = { staged: [], promoted: [], destroyed: [] }

describe('an instance whose clock is a year ahead', () => {
  it('carries out no destruction before its time by the store’s clock', async () => {
    const { instance, clock, old, due, row } = await pending()
    const fast = await instance(YEAR)
    expect(due).toBe(START + 10 * DAY)
    clock.now = due - 1
    expect(await fast.maintain()).toEqual(NOTHING)
    await fast.ready()
    expect(notes.decrypt(fast, row)).toEqual(NOTE)
    await quiet()
    expect(versionOf(await instance(0), old)).toMatchObject({ state: 'deactivated', retired: false })
  })

  it('carries it out when that has come', async () => {
    const { instance, clock, old, due } = await pending()
    const fast = await instance(YEAR)
    clock.now = due
    expect(await fast.maintain()).toEqual({ ...NOTHING, destroyed: [old] })
  })

  it('schedules none earlier than one that is right, and later by what it is ahead', async () => {
    expect((await pending(YEAR)).due).toBe(START + YEAR + 10 * DAY)
  })

  it('neither rotates nor promotes early, and leaves no time of its own in the manifest', async () => {
    const { instance, right, clock } = await started()
    const first = activeOf(right)
    const fast = await instance(2 * YEAR)
    expect(await fast.maintain()).toEqual(NOTHING)
    const staged = await fast.rotate()
    expect(versionOf(fast, staged)).toMatchObject({ promoteAt: START + 30 * MINUTE, history: [{ at: START }] })
    clock.now += 30 * MINUTE - 1
    expect(await fast.maintain()).toEqual(NOTHING)
    expect(activeOf(fast)).toBe(first)
    clock.now += 1
    expect((await fast.maintain()).promoted).toEqual([staged])
    expect(versionOf(fast, staged).history.map(({ at }) => at)).toEqual([START, START + 30 * MINUTE])
  })
})

describe('an instance whose clock is a year behind', () => {
  it('schedules no destruction early', async () => {
    expect((await pending(-YEAR)).due).toBe(START + 10 * DAY)
  })

  it('carries none out, and leaves it to the others', async () => {
    const { instance, clock, old, due } = await pending()
    const [slow, right] = [await instance(-YEAR), await instance(0)]
    clock.now = due + DAY
    expect(await slow.maintain()).toEqual(NOTHING)
    expect(await right.maintain()).toEqual({ ...NOTHING, destroyed: [old] })
  })

  it('does not shorten the propagation of what it stages', async () => {
    const { instance, right, clock } = await started()
    const staged = await (await instance(-YEAR)).rotate()
    clock.now += 30 * MINUTE - 1
    expect(await right.maintain()).toEqual(NOTHING)
    clock.now += 1
    expect((await right.maintain()).promoted).toEqual([staged])
  })
})

describe('a store whose clock is wrong', () => {
  it('by a year ahead brings no destruction forward', async () => {
    const { server, instance, clock, due } = await pending()
    const right = await instance(0)
    server.skew = YEAR
    clock.now = due - 1
    expect((await right.maintain()).destroyed).toEqual([])
    expect((await instance(0)).status().versions.some(({ state }) => state === 'destroyed')).toBe(false)
  })

  it('by a year behind, when one was scheduled, shortens nothing', async () => {
    const scene = await started()
    const { old } = await rotated(scene.right)
    await scene.right.retire(old, { references: 0 })
    scene.server.skew = -YEAR
    const due = await scene.right.destroy(old, { backupsExpire: new Date(0), pendingMs: 10 * DAY })
    scene.server.skew = 0
    expect(due.getTime()).toBe(START + 10 * DAY)
  })

  it.each([-YEAR, -7, 0, 7, YEAR])('by %i ms, does not put off what shall not wait', async (skew) => {
    const { server, right, clock } = await started()
    const { old } = await rotated(right)
    await right.retire(old, { references: 0 })
    server.skew = skew
    const due = await right.destroy(old, { backupsExpire: new Date(0), pendingMs: 0 })
    expect(due.getTime()).toBe(clock.now + Math.min(0, skew))
    expect((await right.maintain()).destroyed).toEqual([old])
  })

  it('by a year ahead still waits for the last backup where nothing else shall wait', async () => {
    const { server, right, clock } = await started()
    const { old } = await rotated(right)
    await right.retire(old, { references: 0 })
    server.skew = YEAR
    const backupsExpire = new Date(clock.now + DAY)
    expect(await right.destroy(old, { backupsExpire, pendingMs: 0 })).toEqual(backupsExpire)
    expect((await right.maintain()).destroyed).toEqual([])
    clock.now += DAY
    expect((await right.maintain()).destroyed).toEqual([old])
  })

  it.each([
    ['a fraction', 1.5],
    ['NaN', Number.NaN],
    ['text', '1767225600000'],
    ['seconds before the epoch', -1],
  ])('tells no time (%s): MALFORMED, and nothing is changed', async (_, time) => {
    const { right, store } = await started()
    store.now = async () => time as number
    const { epoch } = store.document!
    expect(await refusal(() => right.rotate())).toMatchObject({ code: 'MALFORMED', retryable: false })
    expect(store.document!.epoch).toBe(epoch)
  })

  it('does not answer: KMS_UNAVAILABLE for a change; encrypting does not ask', async () => {
    const { right, store, server } = await started()
    server.asked = 0
    store.now = () => Promise.reject(new Error('away'))
    expect(await refusal(() => right.maintain())).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
    await right.ready()
    expect(notes.decrypt(right, notes.encrypt(right, { ...NOTE }))).toEqual(NOTE)
    expect(server.asked).toBe(0)
  })
})

it('a store without a clock leaves it to the one of the process', async () => {
  const { create, clock } = setup()
  const keys: Keyring = await create()
  clock.now += 5
  const { fresh } = await rotated(keys)
  expect(versionOf(keys, fresh).history.map(({ at }) => at)).toEqual([START + 5, START + 5])
})
