import { expect, it } from 'vitest'
import type { KeyEvent } from '../../src/index.ts'
import { plan } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows } from './jobs.ts'
import { createTable, insert, people, person, readStored, rotate } from './tables.ts'

/** What would be touched, and that nothing is. */
export function planSuite(client: () => Client): void {
  it('counts by table and version, and says what may be done to each', async () => {
    const { query } = client()
    const events: KeyEvent[] = []
    const keys = testKeyring({ onEvent: (event) => events.push(event) })
    const [one, two] = [people(), people()]
    for (const record of [one, two]) await createTable(query, record)
    await insert(query, one, keys, [1, 2, 3].map(person))
    const first = await rotate(keys)
    await insert(query, one, keys, [4, 5].map(person))
    await insert(query, two, keys, [person(1)])
    const second = keys.status().active!
    await keys.markCompromised(second, {})
    await insert(query, two, keys, [person(2)])
    const third = await rotate(keys)
    await insert(query, two, keys, [3, 4].map(person))
    const fourth = await rotate(keys)
    const before = await readStored(query, one)
    events.length = 0

    const tables = [one, two].map((record) => client().table(record))
    const given = await plan({ keys, tables, rowsPerSecond: 1_000 })
    expect(given).toMatchObject({ basis: 'given', rows: { rewrap: 6, reencrypt: 3, blocked: 0 }, ms: 9 })
    expect(given.active).toBe(keys.status().active)
    const versions = given.tables.map((table) => table.versions.map(({ keyId, action, rows }) => [keyId, action, rows]))
    expect(versions).toEqual([
      [
        [first, 'rewrap', 3],
        [second, 'reencrypt', 2],
        [third, 'rewrap', 0],
        [fourth, 'rewrap', 0],
      ],
      [
        [first, 'rewrap', 0],
        [second, 'reencrypt', 1],
        [third, 'rewrap', 1],
        [fourth, 'rewrap', 2],
      ],
    ])
    expect(given.tables.map(({ ms }) => ms)).toEqual([5, 4])
    expect(events).toEqual([])

    const sampled = await plan({ keys, tables })
    expect(sampled.basis).toBe('sample')
    expect(sampled.ms).toBeGreaterThan(0)
    for (const { pace } of sampled.tables) for (const figure of Object.values(pace)) expect(figure).toBeGreaterThan(0)
    expect(new Set(events.map(({ purpose }) => purpose))).toEqual(new Set(['plan']))
    expect(await readStored(query, one)).toEqual(before)
    expect((await plan({ keys, tables, sampleRows: 0 })).ms).toBeUndefined()
  })

  it('a suspended version blocks; without an active one nothing is measured', async () => {
    const { query } = client()
    const keys = testKeyring()
    const record = people()
    await createTable(query, record)
    await insert(query, record, keys, [1, 2].map(person))
    await keys.suspend(keys.status().active!)
    const result = await plan({ keys, tables: [client().table(record)] })
    expect(result).toMatchObject({ active: undefined, rows: { rewrap: 0, reencrypt: 0, blocked: 2 } })
    expect(result.tables[0]!.versions[0]).toMatchObject({ state: 'suspended', action: 'blocked', ms: undefined })
  })

  it('does not cancel a pending destruction, and makes no books', async () => {
    const { keys, oldId, table } = await oldRows(client(), 3)
    await keys.retire(oldId, { references: 0 }) // somebody was wrong
    await keys.destroy(oldId, { backupsExpire: new Date(Date.now() + 1e9) })
    const books = {
      ...table.books,
      prepare: () => Promise.reject(new Error('prepared')),
      run: () => Promise.reject(new Error('ran')),
    }
    const write = () => Promise.reject(new Error('written'))
    const result = await plan({ keys, tables: [{ ...table, books, write }] })
    expect(result.rows).toEqual({ rewrap: 3, reencrypt: 0, blocked: 0 })
    expect(result.ms).toBeUndefined()
    expect(keys.status().versions.find(({ id }) => id === oldId)?.destroyAt).toBeDefined()
  })

  it.each([
    ['tables', { tables: [] }],
    ['rowsPerSecond', { rowsPerSecond: 0 }],
    ['sampleRows', { sampleRows: -1 }],
  ])('refuses a wrong %s', async (argument, wrong) => {
    const { keys, table } = await oldRows(client(), 1)
    await expect(plan({ keys, tables: [table], ...wrong })).rejects.toMatchObject({ code: 'CONFIG', argument })
  })
}
