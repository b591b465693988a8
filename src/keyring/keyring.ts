import { type Keys, SOURCE } from '../envelope/keys.ts'
import type { Actor } from '../events.ts'
import type { StoredKeyring } from '../keystore/keystore.ts'
import { printsAs } from '../secret.ts'
import type { Loaded, Origin } from './load.ts'
import type { Management } from './manage.ts'
import type { DecryptPolicy, LogEntry, StateChange } from './manifest.ts'
import type { KeyringOptions } from './options.ts'
import { type Due, readyAt, whatIsDue } from './policy.ts'
import { openSession } from './session.ts'
import { keySource } from './source.ts'
import type { KeyState } from './states.ts'

/** What a key version is told apart by, and where it stands. No key bytes. */
export interface VersionStatus {
  readonly id: string
  readonly state: KeyState
  /** Whether its key is in memory here. */
  readonly loaded: boolean
  /** URIs of the root keys that it is wrapped under; none once it is destroyed. */
  readonly rootKeys: readonly string[]
  readonly retired: boolean
  /** For suspended and compromised versions: whether decrypting is refused or reported. */
  readonly decrypt?: DecryptPolicy
  /** For a staged version: when it may be promoted. ms since the epoch. */
  readonly promoteAt?: number
  /** When a pending destruction may be carried out. ms since the epoch. */
  readonly destroyAt?: number
  readonly history: readonly StateChange[]
}

export interface KeyringStatus {
  readonly name: string
  /** base64url of 16 bytes: pin it. */
  readonly id: string
  /** Counts the writes of the key store: pin a minimum. */
  readonly epoch: number
  /** The active version's id; undefined while it is suspended. */
  readonly active: string | undefined
  readonly suites: readonly number[]
  /** ms; see {@link createKeyring}. */
  readonly propagationMs: number
  /** ms; undefined: rotated only on request. */
  readonly cryptoperiodMs: number | undefined
  /**
   * What {@link Keyring.maintain} would do now, by this process's clock. Nothing for a keyring whose only version is suspended
   * (`active` is undefined): whether to `reinstate` or to `rotate` is for a person to say.
   */
  readonly due: readonly Due[]
  /** Accepted rollbacks, changed root keys, changed policies. */
  readonly log: readonly LogEntry[]
  readonly versions: readonly VersionStatus[]
}

/** The keyring as it was last read: what exportKeyring writes down. */
export const STORED = Symbol('waxseal.stored')

/** An open keyring. Management calls read the store, change it by compare-and-swap, and take effect here at once. */
export interface Keyring extends Keys, Management, AsyncDisposable {
  status(): KeyringStatus
  /** @internal */
  [STORED](): StoredKeyring
  /** Wipes the keys from memory. Later use is a CONFIG error. */
  close(): Promise<void>
}

/** The calls of {@link Management}, whose code loads with the first of them. */
const MANAGEMENT = [
  'rotate',
  'maintain',
  'setPolicy',
  'changeRootKey',
  'promote',
  'suspend',
  'reinstate',
  'deactivate',
  'markCompromised',
  'retire',
  'destroy',
  'cancelDestroy',
] as const satisfies (keyof Management)[]

/** The handle around what was loaded. */
export function keyring(origin: Origin, options: KeyringOptions, first: Loaded, readAt?: number): Keyring {
  const { name } = origin
  let managing: Promise<Management> | undefined
  const manage = (): Promise<Management> => {
    managing ??= import('./manage.ts').then(({ management }) => management(session))
    return managing
  }
  const cancelDestroy = async (keyId: string): Promise<void> =>
    (await manage()).cancelDestroy(keyId, { reason: 'used while pending destruction' })
  const session = openSession(origin, options, { first, readAt }, cancelDestroy)
  const { live, current, ready, close } = session

  const handle = (who: Actor): Keys =>
    printsAs(
      {
        name,
        [SOURCE]: keySource(live, { actor: who.actor, purpose: who.purpose }),
        as: (next: Actor) => handle({ ...who, ...next }),
        ready,
      },
      `[keys of ${name}]`,
    )

  const managed = Object.fromEntries(
    MANAGEMENT.map((call) => [
      call,
      async (...given: unknown[]) => ((await manage())[call] as (...given: unknown[]) => unknown)(...given),
    ]),
  ) as unknown as Management

  const self: Keyring = {
    name,
    [SOURCE]: session.source,
    as: handle,
    ready,
    status: () => describe(current(), live.suites, live.now()),
    ...managed,
    [STORED]: () => current().stored,
    close: async () => close(),
    [Symbol.asyncDispose]: async () => close(),
  }
  return printsAs(self, `[keyring ${name}]`)
}

function describe({ manifest, masters, stored }: Loaded, suites: readonly number[], now: number): KeyringStatus {
  const { name, id, epoch, propagationMs, cryptoperiodMs, log, versions } = manifest
  return {
    name,
    id,
    epoch,
    active: versions.find((version) => version.state === 'active')?.id,
    suites,
    propagationMs,
    cryptoperiodMs,
    due: whatIsDue(manifest, now),
    log: structuredClone(log),
    versions: versions.map((version) => ({
      id: version.id,
      state: version.state,
      loaded: masters.has(version.id),
      rootKeys: version.wraps ? stored.keys[version.id]!.map((wrap) => wrap.uri) : [],
      retired: version.retired === true,
      ...(version.decrypt ? { decrypt: version.decrypt } : {}),
      ...(version.state === 'pre-active' ? { promoteAt: readyAt(manifest, version) } : {}),
      ...(version.destroyAt !== undefined ? { destroyAt: version.destroyAt } : {}),
      history: structuredClone(version.history),
    })),
  }
}
