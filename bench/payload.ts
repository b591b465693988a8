/** What both sides work on: a record of 8 fields, 6 of them protected, one of 200 characters; and a 64-byte value. */
export interface Customer {
  readonly id: number
  readonly city: string
  readonly email: string
  readonly phone: string
  readonly street: string
  readonly postcode: string
  readonly taxNumber: string
  readonly notes: string
}

export const PAYLOAD =
  'record of 8 fields, 6 protected, 320 bytes of protected text (one field of 200); cell of 64 bytes'

/** Rows differ, so that no cache of V8 (number to string, string tables) sees the same value twice in a row. */
const ROWS = 256

export const customers: readonly Customer[] = Array.from({ length: ROWS }, (_, i) => ({
  id: 700_000_000 + i * 7919,
  city: 'Berlin',
  email: `maria.schneider.${1000 + i}@example.com`,
  phone: `+49 30 ${1_000_000 + i}`,
  street: `Torstrasse ${100 + i}`,
  postcode: `${10_000 + i}`,
  taxNumber: `DE ${100_000_000 + i} 7`,
  notes: `Customer ${1000 + i} prefers the phone in the morning. `.repeat(5).slice(0, 200),
}))

export interface Note {
  readonly id: number
  readonly text: string
}

export const notes: readonly Note[] = customers.map(({ id, notes: text }) => ({ id, text: text.slice(0, 64) }))

/** Strings as a database driver hands them over: flat, where concatenation leaves V8's ropes. */
export const asStored = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T

/** A call that takes the next item at every call, around and around. */
export function overAll<T>(items: readonly T[], work: (item: T) => unknown): () => unknown {
  let next = 0
  return () => {
    if (next === items.length) next = 0
    return work(items[next++]!)
  }
}
