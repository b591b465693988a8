import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type KeyObject,
  randomBytes,
  randomFillSync,
} from 'node:crypto'
import type { Customer } from './payload.ts'

/**
 * The limit: what a careful engineer writes by hand on node:crypto for one table, tuned, with no library around it.
 * No key derivation, no commitment, no key ids, no schema: those are what waxseal adds. Keep it as fast as can be.
 */

const KEY_WRAP_IV = Buffer.alloc(8, 0xa6)
const GCM = { authTagLength: 16 } as const
const NONCE = 12
const TAG = 16
const WRAPPED = 40

export type Kek = KeyObject
export const newKek = (): Kek => createSecretKey(randomBytes(32))

export const wrapKey = (kek: Kek, key: Uint8Array): Buffer =>
  createCipheriv('id-aes256-wrap', kek, KEY_WRAP_IV).update(key)
export const unwrapKey = (kek: Kek, wrapped: Uint8Array): Buffer =>
  createDecipheriv('id-aes256-wrap', kek, KEY_WRAP_IV).update(wrapped)

const dataKey = Buffer.allocUnsafeSlow(32)
/** Codecs that node:buffer's own functions end in; nothing promises that they stay. */
interface Codecs {
  base64urlWrite(text: string, at: number): number
  base64urlSlice(from: number, to: number): string
  utf8Slice(from: number, to: number): string
}
const direct = (bytes: Buffer): Buffer & Codecs => bytes as Buffer & Codecs
const scratch = direct(Buffer.allocUnsafeSlow(16_384))
/** Parts of the scratch bytes, each view kept: a Buffer's takes five times as long to make as to read. */
const views: Uint8Array[][] = []
const part = (from: number, to: number): Uint8Array => views[from]?.[to] ?? keep(from, to)
function keep(from: number, to: number): Uint8Array {
  const view = new Uint8Array(scratch.buffer, from, to - from)
  views[from] ??= []
  views[from][to] = view
  return view
}
const pool = Buffer.allocUnsafeSlow(NONCE * 341)
let drawn = pool.length

/** For one value bytes cost less than a KeyObject, but for Node from 24.21 on, where they cost ten microseconds more. */
const oneValueKey = Number.parseInt(process.versions.node, 10) < 24 ? (key: Buffer) => key : createSecretKey

/** Copied here for OpenSSL, which copies them again: a view takes longer to make. */
const iv = new Uint8Array(NONCE)
const tag = new Uint8Array(TAG)

function drawNonce(at: number): void {
  if (drawn === pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  for (let i = 0; i < NONCE; i++) scratch[at + i] = iv[i] = pool[drawn++]!
}

/** Writes nonce ‖ ciphertext ‖ tag into the scratch buffer from `at` on, and gives its end. */
function sealAt(at: number, key: KeyObject | Buffer, value: string, aad: Uint8Array): number {
  drawNonce(at)
  const cipher = createCipheriv('aes-256-gcm', key, iv, GCM)
  cipher.setAAD(aad)
  const body = cipher.update(value, 'utf8')
  cipher.final()
  const end = at + NONCE + body.length
  scratch.set(body, at + NONCE)
  scratch.set(cipher.getAuthTag(), end)
  return end + TAG
}

const seal = (key: KeyObject, value: string, aad: Uint8Array): string =>
  scratch.base64urlSlice(0, sealAt(0, key, value, aad))

/** Decodes into the scratch buffer, and gives the end. */
const decode = (text: string): number => scratch.base64urlWrite(text, 0)

/** Opens what stands in the scratch buffer. */
function openAt(at: number, end: number, key: KeyObject | Buffer, aad: Uint8Array): string {
  const tagAt = end - TAG
  for (let i = 0; i < NONCE; i++) iv[i] = scratch[at + i]!
  for (let i = 0; i < TAG; i++) tag[i] = scratch[tagAt + i]!
  const decipher = createDecipheriv('aes-256-gcm', key, iv, GCM)
  decipher.setAAD(aad)
  decipher.setAuthTag(tag)
  const text = direct(decipher.update(part(at + NONCE, tagAt)))
  decipher.final()
  return text.utf8Slice(0, text.length)
}

const open = (key: KeyObject, sealed: string, aad: Uint8Array): string => openAt(0, decode(sealed), key, aad)

const AAD = {
  email: Buffer.from('customers.email'),
  phone: Buffer.from('customers.phone'),
  street: Buffer.from('customers.street'),
  postcode: Buffer.from('customers.postcode'),
  taxNumber: Buffer.from('customers.taxNumber'),
  notes: Buffer.from('customers.notes'),
  note: Buffer.from('customers.note'),
}

export interface StoredCustomer extends Customer {
  readonly envelope: string
}

export function encryptCustomer(kek: Kek, row: Customer): StoredCustomer {
  randomFillSync(dataKey)
  const key = createSecretKey(dataKey)
  return {
    id: row.id,
    city: row.city,
    email: seal(key, row.email, AAD.email),
    phone: seal(key, row.phone, AAD.phone),
    street: seal(key, row.street, AAD.street),
    postcode: seal(key, row.postcode, AAD.postcode),
    taxNumber: seal(key, row.taxNumber, AAD.taxNumber),
    notes: seal(key, row.notes, AAD.notes),
    envelope: wrapKey(kek, dataKey).toString('base64url'),
  }
}

export function decryptCustomer(kek: Kek, row: StoredCustomer): Customer {
  const key = createSecretKey(unwrapKey(kek, part(0, decode(row.envelope))))
  return {
    id: row.id,
    city: row.city,
    email: open(key, row.email, AAD.email),
    phone: open(key, row.phone, AAD.phone),
    street: open(key, row.street, AAD.street),
    postcode: open(key, row.postcode, AAD.postcode),
    taxNumber: open(key, row.taxNumber, AAD.taxNumber),
    notes: open(key, row.notes, AAD.notes),
  }
}

/** One value: wrapped key ‖ nonce ‖ ciphertext ‖ tag. */
export function encryptNote(kek: Kek, text: string): string {
  randomFillSync(dataKey)
  scratch.set(wrapKey(kek, dataKey), 0)
  return scratch.base64urlSlice(0, sealAt(WRAPPED, oneValueKey(dataKey), text, AAD.note))
}

export function decryptNote(kek: Kek, cell: string): string {
  const end = decode(cell)
  return openAt(WRAPPED, end, oneValueKey(unwrapKey(kek, part(0, WRAPPED))), AAD.note)
}

/** The data key of a cell, for those who keep it. */
export const noteKey = (kek: Kek, cell: string): KeyObject =>
  createSecretKey(unwrapKey(kek, Buffer.from(cell, 'base64url').subarray(0, WRAPPED)))

export const decryptNoteUnder = (key: KeyObject, cell: string): string => openAt(WRAPPED, decode(cell), key, AAD.note)

/** A stored wrapped key from one key-encryption key to another. */
export const rewrap = (from: Kek, to: Kek, envelope: string): string =>
  wrapKey(to, unwrapKey(from, part(0, decode(envelope)))).toString('base64url')
