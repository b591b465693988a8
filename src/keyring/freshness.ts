import { config } from '../errors.ts'

/** How long what is in memory counts, in ms; options.ts says what each is for. */
export interface Freshness {
  readonly refreshMs: number
  readonly maxAgeMs: number
  readonly graceMs: number
}

/**
 * 5 minutes: what is done to a key elsewhere counts here soon, for one small read of the key store. 1 hour: a root key
 * that is taken away is noticed, for one KMS call per version and hour. 3 hours of grace: longer than a KMS is usually
 * away, short enough that cutting a process off from the KMS ends its use of the keys within half a working day.
 */
const DEFAULTS: Freshness = { refreshMs: 300_000, maxAgeMs: 3_600_000, graceMs: 10_800_000 }

/** A read is begun in the background from this part of `refreshMs` on, so that under traffic no request waits for one. */
const EARLY = 0.75

export function freshnessOf(options: Partial<Freshness>): Freshness {
  const { refreshMs = DEFAULTS.refreshMs, maxAgeMs = DEFAULTS.maxAgeMs, graceMs = DEFAULTS.graceMs } = options
  for (const [key, value] of Object.entries({ refreshMs, maxAgeMs })) {
    if (typeof value !== 'number' || !(value > 0)) throw config(key, 'ms, more than 0', value)
  }
  if (typeof graceMs !== 'number' || !(graceMs >= 0)) throw config('graceMs', 'ms, 0 or more', graceMs)
  return { refreshMs, maxAgeMs, graceMs }
}

/**
 * A staged version becomes active after its propagation time: who reads less often meets rows under a version that it does
 * not know yet. So the keyring's shorter time counts, except where reading was switched off, or there is one process (0).
 */
export function paced(freshness: Freshness, propagationMs: number): Freshness {
  const isLate = Number.isFinite(freshness.refreshMs) && freshness.refreshMs > propagationMs && propagationMs > 0
  return isLate ? { ...freshness, refreshMs: propagationMs } : freshness
}

/** When the store was last read, and when the KMS last confirmed the keys. ms since the epoch. */
export interface Checked {
  readonly readAt: number
  readonly confirmedAt: number
}

/** What is due in the background at a time: neither before the times it is set at, nor when the clock was set back. */
export function due({ refreshMs, maxAgeMs }: Freshness, { readAt, confirmedAt }: Checked, now: number) {
  return {
    read: now < readAt || now > readAt + refreshMs * EARLY,
    confirm: now < confirmedAt || now > confirmedAt + maxAgeMs,
  }
}

/** From here on something is due. */
export function dueAt({ refreshMs, maxAgeMs }: Freshness, { readAt, confirmedAt }: Checked): number {
  return Math.min(readAt + refreshMs * EARLY, confirmedAt + maxAgeMs)
}

/** After this time the keys are not used any more. */
export function expiresAt({ maxAgeMs, graceMs }: Freshness, { readAt, confirmedAt }: Checked): number {
  return Math.min(readAt, confirmedAt) + maxAgeMs + graceMs
}
