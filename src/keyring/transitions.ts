import { WaxsealError } from '../errors.ts'
import {
  type DecryptPolicy,
  INTEGRITY,
  type LogEntry,
  type Manifest,
  type StateChange,
  type Version,
} from './manifest.ts'
import { readyAt } from './policy.ts'
import type { KeyState } from './states.ts'

/**
 * The changes a manifest can go through, as pure functions of (manifest, now): what is written to the store is the
 * result, whole, with the next epoch. Each refuses with KEY_STATE what the state table does not allow.
 */
export interface Moment {
  readonly now: number
  readonly reason?: string | undefined
  readonly actor?: string | undefined
}

/** Which state may follow which. Destruction also asks for a waiting period. */
export const NEXT: Readonly<Record<KeyState, readonly KeyState[]>> = {
  'pre-active': ['active', 'compromised', 'destroyed'],
  active: ['suspended', 'deactivated', 'compromised'],
  suspended: ['active', 'deactivated', 'compromised'],
  deactivated: ['compromised', 'destroyed'],
  compromised: ['destroyed'],
  destroyed: [],
}

export function stage(
  manifest: Manifest,
  { id, wraps, check }: Required<Pick<Version, 'id' | 'wraps' | 'check'>>,
  moment: Moment,
): Manifest {
  const version: Version = { id, state: 'pre-active', wraps, check, history: [change('pre-active', moment)] }
  return { ...manifest, versions: [...manifest.versions, version] }
}

/** The same keys under other root keys: `hashes` are of the new wraps, by key id. */
export function rewrapped(manifest: Manifest, hashes: ReadonlyMap<string, string>, moment: Moment): Manifest {
  const next = mapVersions(manifest, (version) =>
    version.wraps ? { ...version, wraps: hashes.get(version.id)! } : version,
  )
  return logged({ ...next, integrity: hashes.get(INTEGRITY)! }, { what: 'root key changed' }, moment)
}

export function logged(manifest: Manifest, entry: Pick<LogEntry, 'what' | 'from'>, { now, ...who }: Moment): Manifest {
  const { reason, actor } = who
  const epoch = manifest.epoch + 1
  const line = { ...entry, epoch, at: now, ...(actor ? { actor } : {}), ...(reason ? { reason } : {}) }
  return { ...manifest, log: [...manifest.log, line] }
}

/** The staged version becomes active, the active one deactivated. `urgent` skips the propagation time. */
export function promote(manifest: Manifest, id: string, urgent: boolean, moment: Moment): Manifest {
  const version = get(manifest, id)
  expectNext(version, 'active')
  if (version.state === 'pre-active' && !urgent) {
    const from = readyAt(manifest, version)
    if (from > moment.now) {
      throw new WaxsealError(
        'KEY_STATE',
        `key version is staged: every instance has to learn it first, promote it from ${new Date(from).toISOString()} on`,
        { keyId: id, state: version.state },
      )
    }
  }
  return mapVersions(manifest, (other) => {
    if (other.id === id) return entered(other, 'active', moment)
    return other.state === 'active' ? entered(other, 'deactivated', moment) : other
  })
}

export function suspend(manifest: Manifest, id: string, decrypt: DecryptPolicy, moment: Moment): Manifest {
  return replace(manifest, id, 'suspended', moment, { decrypt })
}

/** Back from suspension: active again, or deactivated where another version took its place. */
export function reinstate(manifest: Manifest, id: string, moment: Moment): Manifest {
  const version = get(manifest, id)
  if (version.state !== 'suspended') throw refused(version, 'reinstated')
  const taken = manifest.versions.some((other) => other.state === 'active')
  return replace(manifest, id, taken ? 'deactivated' : 'active', moment)
}

/** Takes a suspended version out of use; an active one is deactivated by promoting another. */
export function deactivate(manifest: Manifest, id: string, moment: Moment): Manifest {
  const version = get(manifest, id)
  if (version.state === 'active') {
    throw new WaxsealError('KEY_STATE', 'the active version is deactivated by promoting another: rotate() first', {
      keyId: id,
      state: version.state,
    })
  }
  return replace(manifest, id, 'deactivated', moment)
}

export function markCompromised(manifest: Manifest, id: string, decrypt: DecryptPolicy, moment: Moment): Manifest {
  return replace(manifest, id, 'compromised', moment, { decrypt })
}

/** Records that nothing refers to the version any more. */
export function retire(manifest: Manifest, id: string, moment: Moment): Manifest {
  const version = get(manifest, id)
  if (version.state !== 'deactivated' && version.state !== 'compromised') throw refused(version, 'retired')
  return update(manifest, id, { ...version, retired: true, history: [...version.history, change('retired', moment)] })
}

/** Starts the waiting period; a staged version, which nothing can refer to, and a retired one may be destroyed. */
export function scheduleDestroy(manifest: Manifest, id: string, destroyAt: number, moment: Moment): Manifest {
  const version = get(manifest, id)
  expectNext(version, 'destroyed')
  if (version.state !== 'pre-active' && !version.retired) {
    throw new WaxsealError('KEY_STATE', 'the version is not retired: prove first that nothing refers to it', {
      keyId: id,
      state: version.state,
    })
  }
  return update(manifest, id, { ...version, destroyAt, history: [...version.history, change('destroying', moment)] })
}

export function cancelDestroy(manifest: Manifest, id: string, moment: Moment): Manifest {
  const { destroyAt, retired, ...version } = get(manifest, id)
  if (destroyAt === undefined) return manifest
  return update(manifest, id, { ...version, history: [...version.history, change(version.state, moment)] })
}

/** Carries out one destruction whose time has come: the wraps go, a tombstone stays. */
export function destroy(manifest: Manifest, id: string, moment: Moment): Manifest {
  const version = get(manifest, id)
  if (version.destroyAt === undefined || version.destroyAt > moment.now) throw refused(version, 'destroyed yet')
  const history = [...version.history, change('destroyed', moment)]
  return update(manifest, id, { id, state: 'destroyed', history })
}

export function get(manifest: Manifest, id: string): Version {
  const version = manifest.versions.find((other) => other.id === id)
  if (!version) throw new WaxsealError('UNKNOWN_KEY', 'no such version in this keyring', { keyId: id })
  return version
}

function replace(
  manifest: Manifest,
  id: string,
  state: KeyState,
  moment: Moment,
  extra: { decrypt?: DecryptPolicy } = {},
): Manifest {
  const version = get(manifest, id)
  expectNext(version, state)
  return update(manifest, id, { ...entered(version, state, moment), ...extra })
}

/** A new state clears what belonged to the old one. */
function entered(version: Version, state: KeyState, moment: Moment): Version {
  const { id, wraps, check, history } = version
  return { id, state, ...(wraps && check ? { wraps, check } : {}), history: [...history, change(state, moment)] }
}

function update(manifest: Manifest, id: string, next: Version): Manifest {
  return mapVersions(manifest, (other) => (other.id === id ? next : other))
}

function mapVersions(manifest: Manifest, fn: (version: Version) => Version): Manifest {
  return { ...manifest, versions: manifest.versions.map(fn) }
}

function expectNext(version: Version, state: KeyState): void {
  if (!NEXT[version.state].includes(state)) throw refused(version, state)
}

function refused(version: Version, what: string): WaxsealError {
  return new WaxsealError('KEY_STATE', `a ${version.state} version cannot be ${what}`, {
    keyId: version.id,
    state: version.state,
  })
}

function change(state: StateChange['state'], { now, actor, reason }: Moment): StateChange {
  return { state, at: now, ...(actor ? { actor } : {}), ...(reason ? { reason } : {}) }
}
