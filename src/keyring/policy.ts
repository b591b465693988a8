import { config } from '../errors.ts'
import type { Manifest, Policy, Version } from './manifest.ts'

export interface PolicyOptions {
  /**
   * How long a staged version waits before it may become active, in ms: longer than every instance's `refreshMs` (instances
   * read as often as this otherwise) and twice what their clocks may differ. 1,800,000 (30 minutes) by default; 0 for a
   * single process.
   */
  readonly propagationMs?: number
  /**
   * How long a version stays active before `maintain()` replaces it, in ms. 31,536,000,000 (365 days) by default, within
   * the two years of NIST SP 800-57 part 1, table 1; null: only when `rotate()` is called.
   */
  readonly cryptoperiodMs?: number | null
}

const DEFAULT_POLICY: Policy = { propagationMs: 1_800_000, cryptoperiodMs: 365 * 86_400_000 }

/** The policy that results from changing `before`; CONFIG for times out of bounds. */
export function policyOf(options: PolicyOptions, before: Policy = DEFAULT_POLICY): Policy {
  const { propagationMs = before.propagationMs, cryptoperiodMs = before.cryptoperiodMs ?? null } = options
  if (!Number.isSafeInteger(propagationMs) || propagationMs < 0)
    throw config('propagationMs', 'ms, 0 or more', propagationMs)
  if (cryptoperiodMs === null) return { propagationMs }
  if (!Number.isSafeInteger(cryptoperiodMs) || cryptoperiodMs <= propagationMs)
    throw config('cryptoperiodMs', 'ms, more than propagationMs, or null', cryptoperiodMs)
  return { propagationMs, cryptoperiodMs }
}

/** Something to be done since a time (ms since the epoch); `keyId` is the version that it is to be done to. */
export interface Due {
  readonly action: 'rotate' | 'promote' | 'destroy'
  readonly keyId: string
  readonly since: number
}

/** What the keyring's policy asks for at a time. */
export function whatIsDue(manifest: Manifest, now: number): Due[] {
  const due: Due[] = []
  const add = (action: Due['action'], { id }: Version, since: number | undefined): void => {
    if (since !== undefined && since <= now) due.push({ action, keyId: id, since })
  }
  const staged = stagedOf(manifest)
  const active = manifest.versions.find((version) => version.state === 'active')
  if (staged) add('promote', staged, readyAt(manifest, staged))
  else if (active) add('rotate', active, rotateAt(manifest, active))
  for (const version of manifest.versions) add('destroy', version, version.destroyAt)
  return due
}

/** The version that waits to be promoted. */
export const stagedOf = ({ versions }: Manifest): Version | undefined =>
  versions.find((version) => version.state === 'pre-active' && version.destroyAt === undefined)

/** When a staged version may be promoted: ms since the epoch. */
export function readyAt(manifest: Manifest, version: Version): number {
  return (version.history[0]?.at ?? 0) + manifest.propagationMs
}

/** When a successor has to be staged, so that it is active by the end of the active version's cryptoperiod. */
function rotateAt({ propagationMs, cryptoperiodMs }: Manifest, active: Version): number | undefined {
  if (cryptoperiodMs === undefined) return undefined
  const since = active.history.find((change) => change.state === 'active')?.at ?? 0 // a suspension does not prolong it
  return since + Math.max(0, cryptoperiodMs - propagationMs)
}
