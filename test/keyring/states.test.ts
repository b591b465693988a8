import { describe, expect, it } from 'vitest'
import { isUnauthenticated, type KeyEvent, type Keyring, type KeyState } from 'waxseal'
import { type Operation, SOURCE } from '../../src/envelope/keys.ts'
import { type Rule, STATES } from '../../src/keyring/states.ts'
import { activeOf, MINUTE, NOTE, notes, refusal, rotated, setup, versionOf } from './support.ts'

const OPERATIONS = ['encrypt', 'decrypt', 'patch', 'rewrap', 'reencrypt', 'index'] as const

/** The table of the design, with the partial update that it treats like an encryption under an existing data key. */
const TABLE: Record<KeyState, Record<Operation, Rule>> = {
  'pre-active': { encrypt: 'no', decrypt: 'yes', patch: 'yes', rewrap: 'no', reencrypt: 'no', index: 'query' },
  active: { encrypt: 'yes', decrypt: 'yes', patch: 'yes', rewrap: 'yes', reencrypt: 'yes', index: 'yes' },
  suspended: { encrypt: 'no', decrypt: 'policy', patch: 'no', rewrap: 'no', reencrypt: 'no', index: 'query' },
  deactivated: { encrypt: 'no', decrypt: 'yes', patch: 'yes', rewrap: 'yes', reencrypt: 'yes', index: 'query' },
  compromised: { encrypt: 'no', decrypt: 'policy', patch: 'no', rewrap: 'no', reencrypt: 'report', index: 'no' },
  destroyed: { encrypt: 'no', decrypt: 'no', patch: 'no', rewrap: 'no', reencrypt: 'no', index: 'no' },
}

describe('the table of states and operations', () => {
  it('has a row for every state and no other', () => expect(Object.keys(STATES)).toEqual(Object.keys(TABLE)))

  const cells = Object.entries(TABLE).flatMap(([state, rules]) =>
    OPERATIONS.map((operation) => ({ state: state as KeyState, operation, rule: rules[operation] })),
  )
  it.each(cells)('says $rule to $operation under a $state version', ({ state, operation, rule }) => {
    expect(STATES[state][operation]).toBe(rule)
    expect(Object.keys(STATES[state])).toEqual([...OPERATIONS])
  })
})

/** A keyring with a row under a version in some state, while another version is there to write with. */
interface Scene {
  readonly keys: Keyring
  readonly id: string
  readonly row: ReturnType<typeof sealed>
  readonly events: KeyEvent[]
}

const sealed = (keys: Keyring) => notes.encrypt(keys, { ...NOTE })

async function started() {
  const bench = setup()
  const keys = await bench.create()
  return { ...bench, keys, id: activeOf(keys), row: sealed(keys) }
}

/** An instance that has learnt a staged version and not yet that another instance made it active. */
async function preActive(): Promise<Scene> {
  const { create, open, events } = setup()
  const writer = await create()
  const id = await writer.rotate()
  const keys = await open()
  await writer.promote(id, { urgent: true })
  return { keys, id, row: sealed(writer), events }
}

async function suspended(decrypt: 'refuse' | 'report'): Promise<Scene> {
  const scene = await started()
  const fresh = await scene.keys.rotate()
  await scene.keys.suspend(scene.id, { decrypt })
  await scene.keys.promote(fresh, { urgent: true })
  return scene
}

async function deactivated() {
  const scene = await started()
  await rotated(scene.keys)
  return scene
}

async function compromised(decrypt: 'refuse' | 'report'): Promise<Scene> {
  const scene = await started()
  await scene.keys.markCompromised(scene.id, { decrypt })
  return scene
}

async function destroyed(): Promise<Scene> {
  const scene = await deactivated()
  await scene.keys.retire(scene.id, { references: 0 })
  await scene.keys.destroy(scene.id, { backupsExpire: new Date(0), pendingMs: MINUTE })
  scene.clock.now += MINUTE
  await scene.keys.maintain()
  return scene
}

type Outcome = 'works' | 'reported' | 'refused'
type Column = Exclude<Operation, 'encrypt'>

interface Row {
  readonly name: string
  readonly state: KeyState
  readonly make: () => Promise<Scene>
  readonly writes: boolean
  readonly outcomes: Record<Column, Outcome>
}

const all = (outcome: Outcome): Record<Column, Outcome> => ({
  decrypt: outcome,
  patch: outcome,
  rewrap: outcome,
  reencrypt: outcome,
  index: outcome,
})

const ROWS: readonly Row[] = [
  {
    name: 'a pre-active version',
    state: 'pre-active',
    make: preActive,
    writes: false,
    outcomes: { ...all('works'), rewrap: 'refused', reencrypt: 'refused' },
  },
  { name: 'the active version', state: 'active', make: started, writes: true, outcomes: all('works') },
  {
    name: 'a suspended version that refuses',
    state: 'suspended',
    make: () => suspended('refuse'),
    writes: false,
    outcomes: { ...all('refused'), index: 'reported' },
  },
  {
    name: 'a suspended version that reports',
    state: 'suspended',
    make: () => suspended('report'),
    writes: false,
    outcomes: { ...all('refused'), decrypt: 'reported', index: 'reported' },
  },
  { name: 'a deactivated version', state: 'deactivated', make: deactivated, writes: false, outcomes: all('works') },
  {
    name: 'a compromised version that refuses',
    state: 'compromised',
    make: () => compromised('refuse'),
    writes: false,
    outcomes: { ...all('refused'), reencrypt: 'reported' },
  },
  {
    name: 'a compromised version that reports',
    state: 'compromised',
    make: () => compromised('report'),
    writes: false,
    outcomes: { ...all('refused'), decrypt: 'reported', reencrypt: 'reported' },
  },
  { name: 'a destroyed version', state: 'destroyed', make: destroyed, writes: false, outcomes: all('refused') },
]

const ASK: Record<Column, (scene: Scene) => unknown> = {
  decrypt: ({ keys, row }) => notes.decrypt(keys, row),
  patch: ({ keys, row }) => notes.patch(keys, row, { tag: 'new' }),
  rewrap: ({ keys, row }) => notes.rewrap(keys, row),
  reencrypt: ({ keys, row }) => notes.reencrypt(keys, row),
  index: ({ keys, id }) => keys[SOURCE].used(keys[SOURCE].find(id, 'index'), 'index'),
}

describe.each(ROWS)('$name', ({ state, make, writes, outcomes }) => {
  it('is in that state', async () => {
    const { keys, id } = await make()
    expect(versionOf(keys, id).state).toBe(state)
  })

  it(`${writes ? 'encrypts' : 'encrypts nothing'}`, async () => {
    const { keys, id, events } = await make()
    events.length = 0
    notes.encrypt(keys, { ...NOTE })
    expect(events.map(({ type }) => type)).toEqual(['encrypt'])
    expect((events[0] as { keyId: string }).keyId === id).toBe(writes)
  })

  it.each(Object.entries(outcomes) as [Column, Outcome][])('asked to %s: %s', async (operation, outcome) => {
    const scene = await make()
    scene.events.length = 0
    if (outcome === 'refused') {
      expect(await refusal(() => ASK[operation](scene))).toMatchObject({ code: 'KEY_STATE', state, keyId: scene.id })
    } else {
      ASK[operation](scene)
    }
    const used = scene.events.filter(({ type }) => type === 'key.use')
    const told = { type: 'key.use', keyId: scene.id, state, operation, keyring: 'crm' }
    expect(used).toEqual(outcome === 'reported' ? [expect.objectContaining(told)] : [])
    const failed = scene.events.filter(({ type }) => type === 'failure')
    const expectsFailure = outcome === 'refused' && operation !== 'index'
    expect(failed).toEqual(expectsFailure ? [expect.objectContaining({ code: 'KEY_STATE', keyId: scene.id })] : [])
  })

  if (outcomes.decrypt !== 'refused') {
    it(`reads values that are ${state === 'compromised' ? '' : 'not '}flagged as unauthenticated`, async () => {
      const { keys, row } = await make()
      const back = notes.decrypt(keys, row)
      expect(back).toEqual(NOTE)
      expect(isUnauthenticated(back)).toBe(state === 'compromised')
    })
  }
})

describe('while the active version is suspended and no other took its place', () => {
  it('nothing is encrypted, rewrapped or re-encrypted', async () => {
    const { keys, id, row } = await started()
    await keys.suspend(id, { decrypt: 'report' })
    expect(keys.status().active).toBeUndefined()
    for (const work of [() => notes.encrypt(keys, { ...NOTE }), () => notes.rewrap(keys, row)]) {
      expect(await refusal(work)).toMatchObject({ code: 'KEY_STATE', state: 'none active' })
    }
    expect(await refusal(() => notes.reencrypt(keys, row))).toMatchObject({ code: 'KEY_STATE' })
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })
})

describe('a retired version', () => {
  it.each(['decrypt', 'patch', 'rewrap', 'reencrypt'] as const)('reports when asked to %s', async (operation) => {
    const scene = await deactivated()
    await scene.keys.retire(scene.id, { references: 0 })
    scene.events.length = 0
    ASK[operation](scene)
    expect(scene.events).toContainEqual(
      expect.objectContaining({ type: 'key.use', keyId: scene.id, state: 'retired', operation }),
    )
  })
})
