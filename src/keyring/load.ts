import { fromBase64url, sameBytes, toBase64url, wipe } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import { KEY_ID_BYTES } from '../envelope/format.ts'
import type { MasterKey } from '../envelope/keys.ts'
import type { DataKeyWrap, Suite } from '../envelope/suites.ts'
import { WaxsealError } from '../errors.ts'
import { type KeyStore, loadStored, type StoredKeyring } from '../keystore/keystore.ts'
import { type KmsContext, type KmsDriver, unwrapKey, type Wrap, wrapKey } from '../kms/kms.ts'
import { printsAs, Secret } from '../secret.ts'
import { claimedId, INTEGRITY, type Manifest, unseal, type Version, wrapsHash } from './manifest.ts'

/** Where a keyring comes from. */
export interface Origin {
  readonly name: string
  readonly store: KeyStore
  readonly kms: KmsDriver
  readonly engine: Engine
  /** A test keyring: its key ids are marked, and every other keyring refuses them. */
  readonly testing?: boolean
}

/** A keyring in memory: the authenticated manifest and the unwrapped keys. */
export interface Loaded {
  readonly stored: StoredKeyring
  readonly manifest: Manifest
  readonly integrity: Secret
  readonly masters: ReadonlyMap<string, LoadedMaster>
  readonly active: LoadedMaster | undefined
}

/** Puts together what belongs together: one loaded master for every version that still has a key. */
export function assemble(
  engine: Engine,
  parts: Pick<Loaded, 'stored' | 'manifest' | 'integrity'>,
  secretOf: (version: Version) => Secret,
): Loaded {
  const masters = new Map<string, LoadedMaster>()
  let active: LoadedMaster | undefined
  for (const version of parts.manifest.versions) {
    if (!version.wraps) continue
    const master = loadedMaster(engine, parts.manifest.id, version, secretOf(version))
    masters.set(version.id, master)
    if (version.state === 'active') active = master
  }
  return { ...parts, masters, active }
}

export interface LoadedMaster extends MasterKey {
  readonly version: Version
  readonly secret: Secret
  /** Wipes the key and its subkeys. */
  destroy(): void
}

/** What a wrapped key is bound to, as readable pairs for the KMS's own policies and audit trail. */
export function wrapContext(keyring: string, key: string): KmsContext {
  return { 'waxseal:keyring': keyring, 'waxseal:key': key }
}

/**
 * Reads, authenticates and unwraps. What `known` already holds unwrapped is not asked of the KMS again.
 * CONFIG when there is no such keyring: opening never creates.
 */
export async function load(origin: Origin, known?: Loaded): Promise<Loaded> {
  const { name, store, engine } = origin
  const stored = await loadStored(store, name)
  if (!stored) {
    throw new WaxsealError('CONFIG', `no keyring "${name}" in this key store; createKeyring makes one, once`, {
      argument: 'name',
    })
  }
  if (known && stored.mac === known.stored.mac && stored.manifest === known.stored.manifest) return known
  const integrity = known?.integrity ?? (await unwrapIntegrity(origin, stored))
  const manifest = integrity.use((key) => unseal(engine, key, name, stored))
  const secrets = new Map<string, Secret>()
  await Promise.all(
    manifest.versions.map(async (version) => {
      if (!version.wraps) return
      const held = known?.masters.get(version.id)?.secret
      secrets.set(version.id, held ?? (await unwrapMaster(origin, stored, manifest.id, version.id)))
    }),
  )
  return assemble(engine, { stored, manifest, integrity }, (version) => secrets.get(version.id)!)
}

async function unwrapMaster(origin: Origin, stored: StoredKeyring, keyring: string, id: string): Promise<Secret> {
  return new Secret(await unwrapKey(origin.kms, stored.keys[id]!, wrapContext(keyring, id)))
}

async function unwrapIntegrity(origin: Origin, stored: StoredKeyring): Promise<Secret> {
  const wraps = stored.keys[INTEGRITY]
  if (!wraps) throw new WaxsealError('MALFORMED', 'key store: the integrity key is missing')
  return new Secret(await unwrapKey(origin.kms, wraps, wrapContext(claimedId(stored), INTEGRITY)))
}

/** A fresh master key, wrapped but not yet in any manifest. */
export interface NewMaster {
  readonly id: string
  readonly wraps: readonly Wrap[]
  readonly hash: string
  readonly secret: Secret
}

export async function newMaster(origin: Omit<Origin, 'store'>, keyring: string): Promise<NewMaster> {
  const { engine, kms, testing = false } = origin
  const id = toBase64url(newKeyId(engine, testing))
  const bytes = engine.randomKey(32)
  const wraps = [await wrapKey(kms, bytes, wrapContext(keyring, id))]
  return { id, wraps, hash: wrapsHash(engine, id, wraps), secret: new Secret(bytes) }
}

/** Test keyrings mark their key ids by five leading zero bytes; a real id never begins so. */
const TEST_PREFIX = new Uint8Array(5)
export const isTestKeyId = (id: Uint8Array): boolean => sameBytes(id.subarray(0, TEST_PREFIX.length), TEST_PREFIX)

export function newKeyId(engine: Engine, testing: boolean): Uint8Array {
  const id = engine.randomKey(KEY_ID_BYTES)
  if (testing) id.set(TEST_PREFIX)
  return testing || !isTestKeyId(id) ? id : newKeyId(engine, testing)
}

function isRemarkable({ state, retired, destroyAt }: Version): boolean {
  return state === 'suspended' || state === 'compromised' || retired === true || destroyAt !== undefined
}

/** What a subkey is for; one key, one use (SP 800-57 part 1, section 5.2). */
const PURPOSE_WRAP_DATA_KEYS = 1

/** A master key never wraps directly: one subkey per purpose and suite, derived when first asked for. */
export function loadedMaster(engine: Engine, keyring: string, version: Version, secret: Secret): LoadedMaster {
  const id = fromBase64url(version.id)!
  const keyringBytes = fromBase64url(keyring)!
  const wraps: DataKeyWrap[] = []
  const prepare = (suite: Suite): DataKeyWrap => {
    const binding = Uint8Array.of(PURPOSE_WRAP_DATA_KEYS, suite.id)
    const derived = secret.use((key) => kdf(engine, key, LABELS.subkey, binding, keyringBytes, id))
    const wrap = suite.dataKeyWrap(engine, derived.subarray(0, 32))
    wipe(derived)
    return wrap
  }
  const master: LoadedMaster = {
    id,
    idText: version.id,
    compromised: version.state === 'compromised',
    remarkable: isRemarkable(version),
    version,
    secret,
    wrapFor: (suite) => (wraps[suite.id] ??= prepare(suite)),
    destroy() {
      secret.destroy()
      for (const wrap of wraps) wrap?.destroy()
    },
  }
  return printsAs(master, `[master key ${version.id} ${version.state}]`)
}
