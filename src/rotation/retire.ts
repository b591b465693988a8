import { config, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import type { RotationSource } from './source.ts'

export interface RetireOptions {
  readonly keys: Keyring
  readonly keyId: string
  /** All tables that hold rows under this keyring. */
  readonly tables: readonly RotationSource[]
  readonly reason?: string
  /** Tables that look like one of `tables` and are not to be asked, with their schema: what is in them may be lost with the key. */
  readonly except?: readonly string[]
}

export interface RetireReport {
  readonly keyId: string
  /** Every table that was asked, with its schema, and found to hold no row under the version; those that were not given as well. */
  readonly counted: readonly string[]
  /** Tables that were not asked, of `except`. */
  readonly skipped: readonly string[]
}

/**
 * Retires a version after a query over every table has shown that nothing refers to it. Partitions are parts of their table. Tables
 * that were not given, but have a column like the envelope of one that was, are asked too: copies, detached partitions, the
 * same table in the schema of a tenant that somebody forgot. What calls that column otherwise, or is in another database, is not found.
 *
 * Errors: CONFIG (row-level security may hide rows from this connection, or it may not read a table that was found; a name in
 * `except` is no such table), CONFLICT (rows still
 * refer to it; the message counts them), KEY_STATE (the version is active or staged).
 */
export async function retire({ keys, keyId, tables, reason, except = [] }: RetireOptions): Promise<RetireReport> {
  if (!Array.isArray(tables) || tables.length === 0)
    throw config('tables', 'every table that holds rows under the keyring', tables)
  const counted = new Set<string>()
  const skipped = new Set<string>()
  const nameOf = async (table: RotationSource): Promise<string> => (await table.locate()).join('.')
  const columnOf = (table: RotationSource, name: string): string =>
    JSON.stringify([name, table.record.schema.envelopeColumn])
  const asked = new Set<string>()

  async function ask(table: RotationSource, name: string, isGiven: boolean): Promise<void> {
    // Two records may share a table, each with a column of its own.
    const column = columnOf(table, name)
    if (asked.has(column)) return
    asked.add(column)
    const rows = await referring(table, name, isGiven)
    if (rows === 0) return void counted.add(name)
    const how = isGiven ? '' : ', which is not among the tables,'
    const message = `${rows} rows of ${name}${how} still refer to the version`
    throw new WaxsealError('CONFLICT', message, { table: name, keyId })
  }

  async function referring(table: RotationSource, name: string, isGiven: boolean): Promise<number> {
    try {
      await table.assertSeesAll('history')
      return (await table.countByKey([keyId])).get(keyId) ?? 0
    } catch (cause) {
      if (isGiven || (cause as { code?: unknown } | null)?.code !== '42501') throw cause
      const message = `${name} may hold rows under the version, and this role may not read it: let it, or name the table in "except"`
      throw new WaxsealError('CONFIG', message, { table: name, argument: 'except', cause })
    }
  }

  for (const table of tables) await ask(table, await nameOf(table), true)
  const found: [RotationSource, string][] = []
  for (const table of tables) {
    for (const other of await table.lookalikes()) {
      const name = await nameOf(other)
      if (asked.has(columnOf(other, name))) continue
      if (except.includes(name)) skipped.add(name)
      else found.push([other, name])
    }
  }
  const wrong = except.find((name) => !skipped.has(name))
  if (wrong !== undefined) {
    const message = `"except" names ${wrong}: no such table was found that looks like one of these; give the schema, such as public.customers_copy`
    throw new WaxsealError('CONFIG', message, { argument: 'except' })
  }
  for (const [other, name] of found) await ask(other, name, false)
  await keys.retire(keyId, { references: 0, ...(reason ? { reason } : {}) })
  return { keyId, counted: [...counted].sort(), skipped: [...skipped].sort() }
}
