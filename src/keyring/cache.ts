import { copyBytes, latin1, sameBytes } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { OFFSET } from '../envelope/format.ts'
import type { RecordKeyCache } from '../envelope/keys.ts'
import { expectInteger } from '../errors.ts'

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
  readonly header: Uint8Array
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
  expectInteger('cache.entries', entries, 1, 1_000_000)
  expectInteger('cache.maxAgeMs', maxAgeMs, 1, 86_400_000)
  expectInteger('cache.maxUses', maxUses, 1)
  return { entries, maxAgeMs, maxUses }
}

/**
 * (entire header, canonical context) → record key. Both are compared byte for byte: a header alone would open row 1's
 * value as row 2. Whether the master key's state still permits the use is asked before every look-up.
 */
export function recordKeyCache(limits: CacheLimits, now: () => number): PurgeableCache {
  const { entries, maxAgeMs, maxUses } = checkLimits(limits)
  const bySlot = new Map<string, Entry>()

  /** A record key may be in use by the call that is running, so it is dropped and not destroyed. */
  const drop = (slot: string): void => void bySlot.delete(slot)
  /** A few bytes of the commitment find an entry; what decides is the comparison of all of header and context. */
  const slotOf = (header: Uint8Array): string => latin1(header, OFFSET.commitment, OFFSET.commitment + 8)

  return {
    get(header, context) {
      const slot = slotOf(header)
      const entry = bySlot.get(slot)
      if (!entry || !sameBytes(entry.header, header) || !sameBytes(entry.context, context)) return undefined
      if (entry.uses >= maxUses || now() >= entry.expires) {
        drop(slot)
        return undefined
      }
      entry.uses++
      return entry.key
    },
    set(keyId, header, context, key) {
      if (bySlot.size >= entries) drop(bySlot.keys().next().value!)
      const entry = { keyId, header: copyBytes(header), context: copyBytes(context), key }
      bySlot.set(slotOf(header), { ...entry, expires: now() + maxAgeMs, uses: 1 })
    },
    purge(keyId) {
      for (const [slot, entry] of bySlot) {
        if (keyId !== undefined && entry.keyId !== keyId) continue
        entry.key.destroy()
        drop(slot)
      }
    },
  }
}
