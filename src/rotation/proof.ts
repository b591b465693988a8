import { WaxsealError } from '../errors.ts'
import type { RotationSource } from './source.ts'

/**
 * Proves by queries over the whole table that no plaintext of the declared fields remains, before `migrate` is dropped: no row is
 * without an envelope, and no row has plaintext beside one, as an instance that still wrote plaintext would leave it. Resolves to
 * the number of rows. Bytes and JSON are told from ciphertext by `verify` alone, which opens every row.
 *
 * It holds for what was committed when it ran: instances in `prepare` must be gone, or a constraint must refuse what they
 * write (docs/guides/migrate.md).
 *
 * Errors: CONFLICT (plaintext remains; the message counts the rows), CONFIG (row-level security may hide rows).
 *
 * @example
 * ```ts
 * import { proveEncrypted, type RotationSource } from 'waxseal/rotation'
 *
 * export const mayBecomeStrict = async (tables: RotationSource[]): Promise<void> => {
 *   for (const table of tables) await proveEncrypted(table)
 * }
 * ```
 */
export async function proveEncrypted(table: RotationSource): Promise<number> {
  await table.assertSeesAll('history')
  const plaintext = await table.count('plaintext')
  const leftover = await table.count('leftover')
  const { total, sealed } = await table.census([])
  if (plaintext === 0 && leftover === 0 && total === sealed) return total
  const message = `plaintext remains: ${Math.max(plaintext, total - sealed)} rows without an envelope, ${leftover} with plaintext beside one`
  throw new WaxsealError('CONFLICT', message, { table: table.name })
}
