import { describe, expect, it } from 'vitest'
import { keyStoreSchema, type Postgres, postgresKeyStore } from 'waxseal/keystore/postgres'
import { keyStoreSuite } from 'waxseal/testing'
import { refusal } from '../keyring/support.ts'
import type { PostgresClient } from '../rotation/clients.ts'
import { document } from './document.ts'
import { EDITS } from './edits.ts'

let count = 0

/** A table of its own for each storage, and a store on it for each call. */
export function suiteOn(name: string, client: () => PostgresClient, schema?: string): void {
  keyStoreSuite(
    { describe, it, expect },
    {
      name,
      make: async () => {
        const { db, query } = client()
        const table = `${schema ? `${schema}.` : ''}Keys$${count++}`
        await query(keyStoreSchema({ table }))
        return () => postgresKeyStore(db, { table })
      },
    },
  )
}

/** What holds for every client, on a table of its own. */
export function postgresSuite(client: () => PostgresClient): void {
  async function made() {
    const { db, query } = client()
    const table = `keys_${count++}`
    await query(keyStoreSchema({ table }))
    const store = postgresKeyStore(db, { table })
    await store.save('crm', document(1), null)
    return { db, query, table, store }
  }

  it('keeps one row a keyring, in ASCII, that SQL can look into', async () => {
    const { query, table, store } = await made()
    await store.save('crm', document(2, '{"versions":["ключ"]}'), 1)
    const [row] = await query(`select name, epoch::int, document, written_at > now() - interval '1 minute' as fresh,
      (document::json ->> 'manifest')::json -> 'versions' ->> 0 as version from ${table}`)
    expect(row).toMatchObject({ name: 'crm', epoch: 2, fresh: true, version: 'ключ' })
    expect(row!.document).toMatch(/^[\x20-\x7e]+$/)
  })

  it('may run its statement again, and loses nothing', async () => {
    const { query, table, store } = await made()
    await query(keyStoreSchema({ table }))
    expect(await store.load('crm')).toEqual(document(1))
  })

  it.each([
    ['without a table', ''],
    ['with another table of that name', '(name text, epoch bigint)'],
    ['with a table without a key', '(name text, epoch bigint, document text)'],
  ])('%s is CONFIG for saving, and the client still works', async (_, columns) => {
    const { db, query } = client()
    const table = `keys_${count++}`
    if (columns) await query(`create table ${table} ${columns}`)
    const store = postgresKeyStore(db, { table })
    expect(await refusal(() => store.save('crm', document(1), null))).toMatchObject({
      code: 'CONFIG',
      argument: 'table',
    })
    if (!columns.includes('document')) {
      expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'CONFIG', argument: 'table' })
    }
    expect(await refusal(() => postgresKeyStore(db, { table: 'no_schema.keys' }).load('crm'))).toMatchObject({
      code: 'CONFIG',
      argument: 'table',
    })
  })

  it('a table whose key was dropped, with two rows of one name, is MALFORMED', async () => {
    const { query, table, store } = await made()
    await query(`alter table ${table} drop constraint ${table}_pkey`)
    await query(`insert into ${table} select * from ${table}`)
    expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'MALFORMED' })
  })

  it.each(Object.entries(EDITS))('a row with %s is MALFORMED, and is replaced by nobody', async (_, change) => {
    const { query, table, store } = await made()
    await store.save('hr', document(1), null)
    await query(`update ${table} set ${change} where name = 'crm'`)
    const error = await refusal(() => store.load('crm'))
    expect(error.code).toBe('MALFORMED')
    expect(error.message).not.toContain('hunter2')
    expect(await refusal(() => store.save('crm', document(2), null))).toMatchObject({ code: 'CONFLICT' })
    expect(await store.load('hr')).toEqual(document(1))
  })

  it('a row over 64 MiB is MALFORMED without being read', async () => {
    const { query, table, store } = await made()
    await query(`update ${table} set document = repeat('x', (64 << 20) + 1)`)
    const error = await refusal(() => store.load('crm'))
    expect(error).toMatchObject({ code: 'MALFORMED', message: expect.stringContaining('over 64 MiB') })
  })

  it('a keyring over 64 MiB is LIMIT_EXCEEDED before it is sent', async () => {
    const { store } = await made()
    const wraps = Array(16).fill({ uri: 'local:x', wrapped: 'A'.repeat(21_848) })
    const keys = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`key${i}`, wraps]))
    expect(await refusal(() => store.save('crm', { ...document(2), keys }, 1))).toMatchObject({
      code: 'LIMIT_EXCEEDED',
    })
    expect(await store.load('crm')).toEqual(document(1))
  })

  it('reads epochs whatever the client makes of bigint', async () => {
    const { query, store, table } = await made()
    await query(`alter table ${table} alter epoch type numeric`)
    expect(await store.load('crm')).toEqual(document(1))
    await store.save('crm', document(2), 1)
    expect(await store.load('crm')).toEqual(document(2))
  })
}

/** Saving within a transaction of the client is refused: the transaction could be undone. */
export async function refusesIn(transaction: Postgres, table: string): Promise<void> {
  const store = postgresKeyStore(transaction, { table })
  expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'CONFIG', argument: 'db' })
  expect(await refusal(() => store.save('hr', document(1), null))).toMatchObject({ code: 'CONFIG', argument: 'db' })
  expect(await refusal(() => store.save('crm', document(2), 7))).toMatchObject({ code: 'CONFLICT' })
}
