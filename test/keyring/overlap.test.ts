import { expect, it } from 'vitest'
import { deferred } from '../kms/requests.ts'
import { region } from './roots.ts'
import { MINUTE, NOTE, notes, quiet, rotated, setup } from './support.ts'

/** Two reads unwrap the same new version, each a copy of its own; a write holds on to the first when the second comes. */
it('a key that a write in flight holds is kept when a read that overlapped brings another copy of it', async () => {
  const kms = region(1)
  const { create, open, clock, store } = setup({ kms })
  const other = await create()
  const keys = await open()
  const { fresh } = await rotated(other)
  kms.handed.length = 0

  const gates = [deferred<void>(), deferred<void>()]
  const pending = [...gates]
  kms.slow = () => pending.shift()?.promise ?? Promise.resolve()
  clock.now += 6 * MINUTE
  const read = keys.ready()
  await quiet() // it waits for the KMS with the new version
  const change = keys.setPolicy({ cryptoperiodMs: 1e10, reason: 'a write' })
  await quiet() // and so does the read that this begins with

  const written = deferred<void>()
  const { save } = store
  store.save = async (...args) => {
    await save(...args)
    await written.promise
  }
  gates[1]!.resolve()
  await quiet() // the write is on its way with its copy
  gates[0]!.resolve()
  await read // another copy comes
  expect(kms.handed).toHaveLength(2)
  const row = notes.encrypt(keys, { ...NOTE })
  written.resolve()
  await change

  expect(keys.status().active).toBe(fresh)
  expect(notes.decrypt(keys, row)).toEqual(NOTE)
  expect(notes.decrypt(other, notes.encrypt(keys, { ...NOTE }) as never)).toEqual(NOTE)
  // One copy is in use; the other was wiped.
  expect(kms.handed.filter((copy) => copy.every((byte) => byte === 0))).toHaveLength(1)
})
