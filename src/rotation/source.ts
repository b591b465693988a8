import type { Stored } from '../envelope/format.ts'
import type { Keys } from '../envelope/keys.ts'

/** One stored row of a table that is being rotated: its ids and its envelope, as the client returned them. */
export type SourceRow = Readonly<Record<string, unknown>>

/** The place of a row in the order of the ids, as text that a checkpoint can keep. */
export type Cursor = readonly string[]

/** A compare-and-swap of one envelope. */
export interface Swap {
  readonly row: SourceRow
  readonly was: Stored
  readonly envelope: Stored
}

/** How far a job has come; written after every batch. */
export interface Checkpoint {
  readonly cursor: Cursor | null
  readonly rewrapped: number
  readonly failed: number
  readonly raced: number
}

/**
 * A table that can be rotated. Pages follow the order of the ids (keyset, never OFFSET), so that rows which come, go
 * or change meanwhile do not matter; a swap writes only where the envelope still is what was read.
 */
export interface RotationSource {
  /** The table's name in the database. */
  readonly name: string
  readonly envelopeColumn: string
  /** How many rows are under each of the keys. */
  countByKey(keyIds: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** At most `limit` rows under one of the keys whose ids come after `after`, in order. */
  page(keyIds: readonly string[], after: Cursor | null, limit: number): Promise<readonly SourceRow[]>
  cursorOf(row: SourceRow): Cursor
  /** The canonical ids, for reports. */
  rowId(row: SourceRow): string
  /** The row's new envelope, or null when it is under the active key already. */
  rewrap(keys: Keys, row: SourceRow): { envelope: Stored; was: Stored } | null
  /**
   * Writes the swaps whose row still is as it was, and the checkpoint, in one statement: neither without the other.
   * `at` is the checkpoint before the batch, its cursor the one behind it. Resolves to the checkpoint that was written.
   */
  swap(swaps: readonly Swap[], job: string, at: Checkpoint): Promise<Checkpoint>
  loadCheckpoint(job: string): Promise<Checkpoint | null>
  dropCheckpoint(job: string): Promise<void>
}
