import { expect, it } from 'vitest'
import { type Keyring, WaxsealError } from 'waxseal'
import { nodeEngine } from 'waxseal/engine'
import { deferred } from '../kms/requests.ts'
import { region } from './roots.ts'
import { activeOf, NOTE, notes, quiet, refusal, rotated, setup } from './support.ts'

/** A keyring whose engine keeps hold of every key that it draws. */
async function started() {
  const drawn: Uint8Array[] = []
  const engine = nodeEngine()!
  const randomKey = (length: number): Uint8Array => {
    const key = engine.randomKey(length)
    if (length === 32) drawn.push(key)
    return key
  }
  const bench = setup({ engine: { ...engine, randomKey } })
  const keys = await bench.create()
  drawn.length = 0
  return { ...bench, keys, drawn }
}

const CALLS: Record<string, (keys: Keyring) => Promise<unknown>> = {
  rotate: (keys) => keys.rotate(),
  markCompromised: (keys) => keys.markCompromised(activeOf(keys), { reason: 'leaked' }),
}

it.each(Object.entries(CALLS))('a new master key that could not be written is wiped: %s', async (_, call) => {
  for (const failure of [new Error('disk full'), new WaxsealError('CONFLICT', 'epoch')]) {
    const { keys, store, drawn } = await started()
    store.save = async () => {
      throw failure
    }
    await refusal(() => call(keys))
    expect(drawn).toEqual([new Uint8Array(32)])
  }
})

it('a key that was unwrapped for a read that a write overtook is wiped, and the one in use is not', async () => {
  const kms = region(1)
  const bench = setup({ kms })
  const maker = await bench.create()
  const row = notes.encrypt(maker, { ...NOTE })
  await rotated(maker)
  const keys = await bench.open({ preload: 'active' })
  kms.handed.length = 0
  const answered = deferred<void>()
  kms.slow = () => {
    kms.slow = undefined
    return answered.promise
  }
  expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
  const late = keys.ready()
  await quiet()
  await keys.suspend(activeOf(keys)) // reads too, is answered at once, and writes
  expect([kms.handed.length, notes.decrypt(keys, row).body]).toEqual([1, NOTE.body])
  answered.resolve()
  await late
  expect(kms.handed.map((key) => key.every((byte) => byte === 0))).toEqual([false, true])
  expect(notes.decrypt(keys, row).body).toBe(NOTE.body)
})
