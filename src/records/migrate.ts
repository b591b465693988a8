import { malformed } from '../envelope/format.ts'
import type { KeySource } from '../envelope/keys.ts'
import type { Row, Schema } from './compile.ts'
import { idOf, type Place } from './located.ts'
import { checkColumns, isSealedField } from './row.ts'
import type { Migrate } from './schema.ts'

/** How a row is read and written now. `prepare` and `encrypt` also read plaintext rows. */
export type Mode = 'strict' | 'prepare' | 'encrypt'

/** A record or a cell that may be declared as migrating. */
export interface Migrating {
  readonly label: string
  readonly migrate: Migrate | undefined
}

const WARN_AHEAD_MS = 30 * 86_400_000
const WARN_EVERY_MS = 3_600_000
const warned = new WeakMap<Migrating, number>()

/** The phase in force; strict once the declared end has come. Warns ahead by an event, at most once an hour. */
export function modeOf(declared: Migrating, keys: KeySource): Mode {
  if (!declared.migrate) return 'strict'
  const { phase, until } = declared.migrate
  const now = keys.now()
  const left = until.getTime() - now
  if (left <= WARN_AHEAD_MS && Math.abs(now - (warned.get(declared) ?? Number.NEGATIVE_INFINITY)) >= WARN_EVERY_MS) {
    warned.set(declared, now)
    keys.emit({ type: left > 0 ? 'migrate.ending' : 'migrate.ended', table: declared.label, until })
  }
  return left > 0 ? phase : 'strict'
}

/** `prepare` writes plaintext: the values are checked as if they were sealed, and no old ciphertext stays behind. */
export function plaintextRow(schema: Schema, row: Row, place: Place): Record<string, unknown> {
  const out: Record<string, unknown> = { ...row }
  checkColumns(schema, row, place)
  for (const column of schema.columns) if (column.stored !== column.name) out[column.stored] = null
  out[schema.envelope] = null
  return out
}

/** A row without an envelope: plaintext while the table migrates, an error when it is strict. */
export function openPlaintextRow(schema: Schema, keys: KeySource, row: Row): Record<string, unknown> {
  if (modeOf(schema, keys) === 'strict') throw malformed(`"${schema.envelope}" is NULL: the row is not encrypted`)
  for (const { name, stored } of schema.columns) {
    const value = row[stored]
    if (typeof value === 'string' && isSealedField(value)) {
      throw malformed(`"${name}" holds a ciphertext, but "${schema.envelope}" is NULL`)
    }
  }
  if (keys.listening) keys.emit({ type: 'migrate.plaintext', table: schema.label, rowId: idOf(schema, row) })
  const out: Record<string, unknown> = { ...row }
  delete out[schema.envelope]
  for (const column of schema.columns) if (column.stored !== column.name) delete out[column.stored]
  return out
}
