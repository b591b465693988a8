import type { PGlite } from '@electric-sql/pglite'
import { type EncryptedRow, int, type Keys, records, text } from 'waxseal'
import chinook from '../data/chinook-customers.json' with { type: 'json' }

/** A customer as the application sees it. */
export interface Customer {
  customer_id: number
  first_name: string
  last_name: string
  email: string
  phone: string
  fax: string
  address: string
  company: string
  city: string
  country: string
}

/** Which column identifies a customer, and which columns are protected. */
export const customers = records('customers', {
  id: { customer_id: int() },
  fields: { first_name: text(), last_name: text(), email: text(), phone: text(), fax: text(), address: text() },
})

/** A customer as the database holds it. */
export type StoredCustomer = EncryptedRow<typeof customers, Customer>

export const sampleCustomers: Customer[] = chinook.map((row) => ({
  customer_id: row.CustomerId,
  first_name: row.FirstName,
  last_name: row.LastName,
  email: row.Email,
  phone: row.Phone,
  fax: row.Fax,
  address: row.Address,
  company: row.Company,
  city: row.City,
  country: row.Country,
}))

/** Protected columns are text; the header has a column of its own, and an index finds the rows under a key. */
export async function createTable(db: PGlite): Promise<void> {
  await db.exec(`
    create table customers (
      customer_id integer primary key,
      first_name text not null, last_name text not null, email text not null,
      phone text not null, fax text not null, address text not null,
      company text, city text, country text,
      envelope text not null
    );
    ${customers.sql.createIndex};
  `)
}

export async function insertCustomer(db: PGlite, keys: Keys, customer: Customer): Promise<void> {
  const row = customers.encrypt(keys, customer)
  const names = Object.keys(row)
  await db.query(
    `insert into customers (${names.join(', ')}) values (${names.map((_, i) => `$${i + 1}`).join(', ')})`,
    Object.values(row),
  )
}

export async function findCustomer(db: PGlite, customerId: number): Promise<StoredCustomer> {
  const { rows } = await db.query<StoredCustomer>('select * from customers where customer_id = $1', [customerId])
  if (!rows[0]) throw new Error(`no customer ${customerId}`)
  return rows[0]
}

/** One field, under the row's own data key; the guard makes sure that nobody re-encrypted the row meanwhile. */
export async function changeEmail(db: PGlite, keys: Keys, customerId: number, email: string): Promise<void> {
  const { set, guard } = customers.patch(keys, await findCustomer(db, customerId), { email })
  const result = await db.query(`update customers set email = $1 where customer_id = $2 and ${guard.expression} = $3`, [
    set.email,
    customerId,
    guard.value,
  ])
  guard.assert(result.affectedRows)
}
