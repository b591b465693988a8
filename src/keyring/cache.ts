import { readU32 } from '../bytes.ts'
import type { Aead } from '../engine/engine.ts'
import { type Header, OFFSET } from '../envelope/format.ts'
import type { KeptKey, RecordKeyCache } from '../envelope/keys.ts'
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

interface Entry extends KeptKey {
  readonly slot: number
  /** Of header and context, in bytes. */
  readonly length: number
  readonly words: Int32Array
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
 * value as row 2. Whether the master key's state still permits the use is asked at every hit, before {@link use}.
 */
export function recordKeyCache(limits: CacheLimits, now: () => number): PurgeableCache {
  const { entries, maxAgeMs, maxUses } = checkLimits(limits)
  const bySlot = new Map<number, Entry>()
  let dropped: Aead[] = []

  /**
   * Out of the cache, and wiped once the call that is running has ended, since it, or one around it, may be using the key:
   * calls are synchronous. A call that drops more keys than the cache holds leaves the rest to the garbage collector.
   */
  function drop({ slot, key }: Entry): void {
    bySlot.delete(slot)
    if (dropped.length === 0) queueMicrotask(wipeDropped)
    if (dropped.length < entries) dropped.push(key)
  }

  function wipeDropped(): void {
    for (const key of dropped) key.destroy()
    dropped = []
  }

  return {
    find(header, context) {
      const entry = bySlot.get(slotOf(header))
      if (entry?.length !== writeWords(header, context)) return undefined
      const { words } = entry
      for (let i = 0; i < words.length; i++) if (words[i] !== room[i]) return undefined
      return entry
    },
    use(kept) {
      const entry = kept as Entry
      if (entry.uses < maxUses && now() < entry.expires) {
        entry.uses++
        return entry.key
      }
      drop(entry)
      return undefined
    },
    keep(header, context, key) {
      const slot = slotOf(header)
      const outdone = bySlot.get(slot) ?? (bySlot.size >= entries ? bySlot.values().next().value : undefined)
      if (outdone) drop(outdone)
      const length = writeWords(header, context)
      const words = room.slice(0, Math.ceil(length / 4))
      bySlot.set(slot, { slot, keyId: header.keyId, length, words, key, expires: now() + maxAgeMs, uses: 1 })
    },
    purge(keyId) {
      for (const [slot, entry] of bySlot) {
        if (keyId !== undefined && entry.keyId !== keyId) continue
        entry.key.destroy()
        bySlot.delete(slot)
      }
    },
  }
}

/** Public bytes, for the length of a call. */
let room = new Int32Array(256)
let roomBytes = new Uint8Array(room.buffer)

/**
 * Writes header ‖ context and zeros up to a whole word into the room, to be compared four bytes at a time, and returns
 * the length in bytes. A header's second byte tells where it ends.
 */
function writeWords({ read, length: contextAt }: Header, context: Uint8Array): number {
  const end = contextAt + context.length
  if (end + 4 > roomBytes.length) {
    room = new Int32Array(end)
    roomBytes = new Uint8Array(room.buffer)
  }
  // What follows the header is overwritten; where it is short, that takes less than a view of the header.
  roomBytes.set(read.length > roomBytes.length ? read.subarray(0, contextAt) : read)
  roomBytes.set(context, contextAt)
  roomBytes[end] = roomBytes[end + 1] = roomBytes[end + 2] = 0
  return end
}

/** Four bytes of the commitment find an entry, as an integer; what decides is the comparison of header and context. */
const slotOf = ({ read }: Header): number => readU32(read, OFFSET.commitment) | 0
