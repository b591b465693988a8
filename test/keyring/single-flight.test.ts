import { describe, expect, it, vi } from 'vitest'
import type { Keyring } from 'waxseal'
import { nodeEngine } from 'waxseal/engine'
import { Secret } from '../../src/secret.ts'
import { deferred } from '../kms/requests.ts'
import { AWAY, region } from './roots.ts'
import { activeOf, NOTE, notes, type Options, quiet, refusal, rotated, setup } from './support.ts'

/** A store and a KMS that answer when told to, and a keyring of two versions behind them. */
async function started() {
  const kms = region(1)
  const bench = setup({ kms })
  const maker = await bench.create()
  const row = notes.encrypt(maker, { ...NOTE })
  await rotated(maker)
  const held = deferred<void>()
  const { load } = bench.store
  bench.store.load = async (name) => {
    await held.promise
    return load(name)
  }
  kms.slow = () => new Promise((done) => setImmediate(done))
  kms.unwraps = bench.store.loads = 0
  kms.handed.length = 0
  return { ...bench, kms, maker, row, held }
}

const zeros = (buffers: readonly Uint8Array[]) => buffers.every((bytes) => bytes.every((byte) => byte === 0))

describe('3,000 who open a keyring at once', () => {
  it('cost one read of the store and one KMS request per key', async () => {
    const { open, kms, store, held, row } = await started()
    const opening = Promise.all(Array.from({ length: 3000 }, () => open()))
    await quiet()
    held.resolve()
    const all = await opening
    expect([store.loads, kms.unwraps]).toEqual([1, 3])
    expect(new Set(all).size).toBe(3000)
    for (const keys of [all[0]!, all[1500]!, all[2999]!]) expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('share also with those who come while the KMS is being asked', async () => {
    const { open, kms, store, held } = await started()
    held.resolve()
    const answered = deferred<void>()
    kms.slow = () => answered.promise
    const first = open()
    await quiet()
    expect(kms.unwraps).toBe(1)
    const second = open()
    await quiet()
    answered.resolve()
    await Promise.all([first, second])
    expect([store.loads, kms.unwraps]).toEqual([1, 3])
  })

  it('and those who come after they are done read for themselves', async () => {
    const { open, kms, store, held } = await started()
    held.resolve()
    await Promise.all([open(), open()])
    await open()
    expect([store.loads, kms.unwraps]).toEqual([2, 6])
  })

  it('see what was written just before the read, and nobody gets an older keyring than at the call', async () => {
    const { open, held, maker } = await started()
    const first = open()
    held.resolve()
    await first
    await rotated(maker)
    expect(activeOf(await open())).toBe(activeOf(maker))
  })
})

describe('the keyrings of one flight', () => {
  it('are closed one by one: closing one breaks none of the others', async () => {
    const { open, held, row } = await started()
    held.resolve()
    const all = await Promise.all(Array.from({ length: 10 }, () => open()))
    while (all.length > 1) {
      await all.shift()!.close()
      for (const keys of all) {
        expect(notes.decrypt(keys, row)).toEqual(NOTE)
        expect(notes.decrypt(all[0]!, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
      }
    }
  })

  it('live on their own: what one learns, or is told, is not the other’s', async () => {
    const { open, held } = await started()
    held.resolve()
    const told: string[] = []
    const [one, two] = (await Promise.all([open({ onEvent: ({ type }) => void told.push(type) }), open()])) as [
      Keyring,
      Keyring,
    ]
    await two.rotate()
    expect([one.status().epoch, two.status().epoch]).toEqual([3, 4])
    notes.encrypt(two, { ...NOTE })
    expect(told).toEqual([])
    notes.encrypt(one, { ...NOTE })
    expect(told).toEqual(['encrypt'])
  })

  it('have keys of their own, and the shared ones are wiped when the last has its copy', async () => {
    const { open, kms, held } = await started()
    held.resolve()
    await Promise.all(Array.from({ length: 100 }, () => open()))
    await quiet()
    expect([kms.handed.length, zeros(kms.handed)]).toEqual([3, true])
  })

  it('each mind their own pin and suite; the others work', async () => {
    const { open, kms, store, held, row } = await started()
    held.resolve()
    const engine = nodeEngine()!
    const results = await Promise.allSettled([
      open({ engine, pin: { id: 'A'.repeat(22) } }),
      open({ engine }),
      open({ engine, pin: { minEpoch: 99 } }),
    ])
    await quiet()
    expect(results.map((result) => (result.status === 'rejected' ? result.reason.code : 'open'))).toEqual([
      'CONFIG',
      'open',
      'KEY_STATE',
    ])
    // One load for all, and one more before the third is told of a rollback.
    expect([store.loads, kms.unwraps, zeros(kms.handed)]).toEqual([2, 6, true])
    expect(notes.decrypt((results[1] as PromiseFulfilledResult<Keyring>).value, row)).toEqual(NOTE)
  })
})

describe('whoever joins a load that began before its pin was written', () => {
  /** One load under way that has read the old epoch already, then a write, then an opening that is pinned to it. */
  async function overtaken(minEpoch: (written: number) => number) {
    const { open, kms, store, held, maker, row } = await started()
    held.resolve()
    const answered = deferred<void>()
    kms.slow = () => answered.promise
    const first = open()
    await quiet()
    kms.slow = async () => {}
    await maker.suspend(activeOf(maker))
    store.loads = 0
    const { epoch } = maker.status()
    const pinned = open({ pin: { minEpoch: minEpoch(epoch) } })
    const same = open()
    await quiet()
    answered.resolve()
    return { kms, store, row, epoch, first: await first, same: await same, pinned }
  }

  it('gets one that began later, and no rollback; the others keep theirs', async () => {
    const { epoch, first, same, pinned, store, row } = await overtaken((written) => written)
    const keys = await pinned
    expect([first, same, keys].map((each) => each.status().epoch)).toEqual([epoch - 1, epoch - 1, epoch])
    expect(store.loads).toBe(1)
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('is told of a rollback that is one, after one more read', async () => {
    const { pinned, store, kms } = await overtaken((written) => written + 1)
    expect(await refusal(() => pinned)).toMatchObject({ code: 'KEY_STATE', state: 'rolled back' })
    expect(store.loads).toBe(1)
    await quiet()
    expect(kms.handed.length).toBeGreaterThan(0)
  })
})

/** A clock that tells the time so many times. */
const brokenAfter = (times: number) => () => (times-- > 0 ? Date.now() : Number.NaN)

describe('an opening that is refused after its keys were unwrapped', () => {
  it.each<[string, () => Options]>([
    ['by the pin of the id', () => ({ pin: { id: 'A'.repeat(22) } })],
    ['by the pin of the epoch', () => ({ pin: { minEpoch: 99 } })],
    ['by its clock', () => ({ clock: brokenAfter(2) })],
  ])('%s leaves none of them in memory', async (_, optionsOf) => {
    const options = optionsOf()
    const { open, held } = await started()
    held.resolve()
    const destroy = vi.spyOn(Secret.prototype, 'destroy')
    await refusal(() => open(options))
    await quiet()
    // The integrity key and two versions: those of the flight, and the copies of this caller.
    const wiped = new Set(destroy.mock.contexts)
    destroy.mockRestore()
    expect(wiped.size).toBe(6)
  })
})

describe('a flight that fails', () => {
  it.each(['the store', 'the KMS'])(
    'since %s is away tells all who waited, and the next opening works',
    async (what) => {
      const { open, kms, store, held, row } = await started()
      if (what === 'the store') store.broken = new Error('away')
      else kms.down = AWAY
      const opening = Array.from({ length: 50 }, () => refusal(() => open()))
      await quiet()
      held.resolve()
      const errors = await Promise.all(opening)
      expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['KMS_UNAVAILABLE']))
      expect([store.loads, kms.unwraps]).toEqual([1, what === 'the store' ? 0 : 1])
      store.broken = kms.down = undefined
      expect(notes.decrypt(await open(), row)).toEqual(NOTE)
    },
  )

  it('at one key wipes those that were unwrapped already', async () => {
    const { open, kms, held } = await started()
    held.resolve()
    kms.slow = async () => {
      if (kms.unwraps >= 3) kms.down = AWAY
    }
    await Promise.all([1, 2].map(() => refusal(() => open())))
    await quiet()
    expect(kms.handed.length).toBeGreaterThan(0)
    expect(zeros(kms.handed)).toBe(true)
  })
})

describe('what is not the same is not mixed', () => {
  const engine = nodeEngine()!
  const OTHER: Record<string, () => Options> = {
    'another KMS driver of the same root key': () => ({ kms: region(1) }),
    'one root key more': () => ({ kms: [region(1), region(2)] }),
    'another engine': () => ({ engine: { ...engine } }),
    'another preload': () => ({ preload: 'active' }),
    'other patience': () => ({ patience: { attempts: 2 } }),
  }

  it.each(Object.entries(OTHER))('%s reads for itself', async (_, options) => {
    const { open, store, held, row } = await started()
    const opening = Promise.all([open({ engine }), open({ engine, ...options() }), open({ engine })])
    await quiet()
    held.resolve()
    const [one, , three] = await opening
    expect(store.loads).toBe(2)
    for (const keys of [one, three]) expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('another store, or another name in one store, is another keyring', async () => {
    const { open, store, held, kms } = await started()
    const there = store.load
    const names: string[] = []
    const second = setup({ kms })
    await second.create({ name: 'erp' })
    store.load = async (name) => {
      names.push(name)
      return name === 'erp' ? structuredClone(second.store.document) : there(name)
    }
    const opening = Promise.all([open(), open({ name: 'erp' }), open({ name: 'erp', store: second.store })])
    await quiet()
    held.resolve()
    const opened = await opening
    expect(opened.map((keys) => [keys.name, keys.status().name])).toEqual([
      ['crm', 'crm'],
      ['erp', 'erp'],
      ['erp', 'erp'],
    ])
    expect(names.sort()).toEqual(['crm', 'erp'])
    expect(new Set(opened.map((keys) => keys.status().id)).size).toBe(2)
  })
})
