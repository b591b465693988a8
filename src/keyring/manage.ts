import { config, expectWord, WaxsealError } from '../errors.ts'
import type { Clocks } from './clocks.ts'
import type { DecryptPolicy, Manifest } from './manifest.ts'
import type { KeyringOptions } from './options.ts'
import { type PolicyOptions, policyOf, readyAt, stagedOf, whatIsDue } from './policy.ts'
import type { Brought, NewMaster, Session } from './session.ts'
import * as transitions from './transitions.ts'

/**
 * Changing keys: rare, and never on the way of a request, so this file loads when it is first needed. Every call reads
 * the store, decides on what stands there, and writes by compare-and-swap. The KMS is asked before, under no lock. What
 * both sides share is asked of the session: a module that this file imported would be cut out of the first chunk of
 * every bundle.
 */

/** Kept in the history and told to listeners; at most 1,000 characters each. */
export interface Reason {
  readonly reason?: string
  /** Who does it. */
  readonly actor?: string
}

export interface Management {
  /**
   * Stages a new version and returns its id; while one is staged already, returns that. Every instance learns the
   * version within its refresh interval; {@link Keyring.maintain} promotes it after the propagation time.
   */
  rotate(options?: Reason): Promise<string>
  /**
   * Does what is due (see {@link KeyringStatus.due}): stages a successor in time for the end of the cryptoperiod,
   * promotes a staged version, carries out destructions. Call it every few minutes from as many instances as you like.
   */
  maintain(options?: Pick<Reason, 'actor'>): Promise<{ staged: string[]; promoted: string[]; destroyed: string[] }>
  /** Changes how long staged versions wait and how long one stays active. */
  setPolicy(policy: PolicyOptions & Reason): Promise<void>
  /**
   * Wraps every version anew, under `kms` or, without it, the root keys that this keyring was opened with. No record is
   * touched. First give every instance the old and the new root key, then call this, then take the old one away.
   * One wrap and one unwrap per version and root key.
   */
  changeRootKey(options?: Reason & { kms?: KeyringOptions['kms'] }): Promise<void>
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
type Transition = (manifest: Manifest, moment: transitions.Moment & Clocks) => Manifest

const PENDING_MS = 7 * 86_400_000
const MAX_PENDING_MS = 100 * 366 * 86_400_000
const MAX_COMMIT_TRIES = 20

export function management(session: Session): Management {
  const { live, current, read, refresh, clocks, newMaster, wrapAnew, write, rootKeys, tell, isCancelling } = session
  const { name } = live
  let writing: Promise<unknown> = Promise.resolve()

  /**
   * Applies a transition and resolves to the manifest that stands then. Somebody else's write in between means reading
   * and deciding again; a transition that returns its input writes nothing.
   */
  async function commit({ reason, actor }: Reason, transition: Transition, brought?: Brought): Promise<Manifest> {
    checkReason({ reason, actor })
    const turn = writing.then(async () => {
      for (let attempt = 0; attempt < MAX_COMMIT_TRIES; attempt++) {
        await read()
        const moment = { ...(await clocks()), reason, actor }
        const { manifest } = current()
        const changed = transition(manifest, moment)
        if (changed === manifest) return changed
        const written = await write(changed, brought)
        if (written) return written
      }
      throw new WaxsealError('CONFLICT', `keyring "${name}" is being changed by others all the time`)
    })
    writing = turn.catch(() => undefined)
    return turn
  }

  const broughtBy = ({ id, keys, secret }: NewMaster): Brought => ({ keys, secrets: new Map([[id, secret]]) })

  let wrapping: Promise<unknown> = Promise.resolve()

  /** One at a time: what was wrapped under root keys that a change has just left must not be written behind it. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = wrapping.then(work)
    wrapping = turn.catch(() => undefined)
    return turn
  }

  /**
   * A version that lacks a root key of the keyring would be closed to whoever relies on that one: a break-glass key, or
   * processes that know only the new KMS. `isUrgent` makes do with one that all the others know.
   */
  function expectCovered({ id, keys }: NewMaster, isUrgent: boolean): void {
    const uris = keys[id]!.map((wrap) => wrap.uri)
    const lacking = rootKeys().filter((uri) => !uris.includes(uri))
    if (lacking.length === 0 || (isUrgent && lacking.length < rootKeys().length)) return
    const what = `"kms" lacks ${lacking.join(', ')}, which the keyring is under too: rotate where all are at hand, or changeRootKey first`
    throw new WaxsealError('CONFIG', what, { argument: 'kms' })
  }

  /** Wipes what was brought and is not in use: somebody else was first, or the store failed. */
  function dropUnused({ id, secret }: NewMaster): void {
    if (live.loaded?.masters.get(id)?.secret !== secret) secret.destroy()
  }

  /** Stages a version unless one is staged; whoever comes second takes the first one's. */
  async function stage(
    why: Reason,
    isWanted: (manifest: Manifest) => boolean,
  ): Promise<{ id: string | undefined; isNew: boolean }> {
    const { manifest } = current()
    if (stagedOf(manifest) || !isWanted(manifest)) return { id: stagedOf(manifest)?.id, isNew: false }
    const added = await newMaster()
    try {
      const staged = await commit(
        why,
        (m, moment) => {
          if (stagedOf(m) || !isWanted(m)) return m
          expectCovered(added, false)
          return transitions.stage(m, added, moment)
        },
        broughtBy(added),
      )
      return { id: stagedOf(staged)?.id, isNew: staged.versions.some((version) => version.id === added.id) }
    } finally {
      dropUnused(added)
    }
  }

  return {
    async rotate(why = {}) {
      await refresh()
      return (await inTurn(() => stage(why, () => true))).id!
    },
    async maintain({ actor } = {}) {
      const why = { reason: 'due', ...(actor === undefined ? {} : { actor }) }
      const staged: string[] = []
      const promoted: string[] = []
      const destroyed: string[] = []
      await refresh()
      const { now } = await clocks()
      const isRotationDue = (m: Manifest): boolean => whatIsDue(m, now).some(({ action }) => action === 'rotate')
      // What else is due does not wait for a rotation that cannot be done from here.
      const outcome = await inTurn(() => stage(why, isRotationDue)).catch((error) => {
        if (WaxsealError.is(error) && error.code === 'CONFIG') tell('rotate', error)
        else throw error
      })
      if (outcome?.isNew) staged.push(outcome.id!)
      await commit(why, (manifest, moment) => {
        promoted.length = destroyed.length = 0
        let next = manifest
        const waiting = stagedOf(next)
        if (waiting && readyAt(next, waiting) <= moment.now) {
          next = transitions.promote(next, waiting.id, false, moment)
          promoted.push(waiting.id)
        }
        for (const version of next.versions) {
          if (version.destroyAt === undefined || version.destroyAt > moment.earlier || isCancelling(version.id))
            continue
          next = transitions.destroy(next, version.id, moment)
          destroyed.push(version.id)
        }
        return next
      })
      return { staged, promoted, destroyed }
    },
    async setPolicy({ reason, actor, ...policy }) {
      policyOf(policy, current().manifest)
      const why = { ...(reason !== undefined && { reason }), ...(actor !== undefined && { actor }) }
      await commit(why, (m, moment) => {
        const { cryptoperiodMs: _, ...rest } = m
        return transitions.logged({ ...rest, ...policyOf(policy, m) }, { what: 'policy changed' }, moment)
      })
    },
    async changeRootKey({ kms, ...why } = {}) {
      await inTurn(async () => {
        for (let attempt = 0; attempt < MAX_COMMIT_TRIES; attempt++) {
          const anew = await wrapAnew(kms)
          let isWhole = false
          await commit(
            why,
            (m, moment) => {
              isWhole = m.versions.every((version) => !version.wraps || anew.hashes.has(version.id))
              return isWhole ? transitions.rewrapped(m, anew.hashes, moment) : m // staged meanwhile: wrap that one too
            },
            anew,
          )
          if (isWhole) return
        }
        throw new WaxsealError('CONFLICT', `keyring "${name}" gets new versions all the time`)
      })
    },
    async promote(id, { urgent = false, ...why } = {}) {
      await commit(why, (m, moment) => transitions.promote(m, id, urgent, moment))
    },
    async suspend(id, { decrypt = 'refuse', ...why } = {}) {
      expectWord('decrypt', decrypt, 'refuse', 'report')
      await commit(why, (m, moment) => transitions.suspend(m, id, decrypt, moment))
    },
    async reinstate(id, why = {}) {
      await commit(why, (m, moment) => transitions.reinstate(m, id, moment))
    },
    async deactivate(id, why = {}) {
      await commit(why, (m, moment) => transitions.deactivate(m, id, moment))
    },
    async markCompromised(id, { decrypt = 'report', ...why }) {
      expectWord('decrypt', decrypt, 'refuse', 'report')
      await refresh()
      // Only an active version needs a successor, so that any other can be marked while the KMS is away.
      return inTurn(async () => {
        let added = current().active?.idText === id ? await newMaster() : undefined
        for (;;) {
          let needsSuccessor = false
          const mark: Transition = (m, moment) => {
            needsSuccessor = transitions.get(m, id).state === 'active'
            const marked = transitions.markCompromised(m, id, decrypt, moment)
            if (!needsSuccessor) return marked
            if (!added) return m // promoted meanwhile: make a successor first
            expectCovered(added, true)
            return transitions.promote(transitions.stage(marked, added, moment), added.id, true, moment)
          }
          try {
            await commit(why, mark, added && broughtBy(added))
          } finally {
            if (added) dropUnused(added)
          }
          if (!needsSuccessor) return undefined
          if (added) return added.id
          added = await newMaster()
        }
      })
    },
    async retire(id, { references, ...why }) {
      if (!Number.isSafeInteger(references) || references < 0) throw config('references', 'a count', references)
      if (references > 0) {
        throw new WaxsealError('CONFLICT', `${references} rows still refer to the version`, { keyId: id })
      }
      await commit(why, (m, moment) => transitions.retire(m, id, moment))
    },
    async destroy(id, { backupsExpire, pendingMs = PENDING_MS, ...why }) {
      const expiry = backupsExpire instanceof Date ? backupsExpire.getTime() : Number.NaN
      if (Number.isNaN(expiry)) throw config('backupsExpire', 'a valid Date', backupsExpire)
      if (!Number.isSafeInteger(pendingMs) || pendingMs < 0 || pendingMs > MAX_PENDING_MS) {
        throw config('pendingMs', 'ms, 0 to 100 years', pendingMs)
      }
      const { earlier, later } = await clocks()
      // No wait is no wait: due by both clocks, however far apart they are.
      const at = Math.max(expiry, pendingMs === 0 ? earlier : later + pendingMs)
      await commit(why, (m, moment) => transitions.scheduleDestroy(m, id, at, moment))
      return new Date(at)
    },
    async cancelDestroy(id, why = {}) {
      await commit(why, (m, moment) => transitions.cancelDestroy(m, id, moment))
    },
  }
}

/** CONFIG for what is not fit for a history that is kept for good. */
export function checkReason({ reason, actor }: { [K in keyof Reason]: Reason[K] | undefined }): void {
  for (const [key, value] of Object.entries({ reason, actor })) {
    if (value !== undefined && !isNote(value)) throw config(key, 'well-formed text of at most 1000 characters', value)
  }
}

const isNote = (note: unknown): boolean => typeof note === 'string' && note.length <= 1_000 && note.isWellFormed()
