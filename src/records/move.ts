import type { KeySource } from '../envelope/keys.ts'
import { config, WaxsealError } from '../errors.ts'
import { refuseOrphans } from './change.ts'
import type { Row, Schema } from './compile.ts'
import { located, type Place } from './located.ts'
import { hasOthers } from './packed.ts'
import { contextBytes, type Draft, envelopeOf, expectRow, openRow, sealRow } from './record.ts'
import type { RowKey } from './row.ts'

/** A stored row on its way from one declaration to another: other columns, another shape, under a new data key. */

/**
 * CONFIG unless every row of `from` can be one of `to`: the same table, ids, envelope column and encoding, and no field
 * that would get lost.
 */
export function expectMovable(from: Schema, to: Schema): void {
  const idsOf = ({ ids }: Schema): string => JSON.stringify(ids.map(({ column, type }) => [column, type]))
  const place = `the table ${from.table} and its envelope column "${from.envelopeColumn}"`
  if (to.table !== from.table || to.envelopeColumn !== from.envelopeColumn) {
    throw config('to', `a record of ${place}`, `${to.table}.${to.envelopeColumn}`)
  }
  if (idsOf(to) !== idsOf(from)) throw config('to', 'a record with the same id columns, in the same order', to.ids)
  if (to.encoding !== from.encoding) throw config('to', `a record with encoding '${from.encoding}'`, to.encoding)
  const names = new Set(to.columns.map(({ name }) => name))
  const lost = from.columns.find(({ name }) => !names.has(name))
  if (lost) throw config('to', `a record that has the field "${lost.name}", or its values are lost`, undefined)
}

/** Whether a stored envelope has the form of this record's shape. It proves nothing: opening does. */
export function isOfKind(schema: Schema, stored: unknown): boolean {
  try {
    envelopeOf(schema, stored)
    return true
  } catch (error) {
    if (WaxsealError.is(error)) return false
    throw error
  }
}

/** The row under `to`, with a new data key: every declared field of `from` moves, and nothing else may be sealed in it. */
export function moveRow(from: Schema, to: Schema, keys: KeySource, row: Row, context: Row | undefined): Draft {
  return located(from, keys, 'reencrypt', row, (place) => {
    expectRow(row)
    const missing = from.kind === 'columns' && from.columns.find((column) => row[column.stored] === undefined)
    if (missing) {
      place.field = missing.name
      throw new WaxsealError('SCHEMA', `"${missing.stored}" is missing: select every protected column, or it is lost`)
    }
    const plain = openKnown(from, keys, row, context, 'reencrypt', place)
    const next: Draft = {}
    for (const [i, { name }] of from.ids.entries()) next[to.ids[i]!.name] = row[name]
    for (const { name, node } of to.columns) {
      const value = plain[name]
      // A field that the old row had not, or that only the new record has: null, where that is a value of it.
      if (value === undefined && node.type === 'leaf' && node.nullable === false) {
        place.field = name
        throw new WaxsealError('SCHEMA', `"${name}" has no value in this row (declare the field nullable)`)
      }
      next[name] = value ?? null
    }
    return sealRow(to, keys, next, contextBytes(to, next, context), place)
  })
}

/** The plaintext of a row whose data key is given up for good: nothing else may be sealed in it. */
export function openWhole(schema: Schema, keys: KeySource, row: Row, context: Row | undefined): Draft {
  return located(schema, keys, 'decrypt', row, (place) => openKnown(schema, keys, row, context, 'decrypt', place))
}

function openKnown(
  schema: Schema,
  keys: KeySource,
  row: Row,
  context: Row | undefined,
  operation: 'decrypt' | 'reencrypt',
  place: Place,
): Draft {
  const plain = openRow(schema, keys, row, context, operation, place, (key, packed) =>
    refuseLoss(schema, row, key, packed),
  )
  if (!plain) throw new WaxsealError('SCHEMA', 'expected a row, got one of nulls')
  return plain
}

/** What this declaration does not know of a row would be left without its key. */
function refuseLoss(schema: Schema, row: Row, key: RowKey, packed: Uint8Array | undefined): void {
  if (!packed) refuseOrphans(schema, row, key)
  else if (hasOthers(schema, packed)) {
    throw new WaxsealError('SCHEMA', 'the row holds a sealed field that this schema does not declare')
  }
}
