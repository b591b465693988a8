import { expect, it } from 'vitest'
import { type Keyring, WaxsealError } from 'waxseal'
import { nodeEngine } from 'waxseal/engine'
import { activeOf, refusal, setup } from './support.ts'

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
