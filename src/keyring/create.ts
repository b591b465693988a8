import { copyBytes, toBase64url, wipe } from '../bytes.ts'
import { SUITES } from '../envelope/suites.ts'
import { config, WaxsealError } from '../errors.ts'
import { loadStored, saveStored } from '../keystore/keystore.ts'
import { wrapKey } from '../kms/kms.ts'
import { Secret } from '../secret.ts'
import { type Keyring, keyring } from './keyring.ts'
import { load, newMaster, wrapContext } from './load.ts'
import { INTEGRITY, keyringId, newManifest, seal } from './manifest.ts'
import { originOf } from './open.ts'
import type { KeyringOptions } from './options.ts'
import { promote, stage } from './transitions.ts'

/** Longer than the default refresh interval, so that every instance has learnt a version before it is used. */
const DEFAULT_PROPAGATION_MS = 900_000

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
  const lent = integrity.use(copyBytes)
  const integrityWrap = await wrapKey(kms, lent, wrapContext(id, INTEGRITY))
  wipe(lent)
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
