import { describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { verify } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { createTable, declare, freshName, insert, person, readStored } from './tables.ts'

/** Another character at the place of one: base64url stays base64url. */
const flip = (text: string, at: number): string =>
  text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)

/** Every row is opened, and none is changed. */
export function verifySuite(client: () => Client): void {
  describe('verify', () => {
    it('counts rows by version and changes nothing', async () => {
      const { keys, record, table, oldId } = await oldRows(client(), 7)
      await insert(client().query, record, keys, [20, 21].map(person))
      const before = await readStored(client().query, record)
      const report = await verify({ keys, table, batchSize: 3 })
      expect(report).toMatchObject({ seen: 9, written: 0, raced: 0, failed: 0, plaintext: 0, aborted: false })
      expect(report.byVersion).toEqual(
        new Map([
          [oldId, 7],
          [keys.status().active!, 2],
        ]),
      )
      expect(await readStored(client().query, record)).toEqual(before)
      expect(await verify({ keys, table })).toMatchObject({ seen: 9 }) // each is a job of its own
    })

    it.each([
      ['the key id', 'envelope', 14, 'UNKNOWN_KEY'],
      ['the commitment', 'envelope', 40, 'DECRYPTION_FAILED'],
      ['the wrapped key', 'envelope', 100, 'DECRYPTION_FAILED'],
      ['a nonce', 'email', 6, 'DECRYPTION_FAILED'],
      ['a ciphertext', 'note', 30, 'DECRYPTION_FAILED'],
      ['a prefix', 'email', 1, 'MALFORMED'],
    ])('finds a byte of %s that was flipped', async (_, column, at, code) => {
      const { keys, record, table } = await oldRows(client(), 7)
      const [, , , , stored] = await readStored(client().query, record)
      await client().query(`update "${table.name}" set ${column} = $1 where id = 5`, [
        flip(String(stored![column]), at),
      ])
      const report = await verify({ keys, table, batchSize: 2, ranges: 3 })
      expect(report).toMatchObject({ seen: 7, failed: 1, failures: [{ rowId: '5', code }] })
    })

    it('finds rows whose ciphertexts were exchanged', async () => {
      const { keys, record, table } = await oldRows(client(), 4)
      const [one, two] = await readStored(client().query, record)
      for (const [id, row] of [[1, two!] as const, [2, one!] as const]) {
        await client().query(`update "${table.name}" set email = $1 where id = $2`, [row.email, id])
      }
      expect((await verify({ keys, table })).failures.map(({ rowId }) => rowId)).toEqual(['1', '2'])
    })

    it('counts plaintext rows of a table that migrates, without opening them', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = declare(freshName('v'), {
        id: { id: int() },
        fields: { email: text() },
        migrate: { phase: 'encrypt', until: new Date(Date.now() + 1e9) },
      })
      await createTable(query, record)
      await insert(query, record, keys, [{ id: 1, email: 'sealed' }])
      await query(`insert into "${record.schema.table}" (id, email) values (2, 'plain'), (3, 'plain')`)
      const report = await verify({ keys, table: client().table(record) })
      expect(report).toMatchObject({ seen: 1, failed: 0, plaintext: 2 })
    })
  })
}
