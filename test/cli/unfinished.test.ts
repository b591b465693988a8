import { afterAll, expect, it } from 'vitest'
import { RUN } from '../../src/cli/commands.ts'
import type { Context } from '../../src/cli/context.ts'
import { int, text } from '../../src/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { pgliteClient } from '../rotation/clients.ts'
import { createTable, declare, insert, person } from '../rotation/tables.ts'

const client = pgliteClient()
afterAll(() => client.close())

/** The second is a table into which somebody still writes ciphertext: one row is sealed whenever it is asked. */
it.each([0, 1])('decrypt ends with 1 unless no row is left encrypted: %i', async (left) => {
  const keys = testKeyring()
  const migrate = { phase: 'prepare' as const, until: new Date(Date.now() + 1e9) }
  const fields = { email: text(), note: text({ nullable: true }) }
  const strict = declare(`leaving_${left}`, { id: { id: int() }, fields })
  await createTable(client.query, strict)
  await insert(client.query, strict, keys, [1, 2, 3].map(person))
  const table = client.table(declare(strict.schema.table, { id: { id: int() }, fields, migrate }))
  await client.query(`alter table ${table.name} alter envelope drop not null`)
  const busy: typeof table = {
    ...table,
    count: async (filter, span) => (await table.count(filter, span)) + (filter === 'sealed' && !span ? left : 0),
  }
  const said: string[] = []
  const given = {
    command: 'decrypt',
    list: () => [],
    number: () => undefined,
    flag: () => false,
    word: () => undefined,
  }
  const out = {
    say: (_: string, __: unknown, lines: readonly string[]) => said.push(...lines),
    progress: () => {},
    end: () => {},
  }
  const context = { keys, tables: [busy], given, out, signal: new AbortController().signal } as unknown as Context
  expect(await RUN.decrypt(context)).toBe(left > 0)
  expect(said.join()).toContain(`3 rows written, 0 failed`)
  expect(said.join()).toContain(`left encrypted: ${left} rows`)
})
