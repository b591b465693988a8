import type { KeySource } from '../envelope/keys.ts'
import { WaxsealError } from '../errors.ts'
import { type StoredKeyring, saveStored } from '../keystore/keystore.ts'
import type { Secret } from '../secret.ts'
import { recordKeyCache } from './cache.ts'
import { type Clocks, readClocks } from './clocks.ts'
import { due, dueAt, expiresAt, freshnessOf, paced } from './freshness.ts'
import {
  assemble,
  confirm,
  type Loaded,
  lacksActive,
  load,
  type NewMaster,
  newMaster,
  type Origin,
  wipeLoaded,
  wipeNew,
  wrapAnew,
} from './load.ts'
import { continues, INTEGRITY, type Manifest, seal, type Version } from './manifest.ts'
import { clockOf, driversOf, type KeyringOptions } from './options.ts'
import { checkPin, lostVersions, rolledBack } from './rollback.ts'
import { chooseSuites, keySource, type Live } from './source.ts'

/** Calls in the background read the store, or ask the KMS, at most once in this time; `ready()` whenever it has to. */
const MIN_READ_MS = 1_000
const MIN_CONFIRM_MS = 30_000
const MAX_ABSENT_IDS = 10_000

export type { NewMaster } from './load.ts'

/** What a change needs besides the manifest: new wraps, and the secrets behind new versions. */
export interface Brought {
  readonly keys: StoredKeyring['keys']
  readonly secrets?: ReadonlyMap<string, Secret>
  /** Called once it is written, before anybody is told. */
  onWritten?(): void
}

/** Every key under other root keys, not written yet. */
export interface WrappedAnew extends Brought {
  /** Hashes of the wraps, by key id. */
  readonly hashes: ReadonlyMap<string, string>
}

/** An open keyring's life: what is loaded, how it is kept fresh, how it is changed. */
export interface Session {
  readonly live: Live
  /** The keys of a handle that names nobody. */
  readonly source: KeySource
  /** What is loaded; CONFIG once closed. */
  current(): Loaded
  /** Reads the store again and takes over what it finds. */
  read(): Promise<void>
  /** The same, one read at a time, shared by all who wait for it; a failure is shared with them alone. */
  refresh(): Promise<void>
  /** Resolves when the keys can be used: at once while they are fresh. */
  ready(): Promise<void>
  /** Ours and the store's; for what is to be waited for. */
  clocks(): Promise<Clocks>
  /** A fresh master key, wrapped under every root key; it belongs to no version yet. */
  newMaster(): Promise<NewMaster>
  wrapAnew(kms: KeyringOptions['kms'] | undefined): Promise<WrappedAnew>
  /**
   * Writes `changed` as the epoch after the one that is loaded, by compare-and-swap, and takes it over: wipes what it
   * no longer allows, then tells listeners what changed. Resolves to what was written; undefined, and nothing was
   * changed, when another write came first.
   */
  write(changed: Manifest, brought?: Brought): Promise<Manifest | undefined>
  /** URIs of the root keys that the keyring is under: those of its integrity key. */
  rootKeys(): readonly string[]
  /** Tells listeners of something that nobody waits for. */
  tell(operation: string, error: unknown): void
  /** True while a use of the version is cancelling its destruction. */
  isCancelling(keyId: string): boolean
  close(): void
}

/** `cancelDestroy` is asked for when a version is used whose destruction is pending. */
export function openSession(
  origin: Origin,
  options: KeyringOptions,
  { first, readAt }: { readonly first: Loaded; readonly readAt: number | undefined },
  cancelDestroy: (keyId: string) => Promise<void>,
): Session {
  const { name, engine } = origin
  const now = clockOf(options)
  const configured = freshnessOf(options)
  let freshness = configured
  const cancelling = new Set<string>()
  // Their age counts from when they were asked for: what happened while the KMS took its time is not known yet.
  let checked = { readAt: readAt ?? now(), confirmedAt: readAt ?? now() }
  let isReadFailing = false
  checkPin(options.pin, first.manifest)

  const live: Live = {
    name,
    engine,
    now,
    onEvent: options.onEvent,
    cache: options.cache && recordKeyCache(options.cache, () => live.checkedAt),
    suites: chooseSuites(first.manifest.suites, options, engine.preferredSuite),
    loaded: first,
    freshFrom: 0,
    dueAt: 0,
    expiresAt: 0,
    checkedAt: 0,
    wanted: new Set(),
    absent: new Set(),
    upkeep() {
      const time = now()
      const is = due(freshness, checked, time)
      // A clock that was set back must not make keys last longer.
      if (time < live.freshFrom) {
        schedule({ readAt: Math.min(time, checked.readAt), confirmedAt: Math.min(time, checked.confirmedAt) })
      }
      if (is.read || live.wanted.size > 0 || (live.loaded && lacksActive(live.loaded))) reading.soon()
      if (is.confirm) confirming.soon()
    },
    cancelDestroySoon(keyId) {
      if (cancelling.has(keyId)) return
      cancelling.add(keyId)
      const cancelled = cancelDestroy(keyId).catch((error) => tell('cancel destruction', error))
      void cancelled.finally(() => cancelling.delete(keyId))
    },
  }
  const source = keySource(live, {})
  const reading = singleFlight(MIN_READ_MS, read, (error) => {
    isReadFailing = isOutage(error)
    tell('refresh', error)
  })
  const confirming = singleFlight(MIN_CONFIRM_MS, confirmKeys, (error) => tell('confirm', error))
  schedule({})
  if (first.failure !== undefined) tell('unwrap', first.failure)

  function schedule(now: Partial<typeof checked>): void {
    checked = { ...checked, ...now }
    freshness = paced(configured, current().manifest.propagationMs)
    live.freshFrom = Math.max(checked.readAt, checked.confirmedAt)
    live.dueAt = dueAt(freshness, checked)
    live.expiresAt = expiresAt(freshness, checked)
  }

  function current(): Loaded {
    if (!live.loaded) throw new WaxsealError('CONFIG', `keyring "${name}" was closed`, { argument: 'keys' })
    return live.loaded
  }

  /** What fails because the keyring was closed meanwhile says so, and not that a key was wiped. */
  async function orClosed<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      current()
      throw error
    }
  }

  function tell(operation: string, error: unknown): void {
    if (!live.loaded) return
    try {
      source.emit({ type: 'keyring.failure', operation, code: WaxsealError.is(error) ? error.code : undefined })
    } catch {
      // A listener that fails stops what it is told of; here that has failed already, and its error is the one to tell.
    }
  }

  /** One at a time, shared by all who wait; `soon` starts one that nobody waits for, unless one was just tried. */
  function singleFlight(pauseMs: number, work: () => Promise<void>, failed: (error: unknown) => void) {
    let flight: Promise<void> | undefined
    let triedAt = now()
    const run = (): Promise<void> => {
      if (flight) return flight
      triedAt = now()
      flight = work().finally(() => {
        flight = undefined
      })
      flight.catch(failed)
      return flight
    }
    const soon = (): void => {
      const since = now() - triedAt
      if (flight || (since >= 0 && since < pauseMs)) return
      run().catch(() => undefined) // told already
    }
    return { run, soon }
  }

  async function ready(): Promise<void> {
    const isLacking = lacksActive(current())
    const time = now()
    const mustRead =
      live.wanted.size > 0 ||
      isLacking ||
      time < checked.readAt ||
      (time > checked.readAt + freshness.refreshMs && (!isReadFailing || time > live.expiresAt))
    if (mustRead) {
      const isAskedFor = live.wanted.size > 0
      await reading.run().catch((error) => {
        // Within the grace the keys are good as they are: an outage of the store is not one of the application. What the
        // store was changed to is another matter.
        if (isAskedFor || now() > live.expiresAt || !isOutage(error)) throw error
      })
    }
    if (live.wanted.size > 0) await reading.run() // asked for while that read was under way
    if (now() > live.expiresAt) await confirming.run()
    const loaded = current()
    if (loaded.failure !== undefined && lacksActive(loaded)) throw loaded.failure
    if (now() > live.dueAt || now() < live.freshFrom) live.upkeep()
  }

  async function confirmKeys(): Promise<void> {
    const askedAt = now()
    await confirm(origin, current())
    current()
    schedule({ confirmedAt: askedAt })
  }

  async function read(): Promise<void> {
    const wanted = new Set(live.wanted)
    const askedAt = now()
    const before = current()
    // A write of this process may have overtaken the read: then the older answer is dropped.
    const takeOver = (next: Loaded): void => {
      const held = current()
      if (next === held) install(next, askedAt)
      else if (held !== before && next.manifest.epoch < held.manifest.epoch) wipeNew(next, held)
      else {
        // A key that is in use stays the one that is in use: others may hold on to it.
        const merged = assemble(engine, next, ({ id }) => (held.masters.get(id) ?? next.masters.get(id))?.secret)
        wipeNew(next, merged)
        install(merged, askedAt)
      }
    }
    const next = await orClosed(load(origin, before, wanted, takeOver))
    if (!live.loaded) wipeLoaded(next)
    takeOver(next)
    for (const id of wanted) {
      live.wanted.delete(id)
      if (live.absent.size >= MAX_ABSENT_IDS) live.absent.clear()
      if (!current().manifest.versions.some((version) => version.id === id)) live.absent.add(id)
    }
    isReadFailing = false
    if (next !== before && next.failure !== undefined) tell('unwrap', next.failure)
  }

  async function write(changed: Manifest, brought?: Brought): Promise<Manifest | undefined> {
    const { manifest: before, integrity, stored: old } = current()
    const manifest = { ...changed, epoch: before.epoch + 1 }
    const stored = integrity.use((key) => seal(engine, key, manifest, { ...old.keys, ...brought?.keys }))
    const askedAt = now()
    try {
      await saveStored(origin.store, name, stored, before.epoch)
    } catch (error) {
      if (WaxsealError.is(error) && error.code === 'CONFLICT') return undefined
      throw error
    }
    brought?.onWritten?.()
    // A refresh may have seen this write, and later ones of others, before its answer came back.
    const { manifest: held, masters, failure } = current()
    if (held.epoch < manifest.epoch) {
      const secretOf = ({ id }: { id: string }) => masters.get(id)?.secret ?? brought?.secrets?.get(id)
      install(assemble(engine, { stored, manifest, integrity, failure }, secretOf), askedAt)
    }
    return manifest
  }

  function install(next: Loaded, readAt = now()): void {
    const before = current()
    if (!continues(before.manifest, next.manifest)) {
      wipeNew(next, before)
      throw rolledBack(next.manifest.epoch, before.manifest.epoch)
    }
    const kept = new Map(next.manifest.versions.map((version) => [version.id, version]))
    const lost = [...before.masters.keys()].filter((id) => !kept.has(id))
    if (lost.length > 0) {
      wipeNew(next, before)
      throw lostVersions(lost)
    }
    live.loaded = next
    schedule({ readAt })
    if (next === before) return
    const old = new Map(before.manifest.versions.map((version) => [version.id, version]))
    const historyOf = (version: Version | undefined): string => JSON.stringify(version?.history)
    const changed = next.manifest.versions.filter((v) => historyOf(v) !== historyOf(old.get(v.id)))
    for (const [id, master] of before.masters) {
      const successor = next.masters.get(id)
      if (successor?.secret !== master.secret) master.destroy()
      else if (successor !== master) master.replaced()
    }
    for (const { id } of changed) {
      live.absent.delete(id)
      live.cache?.purge(id)
    }
    for (const { what, epoch, reason } of next.manifest.log) {
      if (epoch > before.manifest.epoch) source.emit({ type: 'keyring.change', what, reason })
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
    if (loaded) wipeLoaded(loaded)
  }

  return {
    live,
    source,
    current,
    read,
    refresh: reading.run,
    ready,
    clocks: () => readClocks(origin.store, now),
    newMaster: () => newMaster(origin, current().manifest.id),
    async wrapAnew(kms) {
      const roots = kms === undefined ? origin.roots : { ...origin.roots, drivers: driversOf(kms) }
      const onWritten = (): void => {
        origin.roots = roots
      }
      return { ...(await orClosed(wrapAnew(origin, current(), roots))), onWritten }
    },
    write,
    rootKeys: () => current().stored.keys[INTEGRITY]!.map((wrap) => wrap.uri),
    tell,
    isCancelling: (keyId) => cancelling.has(keyId),
    close,
  }
}

/** A store that does not answer, or not to us any more. */
const isOutage = (error: unknown): boolean =>
  WaxsealError.is(error) && (error.code === 'KMS_UNAVAILABLE' || error.code === 'KMS_DENIED')
