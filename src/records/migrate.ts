import type { KeySource } from '../envelope/keys.ts'
import type { Migrate } from './schema.ts'

/** How a row is read and written now. `prepare` and `encrypt` also read plaintext rows. */
export type Mode = 'strict' | 'prepare' | 'encrypt'

const WARN_AHEAD_MS = 30 * 86_400_000
const WARN_EVERY_MS = 3_600_000
const warned = new WeakMap<Migrating, number>()

/** A record or a cell that may be declared as migrating. */
export interface Migrating {
  readonly label: string
  readonly migrate: Migrate | undefined
}

/** The phase in force; strict once the declared end has come. Warns ahead by an event, at most once an hour. */
export function modeOf(schema: Migrating, keys: KeySource): Mode {
  if (!schema.migrate) return 'strict'
  const { phase, until } = schema.migrate
  const now = keys.now()
  const left = until.getTime() - now
  if (left <= WARN_AHEAD_MS && Math.abs(now - (warned.get(schema) ?? Number.NEGATIVE_INFINITY)) >= WARN_EVERY_MS) {
    warned.set(schema, now)
    keys.emit({ type: left > 0 ? 'migrate.ending' : 'migrate.ended', table: schema.label, until })
  }
  return left > 0 ? phase : 'strict'
}
