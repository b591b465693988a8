import { describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import type { Reason } from '../../src/keyring/manage.ts'
import { region } from './roots.ts'
import { activeOf, DAY, refusal, rotated, setup, versionOf } from './support.ts'

const WHO = { actor: 'ann@example.com', reason: 'ticket 4711, “urgent”' }

/** Prepares, makes the call, and gives the history that the call must be in. */
type Call = (keys: Keyring, why: Reason) => Promise<readonly { actor?: string; reason?: string }[]>

const historyOf = (keys: Keyring, id: string) => versionOf(keys, id).history

/** A version that is suspended, or retired, or to be destroyed; the history grows by what the call does next. */
async function suspended(keys: Keyring): Promise<string> {
  const id = activeOf(keys)
  await keys.suspend(id)
  return id
}
async function retired(keys: Keyring): Promise<string> {
  const { old } = await rotated(keys)
  await keys.retire(old, { references: 0 })
  return old
}

const CALLS: Record<string, Call> = {
  rotate: async (keys, why) => historyOf(keys, await keys.rotate(why)),
  promote: async (keys, why) => {
    const id = await keys.rotate()
    await keys.promote(id, { ...why, urgent: true })
    return historyOf(keys, id)
  },
  'promote, in the version that it takes out of use': async (keys, why) => {
    const old = activeOf(keys)
    await keys.promote(await keys.rotate(), { ...why, urgent: true })
    return historyOf(keys, old)
  },
  suspend: async (keys, why) => {
    const id = activeOf(keys)
    await keys.suspend(id, { ...why, decrypt: 'report' })
    return historyOf(keys, id)
  },
  reinstate: async (keys, why) => {
    const id = await suspended(keys)
    await keys.reinstate(id, why)
    return historyOf(keys, id)
  },
  deactivate: async (keys, why) => {
    const id = await suspended(keys)
    await keys.deactivate(id, why)
    return historyOf(keys, id)
  },
  markCompromised: async (keys, why) => {
    const id = activeOf(keys)
    await keys.markCompromised(id, why)
    return historyOf(keys, id)
  },
  'markCompromised, in the successor': async (keys, why) =>
    historyOf(keys, (await keys.markCompromised(activeOf(keys), why))!),
  retire: async (keys, why) => {
    const { old } = await rotated(keys)
    await keys.retire(old, { ...why, references: 0 })
    return historyOf(keys, old)
  },
  destroy: async (keys, why) => {
    const id = await retired(keys)
    await keys.destroy(id, { ...why, backupsExpire: new Date(0) })
    return historyOf(keys, id)
  },
  cancelDestroy: async (keys, why) => {
    const id = await retired(keys)
    await keys.destroy(id, { backupsExpire: new Date(0) })
    await keys.cancelDestroy(id, why)
    return historyOf(keys, id)
  },
  setPolicy: async (keys, why) => {
    await keys.setPolicy({ ...why, propagationMs: 5 })
    return keys.status().log
  },
  changeRootKey: async (keys, why) => {
    await keys.changeRootKey({ ...why, kms: region(1) })
    return keys.status().log
  },
}

describe('who changed a key, and why', () => {
  it.each(Object.entries(CALLS))('is kept by %s', async (_, call) => {
    const { create, open, clock } = setup({ kms: region(1) })
    const keys = await create()
    clock.now += DAY
    const history = await call(keys, WHO)
    expect(history.at(-1)).toMatchObject({ ...WHO, at: clock.now })
    const { versions, log } = (await open()).status()
    expect([...log, ...versions.flatMap((version) => version.history)]).toContainEqual(history.at(-1))
  })

  it.each(Object.entries(CALLS))('is left out by %s when it is not said', async (_, call) => {
    const keys = await setup({ kms: region(1) }).create()
    const last = (await call(keys, {})).at(-1)!
    expect(Object.keys(last)).not.toContain('actor')
    expect(Object.keys(last)).not.toContain('reason')
  })

  it('is kept by maintain(), which says that it was due', async () => {
    const { create, clock } = setup()
    const keys = await create()
    const first = await retired(keys)
    await keys.destroy(first, { backupsExpire: new Date(0), pendingMs: DAY })
    clock.now += 365 * DAY
    const { staged, destroyed } = await keys.maintain({ actor: 'cron' })
    clock.now += DAY
    expect(await keys.maintain({ actor: 'cron' })).toMatchObject({ promoted: staged })
    expect(destroyed).toEqual([first])
    const due = { actor: 'cron', reason: 'due' }
    expect(historyOf(keys, staged[0]!)).toMatchObject([due, due])
    expect(historyOf(keys, first).at(-1)).toMatchObject({ state: 'destroyed', ...due })
  })

  it('stays for good, in the order of what happened', async () => {
    const { create, open } = setup()
    const keys = await create()
    const id = activeOf(keys)
    await keys.suspend(id, { actor: 'a' })
    await keys.reinstate(id, { actor: 'b' })
    await keys.markCompromised(id, { actor: 'c' })
    await keys.retire(id, { references: 0, actor: 'd' })
    await keys.destroy(id, { backupsExpire: new Date(0), pendingMs: 0, actor: 'e' })
    await keys.maintain({ actor: 'f' })
    const history = versionOf(await open(), id).history.map(({ state, actor }) => [state, actor])
    expect(history.slice(2)).toEqual([
      ['suspended', 'a'],
      ['active', 'b'],
      ['compromised', 'c'],
      ['retired', 'd'],
      ['destroying', 'e'],
      ['destroyed', 'f'],
    ])
  })
})

describe('the bounds of actor and reason', () => {
  const BAD: readonly [string, unknown][] = [
    ['1,001 characters', 'x'.repeat(1_001)],
    ['a lone surrogate', 'a\ud800'],
    ['a number', 5],
    ['an object', { toString: () => 'ann' }],
    ['null', null],
  ]
  const cases = Object.keys(CALLS).flatMap((call) => BAD.map(([what, value]) => ({ call, what, value })))

  it.each(cases)('are refused by $call: $what', async ({ call, value }) => {
    for (const argument of ['actor', 'reason']) {
      const { create, store } = setup({ kms: region(1) })
      const keys = await create()
      const error = await refusal(() => CALLS[call]!(keys, { [argument]: value } as Reason))
      expect(error).toMatchObject({ code: 'CONFIG', argument, retryable: false })
      expect(store.document!.manifest).not.toContain('x'.repeat(100))
    }
  })

  it.each(Object.keys(CALLS))('let 1,000 characters pass: %s', async (call) => {
    const long = 'ü'.repeat(1_000)
    const keys = await setup({ kms: region(1) }).create()
    expect((await CALLS[call]!(keys, { actor: long, reason: long })).at(-1)).toMatchObject({
      actor: long,
      reason: long,
    })
  })
})
