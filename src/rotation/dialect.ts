import type { ContextType } from '../context.ts'
import type { Node } from '../records/compile.ts'
import type { Quoting } from '../records/sql.ts'
import type { Suspect } from './orphans.ts'
import type { Books, Change, Extent, RotationSource, Step, Stepped } from './source.ts'
import { hexBytes } from './values.ts'

/** What differs from database to database, below what the sources share. */

export type Found = Readonly<Record<string, unknown>>

/** How columns are read. The table is called `t` in every statement. */
export interface Cells {
  /** What to select of a column as number `i`. */
  select(column: string, i: number): readonly string[]
  /** The value of a plaintext field, or of a stored column (no node). */
  value(found: Found, column: string, i: number, node: Node | undefined): unknown
  /** The column as text that the database compares with. */
  was(found: Found, column: string, i: number): string | null
  selectExtra(column: string, i: number): readonly string[]
  extra(found: Found, i: number): unknown
}

/** Puts a value in the place of a parameter. */
export type Place = (value: unknown) => string

/** How an id column becomes the text of a cursor, and comes back. */
export interface IdSql {
  /** What to select for a cursor. */
  readonly text: string
  /** What the text of a cursor compares as with the column. */
  bound(text: string, place: Place): string
  /** The text of a cursor, of what was selected. */
  cursor(selected: unknown): string
  /** The id as the record takes it. */
  value(text: string): unknown
}

/** What a database has to be asked about a table before a row of it is. */
export interface Layout {
  readonly ids: readonly IdSql[]
  /** The master key id of a row, as an expression that an index serves. */
  readonly keyId: string
}

export interface Dialect {
  readonly books: Books
  readonly quote: Quoting
  /** The table in SQL and in reports, where it is not the one that the record names. */
  readonly table?: { readonly sql: string; readonly name: string }
  /** An expression: a number from 0 to 1 (1 excluded), drawn anew for every row. */
  readonly random: string
  query<T>(sql: string, values: readonly unknown[]): Promise<readonly T[]>
  /** Parameter number `n`, from 1, of that value. They stand in the statement in this order, each once. */
  place(n: number, value: unknown): string
  /** A count as text, because clients give it as a number, a bigint or text. */
  countText(count: string): string
  /** True for ids behind the bounds, or up to and including them. Bounds come in the order of their parameters. */
  compare(own: readonly string[], than: 'behind' | 'upTo', bound: (i: number) => string): string
  /** True where text is not `than`, byte by byte, whatever the collation of its column. */
  differs(text: string, than: string): string
  layout(): Promise<Layout>
  cells(extent: Extent): Promise<Cells>
  /** The columns besides, asked for every page: a release may add one at any time. Generated ones hold nothing of their own. */
  suspects(known: ReadonlySet<string>): Promise<readonly Suspect[]>
  write(changes: readonly Change[], step: Step): Promise<Stepped | null>
  /** See {@link RotationSource.isOrdered}. */
  readonly isOrdered?: true
  assertSeesAll(history?: 'history'): Promise<void>
  /** The schema, if there are any, and the name of the table, as this connection finds it; the declared name by default. */
  locate?(): Promise<readonly string[]>
  /** See {@link RotationSource.lookalikes}; none by default. */
  lookalikes?(): Promise<readonly RotationSource[]>
}

/** Row constructors: PostgreSQL and SQLite serve them from the index of the key. */
export function compareRows(own: readonly string[], than: 'behind' | 'upTo', bound: (i: number) => string): string {
  return `(${own.join(', ')}) ${than === 'behind' ? '>' : '<='} (${own.map((_, i) => bound(i)).join(', ')})`
}

/** Where the text of a cursor is what the record takes, but for bytes, which are hexadecimal. */
export const idValue = (type: ContextType, text: string): unknown => (type === 'bytes' ? hexBytes(text) : text)
