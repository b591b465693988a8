import {
  array,
  bigint,
  boolean,
  bytes,
  type Decrypted,
  date,
  type Encrypted,
  type EncryptedRow,
  int,
  json,
  type Keyring,
  type Keys,
  number,
  object,
  records,
  text,
  uuid,
} from 'waxseal'
import { type Equal, exactly, holds } from './expect.ts'

/** Compiled by types.test.ts, never run: wrong use does not compile, right use has the types that one expects. */
declare const keys: Keys
declare const ring: Keyring

interface Customer {
  readonly id: string
  readonly email: string
  readonly phone: string | null
  readonly birthDate: Date
  readonly city: string
}
const customers = records('customers', {
  id: { id: uuid() },
  fields: { email: text(), phone: text({ nullable: true }), birthDate: date() },
})
declare const customer: Customer

// ── A keyring and each of its handles are keys ───────────────────────────────────────────────────────────────────
customers.encrypt(ring, customer)
customers.encrypt(ring.as({ actor: 'ann' }), customer)
// @ts-expect-error keys come first
customers.encrypt(customer)
// @ts-expect-error not keys
customers.encrypt({ name: 'crm' }, customer)

// ── Encrypted and decrypted rows ─────────────────────────────────────────────────────────────────────────────────
const sealed = customers.encrypt(keys, customer)
exactly<string>().is(sealed.email)
exactly<string>().is(sealed.phone)
exactly<string>().is(sealed.birthDate)
exactly<string>().is(sealed.envelope)
exactly<string>().is(sealed.city)
const opened = customers.decrypt(keys, sealed)
exactly<string>().is(opened.email)
exactly<string | null>().is(opened.phone)
exactly<Date>().is(opened.birthDate)
exactly<string>().is(opened.city)
export const roundTrip: Customer = opened
// @ts-expect-error the envelope is taken off
opened.envelope

type Stored = EncryptedRow<typeof customers, Customer>
holds<Equal<Stored, Encrypted<Customer, (typeof customers)['declaration']>>>()
holds<Equal<Decrypted<Stored, (typeof customers)['declaration']>['birthDate'], Date>>()
declare const stored: Stored
exactly<Date>().is(customers.decrypt(keys, stored).birthDate)

// @ts-expect-error an encrypted row is not encrypted again
customers.encrypt(keys, sealed)
// @ts-expect-error a plain row is not decrypted
customers.decrypt(keys, customer)
// @ts-expect-error the id is missing
customers.encrypt(keys, { email: 'a', phone: null, birthDate: new Date() })
// @ts-expect-error a declared field is missing: undefined has to be written down
customers.encrypt(keys, { id: 'x', email: 'a', phone: null })
customers.encrypt(keys, { id: 'x', email: 'a', phone: null, birthDate: undefined })
// @ts-expect-error the id is missing
customers.decrypt(keys, { email: sealed.email, envelope: sealed.envelope })
// @ts-expect-error the envelope is missing
customers.decrypt(keys, { id: 'x', email: sealed.email })

// ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────────
// @ts-expect-error a number is not text
customers.encrypt(keys, { ...customer, email: 5 })
// @ts-expect-error null is not a value of a field that is not nullable
customers.encrypt(keys, { ...customer, email: null })
// @ts-expect-error a string is not a Date
customers.encrypt(keys, { ...customer, birthDate: '1970-01-01' })
// @ts-expect-error a number is not a UUID
customers.encrypt(keys, { ...customer, id: 5 })

const every = records('every', {
  id: { no: int(), key: bytes() },
  fields: {
    b: bytes(),
    n: number(),
    i: int(),
    big: bigint(),
    yes: boolean(),
    j: json<{ a: string[] }>(),
    s: text({ nullable: 'sql' }),
  },
})
const all = every.encrypt(keys, {
  no: 1n,
  key: new Uint8Array(1),
  b: new Uint8Array(1),
  n: 1,
  i: 1,
  big: 1n,
  yes: true,
  j: { a: [] },
  s: null,
})
exactly<string | null>().is(all.s)
exactly<bigint>().is(every.decrypt(keys, all).big)
exactly<{ a: string[] }>().is(every.decrypt(keys, all).j)
every.encrypt(keys, {
  ...all,
  no: '1',
  envelope: null,
  b: new Uint8Array(1),
  n: 1,
  i: 1,
  big: 1n,
  yes: true,
  j: { a: [] },
  s: 'x',
})
// @ts-expect-error JSON of another shape
every.encrypt(keys, { ...every.decrypt(keys, all), j: { b: [] } })
// @ts-expect-error one part of a compound id is missing
every.decrypt(keys, { no: 1, envelope: all.envelope })

// ── A subset of columns gives just those; null only where the envelope may be null ───────────────────────────────
const part = customers.decrypt(keys, { id: 'x', email: sealed.email, envelope: sealed.envelope })
exactly<{ id: string; email: string }>().is(part)
// @ts-expect-error that column was not selected
part.phone
declare const joined: { id: string | null; email: string | null; envelope: string | null }
const maybe = customers.decrypt(keys, joined)
// @ts-expect-error the join may have found nothing
maybe.email
exactly<string | undefined>().is(maybe?.email)

// ── Patches ──────────────────────────────────────────────────────────────────────────────────────────────────────
const patch = customers.patch(keys, stored, { email: 'b', phone: null })
exactly<{ email: string; phone: string }>().is(patch.set)
exactly<string | Uint8Array>().is(patch.guard.value)
// @ts-expect-error not a field
customers.patch(keys, stored, { mail: 'b' })
// @ts-expect-error not a protected field
customers.patch(keys, stored, { city: 'Oslo' })
// @ts-expect-error a wrong value
customers.patch(keys, stored, { email: 5 })
// @ts-expect-error null is not a value of this field
customers.patch(keys, stored, { email: null })
// @ts-expect-error a plain row has no data key to patch under
customers.patch(keys, customer, { email: 'b' })

// ── Context ──────────────────────────────────────────────────────────────────────────────────────────────────────
const orders = records('orders', { id: { id: int() }, context: { tenant: text() }, fields: { note: text() } })
const order = orders.encrypt(keys, { id: 1, note: 'x' }, { tenant: 'A' })
orders.decrypt(keys, order, { tenant: 'A' })
// @ts-expect-error the context is missing
orders.encrypt(keys, { id: 1, note: 'x' })
// @ts-expect-error the context is missing
orders.decrypt(keys, order)
// @ts-expect-error the context is empty
orders.decrypt(keys, order, {})
// @ts-expect-error another fact
orders.decrypt(keys, order, { tenant: 'A', region: 'EU' })
// @ts-expect-error a wrong type
orders.decrypt(keys, order, { tenant: 5 })
// @ts-expect-error the context is missing
orders.patch(keys, order, { note: 'y' })
// @ts-expect-error the context is missing
orders.reencrypt(keys, order)
// @ts-expect-error the context is missing
orders.encryptMany(keys, [{ id: 1, note: 'x' }])
// @ts-expect-error none was declared
customers.decrypt(keys, stored, { tenant: 'A' })
orders.rebind(keys, order, { ids: { id: 1 }, context: { tenant: 'A' } }, { ids: { id: 2 }, context: { tenant: 'B' } })
// @ts-expect-error the context of one side is missing
orders.rebind(keys, order, { ids: { id: 1 }, context: { tenant: 'A' } }, { ids: { id: 2 } })
// @ts-expect-error the ids of one side are missing
customers.rebind(keys, stored, { ids: { id: 'x' } }, { ids: {} })

// ── Shapes, encodings, names ─────────────────────────────────────────────────────────────────────────────────────
const packed = records('p', {
  id: { id: int() },
  shape: 'packed',
  encoding: 'bytes',
  envelope: 'sealed',
  fields: { a: text(), b: int() },
})
const blob = packed.encrypt(keys, { id: 1, a: 'x', b: 1, open: true })
exactly<{ id: number; open: boolean; sealed: Uint8Array }>().is(blob)
export const unpacked: { id: number; open: boolean; a: string; b: number } = packed.decrypt(keys, blob)
exactly<{ sealed: Uint8Array }>().is(packed.patch(keys, blob, { a: 'y' }).set)
// @ts-expect-error the envelope is called otherwise
packed.decrypt(keys, { id: 1, envelope: blob.sealed })

const moved = records('m', { id: { id: int() }, fields: { born: date({ into: 'bornSealed' }) } })
const away = moved.encrypt(keys, { id: 1, born: new Date() })
exactly<{ id: number; bornSealed: string; envelope: string }>().is(away)
exactly<{ id: number; born: Date }>().is(moved.decrypt(keys, away))
exactly<{ bornSealed: string }>().is(moved.patch(keys, away, { born: new Date() }).set)

const nested = records('n', { id: { id: int() }, fields: { contact: object({ phone: text() }), tags: array(text()) } })
const deep = nested.encrypt(keys, { id: 1, contact: { phone: '1', preferred: 'mail' }, tags: ['a'] })
exactly<string>().is(deep.contact.preferred)
exactly<string[]>().is(deep.tags)
exactly<string[]>().is(nested.decrypt(keys, deep).tags)
// @ts-expect-error a member of a wrong type
nested.encrypt(keys, { id: 1, contact: { phone: 1 }, tags: [] })

const migrating = records('g', {
  id: { id: int() },
  fields: { a: text() },
  migrate: { phase: 'encrypt', until: new Date() },
})
exactly<string | null>().is(migrating.encrypt(keys, { id: 1, a: 'x' }).envelope)
// @ts-expect-error the end is mandatory
records('g', { id: { id: int() }, fields: { a: text() }, migrate: { phase: 'encrypt' } })
// @ts-expect-error an id is mandatory
records('g', { fields: { a: text() } })
// @ts-expect-error boolean is not an id
records('g', { id: { id: boolean() }, fields: { a: text() } })
