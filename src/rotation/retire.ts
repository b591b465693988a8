import { config, WaxsealError } from '../errors.ts'
import type { Keyring } from '../keyring/keyring.ts'
import type { RotationSource } from './source.ts'

/**
 * Retires a version after a query over every table has shown that nothing refers to it. `tables` must be all tables
 * that hold rows under this keyring: a table that is left out is a table that is not asked.
 *
 * Errors: CONFIG (row-level security may hide rows from this connection), CONFLICT (rows still refer to it; the message counts them), KEY_STATE (the version is active or staged).
 */
export async function retire(options: {
  readonly keys: Keyring
  readonly keyId: string
  readonly tables: readonly RotationSource[]
  readonly reason?: string
}): Promise<void> {
  const { keys, keyId, tables, reason } = options
  if (!Array.isArray(tables) || tables.length === 0)
    throw config('tables', 'every table that holds rows under the keyring', tables)
  for (const table of tables) {
    await table.assertSeesAll()
    const count = (await table.countByKey([keyId])).get(keyId) ?? 0
    if (count > 0) {
      throw new WaxsealError('CONFLICT', `${count} rows of ${table.name} still refer to the version`, {
        table: table.name,
        keyId,
      })
    }
  }
  await keys.retire(keyId, { references: 0, ...(reason ? { reason } : {}) })
}
