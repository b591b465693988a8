import { defaultEngine } from '../engine/index.ts'
import { suiteById } from '../envelope/suites.ts'
import { config, expectInteger } from '../errors.ts'
import { checkLimits } from './cache.ts'
import { type Keyring, keyring } from './keyring.ts'
import { load, type Origin } from './load.ts'
import type { KeyringOptions } from './options.ts'

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** Checks the options that opening and creating share. */
export function originOf(options: KeyringOptions): Origin {
  const { name, store, kms, engine = defaultEngine(), suite } = options
  if (typeof name !== 'string' || !NAME.test(name)) {
    throw config('name', '1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or digit', name)
  }
  if (typeof store?.load !== 'function' || typeof store.save !== 'function') throw config('store', 'a key store', store)
  if (typeof kms?.wrap !== 'function' || typeof kms.unwrap !== 'function') throw config('kms', 'a KMS driver', kms)
  if (suite !== undefined && !suiteById(suite)) throw config('suite', '1 or 2', suite)
  if (options.cache) checkLimits(options.cache)
  const { id, minEpoch } = options.pin ?? {}
  if (id !== undefined && (typeof id !== 'string' || id.length !== 22)) throw config('pin.id', '22 characters', id)
  if (minEpoch !== undefined) expectInteger('pin.minEpoch', minEpoch, 1)
  for (const key of ['refreshMs', 'maxAgeMs'] as const) {
    const value = options[key]
    if (value !== undefined && !(value > 0)) throw config(key, 'ms, more than 0', value)
  }
  return { name, store, kms, engine }
}

/**
 * Opens a keyring that {@link createKeyring} made: reads the manifest, authenticates it, unwraps every living version.
 * All I/O is here (one read of the store, one KMS call per version and one for the integrity key); encrypting and
 * decrypting afterwards is synchronous. Never creates.
 *
 * Errors: CONFIG (no such keyring, or another root key), DECRYPTION_FAILED (the stored manifest or a wrapped key was
 * changed, or a wrong passphrase), MALFORMED, KEY_STATE (rolled back behind the pin), KMS_DENIED, KMS_UNAVAILABLE.
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
  return keyring(origin, options, await load(origin))
}
