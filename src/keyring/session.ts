import { config, WaxsealError } from '../errors.ts'
import { saveStored } from '../keystore/keystore.ts'
import { recordKeyCache } from './cache.ts'
import { assemble, type Loaded, load, type NewMaster, newMaster, type Origin } from './load.ts'
import { type Manifest, seal, type Version } from './manifest.ts'
import type { KeyringOptions } from './options.ts'
import { chooseSuites, keySource, type Live } from './source.ts'

const REFRESH_MS = 300_000
const MAX_AGE_MS = 3_600_000
/** Calls in the background read the store at most once in this time; `ready()` reads whenever it has to. */
const MIN_REFRESH_MS = 1_000
const MAX_ABSENT_IDS = 10_000

/** An open keyring's life: what is loaded, how it is kept fresh, how it is changed. */
export interface Session {
  readonly live: Live
  /** What is loaded; CONFIG once closed. */
  current(): Loaded
  /** Reads the store again and takes over what it finds. */
  read(): Promise<void>
  /** The same, one read at a time, shared by all who wait for it; a failure is shared with them alone. */
  refresh(): Promise<void>
  /** A fresh master key, wrapped by the KMS; it belongs to no version yet. */
  newMaster(): Promise<NewMaster>
  /**
   * Writes `changed` as the epoch after the one that is loaded, by compare-and-swap, and takes it over: wipes what it
   * no longer allows, then tells listeners what changed. Resolves to what was written; undefined, and nothing was
   * changed, when another write came first.
   */
  write(changed: Manifest, added?: NewMaster): Promise<Manifest | undefined>
  /** True while a use of the version is cancelling its destruction. */
  isCancelling(keyId: string): boolean
  close(): void
}

/** `cancelDestroy` is asked for when a version is used whose destruction is pending. */
export function openSession(
  origin: Origin,
  options: KeyringOptions,
  first: Loaded,
  cancelDestroy: (keyId: string) => Promise<void>,
): Session {
  const { name, engine } = origin
  const clock = options.clock ?? Date.now
  const now = (): number => {
    const time = Math.floor(clock())
    if (Number.isNaN(time)) throw config('clock', 'ms since the epoch', time)
    return time
  }
  let refreshing: Promise<void> | undefined
  let attemptedAt = now()
  const cancelling = new Set<string>()
  checkPin(options.pin, first.manifest)

  const live: Live = {
    name,
    engine,
    now,
    onEvent: options.onEvent,
    cache: options.cache && recordKeyCache(options.cache, () => live.checkedAt),
    refreshMs: options.refreshMs ?? REFRESH_MS,
    maxAgeMs: options.maxAgeMs ?? MAX_AGE_MS,
    suites: chooseSuites(first.manifest.suites, options.suite, engine.preferredSuite),
    loaded: first,
    loadedAt: now(),
    checkedAt: 0,
    wanted: new Set(),
    absent: new Set(),
    refreshSoon() {
      const since = now() - attemptedAt
      if (refreshing || (since >= 0 && since < MIN_REFRESH_MS)) return
      void inBackground('refresh', refresh)
    },
    cancelDestroySoon(keyId) {
      if (cancelling.has(keyId)) return
      cancelling.add(keyId)
      void inBackground('cancel destruction', () => cancelDestroy(keyId)).finally(() => cancelling.delete(keyId))
    },
  }
  const source = keySource(live, {})

  function current(): Loaded {
    if (!live.loaded) throw new WaxsealError('CONFIG', `keyring "${name}" was closed`, { argument: 'keys' })
    return live.loaded
  }

  async function inBackground(operation: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!live.loaded) return
      try {
        source.emit({ type: 'keyring.failure', operation, code: WaxsealError.is(error) ? error.code : undefined })
      } catch {
        // Nobody waits for background work, so there is nobody to tell that the listener failed as well.
      }
    }
  }

  function refresh(): Promise<void> {
    refreshing ??= read().finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  async function read(): Promise<void> {
    const wanted = [...live.wanted]
    const before = current()
    attemptedAt = now()
    const next = await load(origin, before).catch((error) => {
      current() // closed meanwhile: that is the reason, not a wiped key
      throw error
    })
    if (!live.loaded) wipe(next)
    // A write of this process may have overtaken the read: then the older answer is dropped.
    if (current() === before || next.manifest.epoch >= current().manifest.epoch) install(next)
    for (const id of wanted) {
      live.wanted.delete(id)
      if (live.absent.size >= MAX_ABSENT_IDS) live.absent.clear()
      if (!live.loaded?.masters.has(id)) live.absent.add(id)
    }
  }

  async function write(changed: Manifest, added?: NewMaster): Promise<Manifest | undefined> {
    const { manifest: before, integrity, masters, stored: old } = current()
    const manifest = { ...changed, epoch: before.epoch + 1 }
    const keys = added ? { ...old.keys, [added.id]: added.wraps } : old.keys
    const stored = integrity.use((key) => seal(engine, key, manifest, keys))
    try {
      await saveStored(origin.store, name, stored, before.epoch)
    } catch (error) {
      if (WaxsealError.is(error) && error.code === 'CONFLICT') return undefined
      throw error
    }
    // A refresh may have seen this write, and later ones of others, before its answer came back.
    if (current().manifest.epoch < manifest.epoch) {
      const secretOf = ({ id }: Version) => (id === added?.id ? added.secret : masters.get(id)!.secret)
      install(assemble(engine, { stored, manifest, integrity }, secretOf))
    }
    return manifest
  }

  function install(next: Loaded): void {
    const before = current()
    if (!continues(before.manifest, next.manifest)) throw rolledBack(next.manifest.epoch, before.manifest.epoch)
    live.loaded = next
    live.loadedAt = now()
    if (next === before) return
    const old = new Map(before.manifest.versions.map((version) => [version.id, version]))
    const changed = next.manifest.versions.filter((v) => v.history.length !== old.get(v.id)?.history.length)
    for (const { id, state } of changed) {
      live.absent.delete(id)
      live.cache?.purge(id)
      if (state === 'destroyed') before.masters.get(id)?.destroy()
    }
    for (const { id, state, history } of changed) {
      const last = history.at(-1)
      source.emit({ type: 'key.state', keyId: id, state: last?.state ?? state, reason: last?.reason })
    }
  }

  function close(): void {
    const { loaded } = live
    live.loaded = undefined
    live.cache?.purge()
    if (loaded) wipe(loaded)
  }

  return {
    live,
    current,
    read,
    refresh,
    newMaster: () => newMaster(origin, current().manifest.id),
    write,
    isCancelling: (keyId) => cancelling.has(keyId),
    close,
  }
}

/** True when `next` is `before` with more history: an older copy is not, nor is one that was changed from an older copy. */
function continues(before: Manifest, next: Manifest): boolean {
  if (next.epoch < before.epoch) return false
  if (next.epoch === before.epoch) return JSON.stringify(next) === JSON.stringify(before)
  const versions = new Map(next.versions.map((version) => [version.id, version]))
  return before.versions.every(({ id, history }) => {
    const later = versions.get(id)?.history.slice(0, history.length)
    return JSON.stringify(later) === JSON.stringify(history)
  })
}

function wipe(loaded: Loaded): void {
  loaded.integrity.destroy()
  for (const master of loaded.masters.values()) master.destroy()
}

export function checkPin(pin: KeyringOptions['pin'], manifest: Manifest): void {
  if (pin?.id !== undefined && pin.id !== manifest.id) {
    throw new WaxsealError('CONFIG', `"pin.id" expected keyring ${pin.id}, got ${manifest.id}`, { argument: 'pin.id' })
  }
  if (pin?.minEpoch !== undefined && manifest.epoch < pin.minEpoch) throw rolledBack(manifest.epoch, pin.minEpoch)
}

function rolledBack(found: number, expected: number): WaxsealError {
  return new WaxsealError('KEY_STATE', `key store: rolled back to epoch ${found}, epoch ${expected} was seen before`, {
    state: 'rolled back',
  })
}
