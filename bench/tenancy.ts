import { deepStrictEqual as same } from 'node:assert/strict'
import { createKeyring, int, type Keyring, openKeyring, records, text } from 'waxseal'
import { distant } from './keyring.ts'

const notes = records('notes', { id: { id: int() }, fields: { body: text() } })
const ROW = { id: 1, body: 'hello' }
const AT_ONCE = 64

export interface TenancyResult {
  readonly tenants: number
  readonly versions: number
  /** Of opening all of them, 64 at once, with a first encryption each. */
  readonly openSeconds: number
  readonly kmsCallsPerOpen: number
  readonly storeReadsPerOpen: number
  /** Bytes per open keyring: V8's heap, what hangs outside of it, and the growth of the process. */
  readonly heap: number
  readonly external: number
  readonly rss: number
}

/** Opens one keyring per tenant, and holds them all. The stored documents are in memory before that. */
export async function openAll(tenants: number, versions = 1): Promise<TenancyResult> {
  const { kms, store, counts, delay } = distant()
  const network = { ...delay }
  Object.assign(delay, { kms: 0, store: 0 }) // creating is not what is measured
  await inTurns(tenants, async (i) => {
    const keys = await createKeyring({ name: `tenant-${i}`, store, kms, propagationMs: 0 })
    for (let version = 1; version < versions; version++) {
      await keys.rotate()
      await keys.maintain()
    }
    await keys.close()
  })
  Object.assign(delay, network)
  counts.unwraps = counts.loads = 0
  const before = memory()
  const start = performance.now()
  const open: Keyring[] = new Array(tenants)
  await inTurns(tenants, async (i) => {
    const keys = await openKeyring({ name: `tenant-${i}`, store, kms })
    same(notes.decrypt(keys, notes.encrypt(keys, ROW)), ROW)
    open[i] = keys
  })
  const openSeconds = (performance.now() - start) / 1000
  const after = memory()
  const each = (key: keyof typeof before): number => Math.round((after[key] - before[key]) / tenants)
  const result = {
    tenants,
    versions,
    openSeconds,
    kmsCallsPerOpen: counts.unwraps / tenants,
    storeReadsPerOpen: counts.loads / tenants,
    heap: each('heap'),
    external: each('external'),
    rss: each('rss'),
  }
  for (const keys of open) await keys.close()
  return result
}

/** Calls per keyring and hour that is used once a minute, at the default options: counted over a day of its clock. */
export async function hourly(versions = 1): Promise<{ versions: number; kmsCalls: number; storeReads: number }> {
  const { kms, store, counts } = distant({ kms: 0, store: 0 })
  const clock = { now: Date.UTC(2026, 0, 1) }
  const made = await createKeyring({ name: 'tenant', store, kms, propagationMs: 0, clock: () => clock.now })
  for (let version = 1; version < versions; version++) {
    await made.rotate()
    await made.maintain()
  }
  const keys = await openKeyring({ name: 'tenant', store, kms, clock: () => clock.now })
  counts.unwraps = counts.loads = 0
  const hours = 24
  for (let minute = 0; minute < hours * 60; minute++) {
    clock.now += 60_000
    await keys.ready()
    notes.encrypt(keys, ROW)
    for (let i = 0; i < 10; i++) await new Promise((done) => setImmediate(done))
  }
  return { versions, kmsCalls: counts.unwraps / hours, storeReads: counts.loads / hours }
}

async function inTurns(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker))
}

function memory() {
  for (let i = 0; i < 4; i++) globalThis.gc?.()
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed, external, rss }
}
