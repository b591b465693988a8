import { WaxsealError } from '../errors.ts'
import type { Manifest } from './manifest.ts'
import type { KeyringOptions } from './options.ts'

/** CONFIG for another keyring than the pin names, KEY_STATE for an older one. */
export function checkPin(pin: KeyringOptions['pin'], manifest: Manifest): void {
  if (pin?.id !== undefined && pin.id !== manifest.id) {
    throw new WaxsealError('CONFIG', `"pin.id" expected keyring ${pin.id}, got ${manifest.id}`, { argument: 'pin.id' })
  }
  if (pin?.minEpoch !== undefined && manifest.epoch < pin.minEpoch) throw rolledBack(manifest.epoch, pin.minEpoch)
}

export function rolledBack(found: number, expected: number): WaxsealError {
  return new WaxsealError('KEY_STATE', `key store: rolled back to epoch ${found}, epoch ${expected} was seen before`, {
    state: 'rolled back',
  })
}

export function lostVersions(ids: readonly string[]): WaxsealError {
  const what =
    'key store: the accepted rollback lost versions that this process holds: write nothing more here, and exportKeyring saves them (docs/guides/recovery.md)'
  return new WaxsealError('KEY_STATE', what, { state: 'rolled back', keyId: ids.join(', ') })
}
