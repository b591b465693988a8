import type { Engine } from '../engine/engine.ts'
import { type Keys, SOURCE } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Actor, OnEvent } from '../events.ts'
import { printsAs } from '../secret.ts'
import { type CacheLimits, recordKeyCache } from './cache.ts'
import { type Loaded, load, loadedMaster, type NewMaster, newMaster, type Origin } from './load.ts'
import { type DecryptPolicy, type Manifest, type StateChange, seal } from './manifest.ts'
import { chooseSuites, keySource, type Live } from './source.ts'
import type { KeyState } from './states.ts'
import * as transitions from './transitions.ts'

/** What a key version is told apart by, and where it stands. No key bytes. */
export interface VersionStatus {
  readonly id: string
  readonly state: KeyState
  readonly retired: boolean
  /** For suspended and compromised versions: whether decrypting is refused or reported. */
  readonly decrypt?: DecryptPolicy
  /** For a staged version: when it may be promoted. ms since the epoch. */
  readonly promoteAt?: number
  /** When a pending destruction may be carried out. ms since the epoch. */
  readonly destroyAt?: number
  readonly history: readonly StateChange[]
}

export interface KeyringStatus {
  readonly name: string
  /** base64url of 16 bytes: pin it. */
  readonly id: string
  /** Counts the writes of the key store: pin a minimum. */
  readonly epoch: number
  /** The active version's id; undefined while it is suspended. */
  readonly active: string | undefined
  readonly suites: readonly number[]
  readonly versions: readonly VersionStatus[]
}

export interface Reason {
  /** Kept in the history and told to listeners. */
  readonly reason?: string
}

/** An open keyring. Management calls read the store, change the manifest by compare-and-swap, and take effect here at once. */
export interface Keyring extends Keys, AsyncDisposable {
  status(): KeyringStatus
  /**
   * Stages a new version and returns its id; while one is staged already, returns that. Every instance learns the
   * version within its refresh interval; {@link Keyring.maintain} promotes it after the propagation time.
   */
  rotate(options?: Reason): Promise<string>
  /** Does what is due: promotes a staged version, carries out destructions. Safe from many instances at once. */
  maintain(): Promise<{ promoted: string[]; destroyed: string[] }>
  /** Makes a staged version active. KEY_STATE before its propagation time, unless `urgent`. */
  promote(id: string, options?: Reason & { urgent?: boolean }): Promise<void>
  /** Stops a version from encrypting; decrypting is refused unless `decrypt: 'report'`. */
  suspend(id: string, options?: Reason & { decrypt?: DecryptPolicy }): Promise<void>
  /** Ends a suspension: active again, or deactivated when another version is active. */
  reinstate(id: string, options?: Reason): Promise<void>
  /** Takes a suspended version out of use for good. An active one is deactivated by promoting another. */
  deactivate(id: string, options?: Reason): Promise<void>
  /**
   * For a key that may have leaked. Never rewrapped again; decrypting is reported (default) or refused. If it was the
   * active version, a new one is active in the same write, whose id is returned.
   */
  markCompromised(id: string, options: Reason & { decrypt?: DecryptPolicy }): Promise<string | undefined>
  /** Records that nothing refers to the version any more: `references` is what a query counted. CONFLICT unless 0. */
  retire(id: string, options: Reason & { references: number }): Promise<void>
  /**
   * Schedules destruction: when the last backup that holds rows under the key has expired and `pendingMs` has passed,
   * {@link Keyring.maintain} carries it out. Any use until then cancels it and raises an event.
   */
  destroy(id: string, options: Reason & { backupsExpire: Date; pendingMs?: number }): Promise<Date>
  cancelDestroy(id: string, options?: Reason): Promise<void>
  /** Wipes the keys from memory. Later use is a CONFIG error. */
  close(): Promise<void>
}

export interface KeyringOptions {
  /** Letters, digits, `.`, `_` and `-`; at most 64. */
  readonly name: string
  readonly store: Origin['store']
  readonly kms: Origin['kms']
  /** Pins one suite, for writing and for reading. */
  readonly suite?: 1 | 2
  /** Told of every use, failure and state change; see {@link OnEvent}. */
  readonly onEvent?: OnEvent
  /** Keeps opened record keys for repeated reads. Off by default. */
  readonly cache?: CacheLimits
  /** The stored manifest is read again after this many ms, when a call comes. 300,000 (5 minutes) by default. */
  readonly refreshMs?: number
  /** Keys that could not be checked for this long are not used any more. 3,600,000 (1 hour) by default. */
  readonly maxAgeMs?: number
  /** Which keyring, and how old it may be: a replaced or rolled-back store is refused. */
  readonly pin?: { readonly id?: string; readonly minEpoch?: number }
  readonly engine?: Engine
  /** ms since the epoch. */
  readonly clock?: () => number
}

export const DEFAULTS = { refreshMs: 300_000, maxAgeMs: 3_600_000, pendingMs: 7 * 86_400_000 } as const
const MAX_COMMIT_TRIES = 20
const MAX_ABSENT_IDS = 10_000

/** Makes the handle around what was loaded. */
export function keyring(origin: Origin, options: KeyringOptions, first: Loaded): Keyring {
  const { name, engine } = origin
  const now = options.clock ?? Date.now
  let refreshing: Promise<void> | undefined
  let writing: Promise<unknown> = Promise.resolve()
  const cancelling = new Set<string>()
  checkPin(options.pin, first.manifest)

  const live: Live = {
    name,
    engine,
    now,
    onEvent: options.onEvent,
    cache: options.cache && recordKeyCache(options.cache, now),
    refreshMs: options.refreshMs ?? DEFAULTS.refreshMs,
    maxAgeMs: options.maxAgeMs ?? DEFAULTS.maxAgeMs,
    suites: chooseSuites(first.manifest.suites, options.suite, engine.preferredSuite),
    loaded: first,
    loadedAt: now(),
    wanted: new Set(),
    absent: new Set(),
    refreshSoon: () => void inBackground('refresh', refresh),
    cancelDestroySoon(keyId) {
      if (cancelling.has(keyId)) return
      cancelling.add(keyId)
      void inBackground('cancel destruction', () =>
        commit('used while pending destruction', (m, moment) => transitions.cancelDestroy(m, keyId, moment)),
      ).finally(() => cancelling.delete(keyId))
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
      source.emit({ type: 'keyring.failure', operation, code: WaxsealError.is(error) ? error.code : undefined })
    }
  }

  /** One refresh at a time, shared by all who wait for it; a failure is shared with them alone. */
  function refresh(): Promise<void> {
    refreshing ??= read().finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  async function read(): Promise<void> {
    const wanted = [...live.wanted]
    const before = current()
    const next = await load(origin, before)
    // A write of this process may have overtaken the read: then the older answer is dropped.
    if (current() === before || next.manifest.epoch >= current().manifest.epoch) install(next)
    for (const id of wanted) {
      live.wanted.delete(id)
      if (live.absent.size >= MAX_ABSENT_IDS) live.absent.clear()
      if (!live.loaded?.masters.has(id)) live.absent.add(id)
    }
  }

  /** Takes over a newer manifest: wipes what it no longer allows, tells listeners what changed. */
  function install(next: Loaded): void {
    const before = current()
    if (next.manifest.epoch < before.manifest.epoch) throw rolledBack(next.manifest.epoch, before.manifest.epoch)
    live.loaded = next
    live.loadedAt = now()
    if (next === before) return
    for (const version of next.manifest.versions) {
      const old = before.manifest.versions.find((other) => other.id === version.id)
      live.absent.delete(version.id)
      if (old && version.history.length === old.history.length) continue
      live.cache?.purge(version.id)
      if (version.state === 'destroyed') before.masters.get(version.id)?.secret.destroy()
      const last = version.history.at(-1)
      source.emit({ type: 'key.state', keyId: version.id, state: last?.state ?? version.state, reason: last?.reason })
    }
  }

  /** Applies a transition by compare-and-swap; somebody else's write in between means reading and deciding again. */
  async function commit(
    reason: string | undefined,
    transition: (manifest: Manifest, moment: transitions.Moment) => Manifest,
    added?: NewMaster,
  ): Promise<Manifest> {
    const turn = writing.then(async () => {
      for (let attempt = 0; attempt < MAX_COMMIT_TRIES; attempt++) {
        await read()
        const before = current()
        const changed = transition(before.manifest, { now: now(), reason })
        if (changed === before.manifest) return changed
        const manifest = { ...changed, epoch: before.manifest.epoch + 1 }
        const keys = added ? { ...before.stored.keys, [added.id]: added.wraps } : before.stored.keys
        const stored = before.integrity.use((key) => seal(engine, key, manifest, keys))
        try {
          await origin.store.save(name, stored, before.manifest.epoch)
        } catch (error) {
          if (WaxsealError.is(error) && error.code === 'CONFLICT') continue
          throw error
        }
        install(rebuilt(before, stored, manifest, added))
        return manifest
      }
      throw new WaxsealError('CONFLICT', `keyring "${name}" is being changed by others all the time`)
    })
    writing = turn.catch(() => undefined)
    return turn
  }

  function rebuilt(before: Loaded, stored: Loaded['stored'], manifest: Manifest, added?: NewMaster): Loaded {
    const masters = manifest.versions
      .filter((version) => version.wraps)
      .map((version) => {
        const secret = version.id === added?.id ? added.secret : before.masters.get(version.id)!.secret
        return [version.id, loadedMaster(engine, manifest.id, version, secret)] as const
      })
    return { stored, manifest, integrity: before.integrity, masters: new Map(masters) }
  }

  const handle = (who: Actor): Keys =>
    printsAs(
      {
        name,
        [SOURCE]: keySource(live, who),
        as: (next: Actor) => handle(next),
        ready,
      },
      `[keys of ${name}]`,
    )

  async function ready(): Promise<void> {
    current()
    if (live.wanted.size > 0 || now() - live.loadedAt > live.refreshMs) await refresh()
  }

  const staged = (manifest: Manifest) =>
    manifest.versions.find((version) => version.state === 'pre-active' && version.destroyAt === undefined)

  async function close(): Promise<void> {
    const { loaded } = live
    live.loaded = undefined
    live.cache?.purge()
    loaded?.integrity.destroy()
    for (const master of loaded?.masters.values() ?? []) master.secret.destroy()
  }

  const self: Keyring = {
    name,
    [SOURCE]: source,
    as: handle,
    ready,
    status: () => describe(current().manifest, live.suites),
    async rotate({ reason } = {}) {
      await refresh()
      const waiting = staged(current().manifest)
      if (waiting) return waiting.id
      const added = await newMaster(origin, current().manifest.id)
      const stage = (m: Manifest, moment: transitions.Moment) =>
        staged(m) ? m : transitions.stage(m, added.id, added.hash, moment)
      return staged(await commit(reason, stage, added))!.id
    },
    async maintain() {
      const promoted: string[] = []
      const destroyed: string[] = []
      await commit('due', (manifest, moment) => {
        promoted.length = destroyed.length = 0
        let next = manifest
        const waiting = staged(next)
        if (waiting && transitions.readyAt(next, waiting) <= moment.now) {
          next = transitions.promote(next, waiting.id, false, moment)
          promoted.push(waiting.id)
        }
        for (const version of next.versions) {
          if (version.destroyAt === undefined || version.destroyAt > moment.now || cancelling.has(version.id)) continue
          next = transitions.destroy(next, version.id, moment)
          destroyed.push(version.id)
        }
        return next
      })
      return { promoted, destroyed }
    },
    async promote(id, { reason, urgent = false } = {}) {
      await commit(reason, (m, moment) => transitions.promote(m, id, urgent, moment))
    },
    async suspend(id, { reason, decrypt = 'refuse' } = {}) {
      await commit(reason, (m, moment) => transitions.suspend(m, id, decrypt, moment))
    },
    async reinstate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.reinstate(m, id, moment))
    },
    async deactivate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.deactivate(m, id, moment))
    },
    async markCompromised(id, { reason, decrypt = 'report' }) {
      const added = await newMaster(origin, current().manifest.id)
      let replaced = false
      await commit(
        reason,
        (m, moment) => {
          replaced = transitions.get(m, id).state === 'active'
          const marked = transitions.markCompromised(m, id, decrypt, moment)
          if (!replaced) return marked
          return transitions.promote(transitions.stage(marked, added.id, added.hash, moment), added.id, true, moment)
        },
        added,
      )
      return replaced ? added.id : undefined
    },
    async retire(id, { reason, references }) {
      if (!Number.isSafeInteger(references) || references < 0) throw config('references', 'a count', references)
      if (references > 0) {
        throw new WaxsealError('CONFLICT', `${references} rows still refer to the version`, { keyId: id })
      }
      await commit(reason, (m, moment) => transitions.retire(m, id, moment))
    },
    async destroy(id, { reason, backupsExpire, pendingMs = DEFAULTS.pendingMs }) {
      const expiry = backupsExpire instanceof Date ? backupsExpire.getTime() : Number.NaN
      if (Number.isNaN(expiry)) throw config('backupsExpire', 'a valid Date', backupsExpire)
      if (!Number.isSafeInteger(pendingMs) || pendingMs < 0) throw config('pendingMs', 'ms, 0 or more', pendingMs)
      const at = Math.max(expiry, now() + pendingMs)
      await commit(reason, (m, moment) => transitions.scheduleDestroy(m, id, at, moment))
      return new Date(at)
    },
    async cancelDestroy(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.cancelDestroy(m, id, moment))
    },
    close,
    [Symbol.asyncDispose]: close,
  }
  return printsAs(self, `[keyring ${name}]`)
}

function describe(manifest: Manifest, suites: readonly number[]): KeyringStatus {
  const { name, id, epoch, versions } = manifest
  return {
    name,
    id,
    epoch,
    active: versions.find((version) => version.state === 'active')?.id,
    suites,
    versions: versions.map((version) => ({
      id: version.id,
      state: version.state,
      retired: version.retired === true,
      ...(version.decrypt ? { decrypt: version.decrypt } : {}),
      ...(version.state === 'pre-active' ? { promoteAt: transitions.readyAt(manifest, version) } : {}),
      ...(version.destroyAt !== undefined ? { destroyAt: version.destroyAt } : {}),
      history: version.history,
    })),
  }
}

function checkPin(pin: KeyringOptions['pin'], manifest: Manifest): void {
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
