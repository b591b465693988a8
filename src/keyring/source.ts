import { fromBase64url } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import type { KeySource, MasterKey, Operation } from '../envelope/keys.ts'
import { type Suite, suiteById } from '../envelope/suites.ts'
import { config, WaxsealError } from '../errors.ts'
import type { Actor, Occurrence, OnEvent } from '../events.ts'
import { printsAs } from '../secret.ts'
import type { PurgeableCache } from './cache.ts'
import { isTestKeyId, type Loaded, lacksActive } from './load.ts'
import type { Version } from './manifest.ts'
import { STATES } from './states.ts'

/** What the synchronous side sees of an open keyring. `keyring.ts` fills it in and keeps it fresh. */
export interface Live {
  readonly name: string
  readonly engine: Engine
  readonly now: () => number
  readonly onEvent: OnEvent | undefined
  readonly cache: PurgeableCache | undefined
  /** Suites that may be read and written here; the first is written. */
  readonly suites: readonly number[]
  loaded: Loaded | undefined
  /** Between these two (ms since the epoch) nothing is to be looked after. */
  freshFrom: number
  dueAt: number
  /** After this the keys are not used. */
  expiresAt: number
  /** The clock as the last use of a key read it: near enough for the cache, which is asked right after. */
  checkedAt: number
  /** Ids that were asked for and were not in the manifest; a refresh moves them to `absent`. */
  readonly wanted: Set<string>
  readonly absent: Set<string>
  /** Starts in the background what is due: a read of the store, a confirmation by the KMS. */
  upkeep(): void
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
    const now = live.now()
    live.checkedAt = now
    if (now >= live.freshFrom && now <= live.dueAt) return loaded
    live.upkeep()
    if (now > live.expiresAt) {
      throw new WaxsealError('KEY_NOT_LOADED', 'the keys were not confirmed for too long: await keys.ready()')
    }
    return loaded
  }

  function permit({ id, state, decrypt }: Version, operation: Operation): void {
    const rule = STATES[state][operation]
    if (rule === 'no' || (rule === 'policy' && decrypt !== 'report')) {
      throw new WaxsealError('KEY_STATE', `the key is ${state}`, { keyId: id, state })
    }
  }

  function missing(keyId: string, loaded: Loaded, operation: Operation): WaxsealError {
    const version = loaded.manifest.versions.find((other) => other.id === keyId)
    if (version) permit(version, operation)
    else if (isTestKeyId(fromBase64url(keyId)!)) {
      return new WaxsealError('UNKNOWN_KEY', 'made by a test keyring', { keyId })
    }
    if (live.absent.has(keyId)) return new WaxsealError('UNKNOWN_KEY', 'no such key in this keyring', { keyId })
    if (live.wanted.size < MAX_REMEMBERED_IDS) live.wanted.add(keyId)
    live.upkeep()
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
      const loaded = current()
      if (loaded.active) return loaded.active
      if (lacksActive(loaded)) {
        live.upkeep()
        throw new WaxsealError('KEY_NOT_LOADED', 'the active version is not in memory: await keys.ready()')
      }
      throw new WaxsealError('KEY_STATE', 'no version is active: rotate() makes one', { state: 'none active' })
    },
    inactive: () =>
      current()
        .manifest.versions.filter((version) => version.wraps && version.state !== 'active')
        .map((version) => version.id),
    find(keyId, operation) {
      const loaded = current()
      const master = loaded.masters.get(keyId)
      if (!master) throw missing(keyId, loaded, operation)
      permit(master.version, operation)
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

/** The suites a keyring may use here: those of its manifest, narrowed by a pin, the one to write or the engine's favourite first. */
export function chooseSuites(
  manifestSuites: readonly number[],
  { suite: pin, writeSuite }: { readonly suite?: number; readonly writeSuite?: number },
  favourite: number,
): number[] {
  const preferred = writeSuite ?? favourite
  for (const [option, id] of Object.entries({ suite: pin, writeSuite })) {
    if (id === undefined || manifestSuites.includes(id)) continue
    throw config(option, `one of the keyring's suites (${manifestSuites.join(', ')})`, id)
  }
  if (pin !== undefined) return [pin]
  const known = manifestSuites.filter((id) => suiteById(id))
  if (known.length === 0) throw new WaxsealError('CONFIG', 'this keyring uses only suites that this version lacks')
  return known.sort((a, b) => Number(b === preferred) - Number(a === preferred))
}
