import { describe, expect, it } from 'vitest'
import { inspect } from '../../src/envelope/index.ts'
import { createKeyring, int, type Keyring, openKeyring, text } from '../../src/index.ts'
import { memoryKeyStore } from '../../src/keystore/memory.ts'
import { localKms } from '../../src/kms/local.ts'
import { type RotationSource, reencrypt, retire, verify } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oneByOne } from './jobs.ts'
import { type AnyRecords, type AnyRow, declare, freshName, insertStored, person, rotate } from './tables.ts'

type Shape = 'columns' | 'packed'
const ROWS = 12
const ids = Array.from({ length: ROWS }, (_, i) => i + 1)
const other = (shape: Shape): Shape => (shape === 'columns' ? 'packed' : 'columns')

const recordOf = (name: string, shape: Shape, more: object = {}, fields: object = {}): AnyRecords =>
  declare(name, {
    id: { id: int() },
    fields: { email: text(), note: text({ nullable: true }), ...fields } as never,
    shape,
    ...more,
  })

/** Moves a table, while it is in use, between suites, shapes and declarations. */
export function movingSuite(client: () => Client): void {
  const readAll = (name: string) => client().query<AnyRow>(`select * from ${name} order by id`)
  /** As an application reads a mixed table: the envelope says which shape a row has. */
  const readEither = async (name: string, keys: Keyring, both: readonly AnyRecords[]): Promise<AnyRow[]> =>
    (await readAll(name)).map((row) => {
      const prefix = (row.envelope as string).slice(0, 4)
      const record = both.find(({ schema }) => prefix === (schema.kind === 'columns' ? 'wxh:' : 'wxp:'))!
      return record.decrypt(keys, row as never) as AnyRow
    })

  /** A table that has room for both shapes; half of the rows are written by each. */
  async function mixed(shape: Shape, isMixed = true) {
    const name = freshName('moving')
    const keys = testKeyring()
    const [from, to] = [recordOf(name, shape), recordOf(name, other(shape))]
    await client().query(`create table ${name} (id integer primary key, email text, note text, city text,
      envelope text not null)`)
    const stored = ids.map((id) => (isMixed && id % 2 === 0 ? to : from).encrypt(keys, person(id) as never) as AnyRow)
    await insertStored(client().query, from, stored)
    const old = await rotate(keys)
    return { name, keys, from, to, old, table: client().table(from) }
  }

  describe.each(['columns', 'packed'] as const)('reencrypt to another shape, from %s', (shape) => {
    it('moves every row under an old version, whichever shape it has, and the table is readable all the while', async () => {
      const { name, keys, from, to, old, table } = await mixed(shape)
      let batches = 0
      const watched: RotationSource = {
        ...table,
        movingTo(record) {
          const source = table.movingTo!(record)
          return {
            ...source,
            async write(changes, step) {
              batches++
              expect(await readEither(name, keys, [from, to])).toEqual(ids.map(person).map(plain))
              return source.write(changes, step)
            },
          }
        },
      }
      const report = await reencrypt({ keys, table: watched, to, batchSize: 5 })
      expect(report).toMatchObject({ written: ROWS, failed: 0, raced: 0, remaining: new Map() })
      expect(batches).toBeGreaterThan(2)
      const moved = await readAll(name)
      expect(moved.map((row) => to.decrypt(keys, row as never)).map(plain)).toEqual(ids.map(person).map(plain))
      if (to.schema.kind === 'packed') expect(moved.every((row) => row.email === null && row.note === null)).toBe(true)
      expect(await verify({ keys, table: client().table(to) })).toMatchObject({ seen: ROWS, failed: 0 })
      await retire({ keys, keyId: old, tables: [client().table(to)] })
      expect(await reencrypt({ keys, table, to })).toMatchObject({ written: 0, failed: 0 })
    })

    it('verify of the new record names the rows that are not moved yet', async () => {
      const { keys, to, table } = await mixed(shape)
      const before = await verify({ keys, table: client().table(to) })
      expect(before.failures.map(({ rowId }) => Number(rowId)).sort((a, b) => a - b)).toEqual([1, 3, 5, 7, 9, 11])
      await reencrypt({ keys, table, to })
      expect(await verify({ keys, table: client().table(to) })).toMatchObject({ failed: 0 })
    })

    it('never overwrites an edit or a patch that comes in between, in either shape', async () => {
      const { name, keys, from, to, table } = await mixed(shape)
      const model = new Map(ids.map((id) => [id, plain(person(id))]))
      let turn = 0
      const busy = (source: RotationSource): RotationSource => ({
        ...source,
        async write(changes, step) {
          // One row of the batch is patched in its own shape, one is written anew, one is deleted.
          const [first, second, third] = changes.map(({ cursor }) => Number(cursor[0]))
          if (turn++ < 2) {
            for (const id of [first, second]) {
              const [row] = await client().query<AnyRow>(`select * from ${name} where id = $1`, [id])
              const record =
                (row!.envelope as string).startsWith('wxp:') === (from.schema.kind === 'packed') ? from : to
              const { set, guard } = record.patch(keys, row as never, { note: `patched ${id}` } as never)
              const [[column, value]] = Object.entries(set) as [[string, unknown]]
              await client().query(`update ${name} set "${column}" = $1 where id = $2 and ${guard.expression} = $3`, [
                value,
                id,
                guard.value,
              ])
              model.set(id!, { ...model.get(id!)!, note: `patched ${id}` })
            }
            await client().query(`delete from ${name} where id = $1`, [third])
            model.delete(third!)
          }
          return source.write(changes, step)
        },
      })
      const watched: RotationSource = { ...table, movingTo: (record) => busy(table.movingTo!(record)) }
      const report = await reencrypt({ keys, table: watched, to, batchSize: 4 })
      expect(report).toMatchObject({ written: ROWS - 2, raced: 6, failed: 0, remaining: new Map() })
      const moved = await readAll(name)
      expect(moved.map((row) => plain(to.decrypt(keys, row as never) as AnyRow))).toEqual([...model.values()])
    })

    it('leaves a row that does not open as it is, and resumes where it was stopped', async () => {
      const { name, keys, to, table } = await mixed(shape, false)
      await client().query(`update ${name} set envelope = substr(envelope, 1, 60) where id = 5`)
      const stop = new AbortController()
      const first = await reencrypt({
        keys,
        table: oneByOne(table),
        to,
        batchSize: 3,
        signal: stop.signal,
        onProgress: (p) => p.done > 2 && stop.abort(),
      })
      expect(first).toMatchObject({ written: 3, aborted: true })
      const [broken] = await client().query(`select * from ${name} where id = 5`)
      const report = await reencrypt({ keys, table, to, batchSize: 3 })
      expect(report).toMatchObject({ written: ROWS - 1, failures: [{ rowId: '5', code: 'MALFORMED' }] })
      expect(await client().query(`select * from ${name} where id = 5`)).toEqual([broken])
    })
  })

  describe('reencrypt to another declaration', () => {
    it('of the same shape: another label, another column for a field, and one field more', async () => {
      const { query } = client()
      const name = freshName('renamed')
      const keys = testKeyring()
      await query(`create table ${name} (id integer primary key, email text, note text, mail text, age text, city text,
        envelope text not null)`)
      const from = recordOf(name, 'columns')
      const to = declare(`${name} v2`, {
        id: { id: int() },
        table: name,
        fields: {
          email: text({ into: 'mail', pad: { multiple: 32 } }),
          note: text({ nullable: true }),
          age: int({ nullable: true }),
        },
      })
      await insertStored(
        query,
        from,
        ids.slice(6).map((id) => from.encrypt(keys, person(id) as never) as AnyRow),
      )
      const written = ids.slice(0, 6).map((id) => to.encrypt(keys, { ...person(id), age: id } as never) as AnyRow)
      for (const row of written) await insertStored(query, to, [row])
      await rotate(keys)
      const report = await reencrypt({ keys, table: client().table(from), to, batchSize: 4 })
      expect(report).toMatchObject({ written: ROWS, failed: 0, remaining: new Map() })
      const moved = (await readAll(name)).map((row) => {
        expect(row.email).toBeNull()
        return to.decrypt(keys, {
          id: row.id,
          mail: row.mail,
          note: row.note,
          age: row.age,
          envelope: row.envelope,
        } as never)
      })
      expect(moved).toEqual(
        ids.map((id) => ({ id, email: person(id).email, note: person(id).note, age: id <= 6 ? id : null })),
      )
    })

    it('of the same shape and label: a field that the old record does not declare, or has elsewhere, is not lost', async () => {
      const { query } = client()
      const name = freshName('same')
      const keys = testKeyring()
      await query(`create table ${name} (id integer primary key, email text, mail text, note text, city text,
        envelope text not null)`)
      const optional = text({ nullable: 'sql' })
      const from = declare(name, { id: { id: int() }, fields: { email: optional } })
      const to = declare(name, {
        id: { id: int() },
        fields: { email: text({ nullable: 'sql', into: 'mail' }), note: text({ nullable: true }) },
      })
      const more = declare(name, { id: { id: int() }, fields: { email: optional, note: text({ nullable: true }) } })
      const [a, b, c] = [
        { id: 1, email: 'a' },
        { id: 2, email: 'b', note: 'n' },
        { id: 3, email: 'c', note: 'n' },
      ]
      await insertStored(query, from, [from.encrypt(keys, a as never) as AnyRow])
      await insertStored(query, from, [to.encrypt(keys, b as never) as AnyRow])
      await insertStored(query, from, [more.encrypt(keys, c as never) as AnyRow]) // of neither
      await rotate(keys)
      const report = await reencrypt({ keys, table: client().table(from), to })
      expect(report).toMatchObject({ written: 2, failures: [{ rowId: '3', code: 'SCHEMA' }] })
      const stored = await query<AnyRow>(`select id, mail, note, envelope from ${name} where id < 3 order by id`)
      expect(stored.map((row) => to.decrypt(keys, row as never))).toEqual([{ ...a, note: null }, b])
      const [left] = await query<AnyRow>(`select id, email, note, envelope from ${name} where id = 3`)
      expect(more.decrypt(keys, left as never)).toEqual(c)
    })

    it('refuses a row that holds a sealed field which the old record does not declare: it would be lost', async () => {
      const { query } = client()
      const name = freshName('more')
      const keys = testKeyring()
      await query(`create table ${name} (id integer primary key, email text, note text, city text, envelope text)`)
      const newer = recordOf(name, 'packed', {}, { phone: text() })
      const row = newer.encrypt(keys, { ...person(1), phone: '0' } as never) as AnyRow
      await insertStored(query, newer, [row])
      await rotate(keys)
      const table = client().table(recordOf(name, 'packed'))
      const report = await reencrypt({ keys, table, to: recordOf(name, 'columns') })
      expect(report).toMatchObject({ written: 0, failures: [{ rowId: '1', code: 'SCHEMA' }] })
      expect((await readAll(name))[0]!.envelope).toBe(row.envelope)
    })

    it.each([
      ['another table', (name: string) => recordOf(name, 'packed', { table: 'elsewhere' })],
      ['another envelope column', (name: string) => recordOf(name, 'packed', { envelope: 'header' })],
      ['another encoding', (name: string) => recordOf(name, 'packed', { encoding: 'bytes' })],
      ['other ids', (name: string) => declare(name, { id: { id: text() }, fields: { email: text(), note: text() } })],
      ['a field less', (name: string) => declare(name, { id: { id: int() }, fields: { email: text() } })],
      ['no record', () => ({}) as AnyRecords],
    ])('refuses %s', async (_, make) => {
      const { name, keys, table } = await mixed('columns')
      const job = reencrypt({ keys, table, to: make(name) })
      await expect(job).rejects.toMatchObject({ code: 'CONFIG', argument: 'to' })
    })
  })

  describe.each(['columns', 'packed'] as const)('from suite 1 to suite 2, %s', (shape) => {
    it('by writeSuite: both are read meanwhile, and afterwards the first one can be refused', async () => {
      const { query } = client()
      const name = freshName('suites')
      const [store, kms] = [memoryKeyStore(), localKms('7'.repeat(64))]
      const opened = (more: object) => openKeyring({ name: 'both', store, kms, refreshMs: 1, ...more })
      await using made = await createKeyring({ name: 'both', store, kms, propagationMs: 0, writeSuite: 1 })
      const record = recordOf(name, shape)
      await query(`create table ${name} (id integer primary key, email text, note text, city text, envelope text)`)
      const suites = async () => new Set((await readAll(name)).map((row) => inspect(row.envelope as string).suite))
      const put = (keys: Keyring, some: readonly number[]) =>
        insertStored(
          query,
          record,
          some.map((id) => record.encrypt(keys, person(id) as never) as AnyRow),
        )

      await put(made, ids.slice(0, 6))
      expect(await suites()).toEqual(new Set([1]))
      // The release that writes the other one; an instance of the last one still runs.
      await using next = await opened({ writeSuite: 2 })
      await put(next, ids.slice(6))
      expect(await suites()).toEqual(new Set([1, 2]))
      for (const keys of [made, next]) {
        const rows = (await readAll(name)).map((row) => plain(record.decrypt(keys, row as never) as AnyRow))
        expect(rows).toEqual(ids.map(person).map(plain))
      }
      await rotate(next)
      const table = client().table(record)
      expect(await reencrypt({ keys: next, table, batchSize: 5 })).toMatchObject({ written: ROWS, failed: 0 })
      expect(await suites()).toEqual(new Set([2]))
      await using strict = await opened({ suite: 2 })
      expect(await verify({ keys: strict, table })).toMatchObject({ seen: ROWS, failed: 0 })
    })
  })
}

const plain = ({ id, email, note, city }: AnyRow): AnyRow => ({ id, email, note, city })
