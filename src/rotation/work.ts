import { copyBytes } from '../bytes.ts'
import { malformed } from '../envelope/format.ts'
import { type Keys, sourceOf } from '../envelope/keys.ts'
import { WaxsealError } from '../errors.ts'
import type { Rewrapped } from '../records/change.ts'
import type { Column, Schema } from '../records/compile.ts'
import type { RowResult } from '../records/many.ts'
import { isOfKind, moveRow, openWhole } from '../records/move.ts'
import { isSealedField } from '../records/row.ts'
import type { AnyRecord, Change, Extent, Filter, ReadRow, RotationSource, SourceRow } from './source.ts'

/** What a job does to one row: the change to write, or null when there is nothing to change. Throws for a broken row. */
export interface Work {
  readonly name: 'rewrap' | 'reencrypt' | 'encrypt' | 'decrypt' | 'verify'
  readonly filter: Filter
  readonly extent: Extent
  /** Of work that gives up data keys: a row with a field that the declaration does not know is left. */
  readonly orphans?: 'orphans'
  /** Rows that it leaves behind are under the filter no more; a verification leaves all where they are. */
  readonly isShrinking: boolean
  apply(read: ReadRow): Change | null
  /** The same for a batch, where that is faster: a result per row. */
  applyMany?(reads: readonly ReadRow[]): Promise<readonly RowResult<Change | null>[]>
  /** Loads what `apply` found missing: a version that another instance made meanwhile. */
  ready(): Promise<void>
}

/** Where each property of a row is stored: column → property. `plaintext` names columns of fields sealed elsewhere. */
export function columnsOf(
  schema: Schema,
  extent: Extent,
  plaintext: Readonly<Record<string, string>> = {},
): ReadonlyMap<string, string> {
  const columns = new Map([[schema.envelopeColumn, schema.envelope]])
  if (extent === 'envelope') return columns
  if (schema.kind === 'columns') for (const { column, stored } of schema.columns) columns.set(column, stored)
  if (extent === 'all')
    for (const column of schema.columns) columns.set(plaintext[column.name] ?? plainColumn(schema, column), column.name)
  return columns
}

/** The column of a field's plaintext: its own, unless the ciphertext is elsewhere. */
function plainColumn({ kind }: Schema, { name, stored, column }: Column): string {
  return kind === 'packed' || stored === name ? column : name
}

/** The change that puts `next` in the place of what was read. */
function change(source: RotationSource, extent: Extent, read: ReadRow, next: SourceRow): Change {
  const set: Record<string, unknown> = {}
  for (const [column, property] of source.columns(extent)) set[column] = stored(next[property])
  return compared(read, set)
}

/** Every column that is overwritten is compared, and what must not be missed. */
function compared({ cursor, was, guard }: ReadRow, set: Record<string, unknown>): Change {
  const expect: Record<string, string | null> = {}
  for (const column in set) expect[column] = was[column] ?? null
  return guard ? { cursor, set, expect, guard } : { cursor, set, expect }
}

const stored = (value: unknown): unknown => (value instanceof Uint8Array ? copyBytes(value) : (value ?? null))

export function rewrapWork(keys: Keys, source: RotationSource, from: readonly string[]): Work {
  const { record } = source
  const moveTo = (read: ReadRow, moved: Rewrapped | null): Change | null =>
    moved && change(source, 'envelope', read, { [record.schema.envelope]: moved.envelope })
  return {
    name: 'rewrap',
    filter: { keys: from },
    extent: 'envelope',
    isShrinking: true,
    ready: () => keys.ready(),
    apply: (read) => moveTo(read, record.rewrap(keys, read.row)),
    async applyMany(reads) {
      const rows = reads.map(({ row }) => row)
      const results = await record.settled.rewrapMany(keys, rows)
      return results.map((result, i) => (result.ok ? { ok: true, value: moveTo(reads[i]!, result.value) } : result))
    },
  }
}

export function reencryptWork(keys: Keys, source: RotationSource, from: readonly string[]): Work {
  return {
    name: 'reencrypt',
    filter: { keys: from },
    extent: 'sealed',
    orphans: 'orphans',
    isShrinking: true,
    ready: () => keys.ready(),
    apply(read) {
      const next = source.record.reencrypt(keys, read.row as never, source.contextOf(read.row) as never)
      return change(source, 'sealed', read, next as SourceRow)
    },
  }
}

/**
 * Rows of one declaration become rows of another, under a new data key each. `source` reads them under both. A row that is
 * of the other already gets a new data key there.
 */
export function moveWork(keys: Keys, source: RotationSource, to: AnyRecord, from: readonly string[]): Work {
  const { schema } = source.record
  const target = columnsOf(to.schema, 'sealed')
  const left = [...source.columns('sealed').keys()].filter((column) => !target.has(column))
  const isTold = schema.kind !== to.schema.kind
  const added = [...target.keys()].filter((column) => !source.columns('sealed').has(column))
  const move = (read: ReadRow): SourceRow =>
    moveRow(schema, to.schema, sourceOf(keys), read.row, source.contextOf(read.row))
  const renew = (read: ReadRow): SourceRow =>
    to.reencrypt(keys, read.next as never, source.contextOf(read.row) as never) as SourceRow
  const holds = ({ was }: ReadRow, columns: readonly string[]): string | undefined =>
    columns.find((column) => (was[column] ?? null) !== null)
  /**
   * With the same label, the wrong record may open a row as well: what is in a column of the other one alone would be
   * overwritten unread.
   */
  const either = (read: ReadRow): SourceRow => {
    const [ofTo, ofFrom] = [holds(read, added), holds(read, left)]
    if (ofTo !== undefined && ofFrom !== undefined) {
      throw new WaxsealError('SCHEMA', `"${ofFrom}" and "${ofTo}" have values: the row is of neither record alone`)
    }
    if (ofTo !== undefined) return renew(read)
    if (ofFrom !== undefined) return move(read)
    try {
      return move(read)
    } catch (error) {
      if (!WaxsealError.is(error) || error.retryable || error.code === 'CONFIG') throw error
      try {
        return renew(read)
      } catch (other) {
        throw WaxsealError.is(other) && other.retryable ? other : error // of neither: what the first one says
      }
    }
  }
  return {
    name: 'reencrypt',
    filter: { keys: from },
    extent: 'sealed',
    orphans: 'orphans',
    isShrinking: true,
    ready: () => keys.ready(),
    apply(read) {
      const isMoved = isTold && isOfKind(to.schema, read.next?.[to.schema.envelope])
      const next = isTold ? (isMoved ? renew(read) : move(read)) : either(read)
      const set: Record<string, unknown> = Object.fromEntries(left.map((column) => [column, null]))
      for (const [column, property] of target) set[column] = stored(next[property])
      return compared(read, set)
    },
  }
}

/** Plaintext rows become ciphertext. The declaration has to be in its `encrypt` phase, or strict. */
export function encryptWork(keys: Keys, source: RotationSource): Work {
  const { envelope, moved, columns } = source.record.schema
  return {
    name: 'encrypt',
    filter: 'plaintext',
    extent: 'all',
    isShrinking: true,
    ready: () => keys.ready(),
    apply(read) {
      const plain: Record<string, unknown> = { ...read.row }
      // Ciphertext without its header is damage: sealed once more, it would pass for the value.
      for (const { name, stored } of columns) {
        const value = plain[stored]
        if (typeof value === 'string' && isSealedField(value)) throw malformed(`"${name}" holds a ciphertext`)
      }
      delete plain[envelope]
      for (const { name, stored } of moved) if (stored !== name) delete plain[stored]
      const next = source.record.encrypt(keys, plain as never, source.contextOf(read.row) as never)
      return change(source, 'all', read, next as SourceRow)
    },
  }
}

/** The way back, for people who leave: ciphertext rows become plaintext. */
export function decryptWork(keys: Keys, source: RotationSource): Work {
  const { envelope, columns } = source.record.schema
  return {
    name: 'decrypt',
    filter: 'sealed',
    extent: 'all',
    orphans: 'orphans',
    isShrinking: true,
    ready: () => keys.ready(),
    apply(read) {
      const stored: Record<string, unknown> = { ...read.row }
      for (const { name, stored: property } of columns) if (property !== name) delete stored[name]
      const plain = openWhole(source.record.schema, sourceOf(keys), stored, source.contextOf(read.row))
      for (const { name, node } of columns) {
        if (node.type === 'leaf' || isJson(plain[name])) continue
        throw new WaxsealError('SCHEMA', `"${name}" holds a value that JSON cannot`, { field: name })
      }
      const emptied = Object.fromEntries(columns.filter((c) => c.stored !== c.name).map((c) => [c.stored, null]))
      return change(source, 'all', read, { ...plain, ...emptied, [envelope]: null })
    },
  }
}

/** Opens every row, or each with a chance, commitment included, and changes none. */
export function verifyWork(keys: Keys, source: RotationSource, chance = 1): Work {
  return {
    name: 'verify',
    filter: chance === 1 ? 'sealed' : { chance },
    extent: 'sealed',
    isShrinking: false,
    ready: () => keys.ready(),
    apply(read) {
      source.record.decrypt(keys, read.row as never, source.contextOf(read.row) as never)
      return null
    },
  }
}

/** Whether a value comes back from JSON as it was: no Date, no bigint, no bytes. */
function isJson(value: unknown): boolean {
  if (value === null || value === undefined || typeof value === 'string' || typeof value === 'boolean') return true
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object') return false
  if (Array.isArray(value)) return value.every(isJson)
  const prototype = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && Object.values(value).every(isJson)
}
