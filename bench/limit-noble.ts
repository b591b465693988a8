import { randomBytes, randomFillSync } from 'node:crypto'
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha512 } from '@noble/hashes/sha2.js'
import type { StoredCustomer } from './limit.ts'
import type { Customer } from './payload.ts'

/**
 * The bare @noble calls for the same work as suite 2: derive record key and commitment, wrap the data key, seal six
 * values with AAD, base64url. As in limit.ts, for one table and with nothing around it.
 */

const NONCE = 24
const COMMITMENT = 32
const HEADER = COMMITMENT + NONCE + 48

const pool = Buffer.allocUnsafeSlow(NONCE * 170)
let drawn = pool.length

function nonce(): Buffer {
  if (drawn === pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  drawn += NONCE
  return pool.subarray(drawn - NONCE, drawn)
}

/** nonce ‖ ciphertext ‖ tag, at `at` of `out`. noble writes into the buffer it is given. */
function sealInto(out: Buffer, at: number, key: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): void {
  const iv = nonce()
  out.set(iv, at)
  xchacha20poly1305(key, iv, aad).encrypt(plaintext, out.subarray(at + NONCE))
}

const openFrom = (sealed: Uint8Array, key: Uint8Array, aad: Uint8Array): Uint8Array =>
  xchacha20poly1305(key, sealed.subarray(0, NONCE), aad).decrypt(sealed.subarray(NONCE))

function seal(key: Uint8Array, value: string, aad: Uint8Array): string {
  const plaintext = Buffer.from(value)
  const out = Buffer.allocUnsafe(NONCE + plaintext.length + 16)
  sealInto(out, 0, key, plaintext, aad)
  return out.toString('base64url')
}

const open = (key: Uint8Array, sealed: string, aad: Uint8Array): string =>
  Buffer.from(openFrom(Buffer.from(sealed, 'base64url'), key, aad)).toString()

const AAD = {
  email: Buffer.from('customers.email'),
  phone: Buffer.from('customers.phone'),
  street: Buffer.from('customers.street'),
  postcode: Buffer.from('customers.postcode'),
  taxNumber: Buffer.from('customers.taxNumber'),
  notes: Buffer.from('customers.notes'),
}

/** 64 bytes, record key and commitment, from an input as long (in hash blocks) as that of the real derivation. */
const derive = (dataKey: Uint8Array, id: number): Uint8Array =>
  hmac(sha512, dataKey, Buffer.from(`record key and commitment of the table customers, under the row id ${id}`))

export const newKek = (): Uint8Array => randomBytes(32)

export function encryptCustomer(kek: Uint8Array, row: Customer): StoredCustomer {
  const dataKey = randomBytes(32)
  const derived = derive(dataKey, row.id)
  const key = derived.subarray(0, 32)
  const header = Buffer.allocUnsafe(HEADER)
  header.set(derived.subarray(32), 0)
  sealInto(header, COMMITMENT, kek, dataKey, derived.subarray(32))
  return {
    id: row.id,
    city: row.city,
    email: seal(key, row.email, AAD.email),
    phone: seal(key, row.phone, AAD.phone),
    street: seal(key, row.street, AAD.street),
    postcode: seal(key, row.postcode, AAD.postcode),
    taxNumber: seal(key, row.taxNumber, AAD.taxNumber),
    notes: seal(key, row.notes, AAD.notes),
    envelope: header.toString('base64url'),
  }
}

export function decryptCustomer(kek: Uint8Array, row: StoredCustomer): Customer {
  const header = Buffer.from(row.envelope, 'base64url')
  const commitment = header.subarray(0, COMMITMENT)
  const derived = derive(openFrom(header.subarray(COMMITMENT), kek, commitment), row.id)
  if (!commitment.equals(derived.subarray(32))) throw new Error('wrong commitment')
  const key = derived.subarray(0, 32)
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
