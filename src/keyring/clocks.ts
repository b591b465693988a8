import { type KeyStore, storeTime } from '../keystore/keystore.ts'

/**
 * The time, for what is written into the manifest and for what is waited for. The machines that share a keyring share its
 * store, so a store's clock keeps them in step. What cannot be undone asks both clocks: one that is wrong, ours or the
 * store's, can only put it off. ms since the epoch.
 */
export interface Clocks {
  /** The key store's, and ours where it has none. */
  readonly now: number
  /** The time for certain: destructions are carried out by it, and scheduled that shall not wait. */
  readonly earlier: number
  /** No wait is too short that is counted from here: destructions are scheduled by it. */
  readonly later: number
}

/** Reads both clocks; asks the store once. Errors: as of reading it. */
export async function readClocks(store: KeyStore, clock: () => number): Promise<Clocks> {
  const theirs = await storeTime(store)
  const ours = clock()
  const now = theirs ?? ours
  return { now, earlier: Math.min(now, ours), later: Math.max(now, ours) }
}
