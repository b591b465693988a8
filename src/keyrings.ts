import { config, WaxsealError } from './errors.ts'
import type { Keyring } from './keyring/keyring.ts'

export interface KeyringsOptions {
  /** Keyrings kept open: 1 to 1,000,000. More are open only while more than these are in use at once. */
  readonly max: number
  /** Opens the keyring of a name, for this collection alone: it closes what it is given. */
  readonly open: (name: string) => Promise<Keyring>
}

/** Open keyrings by name. */
export interface Keyrings extends AsyncDisposable {
  /**
   * Runs `work` with the keyring of that name, opened on its first use and ready. It stays open until `work` has
   * settled, whatever is evicted, forgotten or closed meanwhile; keep no reference beyond that.
   */
  use<T>(name: string, work: (keys: Keyring) => T | Promise<T>): Promise<T>
  /** Closes one keyring, behind its last user: a tenant that left, or whose keys are to be opened anew. */
  forget(name: string): void
  /** How many are open, or opening, and would be found by `use`. */
  readonly size: number
  /** Forgets all. Later use is a CONFIG error. */
  close(): Promise<void>
}

interface Entry {
  readonly opening: Promise<Keyring>
  users: number
  /** No longer in the map: its last user closes it. */
  forgotten: boolean
}

/**
 * Keeps the keyrings of many tenants open, the `max` that were used last. Callers that come while one is opening share
 * that opening; a failure is told to them and forgotten. None is closed while it is in use.
 *
 * Errors: CONFIG for `max` out of bounds, or once closed; those of `open`, of `ready` and of `work`.
 *
 * @example
 * ```ts
 * import { createKeyring, int, openKeyring, records, text } from 'waxseal'
 * import { keyrings } from 'waxseal/keyrings'
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { localKms } from 'waxseal/kms/local'
 *
 * const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
 * const store = memoryKeyStore()
 * await createKeyring({ name: 'tenant-17', store, kms }) // when the tenant signs up
 *
 * await using tenants = keyrings({ max: 1_000, open: (name) => openKeyring({ name, store, kms }) })
 * const notes = records('notes', { id: { id: int() }, fields: { body: text() } })
 * const row = await tenants.use('tenant-17', (keys) => notes.encrypt(keys, { id: 1, body: 'hello' }))
 * console.log(row.envelope)
 * ```
 */
export function keyrings({ max, open }: KeyringsOptions): Keyrings {
  if (!Number.isSafeInteger(max) || max < 1 || max > 1_000_000) {
    throw config('max', 'an integer from 1 to 1000000', max)
  }
  if (typeof open !== 'function') throw config('open', 'a function that opens a keyring', open)
  /** The one used last stands last. */
  const entries = new Map<string, Entry>()
  let isClosed = false

  function enter(name: string): Entry {
    // In a promise, so that an `open` that throws is one that rejects.
    const entry = entries.get(name) ?? { opening: Promise.resolve(name).then(open), users: 0, forgotten: false }
    entry.users++
    entries.delete(name)
    entries.set(name, entry)
    evict()
    return entry
  }

  /** Enters a keyring that is open and ready. One that a borrower closed is opened again, once. */
  async function enterReady(name: string, isAgain = false): Promise<Entry> {
    if (isClosed) throw config('keyrings', 'an open collection', 'a closed one')
    const entry = enter(name)
    let isOpen = false
    try {
      const keys = await entry.opening
      isOpen = true
      await keys.ready()
      return entry
    } catch (error) {
      const wasClosed = isOpen && WaxsealError.is(error) && error.code === 'CONFIG'
      if (!isOpen || wasClosed) forget(name, entry)
      leave(entry)
      if (wasClosed && !isAgain) return enterReady(name, true)
      throw error
    }
  }

  function leave(entry: Entry): void {
    entry.users--
    if (entry.forgotten) shut(entry)
    else evict()
  }

  function evict(): void {
    if (entries.size <= max) return
    for (const [name, { users }] of entries) {
      if (users === 0) forget(name)
      if (entries.size <= max) return
    }
  }

  function forget(name: string, only?: Entry): void {
    const entry = entries.get(name)
    if (!entry || (only && entry !== only)) return
    entries.delete(name)
    entry.forgotten = true
    shut(entry)
  }

  async function close(): Promise<void> {
    isClosed = true
    for (const name of [...entries.keys()]) forget(name)
  }

  return {
    async use(name, work) {
      const entry = await enterReady(name)
      try {
        return await work(await entry.opening)
      } finally {
        leave(entry)
      }
    },
    forget: (name) => forget(name),
    get size() {
      return entries.size
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** Closes behind the last user. What never opened has nothing to close. */
function shut({ opening, users }: Entry): void {
  if (users === 0) void opening.then((keys) => keys.close()).catch(() => undefined)
}
