import { describe, expect, it } from 'vitest'
import {
  type JobOptions,
  type Progress,
  type RotationSource,
  reencrypt,
  rewrap,
  verify,
} from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import type { Client } from './clients.ts'
import { oldRows, oneByOne } from './jobs.ts'
import { type AnyRow, createTable, insert, insertStored, people, person, readPlain, rotate } from './tables.ts'

const DAYS_MS = 5 * 86_400_000
const all = (rows: number) => Array.from({ length: rows }, (_, i) => person(i + 1))

/** Holds up the first call of one of the ledger's statements, told by its text, until it is let go. */
function holding(table: RotationSource, text: RegExp) {
  let go = (): void => undefined
  let reached = (): void => undefined
  const released = new Promise<void>((resolve) => {
    go = resolve
  })
  const held = new Promise<void>((resolve) => {
    reached = resolve
  })
  let isFirst = true
  const wait = async (sql: string): Promise<void> => {
    if (!isFirst || !text.test(sql)) return
    isFirst = false
    reached()
    await released
  }
  const { books } = table
  const source: RotationSource = {
    ...table,
    books: {
      ...books,
      async query(sql, params) {
        await wait(sql)
        return books.query(sql, params)
      },
      async run(sql, params) {
        await wait(sql)
        return books.run(sql, params)
      },
    },
  }
  return { source, held, go }
}

/** Which run a worker took part in, and what it tells of it, whoever is early, late or gone for days. */
export function runSuite(client: () => Client): void {
  describe('a run of a job', () => {
    it.each([
      ['before it looked at it', /left join/],
      ['before it joined it', /insert into "?waxseal_job/],
    ])('that others ended %s is not what a worker tells of: it does its own', async (_, text) => {
      const { keys, table } = await oldRows(client(), 12)
      const late = holding(table, text)
      const job = rewrap({ keys, table: late.source, batchSize: 5 })
      await late.held
      expect(await rewrap({ keys, table, batchSize: 5 })).toMatchObject({ written: 12, seen: 12 })
      late.go()
      expect(await job).toMatchObject({ written: 0, seen: 0, remaining: new Map() })
    })

    it('that a worker took part in is what it tells of, also when it comes back after two others', async () => {
      const { keys, table } = await oldRows(client(), 12)
      let wake = (): void => undefined
      let isAsleep = (): void => undefined
      const asleep = new Promise<void>((resolve) => {
        isAsleep = resolve
      })
      const woken = new Promise<void>((resolve) => {
        wake = resolve
      })
      let calls = 0
      const sleepy: RotationSource = {
        ...table,
        async write(changes, step) {
          if (++calls === 2) {
            isAsleep()
            await woken
          }
          return table.write(changes, step)
        },
      }
      const slow = rewrap({ keys, table: sleepy, batchSize: 5, leaseMs: 200 })
      await asleep
      expect(await rewrap({ keys, table, batchSize: 5 })).toMatchObject({ written: 12 })
      expect(await rewrap({ keys, table })).toMatchObject({ written: 0, seen: 0 })
      wake()
      expect(await slow).toMatchObject({ written: 12, seen: 12, failed: 0 })
    })

    it('that is about to be ended by a worker that had counted is gone over again by one that counts more', async () => {
      const { query } = client()
      const keys = testKeyring()
      const record = people()
      await createTable(query, record)
      await insert(query, record, keys, all(6))
      const late = [7, 8].map((id) => record.encrypt(keys, person(id) as never) as AnyRow)
      await rotate(keys)
      const table = client().table(record)
      const ending = holding(table, /update waxseal_job as j/)
      const first = rewrap({ keys, table: ending.source })
      await ending.held
      await insertStored(query, record, late) // by an instance that has not learned of the rotation
      expect(await rewrap({ keys, table })).toMatchObject({ written: 8, seen: 8, remaining: new Map() })
      ending.go()
      expect(await first).toMatchObject({ written: 8, seen: 8, remaining: new Map() })
      expect(await readPlain(query, record, keys)).toEqual(all(8))
    })

    it.each([
      ['rewrap', rewrap],
      ['reencrypt', reencrypt],
      ['verify', verify],
    ] as const)('of %s that was stopped is resumed days later, behind what was done', async (name, job) => {
      const { keys, record, table } = await oldRows(client(), 20)
      const stop = new AbortController()
      const options: JobOptions = { batchSize: 4, ranges: 2, signal: stop.signal }
      const onProgress = (p: Progress) => p.done >= 8 && stop.abort()
      const first = await job({ keys, table: oneByOne(table), ...options, onProgress })
      expect(first).toMatchObject({ seen: 8, aborted: true })
      await client().query(`update waxseal_job set started_at = started_at - $1 where job like $2`, [
        DAYS_MS,
        `%"${table.name}"%`,
      ])
      await client().query(
        `update waxseal_range set owner = 'dead', lease_until = coalesce(lease_until, 0) - $1 where job like $2`,
        [DAYS_MS, `%"${table.name}"%`],
      )
      const written = name === 'verify' ? 0 : 20
      expect(await job({ keys, table, batchSize: 4 })).toMatchObject({ seen: 20, written, failed: 0, aborted: false })
      expect(await readPlain(client().query, record, keys)).toEqual(all(20))
    })

    it('whose books are deleted under it ends with CONFLICT, loses no row, and is begun anew', async () => {
      const { keys, record, table } = await oldRows(client(), 20)
      let batches = 0
      const robbed: RotationSource = {
        ...oneByOne(table),
        async write(changes, step) {
          if (++batches === 3) {
            for (const name of ['range', 'failure', 'job'])
              await client().query(`delete from waxseal_${name} where job like $1`, [`%"${table.name}"%`])
          }
          return table.write(changes, step)
        },
      }
      await expect(rewrap({ keys, table: robbed, batchSize: 4 })).rejects.toMatchObject({ code: 'CONFLICT' })
      expect(await rewrap({ keys, table, batchSize: 4 })).toMatchObject({ written: 12, seen: 12 })
      expect(await readPlain(client().query, record, keys)).toEqual(all(20))
    })

    it('whose lease ends while a batch is on its way writes it, unless somebody else has the range', async () => {
      const { keys, table } = await oldRows(client(), 20)
      const expire = () =>
        client().query('update waxseal_range set lease_until = 1 where job like $1', [`%"${table.name}"%`])
      const unwatched: RotationSource = {
        ...table,
        async write(changes, step) {
          await expire()
          return table.write(changes, step)
        },
      }
      expect(await rewrap({ keys, table: unwatched, batchSize: 6 })).toMatchObject({ written: 20, seen: 20, raced: 0 })
      await rotate(keys)
      let isRobbed = false
      const robbed: RotationSource = {
        ...table,
        async write(changes, step) {
          if (!isRobbed) {
            isRobbed = true
            await expire()
            const other = await rewrap({ keys, table, batchSize: 6 })
            expect(other).toMatchObject({ written: 20, seen: 20 })
          }
          return table.write(changes, step)
        },
      }
      expect(await rewrap({ keys, table: robbed, batchSize: 6 })).toMatchObject({ written: 20, seen: 20, raced: 0 })
    })
  })
}
