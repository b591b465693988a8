import { conflict, type KeyStore, type StoredKeyring } from './keystore.ts'

export type { KeyStore, StoredKeyring } from './keystore.ts'

/**
 * A key store that ends with the process: for tests and experiments.
 *
 * @example
 * ```ts
 * import { createKeyring } from 'waxseal'
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { localKms } from 'waxseal/kms/local'
 *
 * const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
 * await using keys = await createKeyring({ name: 'scratch', store: memoryKeyStore(), kms })
 * console.log(keys.status().epoch)
 * ```
 */
export function memoryKeyStore(initial: Readonly<Record<string, StoredKeyring>> = {}): KeyStore {
  const keyrings = new Map(Object.entries(initial))
  return {
    async load(name) {
      return structuredClone(keyrings.get(name))
    },
    async save(name, next, expectedEpoch) {
      if ((keyrings.get(name)?.epoch ?? null) !== expectedEpoch) throw conflict(name, expectedEpoch)
      keyrings.set(name, structuredClone(next))
    },
  }
}
