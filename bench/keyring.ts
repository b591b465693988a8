import { deepStrictEqual as same } from 'node:assert/strict'
import { setTimeout as after } from 'node:timers/promises'
import { createKeyring, int, openKeyring, records, text } from 'waxseal'
import { type KeyStore, memoryKeyStore } from 'waxseal/keystore/memory'
import { type KmsDriver, localKms } from 'waxseal/kms/local'
import type { Result } from './harness.ts'

const CALLERS = 3_000
const VERSIONS = 3
/** A KMS and a store over a network, in ms. */
const NETWORK = { kms: 15, store: 3 }

const notes = records('notes', { id: { id: int() }, fields: { body: text() } })

/** A KMS and a store that take their time to be read, and count it. `delay` may be changed. */
export function distant(delay: { kms: number; store: number } = { ...NETWORK }) {
  const local = localKms(crypto.getRandomValues(new Uint8Array(32)))
  const memory = memoryKeyStore()
  const counts = { unwraps: 0, loads: 0 }
  const kms: KmsDriver = {
    ...local,
    async unwrap(wrapped, context) {
      counts.unwraps++
      if (delay.kms > 0) await after(delay.kms)
      return local.unwrap(wrapped, context)
    },
  }
  const store: KeyStore = {
    async load(name) {
      counts.loads++
      if (delay.store > 0) await after(delay.store)
      return memory.load(name)
    },
    save: memory.save,
  }
  return { kms, store, counts, delay }
}

/**
 * KMS calls per needed key (each version, and the integrity key) when a cold process gets 3,000 requests at once, each of
 * which opens the keyring and encrypts. 1 is the least that opens anything.
 */
export async function concurrentOpen(): Promise<Result> {
  const { kms, store, counts } = distant()
  const made = await createKeyring({ name: 'crm', store, kms, propagationMs: 0 })
  for (let version = 1; version < VERSIONS; version++) {
    await made.rotate()
    await made.maintain()
  }
  counts.unwraps = 0
  const opened = await Promise.all(
    Array.from({ length: CALLERS }, async (_, id) => {
      const keys = await openKeyring({ name: 'crm', store, kms })
      const row = { id, body: `note ${id}` }
      return { keys, row, sealed: notes.encrypt(keys, row) }
    }),
  )
  const { unwraps } = counts
  // One who opened it before reads what every caller wrote, and the first caller what the last one wrote.
  await made.ready()
  for (const { row, sealed } of opened) same(notes.decrypt(made, sealed), row)
  same(notes.decrypt(opened[0]!.keys, opened.at(-1)!.sealed), opened.at(-1)!.row)
  for (const { keys } of opened) await keys.close()
  const needed = made.status().versions.length + 1
  same(needed, VERSIONS + 1)
  const value = unwraps / needed
  if (value < 1) throw new Error(`keyring.open.concurrent_calls: ${unwraps} calls cannot have opened ${needed} keys`)
  const untimed = { limit: null, ratio: null, spread: null }
  return { name: 'keyring.open.concurrent_calls', unit: 'calls', value, ...untimed, budget: 1, better: 'lower' }
}
