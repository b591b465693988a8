import { config, expectWord, WaxsealError } from '../errors.ts'
import type { NewMaster } from './load.ts'
import type { DecryptPolicy, Manifest } from './manifest.ts'
import type { Session } from './session.ts'
import * as transitions from './transitions.ts'
import { readyAt } from './waiting.ts'

/**
 * Changing keys: rare, and never on the way of a request, so this file loads when it is first needed. Every call reads
 * the store, decides on what stands there, and writes by compare-and-swap. What both sides share is asked of the
 * session: a module that this file imported would be cut out of the first chunk of every bundle.
 */

export interface Reason {
  /** Kept in the history and told to listeners. */
  readonly reason?: string
}

export interface Management {
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
}

/** A change of the manifest, decided on what the store holds at that moment. */
type Transition = (manifest: Manifest, moment: transitions.Moment) => Manifest

const PENDING_MS = 7 * 86_400_000
const MAX_PENDING_MS = 100 * 366 * 86_400_000
const MAX_COMMIT_TRIES = 20

export function management(session: Session): Management {
  const { live, current, read, refresh, newMaster, write, isCancelling } = session
  const { name, now } = live
  let writing: Promise<unknown> = Promise.resolve()

  /**
   * Applies a transition and resolves to the manifest that stands then. Somebody else's write in between means reading
   * and deciding again; a transition that returns its input writes nothing.
   */
  async function commit(reason: string | undefined, transition: Transition, added?: NewMaster): Promise<Manifest> {
    if (reason !== undefined && !isReason(reason))
      throw config('reason', 'well-formed text of at most 1000 characters', reason)
    const turn = writing.then(async () => {
      for (let attempt = 0; attempt < MAX_COMMIT_TRIES; attempt++) {
        await read()
        const { manifest } = current()
        const changed = transition(manifest, { now: now(), reason })
        if (changed === manifest) return changed
        const written = await write(changed, added)
        if (written) return written
      }
      throw new WaxsealError('CONFLICT', `keyring "${name}" is being changed by others all the time`)
    })
    writing = turn.catch(() => undefined)
    return turn
  }

  const staged = (manifest: Manifest) =>
    manifest.versions.find((version) => version.state === 'pre-active' && version.destroyAt === undefined)

  return {
    async rotate({ reason } = {}) {
      await refresh()
      const waiting = staged(current().manifest)
      if (waiting) return waiting.id
      const added = await newMaster()
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
        if (waiting && readyAt(next, waiting) <= moment.now) {
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
      expectWord('decrypt', decrypt, 'refuse', 'report')
      await commit(reason, (m, moment) => transitions.suspend(m, id, decrypt, moment))
    },
    async reinstate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.reinstate(m, id, moment))
    },
    async deactivate(id, { reason } = {}) {
      await commit(reason, (m, moment) => transitions.deactivate(m, id, moment))
    },
    async markCompromised(id, { reason, decrypt = 'report' }) {
      expectWord('decrypt', decrypt, 'refuse', 'report')
      await refresh()
      // Only an active version needs a successor, so that any other can be marked while the KMS is away.
      let added = current().active?.idText === id ? await newMaster() : undefined
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
        added = await newMaster()
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
  }
}

const isReason = (reason: unknown): boolean =>
  typeof reason === 'string' && reason.length <= 1_000 && reason.isWellFormed()
