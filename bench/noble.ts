import { deepStrictEqual as same } from 'node:assert/strict'
import { nobleEngine } from 'waxseal/engine'
import { testKeyring } from 'waxseal/testing'
import type { Duel } from './harness.ts'
import * as limit from './limit-noble.ts'
import { asStored, customers, overAll } from './payload.ts'
import { columns } from './record.ts'

/** The same record on the portable engine, under suite 2. */
export function nobleDuels(): Duel[] {
  const keys = testKeyring({ engine: nobleEngine(), suite: 2 })
  const kek = limit.newKek()
  const stored = asStored(customers.map((row) => columns.encrypt(keys, row)))
  const byHand = asStored(customers.map((row) => limit.encryptCustomer(kek, row)))
  const check = () => {
    const opened = stored.map((row) => columns.decrypt(keys, row))
    const openedByHand = byHand.map((row) => limit.decryptCustomer(kek, row))
    same([opened, openedByHand], [customers, customers])
  }
  return [
    {
      name: 'noble.record.encrypt',
      budget: 1.15,
      check,
      ours: overAll(customers, (row) => columns.encrypt(keys, row)),
      limit: overAll(customers, (row) => limit.encryptCustomer(kek, row)),
    },
    {
      name: 'noble.record.decrypt',
      budget: 1.15,
      check,
      ours: overAll(stored, (row) => columns.decrypt(keys, row)),
      limit: overAll(byHand, (row) => limit.decryptCustomer(kek, row)),
    },
  ]
}
