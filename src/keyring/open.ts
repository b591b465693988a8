import { copyBytes, toBase64url } from '../bytes.ts'
import { defaultEngine } from '../engine/index.ts'
import { SUITES, suiteById } from '../envelope/suites.ts'
import { config, WaxsealError } from '../errors.ts'
import { loadStored, saveStored } from '../keystore/keystore.ts'
import { wrapKey } from '../kms/kms.ts'
import { Secret } from '../secret.ts'
import { checkLimits } from './cache.ts'
import { type Keyring, keyring } from './keyring.ts'
import { load, newMaster, type Origin, wrapContext } from './load.ts'
import { INTEGRITY, keyringId, newManifest, seal } from './manifest.ts'
import type { KeyringOptions } from './options.ts'
import { promote, stage } from './transitions.ts'

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** Longer than the default refresh interval, so that every instance has learnt a version before it is used. */
const DEFAULT_PROPAGATION_MS = 900_000

function originOf(options: KeyringOptions): Origin {
  const { name, store, kms, engine = defaultEngine(), suite } = options
  if (typeof name !== 'string' || !NAME.test(name)) {
    throw config('name', '1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or digit', name)
  }
  if (typeof store?.load !== 'function' || typeof store.save !== 'function') throw config('store', 'a key store', store)
  if (typeof kms?.wrap !== 'function' || typeof kms.unwrap !== 'function') throw config('kms', 'a KMS driver', kms)
  if (suite !== undefined && !suiteById(suite)) throw config('suite', '1 or 2', suite)
  if (options.cache) checkLimits(options.cache)
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

/**
 * Creates a keyring with one active version and opens it. Refuses to overwrite (CONFIG): a typing mistake must not
 * mint a new key in every process. Two KMS calls and one write.
 *
 * `propagationMs`: how long a staged version waits before it may become active; 900,000 (15 minutes) by default, more
 * than every instance's `refreshMs`; 0 for a single process.
 */
export async function createKeyring(options: KeyringOptions & { readonly propagationMs?: number }): Promise<Keyring> {
  const origin = originOf(options)
  const { name, store, kms, engine } = origin
  const { propagationMs = DEFAULT_PROPAGATION_MS, suite, clock = Date.now } = options
  if (!Number.isSafeInteger(propagationMs) || propagationMs < 0)
    throw config('propagationMs', 'ms, 0 or more', propagationMs)
  const suites = suite === undefined ? SUITES.map((row) => row.id) : [suite]
  if (options.pin?.id !== undefined)
    throw config('pin.id', 'nothing: the id is not known before it is made', options.pin.id)
  if (await loadStored(store, name)) throw exists(name)

  const integrity = new Secret(engine.randomKey(32))
  const id = toBase64url(integrity.use((key) => keyringId(engine, key)))
  const integrityWrap = await wrapKey(kms, integrity.use(copyBytes), wrapContext(id, INTEGRITY))
  const first = await newMaster(origin, id)
  const moment = { now: Math.floor(clock()), reason: 'created' }
  const empty = newManifest(name, id, suites, propagationMs)
  const staged = stage(empty, first.id, first.hash, moment)
  const manifest = { ...promote(staged, first.id, true, moment), epoch: 1 }
  const keys = { [INTEGRITY]: [integrityWrap], [first.id]: first.wraps }
  const stored = integrity.use((key) => seal(engine, key, manifest, keys))
  integrity.destroy()
  first.secret.destroy()
  try {
    await saveStored(store, name, stored, null)
  } catch (error) {
    throw WaxsealError.is(error) && error.code === 'CONFLICT' ? exists(name) : error
  }
  // Read back what was written: a store that loses writes is found out now, not at the next start.
  return keyring(origin, options, await load(origin))
}

function exists(name: string): WaxsealError {
  return new WaxsealError('CONFIG', `keyring "${name}" exists already: openKeyring`, { argument: 'name' })
}
