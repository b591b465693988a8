import type { Engine } from '../engine/engine.ts'
import { defaultEngine } from '../engine/index.ts'
import { suiteById } from '../envelope/suites.ts'
import { config, expectInteger, expectWord } from '../errors.ts'
import type { OnEvent } from '../events.ts'
import type { KeyStore } from '../keystore/keystore.ts'
import { isKeyUri, type KmsDriver } from '../kms/kms.ts'
import { checkPatience, type KmsPatience } from '../kms/portable.ts'
import { type CacheLimits, checkLimits } from './cache.ts'
import { freshnessOf } from './freshness.ts'
import type { Origin } from './load.ts'

/** What opening and creating take. */
export interface KeyringOptions {
  /** Letters, digits, `.`, `_` and `-`; at most 64. */
  readonly name: string
  readonly store: KeyStore
  /**
   * One root key, or up to 16 of them: new keys are wrapped under all (or not made at all), and unwrapped by any, in
   * this order. For two regions, or a cloud and a break-glass passphrase.
   */
  readonly kms: KmsDriver | readonly KmsDriver[]
  /** Time-outs and retries of KMS requests. */
  readonly patience?: KmsPatience
  /** Pins one suite, for writing and for reading. */
  readonly suite?: 1 | 2
  /**
   * The suite of new data keys, while all of the keyring's are read: to move a table from one to the other. The engine's
   * favourite by default.
   */
  readonly writeSuite?: 1 | 2
  /** Told of every use, failure and state change; see {@link OnEvent}. */
  readonly onEvent?: OnEvent
  /** Keeps opened record keys for repeated reads. Off by default. */
  readonly cache?: CacheLimits
  /**
   * `live` (default) unwraps at once every version that rows may refer to; `active` only the active and the staged one,
   * for a short cold start. Any other is unwrapped when it is first asked for: KEY_NOT_LOADED, then `ready()`.
   */
  readonly preload?: 'live' | 'active'
  /**
   * The stored manifest is read again within this many ms, when calls come: what happened to a key elsewhere counts
   * here then. 300,000 (5 minutes) by default; the keyring's `propagationMs` where that is shorter and not 0.
   */
  readonly refreshMs?: number
  /** Keys in memory are unwrapped anew by the KMS after this many ms, in the background. 3,600,000 (1 hour) by default. */
  readonly maxAgeMs?: number
  /**
   * For how long after `maxAgeMs` keys are used that the KMS, or the key store, could not confirm. Then KEY_NOT_LOADED.
   * 10,800,000 (3 hours) by default.
   */
  readonly graceMs?: number
  /** Which keyring, and how old it may be: a replaced or rolled-back store is refused. */
  readonly pin?: { readonly id?: string; readonly minEpoch?: number }
  readonly engine?: Engine
  /** ms since the epoch. */
  readonly clock?: () => number
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const MAX_ROOT_KEYS = 16

/** Checks the options that opening and creating share. */
export function originOf(options: KeyringOptions): Origin {
  const { name, store, kms, engine = defaultEngine(), suite, writeSuite, preload = 'live' } = options
  if (typeof name !== 'string' || !NAME.test(name)) {
    throw config('name', '1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or digit', name)
  }
  if (typeof store?.load !== 'function' || typeof store.save !== 'function') throw config('store', 'a key store', store)
  if (suite !== undefined && !suiteById(suite)) throw config('suite', '1 or 2', suite)
  if (writeSuite !== undefined && !suiteById(writeSuite)) throw config('writeSuite', '1 or 2', writeSuite)
  if (suite !== undefined && writeSuite !== undefined && writeSuite !== suite) {
    throw config('writeSuite', `${suite}, which "suite" pins`, writeSuite)
  }
  expectWord('preload', preload, 'live', 'active')
  if (options.cache) checkLimits(options.cache)
  const { id, minEpoch } = options.pin ?? {}
  if (id !== undefined && (typeof id !== 'string' || id.length !== 22)) throw config('pin.id', '22 characters', id)
  if (minEpoch !== undefined) expectInteger('pin.minEpoch', minEpoch, 1)
  freshnessOf(options)
  return {
    name,
    store,
    roots: { drivers: driversOf(kms), patience: checkPatience(options.patience), engine },
    engine,
    preload,
  }
}

/** What is opened has to be pinned where whoever has a public key could have made it. CONFIG when it is not. */
export function demandPin({ pin }: Pick<KeyringOptions, 'pin'>, { roots }: Origin): void {
  if (pin?.id === undefined && roots.drivers.some((driver) => driver.wrapsPublicly)) {
    throw config('pin.id', "the keyring's id, since whoever has the KMS's public key can wrap", undefined)
  }
}

/** The clock in whole ms; CONFIG when what it says is no time. */
export function clockOf({ clock = Date.now }: Pick<KeyringOptions, 'clock'>): () => number {
  return () => {
    const time = Math.floor(clock())
    if (Number.isNaN(time)) throw config('clock', 'ms since the epoch', time)
    return time
  }
}

/** One driver or several, checked. */
export function driversOf(kms: KeyringOptions['kms']): readonly KmsDriver[] {
  const drivers: readonly KmsDriver[] = Array.isArray(kms) ? [...kms] : [kms]
  if (drivers.length < 1 || drivers.length > MAX_ROOT_KEYS) throw config('kms', '1 to 16 KMS drivers', kms)
  for (const driver of drivers) {
    if (typeof driver?.wrap !== 'function' || typeof driver.unwrap !== 'function')
      throw config('kms', 'a KMS driver', driver)
    const { keyUri } = driver
    if (typeof keyUri !== 'string' || !isKeyUri(keyUri)) {
      throw config('kms.keyUri', '1 to 2048 printable ASCII characters', keyUri)
    }
  }
  if (new Set(drivers.map((driver) => driver.keyUri)).size < drivers.length) {
    throw config('kms', 'a different root key in each driver', kms)
  }
  return drivers
}
