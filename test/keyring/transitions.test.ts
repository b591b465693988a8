import { describe, expect, it } from 'vitest'
import type { Keyring, KeyState } from 'waxseal'
import { NEXT } from '../../src/keyring/transitions.ts'
import { activeOf, MINUTE, refusal, rotated, setup, versionOf } from './support.ts'

const STATES = ['pre-active', 'active', 'suspended', 'deactivated', 'compromised', 'destroyed'] as const

/** Which state may follow which, written out again. */
const ALLOWED: Record<KeyState, readonly KeyState[]> = {
  'pre-active': ['active', 'compromised', 'destroyed'],
  active: ['suspended', 'deactivated', 'compromised'],
  suspended: ['active', 'deactivated', 'compromised'],
  deactivated: ['compromised', 'destroyed'],
  compromised: ['destroyed'],
  destroyed: [],
}

type Bench = ReturnType<typeof setup> & { keys: Keyring }

/** Brings a version of a new keyring into a state. */
const INTO: Record<KeyState, (bench: Bench) => Promise<string>> = {
  'pre-active': ({ keys }) => keys.rotate(),
  active: async ({ keys }) => activeOf(keys),
  async suspended({ keys }) {
    const id = activeOf(keys)
    await keys.suspend(id)
    return id
  },
  deactivated: async ({ keys }) => (await rotated(keys)).old,
  async compromised({ keys }) {
    const id = activeOf(keys)
    await keys.markCompromised(id, {})
    return id
  },
  async destroyed({ keys }) {
    const id = await keys.rotate()
    await keys.destroy(id, { backupsExpire: new Date(0), pendingMs: 0 })
    await keys.maintain()
    return id
  },
}

/** Asks for a state, by the call that leads there. */
const ASK: Record<Exclude<KeyState, 'pre-active'>, (bench: Bench, id: string, from: KeyState) => Promise<unknown>> = {
  active: ({ keys }, id) => keys.promote(id, { urgent: true }),
  suspended: ({ keys }, id) => keys.suspend(id),
  deactivated: ({ keys }, id) => keys.deactivate(id),
  compromised: ({ keys }, id) => keys.markCompromised(id, {}),
  async destroyed({ keys }, id, from) {
    if (from === 'deactivated' || from === 'compromised') await keys.retire(id, { references: 0 })
    await keys.destroy(id, { backupsExpire: new Date(0), pendingMs: 0 })
    await keys.maintain()
  },
}

async function bench(): Promise<Bench> {
  const made = setup()
  return { ...made, keys: await made.create() }
}

/** The refusal of `work`, which changes neither the keyring here nor the store. */
async function refusedWhole({ keys, store }: Bench, work: () => Promise<unknown>) {
  const before = { status: keys.status(), document: structuredClone(store.document), saves: store.saves }
  const error = await refusal(work)
  expect({ status: keys.status(), document: store.document, saves: store.saves }).toEqual(before)
  return error
}

describe('the table of transitions', () => {
  it('is the one of the design', () => expect(NEXT).toEqual(ALLOWED))

  it('never leads back to pre-active, nor anywhere from destroyed', () => {
    expect(Object.values(NEXT).flat()).not.toContain('pre-active')
    expect(NEXT.destroyed).toEqual([])
  })
})

const PAIRS = STATES.flatMap((from) =>
  (Object.keys(ASK) as (keyof typeof ASK)[]).map((to) => ({ from, to, allowed: ALLOWED[from].includes(to) })),
)

describe('a transition that is allowed', () => {
  /** The active version is deactivated by promoting another, below. */
  const direct = PAIRS.filter(({ from, to, allowed }) => allowed && !(from === 'active' && to === 'deactivated'))

  it.each(direct)('leads from $from to $to', async ({ from, to }) => {
    const made = await bench()
    const id = await INTO[from](made)
    expect(versionOf(made.keys, id).state).toBe(from)
    const { epoch } = made.keys.status()
    await ASK[to](made, id, from)
    expect(versionOf(made.keys, id).state).toBe(to)
    expect(versionOf(made.keys, id).history.at(-1)!.state).toBe(to)
    expect(made.keys.status().epoch).toBeGreaterThan(epoch)
    expect(versionOf(await made.open(), id).state).toBe(to)
  })

  it('leads from active to deactivated by promoting another', async () => {
    const { keys } = await bench()
    const { old, fresh } = await rotated(keys)
    expect(versionOf(keys, old).state).toBe('deactivated')
    expect(activeOf(keys)).toBe(fresh)
  })

  it('ends a suspension: active again, or deactivated where another is active', async () => {
    const made = await bench()
    const id = await INTO.suspended(made)
    await made.keys.reinstate(id)
    expect(activeOf(made.keys)).toBe(id)

    const fresh = await made.keys.rotate()
    await made.keys.suspend(id)
    await made.keys.promote(fresh, { urgent: true })
    await made.keys.reinstate(id)
    expect(versionOf(made.keys, id).state).toBe('deactivated')
    expect(activeOf(made.keys)).toBe(fresh)
  })

  it('keeps who changed what when, and the reason, in the history', async () => {
    const { keys, clock } = await bench()
    const id = activeOf(keys)
    clock.now += MINUTE
    await keys.suspend(id, { reason: 'ticket 4711' })
    expect(versionOf(keys, id).history.map(({ state }) => state)).toEqual(['pre-active', 'active', 'suspended'])
    expect(versionOf(keys, id).history.at(-1)).toEqual({ state: 'suspended', at: clock.now, reason: 'ticket 4711' })
  })
})

describe('a transition that is not allowed', () => {
  const refused = PAIRS.filter(({ allowed }) => !allowed)

  it.each(refused)('from $from to $to is KEY_STATE and changes nothing', async ({ from, to }) => {
    const made = await bench()
    const id = await INTO[from](made)
    const error = await refusedWhole(made, () => ASK[to](made, id, from))
    expect(error).toMatchObject({ code: 'KEY_STATE', keyId: id, state: from, retryable: false })
  })

  it('from active to deactivated, without another to write with, is KEY_STATE', async () => {
    const made = await bench()
    const id = activeOf(made.keys)
    const error = await refusedWhole(made, () => made.keys.deactivate(id))
    expect(error).toMatchObject({ code: 'KEY_STATE', keyId: id, state: 'active' })
  })

  it.each(STATES.filter((state) => state !== 'suspended'))('reinstates no %s version', async (state) => {
    const made = await bench()
    const id = await INTO[state](made)
    const error = await refusedWhole(made, () => made.keys.reinstate(id))
    expect(error).toMatchObject({ code: 'KEY_STATE', keyId: id, state })
  })

  it.each(['pre-active', 'active', 'suspended', 'destroyed'] as const)('retires no %s version', async (state) => {
    const made = await bench()
    const id = await INTO[state](made)
    const error = await refusedWhole(made, () => made.keys.retire(id, { references: 0 }))
    expect(error).toMatchObject({ code: 'KEY_STATE', keyId: id, state })
  })

  it.each(['deactivated', 'compromised'] as const)('destroys no %s version that is not retired', async (state) => {
    const made = await bench()
    const id = await INTO[state](made)
    const error = await refusedWhole(made, () => made.keys.destroy(id, { backupsExpire: new Date(0), pendingMs: 0 }))
    expect(error).toMatchObject({ code: 'KEY_STATE', keyId: id, state })
  })

  it('is none of a version that this keyring does not have', async () => {
    const made = await bench()
    const id = 'AAAAAAAAAAAAAAAAAAA_'
    for (const ask of Object.values(ASK)) {
      expect(await refusedWhole(made, () => ask(made, id, 'active'))).toMatchObject({ code: 'UNKNOWN_KEY', keyId: id })
    }
  })
})
