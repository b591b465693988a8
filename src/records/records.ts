import type { Stored } from '../envelope/format.ts'
import { type Keys, sourceOf } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import { patchRow, type Rewrapped, reencryptRow, rewrapRow, rewrapRows } from './change.ts'
import { compile, type Row, rowId, type Schema } from './compile.ts'
import { allOrThrow, mapRows, mapTurns, type RowResult } from './many.ts'
import { decryptRow, encryptRow, envelopeOf, expectRow } from './record.ts'
import type {
  Changes,
  ContextArgument,
  ContextValues,
  Declaration,
  Decrypted,
  Encrypted,
  Ids,
  OrNull,
  PatchSet,
  PlainRow,
  StoredRow,
} from './schema.ts'
import { columnLength, quoteColumn, recordSql, type SqlFragment } from './sql.ts'

/** What the WHERE of a partial update must ask for besides the row's id. */
export interface Guard {
  /** An SQL expression over the row: put `expression = value` into the WHERE, `value` as a parameter. */
  readonly expression: string
  readonly value: Stored
  /**
   * Takes the number of updated rows (`rowCount` of pg, `affectedRows` of PGlite, `count` of postgres.js) and throws
   * CONFLICT (retryable: read the row again) unless it is 1.
   */
  assert(updatedRows: number | null | undefined): void
}

export interface Patch<S> {
  readonly set: S
  readonly guard: Guard
}

/** A declared record. Every call is synchronous except the `*Many`. Rows given are never changed. */
export interface Records<D extends Declaration> {
  readonly label: string
  readonly declaration: D
  /** SQL expressions about the envelope column. */
  readonly sql: {
    readonly keyId: string
    readonly guard: string
    readonly createIndex: string
    needsRotation(keys: Keys, first?: number): SqlFragment
  }
  /**
   * A whole row under a new data key. Write header and all fields in one statement. A field that is undefined is left
   * out; on an existing row that leaves an old ciphertext without its key, so give every field, null for no value.
   *
   * Errors: SCHEMA (a value that does not fit, a row that is encrypted already), LIMIT_EXCEEDED, CONFIG, KEY_STATE,
   * KEY_NOT_LOADED.
   */
  encrypt<R extends PlainRow<D>>(keys: Keys, row: R, ...context: ContextArgument<D>): Encrypted<R, D>
  /**
   * The columns that are in `row`, opened; ids and envelope must be among them. Null for a left join's row of nulls.
   *
   * Errors: MALFORMED, DECRYPTION_FAILED, UNKNOWN_KEY, KEY_NOT_LOADED, KEY_STATE, SCHEMA; see docs/errors.md.
   */
  decrypt<R extends StoredRow<D>>(keys: Keys, row: R, ...context: ContextArgument<D>): Decrypted<R, D> | OrNull<R, D>
  /**
   * A partial update under the row's own data key: `row` needs ids and envelope. Put `guard` into the WHERE: without
   * it, a concurrent re-encryption loses the field for ever.
   */
  patch<const C extends Changes<D>>(
    keys: Keys,
    row: StoredRow<D>,
    changes: C,
    ...context: ContextArgument<D>
  ): Patch<PatchSet<D, C>>
  /** The row under new ids (and context): all protected columns must be in it. */
  rebind<R extends StoredRow<D>>(
    keys: Keys,
    row: R,
    from: RebindSide<D>,
    to: RebindSide<D>,
  ): Encrypted<Decrypted<R, D>, D>
  /** A new data key for a stored row: all protected columns must be in it. */
  reencrypt<R extends StoredRow<D>>(keys: Keys, row: R, ...context: ContextArgument<D>): Encrypted<Decrypted<R, D>, D>
  /** The same data key under the active master key; null when it is there already. Needs no ids and no context. */
  rewrap(keys: Keys, row: { readonly [name: string]: unknown }): Rewrapped | null
  /** True when the row is under another master key than the active one. MALFORMED for what is no envelope. */
  needsRotation(keys: Keys, row: { readonly [name: string]: unknown }): boolean
  /** {@link Records.encrypt} for many rows, letting other work run in between; the first failure is thrown. */
  encryptMany<R extends PlainRow<D>>(
    keys: Keys,
    rows: readonly R[],
    ...context: ContextArgument<D>
  ): Promise<Encrypted<R, D>[]>
  decryptMany<R extends StoredRow<D>>(
    keys: Keys,
    rows: readonly R[],
    ...context: ContextArgument<D>
  ): Promise<(Decrypted<R, D> | OrNull<R, D>)[]>
  /**
   * {@link Records.rewrap} for many rows: with suite 1 on Node's engine, a tenth of the time. The data keys of up to 500
   * rows are in memory at once, and wiped.
   */
  rewrapMany(keys: Keys, rows: readonly { readonly [name: string]: unknown }[]): Promise<(Rewrapped | null)[]>
  /** A result per row, in order: one broken row does not hide the others. */
  readonly settled: {
    encryptMany<R extends PlainRow<D>>(
      keys: Keys,
      rows: readonly R[],
      ...context: ContextArgument<D>
    ): Promise<RowResult<Encrypted<R, D>>[]>
    decryptMany<R extends StoredRow<D>>(
      keys: Keys,
      rows: readonly R[],
      ...context: ContextArgument<D>
    ): Promise<RowResult<Decrypted<R, D> | OrNull<R, D>>[]>
    rewrapMany(
      keys: Keys,
      rows: readonly { readonly [name: string]: unknown }[],
    ): Promise<RowResult<Rewrapped | null>[]>
  }
  /**
   * The length a column needs, in characters (bytes with `encoding: 'bytes'`): the envelope's, or a field's for values
   * of at most `valueBytes` bytes (default: its `maxBytes`). For the larger suite unless one is named.
   */
  columnLength(name: string, valueBytes?: number, suite?: 1 | 2): number
  /** The prepared declaration, for sources of rotation and integrations. */
  readonly schema: Schema
}

/** Rows whose data keys are in memory at once: a few ms of work. */
const REWRAPPED_TOGETHER = 500

type RebindAs = { ids: Row; context?: Row }

export type RebindSide<D extends Declaration> = { readonly ids: Ids<D> } & (D extends { context: object }
  ? { readonly context: ContextValues<D> }
  : { readonly context?: never })

/**
 * Declares a record: which columns identify a row, which are protected, and how they are stored. `label` is bound
 * into every ciphertext, like the labels of ids and fields: never change it; `table` and `column` are the database's
 * names and may change.
 *
 * At most 512 fields; ids of at most 1,024 bytes; values of at most 16 MiB. A field costs 29 bytes more than its value
 * (41 in suite 2), a header 93 bytes (125), before base64url. Errors: CONFIG at once for a wrong declaration.
 *
 * @example
 * ```ts
 * import { date, records, text, uuid } from 'waxseal'
 * import { testKeyring } from 'waxseal/testing'
 *
 * const customers = records('customers', {
 *   id: { id: uuid() },
 *   fields: { email: text(), phone: text({ nullable: true }), birthDate: date({ into: 'birthDateSealed' }) },
 * })
 * const keys = testKeyring()
 * const id = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
 * const row = customers.encrypt(keys, { id, email: 'a@example.org', phone: null, birthDate: new Date(0), city: 'Oslo' })
 * console.log(row.city, customers.decrypt(keys, row).email)
 * ```
 */
export function records<const D extends Declaration>(label: string, declaration: D): Records<D> {
  const schema = compile(label, declaration)
  const sql = recordSql(schema)

  const encryptOne = (keys: Keys, row: unknown, context: unknown) =>
    encryptRow(schema, sourceOf(keys), row as Row, context as Row | undefined)
  const decryptOne = (keys: Keys, row: unknown, context: unknown) =>
    decryptRow(schema, sourceOf(keys), row as Row, context as Row | undefined)
  const settledEncrypt = (keys: Keys, rows: readonly unknown[], context: unknown) =>
    mapRows(rows, (row) => encryptOne(keys, row, context))
  const settledDecrypt = (keys: Keys, rows: readonly unknown[], context: unknown) =>
    mapRows(rows, (row) => decryptOne(keys, row, context))
  const settledRewrap = async (keys: Keys, rows: readonly Row[]) => {
    const source = sourceOf(keys)
    return mapTurns(rows, REWRAPPED_TOGETHER, (turn) => rewrapRows(schema, source, turn))
  }

  const untyped = {
    label,
    declaration,
    schema,
    sql: { ...sql, needsRotation: (keys: Keys, first?: number) => sql.needsRotation(sourceOf(keys), first) },
    encrypt: encryptOne,
    decrypt: decryptOne,
    patch(keys: Keys, row: Row, changes: Row, context?: Row) {
      const { set, guardValue } = patchRow(schema, sourceOf(keys), row, changes, context)
      // A plaintext row of a migrating table has no envelope; coalesce makes that comparable with `=` too.
      const empty = schema.encoding === 'text' ? "''" : "''::bytea"
      const expression = guardValue === null ? `coalesce(${quoteColumn(schema.envelopeColumn)}, ${empty})` : sql.guard
      const value = guardValue ?? (schema.encoding === 'text' ? '' : new Uint8Array(0))
      return { set, guard: { expression, value, assert: assertOneRow(schema, row) } }
    },
    rebind(keys: Keys, row: Row, from: RebindAs, to: RebindAs) {
      for (const [name, side] of Object.entries({ from, to })) {
        if (typeof side?.ids !== 'object') throw config(name, '{ ids }, and { context } where one is declared', side)
      }
      const target = { ids: to.ids, context: to.context }
      return reencryptRow(schema, sourceOf(keys), { ...row, ...from.ids }, from.context, target)
    },
    reencrypt: (keys: Keys, row: Row, context?: Row) => reencryptRow(schema, sourceOf(keys), row, context),
    rewrap: (keys: Keys, row: Row): Rewrapped | null => rewrapRow(schema, sourceOf(keys), row),
    needsRotation(keys: Keys, row: Row): boolean {
      expectRow(row)
      return envelopeOf(schema, row[schema.envelope]).keyId !== sourceOf(keys).active().idText
    },
    encryptMany: async (keys: Keys, rows: readonly unknown[], context: unknown) =>
      allOrThrow(await settledEncrypt(keys, rows, context)),
    decryptMany: async (keys: Keys, rows: readonly unknown[], context: unknown) =>
      allOrThrow(await settledDecrypt(keys, rows, context)),
    rewrapMany: async (keys: Keys, rows: readonly Row[]) => allOrThrow(await settledRewrap(keys, rows)),
    settled: { encryptMany: settledEncrypt, decryptMany: settledDecrypt, rewrapMany: settledRewrap },
    columnLength: (name: string, valueBytes?: number, suite?: 1 | 2) => columnLength(schema, name, valueBytes, suite),
  }
  // The implementation knows rows as records of unknown; the declaration's types are put around it here, once.
  return untyped as unknown as Records<D>
}

function assertOneRow(schema: Schema, row: Row) {
  return (updatedRows: number | null | undefined): void => {
    if (updatedRows === 1) return
    if (typeof updatedRows !== 'number') {
      throw config('updatedRows', 'the number of updated rows: rowCount, affectedRows or count', updatedRows)
    }
    throw new WaxsealError('CONFLICT', `expected 1 row to be updated, got ${updatedRows}: read the row again`, {
      table: schema.label,
      rowId: rowId(schema.ids, row),
    })
  }
}
