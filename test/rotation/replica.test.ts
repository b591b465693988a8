import { afterAll, expect, it } from 'vitest'
import { incident, proveEncrypted, retire, rewrap } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { pgliteClient } from './clients.ts'
import { oldRows } from './jobs.ts'

const client = pgliteClient()
afterAll(() => client.close())

/** An imitation of a standby: a database that says it is one. */
it('a standby of PostgreSQL, which may lag behind, proves nothing', async () => {
  const { keys, record, oldId, table } = await oldRows(client, 4)
  await rewrap({ keys, table })
  const query = async (text: string, params?: unknown[]) => {
    return { rows: await client.query(text.replace('pg_is_in_recovery()', 'true'), params) }
  }
  const standby = postgresTable({ query } as never, record)
  const refused = { code: 'CONFIG', table: table.name, argument: 'db', message: expect.stringContaining('standby') }
  await expect(retire({ keys, keyId: oldId, tables: [standby] })).rejects.toMatchObject(refused)
  await expect(proveEncrypted(standby)).rejects.toMatchObject(refused)
  expect(keys.status().versions.find(({ id }) => id === oldId)?.retired).toBeFalsy()
  await retire({ keys, keyId: oldId, tables: [table] })
  const list = { keys, keyId: oldId, reason: 'leak', settleMs: 0, write: () => {} }
  await expect(incident({ ...list, tables: [standby] })).rejects.toMatchObject(refused)
})
