import type { ErrorCode } from './errors.ts'

/** Who is acting, and why: travels with every event of a handle made by `keys.as(…)`. */
export interface Actor {
  readonly actor?: string | undefined
  readonly purpose?: string | undefined
}

/** What a listener is told, before the actor and time are added. Value-free: never plaintext, ciphertext or key bytes. */
export type Occurrence =
  | {
      readonly type: 'encrypt' | 'decrypt' | 'patch' | 'rewrap' | 'reencrypt'
      readonly table?: string | undefined
      readonly rowId?: string | undefined
      /** Labels of the fields that were sealed or opened. */
      readonly fields?: readonly string[] | undefined
      readonly keyId: string
    }
  | {
      readonly type: 'failure'
      readonly operation: string
      readonly code: ErrorCode
      readonly table?: string | undefined
      readonly field?: string | undefined
      readonly rowId?: string | undefined
      readonly keyId?: string | undefined
    }
  /** A key was used in a state that deserves attention: suspended, compromised, retired or pending destruction. */
  | { readonly type: 'key.use'; readonly keyId: string; readonly state: string; readonly operation: string }
  | { readonly type: 'key.state'; readonly keyId: string; readonly state: string; readonly reason?: string | undefined }
  /** The keyring as a whole was changed: an accepted rollback, other root keys, another policy. */
  | { readonly type: 'keyring.change'; readonly what: string; readonly reason?: string | undefined }
  /** The keyring could not be read again or changed in the background; the code says why. */
  | { readonly type: 'keyring.failure'; readonly operation: string; readonly code: ErrorCode | undefined }
  /** A row or cell was read that is still plaintext, or was made so by whoever writes the database. */
  | { readonly type: 'migrate.plaintext'; readonly table: string; readonly rowId?: string | undefined }
  | { readonly type: 'migrate.ending' | 'migrate.ended'; readonly table: string; readonly until: Date }

/** One event. `time` is in ms since the epoch, from the keyring's clock. */
export type KeyEvent = Occurrence & Actor & { readonly keyring: string; readonly time: number }

/**
 * A synchronous listener. It is called before the result is returned; if it throws, the operation fails with what it
 * threw, so that an access that cannot be recorded does not happen.
 */
export type OnEvent = (event: KeyEvent) => void
