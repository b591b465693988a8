import { copyBytes, sameBytes, toBase64url, wipe } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import { KEY_ID_BYTES } from '../envelope/format.ts'
import { at, WaxsealError } from '../errors.ts'
import { type KeyStore, loadStored, type StoredKeyring } from '../keystore/keystore.ts'
import type { KmsContext, Wrap } from '../kms/kms.ts'
import { type RootKeys, unwrapKey, wrapKey } from '../kms/wraps.ts'
import { Secret } from '../secret.ts'
import {
  claimedId,
  INTEGRITY,
  keyCheck,
  keyringId,
  type Manifest,
  unseal,
  type Version,
  wrapsHash,
} from './manifest.ts'
import { type LoadedMaster, loadedMaster } from './master.ts'

/** Where a keyring comes from. */
export interface Origin {
  readonly name: string
  readonly store: KeyStore
  /** Changes with `changeRootKey`. */
  roots: RootKeys
  readonly engine: Engine
  readonly preload: 'live' | 'active'
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
  /** Why a version that should be here is not. */
  readonly failure?: unknown
}

/** Puts together what belongs together: a loaded master for every version whose key is at hand. */
export function assemble(
  engine: Engine,
  parts: Pick<Loaded, 'stored' | 'manifest' | 'integrity' | 'failure'>,
  secretOf: (version: Version) => Secret | undefined,
): Loaded {
  const masters = new Map<string, LoadedMaster>()
  let active: LoadedMaster | undefined
  for (const version of parts.manifest.versions) {
    const secret = version.wraps === undefined ? undefined : secretOf(version)
    if (!secret) continue
    const master = loadedMaster(engine, parts.manifest.id, version, secret)
    masters.set(version.id, master)
    if (version.state === 'active') active = master
  }
  return { ...parts, masters, active }
}

/** What a wrapped key is bound to, as readable pairs for the KMS's own policies and audit trail. */
export function wrapContext(keyring: string, key: string): KmsContext {
  return { 'waxseal:keyring': keyring, 'waxseal:key': key }
}

const NONE: ReadonlySet<string> = new Set()
/** Requests to the KMS that one keyring has under way at once. */
const PARALLEL = 8

/**
 * Reads, authenticates and unwraps what rows may refer to, and what is `wanted` besides. What `known` holds unwrapped is
 * not asked of the KMS again. A version that cannot be unwrapped is left out, with the reason in `failure`: what
 * happened to the others counts all the same. `onManifest` is told what is new before the KMS is asked: it may take its
 * time, and a compromise must not wait for it. CONFIG when there is no such keyring: opening never creates.
 */
export async function load(
  origin: Origin,
  known?: Loaded,
  wanted = NONE,
  onManifest?: (known: Loaded) => void,
): Promise<Loaded> {
  const { name, store, engine } = origin
  const found = await loadStored(store, name)
  if (!found && known) {
    throw new WaxsealError(
      'KMS_UNAVAILABLE',
      `keyring "${name}" is gone from the key store: exportKeyring saves it now`,
    )
  }
  if (!found) {
    throw new WaxsealError(
      'CONFIG',
      `no keyring "${name}" in this key store: restore it if there was one; createKeyring is for a new one`,
      {
        argument: 'name',
      },
    )
  }
  const isKnown = known && found.mac === known.stored.mac && found.manifest === known.stored.manifest
  // The wraps that were checked against this manifest: what stands beside it now may have been edited.
  const stored = isKnown ? known.stored : found
  const integrity = known?.integrity ?? (await unwrapIntegrity(origin, stored))
  try {
    const manifest = isKnown ? known.manifest : integrity.use((key) => unseal(engine, key, name, stored))
    const missing = manifest.versions.filter(
      (version) => !known?.masters.has(version.id) && (wanted.has(version.id) || isPreloaded(version, origin.preload)),
    )
    if (isKnown && !missing.some((version) => version.wraps)) return known
    if (known && !isKnown) {
      onManifest?.(assemble(engine, { stored, manifest, integrity }, ({ id }) => known.masters.get(id)?.secret))
    }
    const fresh = new Map<string, Secret>()
    let failure: unknown
    await inParallel(missing, async (version) => {
      if (!version.wraps) return
      try {
        fresh.set(version.id, new Secret(await unwrapMaster(origin, { stored, manifest }, version)))
      } catch (error) {
        // What is worst comes first: a version under another root key is no reason to overlook one that was changed.
        const isOther = (e: unknown): boolean => WaxsealError.is(e) && e.code === 'CONFIG'
        if (failure === undefined || (isOther(failure) && !isOther(error))) failure = at(error, { keyId: version.id })
      }
    })
    return assemble(
      engine,
      { stored, manifest, integrity, failure },
      ({ id }) => known?.masters.get(id)?.secret ?? fresh.get(id),
    )
  } catch (error) {
    if (!known) integrity.destroy()
    throw error
  }
}

/**
 * Nothing refers to a retired version, as a query has shown; whoever asks for it all the same loads it. One whose
 * destruction is pending is at hand, so that the first use of it cancels that.
 */
function isPreloaded({ state, retired, destroyAt }: Version, preload: Origin['preload']): boolean {
  if (destroyAt !== undefined) return true
  return preload === 'active' ? state === 'active' || state === 'pre-active' : retired !== true
}

/** True when a version is active whose key is not in memory; a keyring whose only one is suspended lacks none. */
export function lacksActive({ active, manifest }: Loaded): boolean {
  return !active && manifest.versions.some((version) => version.state === 'active')
}

/**
 * Loads for a caller who opens. Versions under root keys that are not configured here are left out: a break-glass key
 * must open what it can, although somebody rotated without it. Nothing else may fail.
 */
export async function loadWhole(origin: Origin): Promise<Loaded> {
  const loaded = await load(origin)
  const { failure, masters } = loaded
  if (failure === undefined) return loaded
  if (WaxsealError.is(failure) && failure.code === 'CONFIG' && masters.size > 0) return loaded
  wipeLoaded(loaded)
  throw loaded.failure
}

interface Flight {
  readonly origin: Origin
  readonly loading: Promise<Loaded>
  readonly startedAt: number
  callers: number
}
const flights = new WeakMap<KeyStore, Set<Flight>>()

/**
 * Opens for many callers at once with one load. It is shared by those who come while it runs: each gets keys of its own
 * to close, the shared ones are wiped behind the last, and a failure is told to these callers and forgotten. Who joined
 * a load that is behind `minEpoch`, which may have been written since it began, waits for one that began later.
 */
export async function loadShared(origin: Origin, minEpoch = 0): Promise<{ loaded: Loaded; ageMs: number }> {
  const joined = await join(origin)
  if (joined.ageMs === undefined || joined.loaded.manifest.epoch >= minEpoch) return { ageMs: 0, ...joined }
  wipeLoaded(joined.loaded)
  return { ageMs: 0, ...(await join(origin)) }
}

/** `ageMs`: for how long the load had been running, or has since, when it is somebody else's. */
async function join(origin: Origin): Promise<{ loaded: Loaded; ageMs?: number }> {
  const running = flights.get(origin.store) ?? new Set()
  flights.set(origin.store, running)
  const shared = [...running].find((flight) => isSame(flight.origin, origin))
  const flight = shared ?? { origin, loading: loadWhole(origin), startedAt: Date.now(), callers: 0 }
  if (!shared) {
    running.add(flight)
    const land = (): boolean => running.delete(flight)
    flight.loading.then(land, land)
  }
  flight.callers++
  try {
    const loaded = ownCopy(origin.engine, await flight.loading)
    return shared ? { loaded, ageMs: Date.now() - flight.startedAt } : { loaded }
  } finally {
    if (--flight.callers === 0) flight.loading.then(wipeLoaded, () => undefined)
  }
}

function isSame(a: Origin, b: Origin): boolean {
  return (
    a.name === b.name &&
    a.engine === b.engine &&
    a.preload === b.preload &&
    a.roots.drivers.length === b.roots.drivers.length &&
    a.roots.drivers.every((driver, i) => driver === b.roots.drivers[i]) &&
    JSON.stringify(a.roots.patience) === JSON.stringify(b.roots.patience)
  )
}

function ownCopy(engine: Engine, { integrity, masters, ...rest }: Loaded): Loaded {
  const copy = (secret: Secret): Secret => new Secret(secret.use(copyBytes))
  return assemble(engine, { ...rest, integrity: copy(integrity) }, ({ id }) => {
    const master = masters.get(id)
    return master && copy(master.secret)
  })
}

/** Wipes all keys of what was loaded. */
export function wipeLoaded(loaded: Loaded): void {
  loaded.integrity.destroy()
  for (const master of loaded.masters.values()) master.destroy()
}

/** Wipes what was unwrapped for `next` alone. */
export function wipeNew(next: Loaded, kept: Loaded): void {
  for (const [id, { secret }] of next.masters) if (kept.masters.get(id)?.secret !== secret) secret.destroy()
}

/** Asks the KMS anew for every key in memory; fails when one does not come back as it was. */
export async function confirm(origin: Origin, loaded: Loaded): Promise<void> {
  const { manifest, masters, integrity, stored } = loaded
  const isUnchanged = (secret: Secret) => (key: Uint8Array) =>
    secret.destroyed || secret.use((held) => origin.engine.equal(key, held))
  const held = [...masters.values()].map((master) => ({ id: master.idText, secret: master.secret }))
  await inParallel([{ id: INTEGRITY, secret: integrity }, ...held], async ({ id, secret }) => {
    if (secret.destroyed) return
    const key = await unwrapKey(origin.roots, stored.keys[id]!, wrapContext(manifest.id, id), isUnchanged(secret))
    wipe(key)
  })
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: Math.min(PARALLEL, queue.length) }, worker))
}

function unwrapMaster(
  { roots, engine }: Origin,
  { stored, manifest }: Pick<Loaded, 'stored' | 'manifest'>,
  { id, check }: Version,
): Promise<Uint8Array> {
  return unwrapKey(
    roots,
    stored.keys[id]!,
    wrapContext(manifest.id, id),
    (key) => keyCheck(engine, key, manifest.id, id) === check,
  )
}

async function unwrapIntegrity({ roots, engine }: Origin, stored: StoredKeyring): Promise<Secret> {
  const wraps = stored.keys[INTEGRITY]
  if (!wraps) throw new WaxsealError('MALFORMED', 'key store: the integrity key is missing')
  const id = claimedId(stored)
  const isRight = (key: Uint8Array): boolean => toBase64url(keyringId(engine, key)) === id
  return new Secret(await unwrapKey(roots, wraps, wrapContext(id, INTEGRITY), isRight))
}

/** A fresh master key, wrapped but not yet in any manifest. */
export interface NewMaster {
  readonly id: string
  readonly keys: Readonly<Record<string, readonly Wrap[]>>
  /** Hash of the wraps, and the check value, for the manifest. */
  readonly wraps: string
  readonly check: string
  readonly secret: Secret
}

export async function newMaster({ engine, roots, testing = false }: Origin, keyring: string): Promise<NewMaster> {
  const id = toBase64url(newKeyId(engine, testing))
  const secret = new Secret(engine.randomKey(32))
  try {
    const wraps = await wrapSecret(roots, secret, wrapContext(keyring, id))
    const check = secret.use((key) => keyCheck(engine, key, keyring, id))
    return { id, keys: { [id]: wraps }, wraps: wrapsHash(engine, id, wraps), check, secret }
  } catch (error) {
    secret.destroy()
    throw error
  }
}

/** Wraps under every root key. A copy, since the KMS takes its time and the secret may be destroyed meanwhile. */
export async function wrapSecret(roots: RootKeys, secret: Secret, context: KmsContext): Promise<Wrap[]> {
  const lent = secret.use(copyBytes)
  try {
    return await wrapKey(roots, lent, context)
  } finally {
    wipe(lent)
  }
}

/** Wraps every key of a keyring under other root keys. What is not in memory is unwrapped for that, and wiped. */
export async function wrapAnew(origin: Origin, known: Loaded, roots: RootKeys) {
  const living = known.manifest.versions.filter((version) => version.wraps).map((version) => version.id)
  const whole = await load(origin, known, new Set(living))
  const keys: Record<string, readonly Wrap[]> = {}
  const hashes = new Map<string, string>()
  try {
    if (whole.failure !== undefined) throw whole.failure
    const masters = [...whole.masters.values()].map((master) => [master.idText, master.secret] as const)
    for (const [id, secret] of [[INTEGRITY, whole.integrity] as const, ...masters]) {
      const wraps = await wrapSecret(roots, secret, wrapContext(whole.manifest.id, id))
      keys[id] = wraps
      hashes.set(id, wrapsHash(origin.engine, id, wraps))
    }
  } finally {
    wipeNew(whole, known)
  }
  return { keys, hashes }
}

/** Test keyrings mark their key ids by five leading zero bytes; a real id never begins so. */
const TEST_PREFIX = new Uint8Array(5)
export const isTestKeyId = (id: Uint8Array): boolean => sameBytes(id.subarray(0, TEST_PREFIX.length), TEST_PREFIX)

export function newKeyId(engine: Engine, testing: boolean): Uint8Array {
  const id = engine.randomKey(KEY_ID_BYTES)
  if (testing) id.set(TEST_PREFIX)
  return testing || !isTestKeyId(id) ? id : newKeyId(engine, testing)
}
