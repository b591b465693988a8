import { type Keys, SOURCE } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Actor } from '../events.ts'
import { printsAs } from '../secret.ts'
import { type Loaded, newMaster, type Origin } from './load.ts'
import type { DecryptPolicy, Manifest, StateChange } from './manifest.ts'
import type { KeyringOptions } from './options.ts'
import { openSession } from './session.ts'
import { keySource } from './source.ts'
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

const PENDING_MS = 7 * 86_400_000
const MAX_PENDING_MS = 100 * 366 * 86_400_000

/** The handle around what was loaded. */
export function keyring(origin: Origin, options: KeyringOptions, first: Loaded): Keyring {
  const { name } = origin
  const { live, current, refresh, commit, isCancelling, close } = openSession(origin, options, first)
  const { now } = live

  const handle = (who: Actor): Keys =>
    printsAs(
      {
        name,
        [SOURCE]: keySource(live, { actor: who.actor, purpose: who.purpose }),
        as: (next: Actor) => handle(next),
        ready,
      },
      `[keys of ${name}]`,
    )

  async function ready(): Promise<void> {
    current()
    const age = now() - live.loadedAt
    if (live.wanted.size > 0 || age > live.refreshMs || age < 0) await refresh()
  }

  const staged = (manifest: Manifest) =>
    manifest.versions.find((version) => version.state === 'pre-active' && version.destroyAt === undefined)

  const status = () => describe(current().manifest, live.suites)

  const self: Keyring = {
    name,
    [SOURCE]: keySource(live, {}),
    as: handle,
    ready,
    status,
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
          if (version.destroyAt === undefined || version.destroyAt > moment.now || isCancelling(version.id)) continue
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
      checkPolicy(decrypt)
      await commit(reason, (m, moment) => transitions.suspend(m, id, decrypt, moment))
    },
    async reinstate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.reinstate(m, id, moment))
    },
    async deactivate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.deactivate(m, id, moment))
    },
    async markCompromised(id, { reason, decrypt = 'report' }) {
      checkPolicy(decrypt)
      await refresh()
      // Only an active version needs a successor, so that any other can be marked while the KMS is away.
      let added = status().active === id ? await newMaster(origin, current().manifest.id) : undefined
      for (;;) {
        let needsSuccessor = false
        const mark = (m: Manifest, moment: transitions.Moment): Manifest => {
          needsSuccessor = transitions.get(m, id).state === 'active'
          const marked = transitions.markCompromised(m, id, decrypt, moment)
          if (!needsSuccessor) return marked
          if (!added) return m // promoted meanwhile: make a successor first
          return transitions.promote(transitions.stage(marked, added.id, added.hash, moment), added.id, true, moment)
        }
        await commit(reason, mark, added)
        if (!needsSuccessor) return undefined
        if (added) return added.id
        added = await newMaster(origin, current().manifest.id)
      }
    },
    async retire(id, { reason, references }) {
      if (!Number.isSafeInteger(references) || references < 0) throw config('references', 'a count', references)
      if (references > 0) {
        throw new WaxsealError('CONFLICT', `${references} rows still refer to the version`, { keyId: id })
      }
      await commit(reason, (m, moment) => transitions.retire(m, id, moment))
    },
    async destroy(id, { reason, backupsExpire, pendingMs = PENDING_MS }) {
      const expiry = backupsExpire instanceof Date ? backupsExpire.getTime() : Number.NaN
      if (Number.isNaN(expiry)) throw config('backupsExpire', 'a valid Date', backupsExpire)
      if (!Number.isSafeInteger(pendingMs) || pendingMs < 0 || pendingMs > MAX_PENDING_MS) {
        throw config('pendingMs', 'ms, 0 to 100 years', pendingMs)
      }
      const at = Math.max(expiry, now() + pendingMs)
      await commit(reason, (m, moment) => transitions.scheduleDestroy(m, id, at, moment))
      return new Date(at)
    },
    async cancelDestroy(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.cancelDestroy(m, id, moment))
    },
    close: async () => close(),
    [Symbol.asyncDispose]: async () => close(),
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

function checkPolicy(decrypt: unknown): void {
  if (decrypt !== 'refuse' && decrypt !== 'report') throw config('decrypt', "'refuse' or 'report'", decrypt)
}
