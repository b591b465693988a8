import { copyBytes, toHex, wipe } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import type { KmsDriver, KmsFailure } from './kms.ts'

export type { KmsContext, KmsDriver } from './kms.ts'

type Handle = Uint8Array
/** A date only because pkcs11js has it: then its type is one of ours. */
type Template = { type: number; value?: number | boolean | string | Uint8Array | Date }[]

/** What is used of `PKCS11` in pkcs11js (version 2), after `load` and `C_Initialize`. */
export interface Pkcs11Module {
  C_GetSlotList(tokenPresent: boolean): Handle[]
  C_GetTokenInfo(slot: Handle): { readonly label: string; readonly serialNumber: string }
  C_OpenSession(slot: Handle, flags: number): Handle
  C_CloseSession(session: Handle): void
  C_Login(session: Handle, userType: number, pin: string): void
  C_FindObjectsInit(session: Handle, template: Template): void
  C_FindObjects(session: Handle, maxObjectCount: number): Handle[]
  C_FindObjectsFinal(session: Handle): void
  C_GetAttributeValue(session: Handle, object: Handle, template: Template): { type: number; value: Uint8Array }[]
  C_CreateObject(session: Handle, template: Template): Handle
  C_DestroyObject(session: Handle, object: Handle): void
  C_WrapKey(session: Handle, mechanism: { mechanism: number }, by: Handle, key: Handle, out: Uint8Array): Uint8Array
  C_UnwrapKey(session: Handle, mechanism: { mechanism: number }, by: Handle, blob: Uint8Array, made: Template): Handle
}

export interface Pkcs11KmsOptions {
  /** A `PKCS11` of pkcs11js that was loaded and initialised; finalising it is yours too. */
  readonly pkcs11: Pkcs11Module
  /** CKA_LABEL of the token: at most 32 bytes. A slot's number is no name: it changes when tokens come and go. */
  readonly tokenLabel: string
  /** Where two tokens have one label: at most 16 bytes. */
  readonly tokenSerial?: string
  /**
   * The user PIN, or where to ask for it each time a session is opened: calls wait for the answer, so bound it in time.
   * One that was refused is not tried again.
   */
  readonly pin: string | (() => string | Promise<string>)
  /** CKA_LABEL of the key: at most 128 bytes. This, `keyId` or both. */
  readonly keyLabel?: string
  /** CKA_ID of the key: at most 128 bytes. */
  readonly keyId?: Uint8Array
}

/** PKCS #11's numbers. Key wrap is RFC 3394: unlike key wrap with padding, it has one number at all tokens. */
const CKM_AES_KEY_WRAP = { mechanism: 0x2109 }
const [CKF_SERIAL_SESSION, CKU_USER, CKO_SECRET_KEY, CKK_AES] = [4, 1, 4, 0x1f]
const CKA = {
  class: 0,
  token: 1,
  private: 2,
  label: 3,
  value: 0x11,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
} as const
const [CKA_VALUE_LEN, CKA_EXTRACTABLE] = [0x161, 0x162]
const CKR_USER_ALREADY_LOGGED_IN = 0x100
/** Incorrect, invalid, of a wrong length, expired, locked. */
const CKR_PIN = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4]
const CKR_CRYPTOKI_NOT_INITIALIZED = 0x190
/** CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED: tokens say so of a blob that does not open, and of broken hardware. */
const VAGUE = [0x05, 0x06]
const KEY_BYTES = 32
const WRAPPED_BYTES = 40

/** A key for the time of one call: a session object, never stored in the token, readable so that it can come and go. */
const TEMPORARY: Template = [
  { type: CKA.class, value: CKO_SECRET_KEY },
  { type: CKA.keyType, value: CKK_AES },
  { type: CKA.token, value: false },
  { type: CKA.private, value: true },
  { type: CKA.sensitive, value: false },
  { type: CKA_EXTRACTABLE, value: true },
]

interface Session {
  readonly handle: Handle
  readonly root: Handle
}

/**
 * A hardware security module, or any other PKCS #11 token: the root key is an AES-256 key in it that cannot be
 * extracted, with CKA_WRAP and CKA_UNWRAP. Wraps are AES key wrap (CKM_AES_KEY_WRAP, RFC 3394): 40 bytes, 114 with
 * what the portable layer adds to bind the context, which tokens do not know.
 *
 * The session is opened at the first call and used until it fails; calls are **synchronous**: while the token works,
 * the event loop waits. Opening a keyring makes few of them; sealing and opening records makes none.
 *
 * Errors: CONFIG at once for arguments that are wrong, and from a call for a module that is not initialised or a key
 * that is extractable or not of 32 bytes. KMS_DENIED for a PIN that is refused (never tried again, against lock-out), a
 * key that is not there or there twice, or what the token does not permit. DECRYPTION_FAILED for a blob of another
 * key. KMS_UNAVAILABLE, after which a new session is opened, for a token that is gone or fails.
 *
 * @example
 * ```ts
 * // compile only
 * import { type Pkcs11Module, pkcs11Kms } from 'waxseal/kms/pkcs11'
 *
 * declare const pkcs11: Pkcs11Module // new PKCS11() of pkcs11js, after load(…) and C_Initialize()
 * const kms = pkcs11Kms({ pkcs11, tokenLabel: 'crm', pin: () => process.env.HSM_PIN!, keyLabel: 'waxseal-root' })
 * console.log(kms.keyUri)
 * ```
 */
export function pkcs11Kms(options: Pkcs11KmsOptions): KmsDriver {
  const { pkcs11, pin } = options
  const keyUri = checkedUri(options)
  let session: Promise<Session> | undefined
  let refused: string | undefined

  async function open(): Promise<Session> {
    const given = typeof pin === 'function' ? await pin() : pin
    if (typeof given !== 'string' || given === '') throw config('pin', 'text, or a function that gives it', given)
    if (given === refused) throw denied('the token refused this PIN before; it is not tried again')
    const handle = pkcs11.C_OpenSession(slotOf(options), CKF_SERIAL_SESSION)
    try {
      logIn(handle, given)
      return { handle, root: rootOf(options, handle) }
    } catch (error) {
      close(handle)
      throw error
    }
  }

  function logIn(handle: Handle, given: string): void {
    try {
      pkcs11.C_Login(handle, CKU_USER, given)
    } catch (error) {
      // Being logged in belongs to the process, not to the session.
      if (codeOf(error) === CKR_USER_ALREADY_LOGGED_IN) return
      if (CKR_PIN.includes(codeOf(error)!)) refused = given
      throw error
    }
  }

  /** Session objects die with their session. */
  function close(handle: Handle): void {
    try {
      pkcs11.C_CloseSession(handle)
    } catch {
      // It is gone already, or the token is.
    }
  }

  /** Opens a session unless there is one, and gives it up when it fails: the next call opens another. */
  async function within<T>(signal: AbortSignal | undefined, work: (session: Session) => T): Promise<T> {
    signal?.throwIfAborted()
    session ??= open().catch((error) => {
      session = undefined
      throw notInitialised(error)
    })
    const mine = session
    const opened = await abortable(mine, signal)
    try {
      return work(opened)
    } catch (error) {
      if (WaxsealError.is(error) || failureOf(error) === 'rejected') throw error
      if (session === mine) session = undefined
      close(opened.handle)
      throw notInitialised(error)
    }
  }

  function wrapWith({ handle, root }: Session, key: Uint8Array): Uint8Array {
    const object = pkcs11.C_CreateObject(handle, [...TEMPORARY, { type: CKA.value, value: key }])
    try {
      return copyBytes(pkcs11.C_WrapKey(handle, CKM_AES_KEY_WRAP, root, object, new Uint8Array(2 * WRAPPED_BYTES)))
    } finally {
      pkcs11.C_DestroyObject(handle, object)
    }
  }

  function unwrapWith({ handle, root }: Session, wrapped: Uint8Array): Uint8Array {
    const object = pkcs11.C_UnwrapKey(handle, CKM_AES_KEY_WRAP, root, wrapped, TEMPORARY)
    try {
      const value = pkcs11.C_GetAttributeValue(handle, object, [{ type: CKA.value }])[0]!.value
      const key = copyBytes(value)
      wipe(value)
      return key
    } finally {
      pkcs11.C_DestroyObject(handle, object)
    }
  }

  /** Whether the token still opens what it wraps: then a vague answer was about the blob. */
  function works(opened: Session): boolean {
    try {
      return unwrapWith(opened, wrapWith(opened, new Uint8Array(KEY_BYTES))).length === KEY_BYTES
    } catch {
      return false
    }
  }

  return {
    keyUri,
    ignoresContext: true,
    wrap: (key, _, signal) => within(signal, (opened) => wrapWith(opened, key)),
    unwrap: (wrapped, _, signal) =>
      within(signal, (opened) => {
        if (wrapped.length !== WRAPPED_BYTES) {
          throw new WaxsealError('MALFORMED', `kms.unwrap: a blob of ${keyUri} has ${WRAPPED_BYTES} bytes`)
        }
        try {
          return unwrapWith(opened, wrapped)
        } catch (error) {
          if (!VAGUE.includes(codeOf(error)!) || !works(opened)) throw error
          throw new WaxsealError('DECRYPTION_FAILED', `kms.unwrap: ${keyUri} does not open this blob`)
        }
      }),
    failureOf,
  }
}

/** RFC 7512, and the only place that reads the options' texts. */
function checkedUri({ pkcs11, pin, tokenLabel, tokenSerial, keyLabel, keyId }: Pkcs11KmsOptions): string {
  if (typeof pkcs11?.C_UnwrapKey !== 'function') throw config('pkcs11', 'a PKCS11 of pkcs11js', pkcs11)
  if (typeof pin !== 'function' && (typeof pin !== 'string' || pin === '')) {
    throw config('pin', 'text, or a function that gives it', pin)
  }
  if (keyId !== undefined && !(keyId instanceof Uint8Array && keyId.length > 0 && keyId.length <= 128)) {
    throw config('keyId', '1 to 128 bytes', keyId)
  }
  if (keyId === undefined && keyLabel === undefined)
    throw config('keyLabel', 'the label of the key, or a keyId', keyLabel)
  const serial = tokenSerial === undefined ? '' : `;serial=${encoded('tokenSerial', tokenSerial, 16)}`
  const object = keyLabel === undefined ? '' : `;object=${encoded('keyLabel', keyLabel, 128)}`
  const id = keyId === undefined ? '' : `;id=${toHex(keyId).replace(/../g, '%$&')}`
  return `pkcs11:token=${encoded('tokenLabel', tokenLabel, 32)}${serial}${object}${id};type=secret-key`
}

function encoded(argument: string, text: unknown, most: number): string {
  if (typeof text === 'string' && text !== '' && text.isWellFormed()) {
    const uri = encodeURIComponent(text)
    if (uri.replace(/%../g, 'x').length <= most) return uri
  }
  throw config(argument, `text of 1 to ${most} bytes`, text)
}

function slotOf({ pkcs11, tokenLabel, tokenSerial }: Pkcs11KmsOptions): Handle {
  const slots = pkcs11.C_GetSlotList(true).filter((slot) => {
    const { label, serialNumber } = pkcs11.C_GetTokenInfo(slot)
    // Tokens pad with blanks.
    return (
      unpadded(label) === unpadded(tokenLabel) && (!tokenSerial || unpadded(serialNumber) === unpadded(tokenSerial))
    )
  })
  if (slots.length === 1) return slots[0]!
  if (slots.length > 1) throw denied('several tokens have this label; name the serial too')
  throw new WaxsealError('KMS_UNAVAILABLE', `kms: no token "${tokenLabel}" is present`)
}

const unpadded = (text: string): string => text.replace(/ +$/, '')

function rootOf({ pkcs11, keyLabel, keyId }: Pkcs11KmsOptions, session: Handle): Handle {
  const template: Template = [
    { type: CKA.class, value: CKO_SECRET_KEY },
    { type: CKA.keyType, value: CKK_AES },
    { type: CKA.token, value: true },
    ...(keyLabel === undefined ? [] : [{ type: CKA.label, value: keyLabel }]),
    ...(keyId === undefined ? [] : [{ type: CKA.id, value: keyId }]),
  ]
  pkcs11.C_FindObjectsInit(session, template)
  const found = pkcs11.C_FindObjects(session, 2)
  pkcs11.C_FindObjectsFinal(session)
  if (found.length === 0) throw denied('the token has no AES key of this label and id')
  if (found.length > 1) throw denied('the token has several AES keys of this label and id')
  const asked = [{ type: CKA_EXTRACTABLE }, { type: CKA_VALUE_LEN }]
  const [extractable, length] = pkcs11
    .C_GetAttributeValue(session, found[0]!, asked)
    .map(({ value }) => Math.max(...value))
  if (extractable === 0 && length === KEY_BYTES) return found[0]!
  const got = extractable === 0 ? `${length} bytes` : 'one that can be extracted'
  throw new WaxsealError('CONFIG', `"keyLabel" expected an AES key of 32 bytes that cannot be extracted, got ${got}`, {
    argument: 'keyLabel',
  })
}

function notInitialised(error: unknown): unknown {
  if (codeOf(error) !== CKR_CRYPTOKI_NOT_INITIALIZED) return error
  return new WaxsealError('CONFIG', '"pkcs11" expected a module after C_Initialize', { argument: 'pkcs11' })
}

const denied = (what: string): WaxsealError => new WaxsealError('KMS_DENIED', `kms: ${what}`)

function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  return new Promise((done, reject) => {
    const stop = (): void => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
    work.then(done, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}

function codeOf(error: unknown): number | undefined {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown }
  return typeof code === 'number' ? code : undefined
}

/** CKR_ENCRYPTED_DATA_* and CKR_WRAPPED_KEY_*, invalid or of a wrong length. */
const REJECTED = [0x40, 0x41, 0x110, 0x112]
/**
 * Besides CKR_PIN_*: CKR_USER_*; CKR_ATTRIBUTE_*, CKR_TEMPLATE_*, CKR_ACTION_PROHIBITED (the token makes no such temporary
 * keys); CKR_KEY_*, CKR_WRAPPING_KEY_*, CKR_UNWRAPPING_KEY_*, CKR_MECHANISM_*, CKR_FUNCTION_NOT_SUPPORTED, …_REJECTED
 * (what the root key may not do); CKR_SESSION_READ_ONLY, CKR_TOKEN_NOT_RECOGNIZED, …_WRITE_PROTECTED.
 */
const DENIED = [
  0x102, 0x103, 0x104, 0x11, 0x12, 0x13, 0x1b, 0xd0, 0xd1, 0x62, 0x63, 0x68, 0x69, 0x6a, 0xf1, 0xf2, 0x114, 0x115, 0x70,
  0x71, 0x54, 0x200, 0xb5, 0xe1, 0xe2,
]

/** Any other return value is a failure of token, session or device: it may pass. */
function failureOf(error: unknown): KmsFailure | undefined {
  const code = codeOf(error)
  if (code === undefined) return undefined
  if (REJECTED.includes(code)) return 'rejected'
  return CKR_PIN.includes(code) || DENIED.includes(code) ? 'denied' : 'unavailable'
}
