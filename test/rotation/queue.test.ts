import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { type PostgresClient, pgClient } from './clients.ts'
import { type Fleet, makeFleet, pause, type Worker } from './queue-fleet.ts'

const sum = (numbers: readonly number[]): number => numbers.reduce((all, n) => all + n, 0)

describe.skipIf(missing('rotation through a job queue', postgresMissing()))('many machines and a job queue', () => {
  let server: PostgresServer
  let client: PostgresClient
  let folder: string
  let fleet: Fleet | undefined
  beforeAll(async () => {
    server = await startPostgres()
    client = pgClient(server.url)
    folder = mkdtempSync(join(tmpdir(), 'waxseal-fleet-'))
  })
  afterEach(async () => {
    await fleet?.close()
    fleet = undefined
  })
  afterAll(async () => {
    await client?.close()
    server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  async function make(rows: number): Promise<Fleet> {
    fleet = await makeFleet(client, server.url, folder, rows)
    return fleet
  }
  /** A worker that has begun. */
  async function begun(worker: Worker, batches = 1): Promise<void> {
    while (worker.wrote.length < batches) await pause(10)
  }
  const reports = (workers: readonly Worker[]) => workers.flatMap(({ ended }) => ended)
  async function told(workers: readonly Worker[], times = 1): Promise<void> {
    while (reports(workers).length < times) await pause(20)
  }
  /** Every row was changed once, and the totals say so. */
  async function expectExact({ changes, expectRows, ended }: Fleet, rows: number): Promise<void> {
    const status = await ended('rewrap')
    expect(status).toMatchObject({ state: 'finished', seen: rows, written: rows, raced: 0, failed: 0 })
    expect(await changes()).toEqual(Array.from({ length: rows }, (_, id) => ({ id, n: 1 })))
    await expectRows(rows)
  }

  describe('one run', () => {
    it('is shared by processes, with no more workers than it may have, and told of once', async () => {
      const { start, utils, rotation, ...rest } = await make(600)
      const workers = await Promise.all([start(), start(), start()])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      let most = 0
      for (let status = await rotation.status('rewrap', 'accounts'); !status?.isSettled; ) {
        most = Math.max(most, status?.working ?? 0)
        await pause(15)
        status = await rotation.status('rewrap', 'accounts')
      }
      await expectExact({ start, utils, rotation, ...rest }, 600)
      expect(most).toBeGreaterThan(1)
      expect(most).toBeLessThanOrEqual(4) // six could work
      expect(workers.filter(({ wrote }) => wrote.length > 0).length).toBeGreaterThan(1)
      expect(sum(workers.flatMap(({ wrote }) => wrote))).toBe(600)
      await told(workers)
      await pause(2_000) // longer than the watch over a run waits
      expect(reports(workers)).toMatchObject([{ state: 'finished', written: 600, failures: [] }])
      expect(await rest.queued()).toEqual([])
    })

    it('is split again when a worker is slow: others take the far part of what it holds', async () => {
      const { start, utils, rotation, ...rest } = await make(400)
      const shape = { workers: 2, ranges: 1, concurrency: 1, turnMs: 60_000 }
      const slow = await start({ ...shape, batchMs: 150 })
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(slow)
      const fast = await start({ ...shape, batchMs: 0 })
      await expectExact({ start, utils, rotation, ...rest }, 400)
      expect(sum(fast.wrote)).toBeGreaterThan(sum(slow.wrote))
      expect(sum(fast.wrote) + sum(slow.wrote)).toBe(400)
    })

    it.each(['verify', 'reencrypt'] as const)('of %s adds up as well', async (kind) => {
      const { start, utils, rotationWith, changes, expectRows } = await make(200)
      const workers = await Promise.all([start(), start()])
      await rotationWith({ jobs: [kind] }).enqueue(utils, kind, 'accounts')
      const written = kind === 'verify' ? 0 : 200
      await told(workers)
      expect(reports(workers)).toMatchObject([{ kind, table: 'accounts', seen: 200, written, failed: 0 }])
      expect(await changes()).toHaveLength(written)
      await expectRows(200)
    })
  })
})
