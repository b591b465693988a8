import { wipe } from '../bytes.ts'
import type { ContextInput } from '../context.ts'
import { createEnvelope, openEnvelope, openValue, release } from '../envelope/envelope.ts'
import { type Encoding, fromStored, headerBeforeBody, KINDS, type Stored, sealStored } from '../envelope/format.ts'
import { decoderOf, type KeySource, type Keys, sourceOf } from '../envelope/keys.ts'
import { config, typeName, WaxsealError } from '../errors.ts'
import { checkMigrate, contextOf, idColumns, type Leaf, labelBytes, leafOf, type Row } from './compile.ts'
import { idOf, locate } from './located.ts'
import { modeOf } from './migrate.ts'
import { openedValue, plaintextOf } from './row.ts'
import type { Field, IdFields, Migrate, Nullable, ValueOf } from './schema.ts'

type Values<I> = {
  readonly [K in keyof I]: I[K] extends { kind: infer T extends keyof ContextInput } ? ContextInput[T] : never
}

/** The ids and facts that a cell is bound to; none for `bind: 'column'`. */
export type CellContext<B> = B extends IdFields ? [context: Values<B>] : []

export interface Cell<V, B, S = string> {
  /** A self-contained ciphertext under a data key of its own. */
  encrypt(keys: Keys, value: V, ...context: CellContext<B>): S
  /** The value, given the same context. Errors as for records. */
  decrypt(keys: Keys, stored: Stored, ...context: CellContext<B>): V
}

export interface CellOptions<F extends Field, B extends IdFields | 'column', E extends Encoding = Encoding> {
  readonly type: F
  /**
   * What the value is bound to besides table and column: typed ids and facts, or `'column'` for nothing else. With
   * `'column'` whoever writes the database can move a value to another row unnoticed.
   */
  readonly bind: B
  readonly encoding?: E
  /**
   * For text columns that still hold plaintext. What looks like a cell is one, and must open; `prepare` refuses to write
   * a plaintext that would be taken for a cell.
   */
  readonly migrate?: Migrate
}

/**
 * One value with an envelope of its own: for values outside a row, and for ORM column hooks, which see neither row
 * nor tenant and need the explicit `bind: 'column'`.
 *
 * 122 bytes more than the value before base64url (166 in suite 2). Errors: as for records.
 *
 * @example
 * ```ts
 * import { cell, int, text } from 'waxseal'
 * import { testKeyring } from 'waxseal/testing'
 *
 * const note = cell('customers', 'note', { type: text(), bind: { id: int() } })
 * const keys = testKeyring()
 * const sealed = note.encrypt(keys, 'prefers the phone', { id: 17 })
 * console.log(note.decrypt(keys, sealed, { id: '17' }))
 * ```
 */
export function cell<
  const F extends Field<unknown, Nullable, string>,
  const B extends IdFields | 'column',
  const E extends Encoding = 'text',
>(
  table: string,
  column: string,
  options: CellOptions<F, B, E>,
): Cell<ValueOf<F>, B, E extends 'bytes' ? Uint8Array : string> {
  const { type, bind, encoding = 'text', migrate } = options
  if (bind === undefined || (typeof bind !== 'object' && bind !== 'column')) {
    throw config('bind', "typed ids and facts, or 'column'", bind)
  }
  labelBytes(table, 'table')
  const facts: IdFields = bind === 'column' ? {} : bind
  const shape = contextOf(table, {}, facts, [column])
  const leaf = leafOf(type, 'type', [labelBytes(column, 'column')], 'cell')
  const subject = { label: table, ids: idColumns(facts, 'bind'), migrate: checkMigrate(migrate) }
  if (leaf.nullable === 'sql')
    throw config('type', 'nullable: true: a cell is there or not, it has no SQL NULL', leaf.nullable)
  if (migrate && (leaf.kind !== 'text' || encoding !== 'text')) {
    throw config('migrate', "type text() and encoding 'text': other columns cannot hold both forms", leaf.kind)
  }

  const canonical = (context: Row | undefined): Uint8Array => {
    if (subject.ids.length > 0 && (typeof context !== 'object' || context === null)) {
      throw config('context', `an object with ${subject.ids.map((id) => id.name).join(', ')}`, context)
    }
    const values = new Array<unknown>(subject.ids.length)
    let i = 0
    for (const { name } of subject.ids) values[i++] = context![name]
    return shape.encode(values)
  }

  function encrypt(keys: KeySource, value: unknown, context: Row | undefined): Stored {
    const bound = canonical(context)
    if (modeOf(subject, keys) === 'prepare') return keepPlaintext(leaf, value)
    const { suite, header, key, master } = createEnvelope(keys, 'cell', bound)
    try {
      const plaintext = plaintextOf(leaf, value)
      const sealed = sealStored(key, suite, plaintext, leaf.aad!, KINDS.cell.prefix, encoding, header)
      wipe(plaintext)
      report(keys, 'encrypt', context, master.idText)
      return sealed
    } finally {
      key.destroy()
    }
  }

  function decrypt(keys: KeySource, stored: Stored, context: Row | undefined): unknown {
    const bound = canonical(context) // before anything is decoded into shared bytes: it reads the caller's properties
    if (subject.migrate && modeOf(subject, keys) !== 'strict' && !looksLikeCell(stored)) {
      if (typeof stored !== 'string') throw new WaxsealError('SCHEMA', `expected text, got ${typeName(stored)}`)
      if (keys.listening) keys.emit({ type: 'migrate.plaintext', table, rowId: idOf(subject, context) })
      return stored
    }
    const header = headerBeforeBody(fromStored(stored, KINDS.cell.prefix, decoderOf(keys)), 'cell')
    const opened = openEnvelope(keys, header, 'cell', bound, 'decrypt')
    const keyId = opened.master.idText
    try {
      const value = openedValue(leaf, openValue(opened.key, header.read, leaf.aad!, keyId, header.length))
      report(keys, 'decrypt', context, keyId)
      return value
    } finally {
      release(keys, opened)
    }
  }

  function report(keys: KeySource, type: 'encrypt' | 'decrypt', context: Row | undefined, keyId: string): void {
    if (keys.listening) keys.emit({ type, table, fields: [column], rowId: idOf(subject, context), keyId })
  }

  function call<T>(operation: 'encrypt' | 'decrypt', work: (keys: KeySource, value: T, context?: Row) => unknown) {
    return (keys: Keys, value: T, context?: Row) => {
      const source = sourceOf(keys)
      const place = { field: column }
      try {
        return work(source, value, context)
      } catch (error) {
        throw locate(error, subject, source, operation, context as Row, place)
      }
    }
  }

  return { encrypt: call('encrypt', encrypt), decrypt: call('decrypt', decrypt) } as unknown as Cell<
    ValueOf<F>,
    B,
    E extends 'bytes' ? Uint8Array : string
  >
}

/** While a column migrates: the value is checked as if it were sealed, and must not be taken for a cell later. */
function keepPlaintext(leaf: Leaf, value: unknown): Stored {
  wipe(plaintextOf(leaf, value))
  if (looksLikeCell(value))
    throw new WaxsealError('SCHEMA', 'a plaintext that looks like a cell has to wait for "encrypt"')
  return value as string
}

/** Text behind the prefix and in the alphabet of a cell is one, whole or damaged: never a plaintext. */
function looksLikeCell(stored: unknown): boolean {
  return typeof stored === 'string' && /^wxc:[A-Za-z0-9_-]*$/.test(stored)
}
