import { copyBytes, latin1, sameBytes } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import type { RecordKeyCache } from '../envelope/keys.ts'
import { config } from '../errors.ts'

/** Bounds of the record-key cache. Off unless asked for: it keeps record keys in memory. */
export interface CacheLimits {
  /** Entries kept; the oldest goes first. 1 to 1,000,000. */
  readonly entries: number
  /** Age of an entry, in ms. 60,000 by default. */
  readonly maxAgeMs?: number
  /** Times an entry is used. 1,000 by default. */
  readonly maxUses?: number
}

interface Entry {
  readonly keyId: string
  readonly context: Uint8Array
  readonly key: Aead
  readonly expires: number
  uses: number
}

export interface PurgeableCache extends RecordKeyCache {
  /** Forgets what was opened with one master key, or everything. */
  purge(keyId?: string): void
}

/** The limits with their defaults; CONFIG for one out of bounds. */
export function checkLimits(limits: CacheLimits): Required<CacheLimits> {
  const { entries, maxAgeMs = 60_000, maxUses = 1_000 } = limits
  for (const [name, value, most] of [
    ['entries', entries, 1_000_000],
    ['maxAgeMs', maxAgeMs, 86_400_000],
    ['maxUses', maxUses, Number.MAX_SAFE_INTEGER],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1 || value > most) {
      throw config(`cache.${name}`, `an integer from 1 to ${most}`, value)
    }
  }
  return { entries, maxAgeMs, maxUses }
}

/**
 * (entire header, canonical context) → record key. Both are compared byte for byte: a header alone would open row 1's
 * value as row 2. A header has one context that its commitment allows, so it is the map's key and the context is
 * compared with the entry. Whether the master key's state still permits the use is asked before every look-up.
 */
export function recordKeyCache(limits: CacheLimits, now: () => number): PurgeableCache {
  const { entries, maxAgeMs, maxUses } = checkLimits(limits)
  const byHeader = new Map<string, Entry>()

  /** A record key may be in use by the call that is running, so it is dropped and not destroyed. */
  const drop = (header: string): void => void byHeader.delete(header)

  return {
    get(header, context) {
      const id = latin1(header)
      const entry = byHeader.get(id)
      if (!entry || !sameBytes(entry.context, context)) return undefined
      if (entry.uses >= maxUses || now() >= entry.expires) {
        drop(id)
        return undefined
      }
      entry.uses++
      return entry.key
    },
    set(keyId, header, context, key) {
      if (byHeader.size >= entries) drop(byHeader.keys().next().value!)
      byHeader.set(latin1(header), { keyId, context: copyBytes(context), key, expires: now() + maxAgeMs, uses: 1 })
    },
    purge(keyId) {
      for (const [header, entry] of byHeader) {
        if (keyId !== undefined && entry.keyId !== keyId) continue
        entry.key.destroy()
        drop(header)
      }
    },
  }
}
