import { describe, expect, it } from 'vitest'
import type { KeyEvent, WaxsealError } from 'waxseal'
import { activeOf, MINUTE, NOTE, notes, type Options, quiet, refusal, rotated, setup, versionOf } from './support.ts'

const REFRESH = 5 * MINUTE

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

/** A row of a keyring that is not this one. */
async function foreignRow() {
  return notes.encrypt(await setup().create(), { ...NOTE })
}

/** The code of what a synchronous call throws. */
function codeOf(work: () => unknown): string | undefined {
  try {
    work()
  } catch (error) {
    return (error as WaxsealError).code
  }
  return undefined
}

describe('a key that is not in memory', () => {
  it('is KEY_NOT_LOADED first, and UNKNOWN_KEY when the store was asked', async () => {
    const { keys, store } = await started()
    const row = await foreignRow()
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED', retryable: true })
    await keys.ready()
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'UNKNOWN_KEY', retryable: false })
    const { loads } = store
    for (let i = 0; i < 100; i++) await refusal(() => notes.decrypt(keys, row))
    await keys.ready()
    await quiet()
    expect(store.loads).toBe(loads)
  })

  it('of which a thousand are asked for in one go costs one read', async () => {
    const { keys, row, store } = await started()
    const unknown = Array.from({ length: 1000 }, (_, i) => {
      const bytes = Buffer.from(row.envelope.slice(4), 'base64url')
      bytes.writeUint32BE((bytes.readUint32BE(6) ^ (i + 1)) >>> 0, 6) // within the key id
      return { ...row, envelope: `wxh:${bytes.toString('base64url')}` }
    })
    const codes = () => new Set(unknown.map((other) => codeOf(() => notes.decrypt(keys, other))))
    expect(codes()).toEqual(new Set(['KEY_NOT_LOADED']))
    await keys.ready()
    expect(store.loads).toBe(1)
    expect(codes()).toEqual(new Set(['UNKNOWN_KEY']))
    await quiet()
    expect(store.loads).toBe(1)
  })

  it('because it was made elsewhere a moment ago is learnt', async () => {
    const { keys, other } = await started()
    await rotated(other)
    const row = notes.encrypt(other, { ...NOTE })
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    expect(activeOf(keys)).toBe(activeOf(other))
  })

  it('because the store answered from a copy that lags is learnt when the copy has caught up', async () => {
    const { keys, other, store, clock } = await started()
    const lagging = structuredClone(store.document)
    await rotated(other)
    const row = notes.encrypt(other, { ...NOTE })
    const newest = store.document
    store.document = lagging
    await refusal(() => notes.decrypt(keys, row))
    await keys.ready()
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'UNKNOWN_KEY' })
    store.document = newest
    clock.now += REFRESH + 1
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })
})

describe('what was changed elsewhere', () => {
  it('is acted on here after a refresh: a compromised version refuses and a new one encrypts', async () => {
    const { keys, other, row, clock, events } = await started()
    const leaked = activeOf(keys)
    const fresh = await other.markCompromised(leaked, { decrypt: 'refuse' })
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    clock.now += REFRESH + 1
    await keys.ready()
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE', state: 'compromised' })
    expect(activeOf(keys)).toBe(fresh)
    const told = events.filter(({ type }) => type === 'key.state')
    expect(told.map((event) => (event as { state: string }).state)).toEqual(['compromised', 'active'])
  })

  it('is taken into account by every management call, which decides again', async () => {
    const { keys, other } = await started()
    const { old } = await rotated(other)
    expect(versionOf(keys, old).state).toBe('active')
    await keys.retire(old, { references: 0 })
    expect(versionOf(keys, old)).toMatchObject({ state: 'deactivated', retired: true })
  })

  it('while this write was on its way back does not fail the write', async () => {
    const { keys, other, store, clock } = await started()
    const save = store.save
    let answer = (): void => {}
    store.save = async (name, next, expectedEpoch) => {
      await save(name, next, expectedEpoch)
      await new Promise<void>((done) => {
        answer = done
      })
    }
    const writing = keys.rotate()
    await quiet() // written, but the answer is still on its way
    store.save = save
    await other.promote((await other.rotate()) as string, { urgent: true })
    clock.now += REFRESH + 1
    await keys.ready()
    answer()
    expect(await writing).toBe(activeOf(other))
    expect(activeOf(keys)).toBe(activeOf(other))
  })
})
