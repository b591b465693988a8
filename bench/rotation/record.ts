import { int, openKeyring, records, text } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import { localKms } from 'waxseal/kms/local'

/** What every process of the benchmark has in common. */

export const NAME = 'bench'
const WORDS = 'prefers the phone in the morning and a letter in winter. '

/** The row with an id: 8 columns, 6 of them protected, one of 200 characters. */
export const customer = (id: number) => ({
  id,
  city: id % 2 === 0 ? 'Berlin' : 'Lima',
  email: `maria.schneider.${1e6 + id}@example.com`,
  phone: `+49 30 ${1e7 + id}`,
  street: `Torstrasse ${100 + (id % 900)}`,
  postcode: `${10_000 + (id % 90_000)}`,
  tax: `DE ${1e8 + id} 7`,
  notes: `Customer ${1e6 + id} ${WORDS.repeat(4)}`.slice(0, 200),
})

/** The label is bound into ciphertext, the table is not: rows that are copied to another table open there. */
export const recordOf = (table: string) =>
  records('customers', {
    id: { id: int() },
    fields: { email: text(), phone: text(), street: text(), postcode: text(), tax: text(), notes: text() },
    table,
  })

export const SEALED = ['email', 'phone', 'street', 'postcode', 'tax', 'notes', 'envelope'] as const
export const COLUMNS = ['id', 'city', ...SEALED] as const

export const openKeys = (file: string, root: string) =>
  openKeyring({ name: NAME, store: fileKeyStore(file), kms: localKms(root) })
