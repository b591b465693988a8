import { toBase64url } from '../bytes.ts'
import { SUITES } from '../envelope/suites.ts'
import { config, WaxsealError } from '../errors.ts'
import { loadStored, saveStored } from '../keystore/keystore.ts'
import { Secret } from '../secret.ts'
import { readClocks } from './clocks.ts'
import { type Keyring, keyring } from './keyring.ts'
import { assemble, load, type NewMaster, newMaster, wrapContext, wrapSecret } from './load.ts'
import { INTEGRITY, keyringId, newManifest, seal, wrapsHash } from './manifest.ts'
import { clockOf, type KeyringOptions, originOf } from './options.ts'
import { type PolicyOptions, policyOf } from './policy.ts'
import { promote, stage } from './transitions.ts'

/**
 * Creates a keyring with one active version and opens it. Refuses to overwrite (CONFIG): a typing mistake must not
 * mint a new key in every process. Succeeds under all root keys or not at all: two wraps and two unwraps (what was
 * wrapped is opened again before it is believed) at each KMS, one write and two reads of the store.
 */
export async function createKeyring(options: KeyringOptions & PolicyOptions): Promise<Keyring> {
  const origin = originOf(options)
  const { name, store, engine } = origin
  const { suite } = options
  const policy = policyOf(options)
  const suites = suite === undefined ? SUITES.map((row) => row.id) : [suite]
  if (options.pin?.id !== undefined)
    throw config('pin.id', 'nothing: the id is not known before it is made', options.pin.id)
  if (await loadStored(store, name)) throw exists(name)

  const integrity = new Secret(engine.randomKey(32))
  let first: NewMaster | undefined
  try {
    const id = toBase64url(integrity.use((key) => keyringId(engine, key)))
    const wraps = await wrapSecret(origin.roots, integrity, wrapContext(id, INTEGRITY))
    first = await newMaster(origin, id)
    const { secret } = first
    const { now } = await readClocks(store, clockOf(options))
    const moment = { now, reason: 'created' }
    const staged = stage(
      newManifest({ name, id, suites, integrity: wrapsHash(engine, INTEGRITY, wraps) }, policy),
      first,
      moment,
    )
    const manifest = { ...promote(staged, first.id, true, moment), epoch: 1 }
    const stored = integrity.use((key) => seal(engine, key, manifest, { [INTEGRITY]: wraps, ...first?.keys }))
    await saveStored(store, name, stored, null)
    const made = assemble(engine, { stored, manifest, integrity }, () => secret)
    // Read back what was written: a store that loses writes is found out now, not at the next start.
    return keyring(origin, options, await load(origin, made))
  } catch (error) {
    integrity.destroy()
    first?.secret.destroy()
    throw WaxsealError.is(error) && error.code === 'CONFLICT' ? exists(name) : error
  }
}

function exists(name: string): WaxsealError {
  return new WaxsealError('CONFIG', `keyring "${name}" exists already: openKeyring`, { argument: 'name' })
}
