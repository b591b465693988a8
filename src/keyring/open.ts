import { type Keyring, keyring } from './keyring.ts'
import { loadShared, wipeLoaded } from './load.ts'
import { clockOf, demandPin, type KeyringOptions, originOf } from './options.ts'

/**
 * Opens a keyring that {@link createKeyring} made: reads the manifest, authenticates it, unwraps every version that rows
 * may refer to. All I/O is here (one read of the store, one KMS call per version and one for the integrity key, however
 * many callers open it at once); encrypting and decrypting afterwards is synchronous. Never creates.
 *
 * Errors: CONFIG (no such keyring, or another root key), DECRYPTION_FAILED (the stored manifest or a wrapped key was
 * changed, or a wrong passphrase), MALFORMED, KEY_STATE (rolled back behind the pin), KMS_DENIED, KMS_UNAVAILABLE. With a KMS whose wraps authenticate nobody (a
 * public key), CONFIG without `pin.id`: whoever has that key could replace the whole store.
 *
 * @example
 * ```ts
 * import { createKeyring, openKeyring } from 'waxseal'
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { localKms } from 'waxseal/kms/local'
 *
 * const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
 * const store = memoryKeyStore()
 * await createKeyring({ name: 'crm', store, kms }) // once, at set-up
 * await using keys = await openKeyring({ name: 'crm', store, kms }) // in every process
 * console.log(keys.status().active)
 * ```
 */
export async function openKeyring(options: KeyringOptions): Promise<Keyring> {
  const origin = originOf(options)
  demandPin(options, origin)
  const now = clockOf(options)
  const askedAt = now()
  const { loaded, ageMs } = await loadShared(origin, options.pin?.minEpoch)
  try {
    return keyring(origin, options, loaded, Math.min(askedAt, now() - ageMs))
  } catch (error) {
    wipeLoaded(loaded)
    throw error
  }
}
