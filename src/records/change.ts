import { concat, copyBytes, type fromBase64url, wipe } from '../bytes.ts'
import {
  createEnvelope,
  type NewEnvelope,
  openEnvelope,
  openValue,
  release,
  reopenEnvelope,
  rewrapHeader,
} from '../envelope/envelope.ts'
import { fieldAad, type Header, KINDS, malformed, type Stored, sealStored, toStored } from '../envelope/format.ts'
import { decoderOf, type KeySource } from '../envelope/keys.ts'
import { rewrapTogether } from '../envelope/together.ts'
import { config, WaxsealError } from '../errors.ts'
import { labelBytes, type Row, type Schema } from './compile.ts'
import { idOf, located, type Place } from './located.ts'
import { modeOf, plaintextRow } from './migrate.ts'
import { PACKED_AAD, repackFields } from './packed.ts'
import { contextBytes, type Draft, envelopeOf, expectRow, notSelected, openRow, sealRow } from './record.ts'
import { isSealedField, type RowKey, sealColumns } from './row.ts'

/** How a stored row changes: some fields, its data key, its ids, or the master key it is under. */

/** What a partial update writes, and what its WHERE must ask for. */
export interface PatchParts {
  readonly set: Draft
  readonly guardValue: Stored | null
}

/** Partial update: the row's own data key, fresh nonces. Valid only while the row's commitment is what it was. */
export function patchRow(
  schema: Schema,
  keys: KeySource,
  row: Row,
  changes: Row,
  context: Row | undefined,
): PatchParts {
  return located(schema, keys, 'patch', row, (place) => {
    expectRow(row)
    const changed = checkChanges(schema, changes)
    const stored = row[schema.envelope]
    if (stored === undefined) throw notSelected(schema)
    const canonical = contextBytes(schema, row, context)
    if (stored === null) return patchPlaintext(schema, keys, changed, place)

    const set: Draft = {}
    const header = envelopeOf(schema, stored)
    const { key } = reopenEnvelope(keys, header, schema.kind, canonical)
    const { suite } = header
    try {
      if (schema.kind === 'columns') {
        sealColumns(schema, changed, set, { key, suite }, place)
      } else {
        const packed = openValue(key, header.read, PACKED_AAD, header.keyId, header.length)
        try {
          set[schema.envelope] = repackFields(schema, packed, changed, place, (next) =>
            sealStored(key, suite, next, PACKED_AAD, KINDS.packed.prefix, encodingOf(stored), header.bytes),
          )
        } finally {
          wipe(packed)
        }
      }
    } finally {
      key.destroy()
    }
    if (keys.listening) {
      const fields = schema.columns.filter((c) => changed[c.name] !== undefined).map((c) => c.label)
      keys.emit({ type: 'patch', table: schema.label, rowId: idOf(schema, row), fields, keyId: header.keyId })
    }
    return { set, guardValue: guardValue(schema, stored as Stored, header) }
  })
}

function checkChanges(schema: Schema, changes: unknown): Row {
  if (typeof changes !== 'object' || changes === null) throw config('changes', 'an object of fields', changes)
  const changed = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  const names = Object.keys(changed)
  const unknown = names.find((name) => !schema.columns.some((column) => column.name === name))
  if (unknown !== undefined) throw config(`changes.${unknown}`, 'a declared field', changed[unknown])
  if (names.length === 0) throw config('changes', 'at least one field that is not undefined', changes)
  return changed
}

function patchPlaintext(schema: Schema, keys: KeySource, changes: Row, place: Place): PatchParts {
  const mode = modeOf(schema, keys)
  if (mode === 'strict') throw malformed(`"${schema.envelope}" is NULL: the row is not encrypted`)
  if (mode === 'encrypt') {
    throw new WaxsealError('SCHEMA', 'the row is still plaintext: encrypt the whole row instead of patching it')
  }
  const { [schema.envelope]: _, ...set } = plaintextRow(schema, changes, place)
  return { set, guardValue: null }
}

/** Where SQL finds 30 bytes of the commitment: substr(…, from, length), counted from 1. */
export const GUARD = { textFrom: 33, textLength: 40, bytesFrom: 22, bytesLength: 30 } as const

/**
 * Columns: 30 bytes of the commitment, which a rewrap leaves alone and a new data key changes. Packed: the whole
 * blob, because two patches of different fields overwrite one another.
 */
function guardValue(schema: Schema, stored: Stored, header: Header): Stored {
  if (schema.kind === 'packed') return stored
  if (typeof stored !== 'string') return copyBytes(header.commitment.subarray(0, GUARD.bytesLength))
  return stored.slice(GUARD.textFrom - 1, GUARD.textFrom - 1 + GUARD.textLength)
}

/** Where a row goes: the same ids and context, or others. */
export interface Target {
  readonly ids: Row
  readonly context: Row | undefined
}

/**
 * A new data key for a row that is read whole, perhaps under new ids. Always ciphertext, also while a table that
 * migrates still writes plaintext.
 */
export function reencryptRow(schema: Schema, keys: KeySource, row: Row, context: Row | undefined, to?: Target): Draft {
  return located(schema, keys, 'reencrypt', row, (place) => {
    expectRow(row)
    const ids = to && Object.fromEntries(schema.ids.map(({ name }) => [name, to.ids[name]]))
    const target = { ...row, ...ids }
    const targetContext = contextBytes(schema, target, to ? to.context : context)
    if (schema.kind === 'packed' && row[schema.envelope] != null) {
      return { ...target, [schema.envelope]: reencryptPacked(schema, keys, row, context, targetContext) }
    }
    const missing = schema.columns.find((column) => row[column.stored] === undefined)
    if (missing) {
      place.field = missing.name
      throw new WaxsealError('SCHEMA', `"${missing.stored}" is missing: select every protected column, or it is lost`)
    }
    const plain = openRow(schema, keys, row, context, 'reencrypt', place, (key) => refuseOrphans(schema, row, key))
    if (!plain) throw new WaxsealError('SCHEMA', 'expected a row, got one of nulls')
    return sealRow(schema, keys, { ...plain, ...ids }, targetContext, place)
  })
}

/**
 * A new data key would orphan a field that this schema does not declare. Text tells what is one; for bytes the old key
 * does, where the label is the property's name.
 */
export function refuseOrphans(schema: Schema, row: Row, { key, suite }: RowKey): void {
  for (const [name, value] of Object.entries(row)) {
    if (schema.isProtected.has(name) || name === schema.envelope) continue
    if (!(typeof value === 'string' && isSealedField(value))) {
      if (!(value instanceof Uint8Array) || value.length < suite.nonceBytes + suite.tagBytes) continue
      const opened = key.open(value, fieldAad('columns', [labelBytes(name, name)]))
      if (opened === null) continue
      wipe(opened)
    }
    throw new WaxsealError('SCHEMA', `"${name}" holds a sealed field that this schema does not declare`, {
      field: name,
    })
  }
}

/** The packed plaintext moves as it is, with the entries that this schema does not declare. */
function reencryptPacked(schema: Schema, keys: KeySource, row: Row, from: Row | undefined, to: Uint8Array): Stored {
  const stored = row[schema.envelope] as Stored
  const header = envelopeOf(schema, stored)
  const opened = openEnvelope(keys, header, 'packed', contextBytes(schema, row, from), 'reencrypt')
  let packed: Uint8Array
  try {
    packed = openValue(opened.key, header.read, PACKED_AAD, header.keyId, header.length)
  } finally {
    release(keys, opened)
  }
  let next: NewEnvelope | undefined
  let sealed: Stored
  try {
    next = createEnvelope(keys, 'packed', to)
    sealed = sealStored(next.key, next.suite, packed, PACKED_AAD, KINDS.packed.prefix, encodingOf(stored), next.header)
  } finally {
    wipe(packed)
    next?.key.destroy()
  }
  if (keys.listening) {
    const fields = schema.columns.map((column) => column.label)
    keys.emit({ type: 'reencrypt', table: schema.label, rowId: idOf(schema, row), fields, keyId: next.master.idText })
  }
  return sealed
}

/** A new envelope for a row, and the one it replaces: write it only where the old one still stands. */
export interface Rewrapped {
  readonly envelope: Stored
  readonly was: Stored
}

/** The same data key under the active master key; null when it is there already. Ciphertext stays. */
export function rewrapRow(schema: Schema, keys: KeySource, row: Row, begun?: Begun): Rewrapped | null {
  return located(schema, keys, 'rewrap', row, () => {
    const { was, header, ready } = begun ?? beginRewrap(schema, row, decoderOf(keys))
    const moved = rewrapHeader(keys, header, ready)
    if (!moved) return null
    if (keys.listening) {
      keys.emit({ type: 'rewrap', table: schema.label, rowId: idOf(schema, row), keyId: keys.active().idText })
    }
    const body = header.read.subarray(header.length)
    const whole = body.length > 0 ? concat(moved, body) : moved
    return { envelope: toStored(whole, KINDS[schema.kind].prefix, encodingOf(was)), was }
  })
}

/** An envelope that was read, and its header under the active key where it was made together with others. */
interface Begun {
  readonly was: Stored
  readonly header: Header
  ready: Uint8Array | undefined
}

function beginRewrap(schema: Schema, row: Row, decode?: typeof fromBase64url): Begun {
  expectRow(row)
  const was = row[schema.envelope] as Stored
  return { was, header: envelopeOf(schema, was, decode), ready: undefined }
}

/** {@link rewrapRow} for rows of one turn: their data keys are wrapped at once. What is broken is told row by row. */
export function rewrapRows(
  schema: Schema,
  keys: KeySource,
  rows: readonly Row[],
): (row: Row, i: number) => Rewrapped | null {
  const begun = rows.map((row) => {
    try {
      return beginRewrap(schema, row)
    } catch (error) {
      if (!WaxsealError.is(error)) throw error
      return undefined
    }
  })
  const headers = begun.map((one) => one?.header)
  const ready = rewrapTogether(keys, headers)
  for (let i = 0; i < ready.length; i++) if (ready[i]) begun[i]!.ready = ready[i]
  return (row, i) => rewrapRow(schema, keys, row, begun[i])
}

const encodingOf = (stored: unknown) => (typeof stored === 'string' ? 'text' : 'bytes')
