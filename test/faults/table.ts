import type { Keyring } from '../../src/index.ts'
import { retire } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import type { PostgresClient } from '../rotation/clients.ts'
import { createTable } from '../rotation/tables.ts'
import type { Model, Plain } from './model.ts'
import type { AccountRecord, Shape } from './record.ts'

const CHUNK = 1_000

/** The table of the tests, with columns for both shapes; while it is encrypted, rows without an envelope are in it. */
export async function makeTable({ query }: PostgresClient, record: AccountRecord): Promise<void> {
  await createTable(query, record as never)
  await query('alter table accounts alter column envelope drop not null')
  if (record.schema.kind === 'packed') await query('alter table accounts add column email text, add column note text')
}

export async function fill(
  { query }: PostgresClient,
  record: AccountRecord,
  keys: Keyring,
  { rows: all }: Model,
  rows: number,
): Promise<void> {
  for (let from = 0; from < rows; from += CHUNK) {
    const chunk = Array.from({ length: Math.min(CHUNK, rows - from) }, (_, i): Plain => {
      const id = from + i
      return { id, email: `e${id}@example.org`, note: id % 3 === 0 ? null : `note ${id}`, city: 'Oslo' }
    })
    const stored = chunk.map((row) => record.encrypt(keys, row))
    await query('insert into accounts select * from json_populate_recordset(null::accounts, $1::text::json)', [
      JSON.stringify(stored),
    ])
    for (const row of chunk) all.set(row.id, row)
  }
}

export async function readAll({ query }: PostgresClient, record: AccountRecord, keys: Keyring) {
  const found = new Map<number, Plain>()
  for (let after = -1; ; ) {
    const page = await query('select * from accounts where id > $1 order by id limit 5000', [after])
    for (const row of page) {
      const id = (row as { id: number }).id
      try {
        found.set(id, record.decrypt(keys, row as never) as Plain)
      } catch (error) {
        // With the row as it is: a violation cannot be made again at will.
        found.set(id, { id, email: `${error} ${JSON.stringify(row)}`, note: null, city: '' })
      }
      after = id
    }
    if (page.length === 0) return found
  }
}

/** Rows with plaintext, or with anything beside an envelope that has it all. */
export async function leftovers({ query }: PostgresClient, shape: Shape): Promise<string[]> {
  const beside = shape === 'packed' ? 'or email is not null or note is not null' : ''
  const [row] = await query<{ n: string }>(
    `select count(*) as n from accounts
      where envelope is null or email like '%@example.org' or note like 'note %' ${beside}`,
  )
  return Number(row?.n) === 0 ? [] : [`${row?.n} rows hold what should be gone`]
}

/** Retires the version that the job moved all rows from. */
export async function retired(
  client: PostgresClient,
  record: AccountRecord,
  keys: Keyring,
  old: string,
): Promise<string[]> {
  const table = postgresTable(client.db, record)
  const left = (await table.countByKey([old])).get(old)
  const found = left === 0 ? [] : [`${left} rows refer to the old version`]
  await retire({ keys, keyId: old, tables: [table] }).catch((error) => found.push(String(error)))
  if (keys.status().versions.find(({ id }) => id === old)?.retired !== true) {
    found.push('the old version is not retired')
  }
  return found
}
