import { expect, it } from 'vitest'
import { int, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'

const notes = records('notes', { id: { id: int() }, fields: { body: text() } })

it('a forged header under a key neither cancels its destruction nor raises key.use', async () => {
  const events: string[] = []
  const keys = testKeyring({ onEvent: ({ type }) => events.push(type) })
  const row = notes.encrypt(keys, { id: 1, body: 'x' })
  const old = keys.status().active!
  await keys.rotate()
  await keys.maintain()
  await keys.retire(old, { references: 0 })
  await keys.destroy(old, { backupsExpire: new Date(0), pendingMs: 60_000 })
  const forged = `${row.envelope.slice(0, 40)}${'A'.repeat(row.envelope.length - 40)}`
  expect(() => notes.decrypt(keys, { ...row, envelope: forged })).toThrow(
    expect.objectContaining({ code: 'DECRYPTION_FAILED' }),
  )
  await new Promise((done) => setTimeout(done, 20))
  expect(keys.status().versions.find(({ id }) => id === old)).toMatchObject({
    retired: true,
    destroyAt: expect.any(Number),
  })
  expect(events).not.toContain('key.use')
})
