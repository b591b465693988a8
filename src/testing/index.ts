import { copyBytes, toBase64url } from '../bytes.ts'
import { defaultEngine, type Engine } from '../engine/index.ts'
import type { OnEvent } from '../events.ts'
import type { CacheLimits } from '../keyring/cache.ts'
import { type Keyring, keyring } from '../keyring/keyring.ts'
import { assemble, newKeyId } from '../keyring/load.ts'
import { INTEGRITY, keyCheck, keyringId, type Manifest, newManifest, seal, wrapsHash } from '../keyring/manifest.ts'
import { promote, stage } from '../keyring/transitions.ts'
import { memoryKeyStore } from '../keystore/memory.ts'
import type { KmsDriver, Wrap } from '../kms/kms.ts'
import { checkPatience } from '../kms/portable.ts'
import { Secret } from '../secret.ts'

export type { SuiteFramework } from './framework.ts'
export { type KeyStoreSuiteSubject, keyStoreSuite } from './keystore-suite.ts'
export { type MemoryKms, type MemoryKmsOptions, type Misbehaviour, memoryKms } from './kms.ts'
export { type KmsSuiteSubject, kmsSuite } from './kms-suite.ts'

export interface TestKeyringOptions {
  /** `test` by default. */
  readonly name?: string
  readonly suite?: 1 | 2
  readonly engine?: Engine
  readonly onEvent?: OnEvent
  readonly cache?: CacheLimits
  /** ms since the epoch; `Date.now`, asked at every call, by default. */
  readonly clock?: () => number
  /** How long a staged version waits; 0 by default, so that rotate() and maintain() rotate at once. */
  readonly propagationMs?: number
}

const TEST_URI = 'test:unprotected'

/** An imitation of a KMS that protects nothing: the "wrapped" key is the key. */
function testKms(): KmsDriver {
  return {
    keyUri: TEST_URI,
    wrap: async (key) => copyBytes(key),
    unwrap: async (wrapped) => copyBytes(wrapped),
  }
}

/**
 * A keyring for tests, open at once: no I/O, no timers (so fake timers do not hold it up), an injectable clock, keys
 * that differ from one call to the next. It rotates and changes states like a real one. Its key ids are marked, and
 * real keyrings refuse its ciphertext with UNKNOWN_KEY.
 *
 * @example
 * ```ts
 * import { cell, text } from 'waxseal'
 * import { testKeyring } from 'waxseal/testing'
 *
 * const keys = testKeyring({ clock: () => 0 })
 * const note = cell('notes', 'body', { type: text(), bind: 'column' })
 * console.log(note.decrypt(keys, note.encrypt(keys, 'hello')))
 * ```
 */
export function testKeyring(options: TestKeyringOptions = {}): Keyring {
  const { name = 'test', engine = defaultEngine(), suite, onEvent, cache, propagationMs = 0 } = options
  const clock = options.clock ?? (() => Date.now())
  const kms = testKms()
  const integrity = engine.randomKey(32)
  const bytes = engine.randomKey(32)
  const id = toBase64url(keyringId(engine, integrity))
  const keyId = toBase64url(newKeyId(engine, true))
  const unprotected = (key: Uint8Array): Wrap[] => [{ uri: TEST_URI, wrapped: toBase64url(key) }]
  const moment = { now: clock(), reason: 'test' }
  const integrityHash = wrapsHash(engine, INTEGRITY, unprotected(integrity))
  const first = {
    id: keyId,
    wraps: wrapsHash(engine, keyId, unprotected(bytes)),
    check: keyCheck(engine, bytes, id, keyId),
  }
  const staged = stage(
    newManifest({ name, id, suites: suite ? [suite] : [1, 2], integrity: integrityHash }, { propagationMs }),
    first,
    moment,
  )
  const manifest: Manifest = { ...promote(staged, keyId, true, moment), epoch: 1 }
  const stored = seal(engine, integrity, manifest, { [INTEGRITY]: unprotected(integrity), [keyId]: unprotected(bytes) })
  const store = memoryKeyStore({ [name]: stored })
  const roots = { drivers: [kms], patience: checkPatience(), engine }
  const origin = { name, store, roots, engine, preload: 'live', testing: true } as const
  const unlimited = { refreshMs: Number.POSITIVE_INFINITY, maxAgeMs: Number.POSITIVE_INFINITY }
  return keyring(
    origin,
    {
      name,
      store,
      kms,
      ...unlimited,
      clock,
      ...(suite && { suite }),
      ...(onEvent && { onEvent }),
      ...(cache && { cache }),
    },
    assemble(engine, { stored, manifest, integrity: new Secret(integrity) }, () => new Secret(bytes)),
  )
}
