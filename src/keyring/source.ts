import { fromBase64url } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import type { KeySource, MasterKey } from '../envelope/keys.ts'
import { type Suite, suiteById } from '../envelope/suites.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Actor, Occurrence, OnEvent } from '../events.ts'
import { printsAs } from '../secret.ts'
import type { PurgeableCache } from './cache.ts'
import { isTestKeyId, type Loaded } from './load.ts'
import { STATES } from './states.ts'

/** What the synchronous side sees of an open keyring. `keyring.ts` fills it in and keeps it fresh. */
export interface Live {
  readonly name: string
  readonly engine: Engine
  readonly now: () => number
  readonly onEvent: OnEvent | undefined
  readonly cache: PurgeableCache | undefined
  readonly refreshMs: number
  readonly maxAgeMs: number
  /** Suites that may be read and written here; the first is written. */
  readonly suites: readonly number[]
  loaded: Loaded | undefined
  loadedAt: number
  /** The clock as the last use of a key read it: near enough for the cache, which is asked right after. */
  checkedAt: number
  /** Ids that were asked for and were not in the manifest; a refresh moves them to `absent`. */
  readonly wanted: Set<string>
  readonly absent: Set<string>
  /** Starts a refresh in the background, at most one at a time. */
  refreshSoon(): void
  /** Cancels a pending destruction in the background. */
  cancelDestroySoon(keyId: string): void
}

const MAX_REMEMBERED_IDS = 1_000

/** The keys of one handle: state rules, freshness, and events that carry the handle's actor and purpose. */
export function keySource(live: Live, who: Actor): KeySource {
  const suite = suiteById(live.suites[0]!) as Suite
  const emit = (occurrence: Occurrence): void => {
    live.onEvent?.({ ...occurrence, ...who, keyring: live.name, time: live.now() })
  }

  function current(): Loaded {
    const { loaded } = live
    if (!loaded) throw new WaxsealError('CONFIG', `keyring "${live.name}" was closed`, { argument: 'keys' })
    live.checkedAt = live.now()
    const age = live.checkedAt - live.loadedAt
    if (age >= 0 && age <= live.refreshMs) return loaded
    live.refreshSoon()
    if (age > live.maxAgeMs) {
      throw new WaxsealError('KEY_NOT_LOADED', `the keys were last checked ${age} ms ago: await keys.ready()`)
    }
    return loaded
  }

  function missing(keyId: string, loaded: Loaded): WaxsealError {
    const tombstone = loaded.manifest.versions.find((version) => version.id === keyId)
    if (tombstone) return stateError(keyId, tombstone.state)
    if (isTestKeyId(fromBase64url(keyId)!)) {
      return new WaxsealError('UNKNOWN_KEY', 'made by a test keyring', { keyId })
    }
    if (live.absent.has(keyId)) return new WaxsealError('UNKNOWN_KEY', 'no such key in this keyring', { keyId })
    if (live.wanted.size < MAX_REMEMBERED_IDS) live.wanted.add(keyId)
    live.refreshSoon()
    return new WaxsealError('KEY_NOT_LOADED', 'the key is not in memory: await keys.ready()', { keyId })
  }

  const source: KeySource = {
    engine: live.engine,
    writeSuite: suite,
    allowsSuite: (id) => live.suites.includes(id),
    recordKeys: live.cache,
    listening: live.onEvent !== undefined,
    emit,
    now: live.now,
    active(): MasterKey {
      const { active } = current()
      if (active) return active
      throw new WaxsealError('KEY_STATE', 'no version is active: rotate() makes one', { state: 'none active' })
    },
    inactive: () => [...current().masters.values()].filter((m) => m.version.state !== 'active').map((m) => m.idText),
    find(keyId, operation) {
      const loaded = current()
      const master = loaded.masters.get(keyId)
      if (!master) throw missing(keyId, loaded)
      const { state, decrypt } = master.version
      const rule = STATES[state][operation]
      if (rule === 'no' || (rule === 'policy' && decrypt !== 'report')) throw stateError(keyId, state)
      return master
    },
    used({ idText: keyId }, operation) {
      const version = live.loaded?.masters.get(keyId)?.version
      if (!version) return
      const { state, retired, destroyAt } = version
      if (destroyAt !== undefined) live.cancelDestroySoon(keyId)
      const suspicious = destroyAt !== undefined ? 'pending destruction' : retired ? 'retired' : undefined
      const isAsUsual =
        STATES[state][operation] === 'yes' || (STATES[state][operation] === 'query' && state !== 'suspended')
      if (suspicious || !isAsUsual) emit({ type: 'key.use', keyId, state: suspicious ?? state, operation })
    },
  }
  return printsAs(source, `[keys of ${live.name}]`)
}

function stateError(keyId: string, state: string): WaxsealError {
  return new WaxsealError('KEY_STATE', `the key is ${state}`, { keyId, state })
}

/** The suites a keyring may use here: those of its manifest, narrowed by a pin, the engine's favourite first. */
export function chooseSuites(manifestSuites: readonly number[], pin: number | undefined, preferred: number): number[] {
  if (pin !== undefined && !manifestSuites.includes(pin)) {
    throw config('suite', `one of the keyring's suites (${manifestSuites.join(', ')})`, pin)
  }
  if (pin !== undefined) return [pin]
  const known = manifestSuites.filter((id) => suiteById(id))
  if (known.length === 0) throw new WaxsealError('CONFIG', 'this keyring uses only suites that this version lacks')
  return known.sort((a, b) => Number(b === preferred) - Number(a === preferred))
}
