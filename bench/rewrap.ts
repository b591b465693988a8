import { deepStrictEqual as same } from 'node:assert/strict'
import { testKeyring } from 'waxseal/testing'
import type { Duel } from './harness.ts'
import * as limit from './limit.ts'
import { asStored, customers, overAll } from './payload.ts'
import { columns } from './record.ts'

/** One stored header from an old master key to the active one, text to text. */
export async function rewrapDuel(): Promise<Duel> {
  const keys = testKeyring({ suite: 1 })
  const stored = asStored(customers.map((row) => columns.encrypt(keys, row)))
  await keys.rotate()
  await keys.maintain()

  const from = limit.newKek()
  const to = limit.newKek()
  const byHand = asStored(customers.map((row) => limit.encryptCustomer(from, row)))
  return {
    name: 'rewrap',
    budget: 1.2,
    check() {
      const moved = stored.map((row) => ({ ...row, envelope: columns.rewrap(keys, row)?.envelope as string }))
      same(moved.filter((row) => columns.needsRotation(keys, row)).length, 0)
      const opened = moved.map((row) => columns.decrypt(keys, row))
      const movedByHand = byHand.map((row) => ({ ...row, envelope: limit.rewrap(from, to, row.envelope) }))
      const openedByHand = movedByHand.map((row) => limit.decryptCustomer(to, row))
      same([opened, openedByHand], [customers, customers])
    },
    ours: overAll(stored, (row) => columns.rewrap(keys, row)),
    limit: overAll(byHand, (row) => limit.rewrap(from, to, row.envelope)),
  }
}
