import { describe, expect, it } from 'vitest'
import { bytes, int, type Keyring, object, text } from '../../src/index.ts'
import { decryptInPlace, incident, type RotationSource, reencrypt, rewrap, verify } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { type AnyRecords, type AnyRow, declare, freshName, insertStored, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
type Job = (call: { keys: Keyring; table: RotationSource; packed: AnyRecords }) => Promise<unknown>

/** Jobs that give up data keys. */
const JOBS: Record<string, Job> = {
  reencrypt: ({ keys, table }) => reencrypt({ keys, table }),
  'reencrypt to another record': ({ keys, table, packed }) => reencrypt({ keys, table, to: packed }),
  decryptInPlace: ({ keys, table }) => decryptInPlace({ keys, table }),
  async incident({ keys, table }) {
    const keyId = keys.status().versions.at(-2)!.id
    const report = await incident({ keys, keyId, tables: [table], reason: 'leak', settleMs: 0, write: () => {} })
    const { reencrypted: written, ...rest } = report.tables[0]!
    return { ...rest, written }
  },
}
const plain = { id: { id: int() }, fields: { email: text({ nullable: true }) } }

/** Rows that hold a field which the declaration of the job does not know: that of a newer release. */
export function orphanSuite(client: () => Client): void {
  describe('fields that are not declared', () => {
    /** Three rows, the second one with a field of the newer record, all under an old version. */
    async function table(columns: string, old: object, newer: object, value: unknown, email: unknown = 'e') {
      const { query } = client()
      const name = freshName('orphan')
      await query(`create table ${name} (id int primary key, ${columns})`)
      const [known, next] = [declare(name, { ...plain, ...old }), declare(name, { ...plain, ...newer })]
      const keys = testKeyring()
      // While a table migrates, its own record writes plaintext.
      const strict = declare(name, { ...plain, ...old, migrate: undefined } as never)
      const rows = [1, 2, 3].map((id) => {
        const record = id === 2 ? next : strict
        const row = record.encrypt(keys, {
          id,
          email,
          ...(id === 2 && value !== undefined && { phone: value }),
        } as never) as AnyRow
        return row
      })
      const { phone } = rows[1]!
      const isJson = typeof phone === 'object' && !(phone instanceof Uint8Array)
      await insertStored(query, known, isJson ? rows.map(({ phone: _, ...row }) => row) : rows)
      // As text: postgres.js makes JSON of whatever it is given for a column of JSON.
      if (isJson) await query(`update ${name} set phone = $1::text::json where id = 2`, [JSON.stringify(phone)])
      await rotate(keys)
      const read = async () => (await query<AnyRow>(`select * from ${name} order by id`))[1]!
      return { keys, known, next, name, read, query }
    }
    const opened = (record: AnyRecords, keys: Keyring, row: AnyRow) => record.decrypt(keys, row as never) as AnyRow

    const COLUMN: Record<
      string,
      {
        type: string
        old?: { encoding?: 'bytes'; fields?: object }
        newer?: object
        field?: object
        value?: unknown
        email?: unknown
      }
    > = {
      text: { type: 'phone text, email text, envelope text' },
      bytes: {
        type: 'phone bytea, email bytea, envelope bytea',
        // Its plaintext comes back into the same column.
        old: { encoding: 'bytes', fields: { email: bytes() } },
        email: new Uint8Array(40).fill(7),
      },
      'a leaf of JSON': {
        type: 'phone json, email text, envelope text',
        field: object({ home: text() }),
        value: { home: '555', other: 1 },
      },
    }
    for (const [what, { type, old = {}, field = text(), value = '555', email = 'e' }] of Object.entries(COLUMN)) {
      it.each(Object.keys(JOBS))(`${what}: %s leaves the row, names it and goes on`, async (job) => {
        const migrate = job === 'decryptInPlace' ? { migrate: { phase: 'prepare', until: UNTIL } } : {}
        const newer = { ...old, fields: { ...plain.fields, ...old.fields, phone: field } }
        const { keys, known, next, name, read } = await table(type, { ...old, ...migrate }, newer, value, email)
        const before = await read()
        const packed = declare(name, { ...plain, ...old, shape: 'packed' } as never)
        const report = await JOBS[job]!({ keys, table: client().table(known), packed })
        expect(report).toMatchObject({ written: 2, failed: 1, failures: [{ rowId: '2', code: 'SCHEMA' }] })
        const row = await read()
        expect(row).toEqual(before)
        const stored = { ...row, ...(typeof value === 'object' && { phone: jsonOf(row.phone) }) }
        expect(opened(next, keys, stored)).toMatchObject({ phone: value })
        // With the declaration of the newer release the row is dealt with.
        if (job !== 'reencrypt') return
        expect(await reencrypt({ keys, table: client().table(next) })).toMatchObject({ written: 1, failed: 0 })
        const moved = await read()
        const again = { ...moved, ...(typeof value === 'object' && { phone: jsonOf(moved.phone) }) }
        expect(opened(next, keys, again)).toMatchObject({ phone: value })
      })
    }
    it.each([
      ['text', 'phone text, email text, envelope text', {}],
      ['bytes', 'phone bytea, email bytea, envelope bytea', { encoding: 'bytes' }],
    ])('that a newer release fills while a batch is on its way are not lost: %s', async (what, columns, old) => {
      for (const job of ['reencrypt', 'reencrypt to another record', 'decryptInPlace']) {
        const email = what === 'bytes' ? new Uint8Array(40).fill(7) : 'e'
        const fields = { email: what === 'bytes' ? bytes() : text() }
        const migrate = job === 'decryptInPlace' ? { migrate: { phase: 'prepare', until: UNTIL } } : {}
        const newer = { ...old, fields: { ...fields, phone: text({ nullable: true }) } }
        const { keys, known, next, name, read, query } = await table(
          columns,
          { ...old, fields, ...migrate },
          newer,
          undefined,
          email,
        )
        let isFilled = false
        async function fill(): Promise<void> {
          if (isFilled) return
          isFilled = true
          const { set, guard } = next.patch(keys, (await read()) as never, { phone: '555' })
          const values = [(set as AnyRow).phone, guard.value]
          await query(`update ${name} set phone = $1 where id = 2 and ${guard.expression} = $2`, values)
        }
        const raced = (source: RotationSource): RotationSource => ({
          ...source,
          write: async (...args) => fill().then(() => source.write(...args)),
          movingTo: (to) => raced(source.movingTo!(to)),
        })
        const packed = declare(name, { ...plain, ...old, fields, shape: 'packed' } as never)
        const report = await JOBS[job]!({ keys, table: raced(client().table(known)), packed })
        expect(report, job).toMatchObject({ written: 2, raced: 1, failures: [{ rowId: '2', code: 'SCHEMA' }] })
        expect(opened(next, keys, await read()), job).toMatchObject({ phone: '555' })
      }
    })

    it.each([
      ['text', `replace(email, 'wxf:', 'wxf: ')`],
      ['bytes', 'email'],
    ])('go back to the server as a digest, however long they are: %s', async (what, value) => {
      const isBytes = what === 'bytes'
      const type = isBytes ? 'bytea' : 'text'
      const columns = ['phone', 'email', 'envelope'].map((column) => `${column} ${type}`).join(', ')
      const old = isBytes ? { encoding: 'bytes' } : {}
      const fields = { email: text() }
      const { keys, known, name, query } = await table(columns, { ...old, fields }, { ...old, fields }, undefined)
      await query(`update ${name} set phone = ${value} where id = 2`)
      const source = client().table(known)
      const [oldId] = keys.status().versions.map(({ id }) => id)
      const page = await source.page({ keys: [oldId!] }, { after: null, upTo: null }, 9, 'sealed', 'orphans')
      const guards = page.flatMap(({ guard }) => Object.values(guard!) as (string | Uint8Array | null)[])
      expect(guards).toHaveLength(3)
      // SQLite has no digest of its own; there, nothing travels.
      const most = /sqlite/.test(client().name) ? 1_000 : 64
      for (const guard of guards) expect(guard?.length ?? 0).toBeLessThanOrEqual(most)
      const report = await reencrypt({ keys, table: source })
      expect(report).toMatchObject({ written: 3, raced: 0, failed: 0 })
    })

    it('stop the job before it writes when a source does not pass on that they are asked for', async () => {
      const { keys, known, read } = await table('phone text, email text, envelope text', {}, plain, undefined)
      const before = await read()
      const source = client().table(known)
      const deaf: RotationSource = { ...source, page: (a, b, c, d) => source.page(a, b, c, d) }
      await expect(reencrypt({ keys, table: deaf })).rejects.toMatchObject({ code: 'CONFIG', argument: 'table' })
      expect(await read()).toEqual(before)
    })

    const jsonOf = (value: unknown): unknown => (typeof value === 'string' ? JSON.parse(value) : value)

    it('are left alone by rewrap and verify, which keep the data key', async () => {
      const newer = { fields: { ...plain.fields, phone: text() } }
      const { keys, known, next, read } = await table('phone text, email text, envelope text', {}, newer, '555')
      expect(await rewrap({ keys, table: client().table(known) })).toMatchObject({ written: 3, failed: 0 })
      expect(await verify({ keys, table: client().table(known) })).toMatchObject({ seen: 3, failed: 0 })
      expect(opened(next, keys, await read())).toMatchObject({ phone: '555' })
    })

    it('are seen in a column that is called as a property of another column', async () => {
      const old = { fields: { phone: text({ nullable: true, column: 'a', label: 'a' }), email: text() } }
      const newer = { fields: { email: text(), mobile: text({ column: 'phone' }) } }
      const { query } = client()
      const name = freshName('orphan')
      await query(`create table ${name} (id int primary key, a text, phone text, email text, envelope text)`)
      const [known, next] = [declare(name, { ...plain, ...old }), declare(name, { ...plain, ...newer })]
      const keys = testKeyring()
      await insertStored(query, next, [next.encrypt(keys, { id: 1, email: 'e', mobile: '555' } as never) as AnyRow])
      await rotate(keys)
      expect(await reencrypt({ keys, table: client().table(known) })).toMatchObject({
        written: 0,
        failures: [{ rowId: '1', code: 'SCHEMA' }],
      })
    })

    it('in the packed shape make decryptInPlace leave the row, which would drop them', async () => {
      const newer = { shape: 'packed', fields: { ...plain.fields, phone: text() } }
      const old = { shape: 'packed', migrate: { phase: 'prepare', until: UNTIL } }
      const { keys, known, next, read } = await table('phone text, email text, envelope text', old, newer, '555')
      const table1 = client().table(known)
      const report = await decryptInPlace({ keys, table: table1 })
      expect(report).toMatchObject({ written: 2, failed: 1, failures: [{ rowId: '2', code: 'SCHEMA' }] })
      expect(opened(next, keys, await read())).toMatchObject({ email: 'e', phone: '555' })
    })

    it('text that only mentions a ciphertext, and generated columns, stop nothing', async () => {
      const { query } = client()
      const name = freshName('orphan')
      const copied = 'copy text generated always as (email) stored'
      await query(`create table ${name} (id int primary key, email text, envelope text, phone text, ${copied})`)
      const keys = testKeyring()
      const record = declare(name, plain)
      const stored = record.encrypt(keys, { id: 1, email: 'e', phone: 'wxf: is how it begins' } as never) as AnyRow
      await insertStored(query, record, [stored])
      await rotate(keys)
      expect(await reencrypt({ keys, table: client().table(record) })).toMatchObject({ written: 1, failed: 0 })
    })

    it('of another record of the table are no matter, once the source is told of it', async () => {
      const { query } = client()
      const name = freshName('shared')
      await query(`create table ${name} (id int primary key, email text, envelope text, card text, sealed text)`)
      const people = declare(name, plain)
      const other = {
        id: { id: int() },
        envelope: 'sealed',
        label: `${name}_cards`,
        table: name,
        fields: { card: text() },
      }
      const { label, ...rest } = other
      const cards = declare(label, rest)
      const keys = testKeyring()
      const one = people.encrypt(keys, { id: 1, email: 'e1' } as never) as AnyRow
      await insertStored(query, people, [{ ...one, ...(cards.encrypt(keys, { id: 1, card: '4' } as never) as AnyRow) }])
      await rotate(keys)
      const blind = await reencrypt({ keys, table: client().table(people) })
      expect(blind).toMatchObject({ written: 0, failures: [{ rowId: '1', code: 'SCHEMA' }] })
      const tables = [
        client().table(people, { otherRecords: [cards] }),
        client().table(cards, { otherRecords: [people] }),
      ]
      for (const table of tables) expect(await reencrypt({ keys, table })).toMatchObject({ written: 1, failed: 0 })
      const [row] = await query<AnyRow>(`select * from ${name}`)
      expect(opened(people, keys, row!)).toMatchObject({ email: 'e1' })
      expect(opened(cards, keys, row!)).toMatchObject({ card: '4' })
      for (const wrong of [people, declare('elsewhere', { ...plain, envelope: 'sealed' }), {}]) {
        const options = { otherRecords: [wrong as AnyRecords] }
        expect(() => client().table(people, options)).toThrow(
          expect.objectContaining({ code: 'CONFIG', argument: 'otherRecords' }),
        )
      }
    })
  })
}
