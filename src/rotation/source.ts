import type { Records } from '../records/records.ts'

/** A record whose declaration does not matter here: rows are untyped on this side. */
// biome-ignore lint/suspicious/noExplicitAny: the declaration is only known to whoever made the source
export type AnyRecord = Records<any>

/** One stored row of a table that is being rotated, under the names that its record knows. */
export type SourceRow = Readonly<Record<string, unknown>>

/** The place of a row in the order of the ids, as text that a checkpoint can keep. */
export type Cursor = readonly string[]

/** Rows behind `after`, up to and including `upTo`, in the order of the ids; null: no bound. */
export interface Span {
  readonly after: Cursor | null
  readonly upTo: Cursor | null
}

/**
 * Rows under some master keys; rows with an envelope that are under none of them; rows with one, each with a chance (from 0 to
 * 1) of its own; rows without one; all that have one; those of them that have plaintext beside it.
 */
export type Filter =
  | { readonly keys: readonly string[] }
  | { readonly notKeys: readonly string[] }
  | { readonly chance: number }
  | 'plaintext'
  | 'sealed'
  | 'leftover'

/** The rows of a table at one instant. */
export interface Census {
  readonly total: number
  /** With an envelope. */
  readonly sealed: number
  /** Of these: those under each key that was asked for. */
  readonly byKey: ReadonlyMap<string, number>
}

/** What is read of a row besides its ids: the envelope, all ciphertext, or ciphertext and plaintext columns. */
export type Extent = 'envelope' | 'sealed' | 'all'

export interface ReadRow {
  readonly row: SourceRow
  /** The same row under the names of the record that rows are moved to, from a source of {@link RotationSource.movingTo}. */
  readonly next?: SourceRow
  readonly cursor: Cursor
  /** Each column that was read, as text the database compares with: column → text, null for NULL. */
  readonly was: Readonly<Record<string, string | null>>
  /** Of a page that was asked for orphans: empty where every column is declared. */
  readonly guard?: Guard
}

/**
 * What columns hold that no declaration knows, as far as it may be ciphertext: a digest, as an expression of the source → what it
 * gave, null for NULL. A job that gives up the data key of a row must not miss what a newer release seals with it meanwhile.
 */
export type Guard = Readonly<Record<string, unknown>>

/** Writes `set` (column → value) where every column of `expect`, and every expression of `guard`, still is as it was read. */
export interface Change {
  readonly cursor: Cursor
  readonly set: Readonly<Record<string, unknown>>
  readonly expect: Readonly<Record<string, string | null>>
  readonly guard?: Guard
}

/** A row that could not be dealt with. It was left as it is. */
export interface RowFailure {
  readonly rowId: string
  readonly code: string
}

/** How far a worker has come in its range; written with the batch, or not at all. */
export interface Step {
  readonly job: string
  readonly range: number
  readonly owner: string
  readonly leaseMs: number
  /** The end of the range when the batch was read. */
  readonly upTo: Cursor | null
  /** How far the range is before the batch: the cursor of the step before, null before the first. */
  readonly after: Cursor | null
  /** The last row of the batch; null once the range is done. */
  readonly cursor: Cursor | null
  readonly isDone: boolean
  readonly seen: number
  readonly failures: readonly RowFailure[]
}

/** What became of a step. */
export interface Stepped {
  readonly written: number
}

/** The small part of a database that jobs keep their books in. `?` stands for a parameter. */
export interface Books {
  query<T>(sql: string, params?: readonly unknown[]): Promise<readonly T[]>
  /** The number of rows that were changed. */
  run(sql: string, params?: readonly unknown[]): Promise<number>
  /** An expression: ms since the epoch, by the database's clock. */
  readonly now: string
  /** Makes the tables where they are missing. */
  prepare(): Promise<void>
}

/**
 * A table that can be rotated. Pages follow the order of the ids (keyset, never OFFSET), so that rows which come, go
 * or change meanwhile do not matter; a change is written only where the row still is what was read.
 */
export interface RotationSource {
  /** The table's name in the database. */
  readonly name: string
  readonly record: AnyRecord
  readonly books: Books
  /** Where each property of a row is stored: column → property. */
  columns(extent: Extent): ReadonlyMap<string, string>
  /** The canonical ids, for reports. */
  rowId(row: SourceRow): string
  /** Whose data a row is, where the source can say: a customer, a tenant. For lists of what a leak touched. */
  subjectOf?(row: SourceRow): string | undefined
  /** Values of the declared context, for calls that open a row. */
  contextOf(row: SourceRow): SourceRow | undefined
  /** The table as this connection finds it: its schema, if there are any, and its name. */
  locate(): Promise<readonly string[]>
  /**
   * Tables of the same database that are not this one, nor a part of it, and have a column like its envelope: copies, detached
   * partitions, the same table in other schemas. Only to be counted.
   */
  lookalikes(): Promise<readonly RotationSource[]>
  /** By one statement, which reads the whole table. */
  census(keyIds: readonly string[]): Promise<Census>
  /** How many rows are under each of the keys; one indexed query a key. */
  countByKey(keyIds: readonly string[]): Promise<ReadonlyMap<string, number>>
  count(filter: Filter, span?: Span): Promise<number>
  /** The same of all rows, where none is expected: which an index tells, whatever the database's statistics say. */
  countLeft(filter: Filter): Promise<number>
  /** With `orphans`, rows also have what is sealed in columns that no declaration here knows: for jobs that give up data keys. */
  page(filter: Filter, span: Span, limit: number, extent: Extent, orphans?: 'orphans'): Promise<readonly ReadRow[]>
  /** Up to `parts` − 1 cursors that cut the rows of a span into parts of about the same size. */
  cut(filter: Filter, span: Span, parts: number): Promise<readonly Cursor[]>
  /**
   * The changes and the step, all in one transaction, if the worker still holds the range, and it is as far and its end where it
   * was; null if not, and then nothing was written: each row is counted by one worker.
   */
  write(changes: readonly Change[], step: Step): Promise<Stepped | null>
  /**
   * A step that comes while the one before is written waits for it, by the lock on the range; a worker then sends one ahead.
   */
  readonly isOrdered?: true
  /** The same table, read under another record besides: for `reencrypt` with `to`. */
  movingTo?(to: AnyRecord): RotationSource
  /**
   * Fails when rows may be hidden from this connection, so that a count of 0 proves nothing; with `history` also when the
   * database itself keeps older rows of the table.
   */
  assertSeesAll(history?: 'history'): Promise<void>
}
