import { FIELD_PREFIX } from '../envelope/format.ts'
import { config } from '../errors.ts'
import type { Schema } from '../records/compile.ts'
import { isSealedField } from '../records/row.ts'
import type { AnyRecord, Guard } from './source.ts'
import { columnsOf } from './work.ts'

/** Fields that somebody else's declaration has sealed under the data key of a row: what a job must see before it gives up that key. */

/** A column that no declaration of the job knows, and that may hold ciphertext. */
export interface Suspect {
  readonly column: string
  /** What to select of it: text in which {@link FIELD_PREFIX} stands, bytes; NULL for all that cannot be a ciphertext. */
  readonly sql: string
  /** What stands for that when it is compared again: short, whatever the column holds. */
  readonly digest: string
  /** What the client gave for it. */
  read(selected: unknown): string | Uint8Array
}

/** Columns whose ciphertext is dealt with, by the row's own key or under another envelope. */
export function knownColumns(
  schema: Schema,
  to: Schema | undefined,
  others: readonly AnyRecord[],
): ReadonlySet<string> {
  const schemas = [schema, ...(to ? [to] : []), ...others.map((other) => other.schema)]
  const ids = schema.ids.map(({ column }) => column)
  return new Set([...ids, ...schemas.flatMap((each) => [...columnsOf(each, 'sealed').keys()])])
}

/** CONFIG unless each is of the same table, with an envelope of its own: a data key of its own. */
export function checkOthers(schema: Schema, others: readonly AnyRecord[]): void {
  if (!Array.isArray(others)) throw config('otherRecords', 'an array of records', others)
  for (const other of others) {
    if (!other?.schema) throw config('otherRecords', 'what records() returns', other)
    const { table, envelopeColumn } = other.schema
    if (table === schema.table && envelopeColumn !== schema.envelopeColumn) continue
    const wanted = `records of the table ${schema.table} with another envelope column than "${schema.envelopeColumn}"`
    throw config('otherRecords', wanted, `${table}.${envelopeColumn}`)
  }
}

/** What suspects held when the row was read: it is to be the same when the row is written. */
export function guardOf(suspects: readonly Suspect[], found: Readonly<Record<string, unknown>>): Guard {
  return Object.fromEntries(suspects.map(({ digest }, i) => [digest, found[`d${i}`] ?? null]))
}

/**
 * Puts what suspects hold where the record's own check sees it: under the column's name, or under another one where the record
 * has a property that is called so.
 */
export function addSuspects(
  suspects: readonly Suspect[],
  found: Readonly<Record<string, unknown>>,
  rows: readonly (readonly [row: Record<string, unknown>, schema: Schema])[],
): void {
  for (const [i, { column, read }] of suspects.entries()) {
    const selected = found[`o${i}`]
    if (selected === null || selected === undefined) continue
    const value = sealedIn(read(selected))
    if (value === undefined) continue
    for (const [row, { isProtected }] of rows) {
      row[column in row || isProtected.has(column) ? `${column} (column)` : column] = value
    }
  }
}

const FIELD = new RegExp(`${FIELD_PREFIX}[\\w-]+`, 'g')

/** The ciphertext that a text is, or the first one that stands in it: in a JSON document, an array. */
const sealedIn = (value: string | Uint8Array): string | Uint8Array | undefined =>
  typeof value === 'string' ? value.match(FIELD)?.find(isSealedField) : value
