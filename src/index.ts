export type { Keys } from './envelope/keys.ts'
export { type ErrorCode, WaxsealError } from './errors.ts'
export type { KeyEvent, OnEvent } from './events.ts'
export { createKeyring } from './keyring/create.ts'
export type { Keyring, KeyringStatus, VersionStatus } from './keyring/keyring.ts'
export { openKeyring } from './keyring/open.ts'
export type { KeyringOptions } from './keyring/options.ts'
export type { KeyState } from './keyring/states.ts'
export type { KeyStore, StoredKeyring } from './keystore/keystore.ts'
export type { KmsContext, KmsDriver, KmsFailure } from './kms/kms.ts'
export { type Cell, cell } from './records/cell.ts'
export type { RowResult } from './records/many.ts'
export { isUnauthenticated } from './records/record.ts'
export { type Guard, type Patch, type Records, records } from './records/records.ts'
export {
  array,
  bigint,
  boolean,
  bytes,
  type Decrypted,
  date,
  type Encrypted,
  type EncryptedRow,
  int,
  type JsonValue,
  json,
  number,
  object,
  text,
  uuid,
} from './records/schema.ts'
