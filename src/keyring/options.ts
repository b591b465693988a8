import type { Engine } from '../engine/engine.ts'
import type { OnEvent } from '../events.ts'
import type { CacheLimits } from './cache.ts'
import type { Origin } from './load.ts'

/** What opening and creating take. */
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
