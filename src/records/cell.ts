import { concat } from '../bytes.ts'
import type { ContextInput } from '../context.ts'
import { createEnvelope, openEnvelope, openValue } from '../envelope/envelope.ts'
import { type Encoding, fieldAad, fromStored, headerAndBody, KINDS, type Stored, toStored } from '../envelope/format.ts'
import { type Keys, SOURCE } from '../envelope/keys.ts'
import { decodeValue, encodeValue } from '../envelope/value.ts'
import { at, config, WaxsealError } from '../errors.ts'
import { checkMigrate, contextOf, idColumns, labelBytes, MAX_VALUE_BYTES, rowId } from './compile.ts'
import { modeOf } from './migrate.ts'
import type { Field, IdFields, Migrate, Nullable, ValueOf } from './schema.ts'

type Values<I> = {
  readonly [K in keyof I]: I[K] extends { kind: infer T extends keyof ContextInput } ? ContextInput[T] : never
}

/** The ids and facts that a cell is bound to; none for `bind: 'column'`. */
export type CellContext<B> = B extends IdFields ? [context: Values<B>] : []

export interface Cell<V, B> {
  /** A self-contained ciphertext under a data key of its own. */
  encrypt(keys: Keys, value: V, ...context: CellContext<B>): string
  /** The value, given the same context. Errors as for records. */
  decrypt(keys: Keys, stored: Stored, ...context: CellContext<B>): V
}

export interface CellOptions<F extends Field, B extends IdFields | 'column'> {
  readonly type: F
  /**
   * What the value is bound to besides table and column: typed ids and facts, or `'column'` for nothing else. With
   * `'column'` whoever writes the database can move a value to another row unnoticed.
   */
  readonly bind: B
  readonly encoding?: Encoding
  /**
   * For text columns that still hold plaintext. What parses as a cell is one, and must open; `prepare` refuses to write
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
export function cell<const F extends Field<unknown, Nullable, string>, const B extends IdFields | 'column'>(
  table: string,
  column: string,
  options: CellOptions<F, B>,
): Cell<ValueOf<F>, B> {
  const { type, bind, encoding = 'text' } = options
  const migrating = { label: table, migrate: checkMigrate(options.migrate) }
  const aad = fieldAad('cell', [labelBytes(column, 'column')])
  labelBytes(table, 'table')
  if (bind === undefined || (typeof bind !== 'object' && bind !== 'column')) {
    throw config('bind', "typed ids and facts, or 'column'", bind)
  }
  const facts: IdFields = bind === 'column' ? {} : (bind as IdFields)
  const columns = idColumns(facts, 'bind')
  const shape = contextOf(table, {}, facts, [column])
  const { kind } = type
  if (migrating.migrate && (kind !== 'text' || encoding !== 'text')) {
    throw config('migrate', "type text() and encoding 'text': other columns cannot hold both forms", kind)
  }
  const { nullable = false, pad, maxBytes = MAX_VALUE_BYTES } = type.options
  const prefix = KINDS.cell.prefix

  const canonical = (context: Readonly<Record<string, unknown>> | undefined): Uint8Array => {
    if (columns.length > 0 && (typeof context !== 'object' || context === null)) {
      throw config('context', `an object with ${columns.map((c) => c.name).join(', ')}`, context)
    }
    return shape.encode(columns.map(({ name }) => context![name]))
  }

  function located<T>(
    keys: Keys,
    operation: 'encrypt' | 'decrypt',
    context: object | undefined,
    work: () => [T, string],
  ): T {
    const source = keys?.[SOURCE]
    if (!source) throw config('keys', 'an open keyring, or a handle of one', keys)
    const id = () => (columns.length > 0 ? rowId(columns, (context ?? {}) as Record<string, unknown>) : undefined)
    try {
      const [result, keyId] = work()
      if (source.listening && keyId) source.emit({ type: operation, table, fields: [column], rowId: id(), keyId })
      return result
    } catch (error) {
      const told = at(error, { table, field: column, rowId: id() })
      if (WaxsealError.is(told)) {
        source.emit({
          type: 'failure',
          operation,
          code: told.code,
          table,
          field: column,
          rowId: id(),
          keyId: told.keyId,
        })
      }
      throw told
    }
  }

  return {
    encrypt(keys: Keys, value: unknown, context?: object) {
      return located(keys, 'encrypt', context, () => {
        if (value === null && nullable === false) throw new WaxsealError('SCHEMA', `expected ${kind}, got null`)
        const bound = canonical(context as Record<string, unknown>)
        const plaintext = encodeValue(kind, value, pad, maxBytes)
        if (modeOf(migrating, keys[SOURCE]) === 'prepare') {
          plaintext.fill(0)
          if (isCell(value))
            throw new WaxsealError('SCHEMA', 'a plaintext that looks like a cell has to wait for "encrypt"')
          return [value as string, '']
        }
        const { header, key, master } = createEnvelope(keys[SOURCE], 'cell', bound)
        const sealed = concat(header, key.seal(plaintext, aad))
        plaintext.fill(0)
        return [toStored(sealed, prefix, encoding), master.idText]
      })
    },
    decrypt(keys: Keys, stored: Stored, context?: object) {
      return located(keys, 'decrypt', context, () => {
        if (migrating.migrate && !isCell(stored) && modeOf(migrating, keys[SOURCE]) !== 'strict')
          return [stored as unknown, '']
        const { header, body } = headerAndBody(fromStored(stored, prefix), 'cell')
        const { key } = openEnvelope(
          keys[SOURCE],
          header,
          'cell',
          canonical(context as Record<string, unknown>),
          'decrypt',
        )
        const plaintext = openValue(key, body, aad, header.keyId)
        const value = decodeValue(kind, plaintext)
        plaintext.fill(0)
        if (value === null && nullable === false)
          throw new WaxsealError('SCHEMA', `declared as ${kind}, but null is stored`)
        return [value, header.keyId]
      })
    },
  } as unknown as Cell<ValueOf<F>, B>
}

/** Recognised by parsing: prefix, canonical base64url, a well-formed header and room for a value. */
function isCell(stored: unknown): boolean {
  if (typeof stored !== 'string' || !stored.startsWith(KINDS.cell.prefix)) return false
  try {
    headerAndBody(fromStored(stored, KINDS.cell.prefix), 'cell')
    return true
  } catch {
    return false
  }
}
