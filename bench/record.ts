import { deepStrictEqual as same } from 'node:assert/strict'
import { int, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import type { Duel } from './harness.ts'
import * as limit from './limit.ts'
import { asStored, customers, overAll } from './payload.ts'

const declaration = {
  id: { id: int() },
  fields: { email: text(), phone: text(), street: text(), postcode: text(), taxNumber: text(), notes: text() },
} as const

export const columns = records('customers', declaration)
const packed = records('customers', { ...declaration, shape: 'packed' })

/** A whole record under a fresh data key. Both shapes are held against the columns limit. */
export function recordDuels(): Duel[] {
  const keys = testKeyring({ suite: 1 })
  const kek = limit.newKek()
  const byHand = asStored(customers.map((row) => limit.encryptCustomer(kek, row)))
  const checkLimit = () =>
    same(
      byHand.map((row) => limit.decryptCustomer(kek, row)),
      customers,
    )
  const shapes = [
    ['columns', columns, 1.2],
    ['packed', packed, 0.58],
  ] as const

  return shapes.flatMap(([shape, record, budget]) => {
    const stored = asStored(customers.map((row) => record.encrypt(keys, row)))
    const check = () => {
      checkLimit()
      same(
        stored.map((row) => record.decrypt(keys, row)),
        customers,
      )
    }
    return [
      {
        name: `record.${shape}.encrypt`,
        budget,
        check,
        ours: overAll(customers, (row) => record.encrypt(keys, row)),
        limit: overAll(customers, (row) => limit.encryptCustomer(kek, row)),
      },
      {
        name: `record.${shape}.decrypt`,
        budget,
        check,
        ours: overAll(stored, (row) => record.decrypt(keys, row)),
        limit: overAll(byHand, (row) => limit.decryptCustomer(kek, row)),
      },
    ]
  })
}
