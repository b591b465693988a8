import { fromBase64url, wipe } from '../bytes.ts'
import type { Engine } from '../engine/engine.ts'
import { kdf, LABELS } from '../engine/kdf.ts'
import type { MasterKey } from '../envelope/keys.ts'
import type { DataKeyWrap, Suite } from '../envelope/suites.ts'
import { printsAs, type Secret } from '../secret.ts'
import type { Version } from './manifest.ts'

/** A master-key version with its key in memory. */
export interface LoadedMaster extends MasterKey {
  readonly version: Version
  readonly secret: Secret
  /** Wipes the key and its subkeys. */
  destroy(): void
  /** Wipes the subkeys: another object has taken over the key. */
  replaced(): void
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
      master.replaced()
    },
    replaced() {
      for (const wrap of wraps) wrap?.destroy()
      wraps.length = 0
    },
  }
  return printsAs(master, `[master key ${version.id} ${version.state}]`)
}

function isRemarkable({ state, retired, destroyAt }: Version): boolean {
  return state === 'suspended' || state === 'compromised' || retired === true || destroyAt !== undefined
}
