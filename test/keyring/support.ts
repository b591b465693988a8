import {
  createKeyring,
  int,
  type KeyEvent,
  type Keyring,
  type KeyringOptions,
  openKeyring,
  records,
  text,
  WaxsealError,
} from 'waxseal'
import { type Engine, nodeEngine } from 'waxseal/engine'
import type { KmsDriver } from 'waxseal/kms/local'
import { localKms } from 'waxseal/kms/local'
import type { KeyStore, StoredKeyring } from '../../src/keystore/keystore.ts'

/** The root key of every keyring here. */
export const ROOT = Uint8Array.from({ length: 32 }, (_, i) => 0xd0 ^ (i * 7))
export const START = Date.UTC(2026, 0, 1)
export const MINUTE = 60_000
export const DAY = 86_400_000

/** Something to encrypt. */
export const notes = records('notes', { id: { id: int() }, fields: { body: text(), tag: text() } })
export const NOTE = { id: 17, body: 'an unmistakable plaintext', tag: 'another plaintext' } as const

export interface WatchedStore extends KeyStore {
  loads: number
  saves: number
  /** Thrown by every call while it is set. */
  broken: Error | undefined
  /** What is stored, to be looked at and tampered with. */
  document: StoredKeyring | undefined
}

/** A store of one keyring that counts its calls and can fail. */
export function watchedStore(): WatchedStore {
  const store: WatchedStore = {
    loads: 0,
    saves: 0,
    broken: undefined,
    document: undefined,
    async load() {
      store.loads++
      if (store.broken) throw store.broken
      return structuredClone(store.document)
    },
    async save(_name, next, expectedEpoch) {
      if (store.broken) throw store.broken
      if ((store.document?.epoch ?? null) !== expectedEpoch) throw new WaxsealError('CONFLICT', 'epoch')
      store.saves++
      store.document = structuredClone(next)
    },
  }
  return store
}

export interface WatchedKms extends KmsDriver {
  wraps: number
  unwraps: number
  broken: Error | undefined
}

export function watchedKms(inner: KmsDriver = localKms(ROOT)): WatchedKms {
  const kms: WatchedKms = {
    keyUri: inner.keyUri,
    wraps: 0,
    unwraps: 0,
    broken: undefined,
    async wrap(key, context) {
      kms.wraps++
      if (kms.broken) throw kms.broken
      return inner.wrap(key, context)
    },
    async unwrap(wrapped, context) {
      kms.unwraps++
      if (kms.broken) throw kms.broken
      return inner.unwrap(wrapped, context)
    },
  }
  return kms
}

/** Node's engine, counting the data keys it unwraps. */
export function countingEngine(): Engine & { unwraps: number } {
  const inner = nodeEngine()!
  const engine = {
    ...inner,
    unwraps: 0,
    keyWrap(key: Uint8Array) {
      const wrap = inner.keyWrap(key)
      return {
        ...wrap,
        unwrap(wrapped: Uint8Array) {
          engine.unwraps++
          return wrap.unwrap(wrapped)
        },
      }
    },
  }
  return engine
}

export type Options = Partial<KeyringOptions> & { readonly propagationMs?: number }

/** One store, one KMS and one clock, for as many keyrings as a test wants. */
export function setup(options: Options = {}) {
  const clock = { now: START }
  const store = watchedStore()
  const kms = watchedKms()
  const events: KeyEvent[] = []
  const shared = {
    name: 'crm',
    store,
    kms,
    patience: { attempts: 1 },
    clock: () => clock.now,
    onEvent: (event: KeyEvent) => void events.push(event),
    ...options,
  }
  return {
    clock,
    store,
    kms,
    events,
    create: (more: Options = {}): Promise<Keyring> => createKeyring({ ...shared, ...more }),
    open: (more: Options = {}): Promise<Keyring> => openKeyring({ ...shared, ...more }),
  }
}

/** The active version's id. */
export const activeOf = (keys: Keyring): string => keys.status().active!

/** The status as the store has it: the same for every instance that read it. */
export function standing(keys: Keyring) {
  const { due: _, versions, ...rest } = keys.status()
  return { ...rest, versions: versions.map(({ loaded, ...version }) => version) }
}

export const versionOf = (keys: Keyring, id: string) => keys.status().versions.find((version) => version.id === id)!

/** A version that is deactivated, and the one that took its place. */
export async function rotated(keys: Keyring): Promise<{ old: string; fresh: string }> {
  const old = activeOf(keys)
  const fresh = await keys.rotate()
  await keys.promote(fresh, { urgent: true })
  return { old, fresh }
}

/** Lets background work run to its end: everything here is promises, nothing waits for a timer. */
export async function quiet(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done))
}

/** The WaxsealError that `work` throws or rejects with; anything else, and nothing, fails the test. */
export async function refusal(work: () => unknown): Promise<WaxsealError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof WaxsealError) return error
    throw new Error('expected a WaxsealError', { cause: error })
  }
  throw new Error('expected a WaxsealError, but nothing was thrown')
}
