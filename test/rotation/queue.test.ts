import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { int, text } from '../../src/index.ts'
import { runJob } from '../../src/rotation/job.ts'
import { rewrapWork } from '../../src/rotation/work.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { type PostgresClient, pgClient } from './clients.ts'
import { type Fleet, makeFleet, pause, type Worker } from './queue-fleet.ts'
import { createTable, declare, freshName } from './tables.ts'

/** A run lasts for seconds, however late the test comes to do something about it. */
const SLOW = { batchMs: 400 }
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
      while ((await rest.queued()).length > 0) await pause(50) // until nobody looks after the run any more
      expect(reports(workers)).toMatchObject([{ state: 'finished', written: 600, failures: [] }])
    })

    it('is split again when a worker is slow: others take the far part of what it holds', async () => {
      const { start, utils, rotation, ...rest } = await make(400)
      const shape = { workers: 2, ranges: 1, concurrency: 1, turnMs: 60_000, leaseMs: 60_000 }
      const slow = await start({ ...shape, batchMs: 400 })
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(slow)
      const fast = await start({ ...shape, batchMs: 0 })
      await expectExact({ start, utils, rotation, ...rest }, 400)
      expect(sum(fast.wrote)).toBeGreaterThan(0) // of the one range that there was
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

  describe('a worker', () => {
    const SHAPE = { workers: 2, concurrency: 1, batchMs: 150 }

    it('that is killed: others take its ranges, its job in the queue holds nothing up and is not done twice', async () => {
      const { start, utils, rotation, queued, ...rest } = await make(500)
      const [victim, other] = await Promise.all([start(SHAPE), start(SHAPE)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(victim, 2)
      await begun(other, 2)
      await victim.stop('SIGKILL')
      await expectExact({ start, utils, rotation, queued, ...rest }, 500)
      await told([other])
      expect(reports([victim, other])).toHaveLength(1)
      // What the queue still believes in is what the dead process had; it may never be run again, or finds nothing to do.
      while ((await queued()).some(({ locked_by }) => locked_by === null)) await pause(50)
      for (const { payload } of await queued()) expect(payload).toMatchObject({ kind: 'rewrap', table: 'accounts' })
      await client.query('update graphile_worker._private_jobs set locked_at = null, locked_by = null')
      await pause(1_000)
      await expectExact({ start, utils, rotation, queued, ...rest }, 500)
      expect(reports([other])).toHaveLength(1)
    })

    it('may be the last one: when all are killed, a new one goes on where they were', async () => {
      const { start, utils, rotation, queued, ...rest } = await make(400)
      const workers = await Promise.all([start(SHAPE), start(SHAPE)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      for (const worker of workers) await begun(worker, 3)
      await Promise.all(workers.map((worker) => worker.stop('SIGKILL')))
      const before = (await rest.changes()).length
      expect(before).toBeGreaterThan(0)
      expect(before).toBeLessThan(400)
      const late = await start(SHAPE)
      await expectExact({ start, utils, rotation, queued, ...rest }, 400)
      expect(sum(late.wrote)).toBe(400 - before)
    })

    it('that is told to end finishes its batch and lets go: nobody waits for its leases', async () => {
      const { start, utils, rotation, queued, ...rest } = await make(400)
      const long = { ...SHAPE, leaseMs: 600_000, turnMs: 600_000 }
      const [leaving, other] = await Promise.all([start(long), start(long)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(leaving, 2)
      await begun(other, 2)
      await leaving.stop('SIGTERM')
      expect((await queued()).filter(({ locked_by }) => locked_by !== null)).toHaveLength(1)
      const held = await client.query('select 1 from waxseal_slot where holder is not null')
      expect(held).toHaveLength(1)
      await expectExact({ start, utils, rotation, queued, ...rest }, 400)
      expect(sum(leaving.wrote) + sum(other.wrote)).toBe(400) // the batch that was running counts
    })

    it('that cannot reach the KMS is tried again by the queue, later and later, until it can', async () => {
      const { start, utils, rotation, queued, away, ...rest } = await make(200)
      const workers = await Promise.all([start(SHAPE), start(SHAPE)])
      writeFileSync(away, '')
      await pause(1_200) // keys count for a second here
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      while (!(await queued()).some(({ attempts, locked_by }) => attempts > 1 && locked_by === null)) await pause(50)
      const failed = (await queued()).filter(({ last_error }) => last_error !== null)
      expect(failed.length).toBeGreaterThan(0)
      expect(workers.flatMap(({ errors }) => errors)).toContain('KMS_UNAVAILABLE')
      rmSync(away)
      await expectExact({ start, utils, rotation, queued, away, ...rest }, 200)
    })

    it('that dies of what it does is not followed for ever', async () => {
      const { start, utils, rotation, changes } = await make(50)
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      const mortal = { ...SHAPE, workers: 1, leaseMs: 400, attempts: 1, isMortal: true }
      const workers: Worker[] = []
      while (!(await rotation.status('rewrap', 'accounts'))?.isSettled) {
        const alive = workers.filter(({ process }) => process.exitCode === null && process.signalCode === null)
        if (alive.length === 0) workers.push(await start(mortal))
        await pause(50)
      }
      expect(workers.length).toBeGreaterThan(2)
      expect(await rotation.status('rewrap', 'accounts')).toMatchObject({
        state: 'failed',
        error: 'WORKERS_DIED',
        written: 0,
      })
      expect(await changes()).toEqual([])
    })

    it('that loses the database goes on when it is back', async () => {
      const { start, utils, rotation, ...rest } = await make(500)
      const workers = await Promise.all([start(SHAPE), start(SHAPE)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      for (const worker of workers) await begun(worker, 2)
      await server.crash()
      for (;;) {
        const status = await rotation.status('rewrap', 'accounts').catch(() => undefined)
        if (status?.isSettled) break
        // graphile-worker's process may end of it: then it is started again, as any supervisor would.
        const alive = workers.filter(({ process }) => process.exitCode === null)
        if (alive.length < 2)
          await start(SHAPE).then(
            (worker) => workers.push(worker),
            () => undefined,
          )
        await pause(100)
      }
      await expectExact({ start, utils, rotation, ...rest }, 500)
    })

    it('that fails for another reason leaves no value in the queue: its code alone', async () => {
      const { start, utils, rotation, queued, ...rest } = await make(100)
      const worker = await start({ ...SHAPE, failing: 2 })
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      const kept = new Set<string>()
      while (!(await rotation.status('rewrap', 'accounts'))?.isSettled) {
        for (const { last_error } of await queued()) if (last_error !== null) kept.add(last_error)
        await pause(50)
      }
      expect([...kept].join()).toContain('XX000')
      expect([...kept].join()).not.toContain('person')
      expect(new Set(worker.errors)).toEqual(new Set(['XX000']))
      await expectExact({ start, utils, rotation, queued, ...rest }, 100)
    })
  })

  describe('a request', () => {
    it('that comes twice, or while a run is under way, begins one run', async () => {
      const { start, utils, rotation, queued, ...rest } = await make(300)
      await Promise.all(Array.from({ length: 5 }, () => rotation.enqueue(utils, 'rewrap', 'accounts')))
      expect(await queued()).toHaveLength(1)
      const workers = await Promise.all([start(SLOW), start(SLOW)])
      await begun(workers[0])
      const first = await rotation.status('rewrap', 'accounts')
      for (let i = 0; i < 5; i++) {
        await rotation.enqueue(utils, 'rewrap', 'accounts')
        await utils.addJob(rotation.task, { kind: 'rewrap', table: 'accounts', _cron: { ts: '' } }) // cron, without a key
        await pause(20)
      }
      await expectExact({ start, utils, rotation, queued, ...rest }, 300)
      expect((await rotation.status('rewrap', 'accounts'))?.run).toBe(first?.run)
      await told(workers)
      expect(reports(workers)).toHaveLength(1)
    })

    it('in a transaction that is rolled back begins none', async () => {
      const { rotation, queued, workHere } = await make(5)
      const addJob = (transaction: string) => async (task: string, payload: unknown) => {
        const text = `begin; select graphile_worker.add_job('${task}', '${JSON.stringify(payload)}'); ${transaction}`
        await client.query(text)
      }
      await rotation.enqueue(addJob('rollback'), 'rewrap', 'accounts')
      expect(await queued()).toEqual([])
      await rotation.enqueue(addJob('commit'), 'rewrap', 'accounts')
      await workHere(rotation)
      expect(await rotation.status('rewrap', 'accounts')).toMatchObject({ state: 'finished', written: 5 })
    })

    it('behind the end of a run begins another, which forgets the last one; a late turn begins nothing', async () => {
      const { rotation, utils, workHere, changes } = await make(12)
      await rotation.enqueue(utils, 'verify', 'accounts')
      await workHere(rotation)
      const first = await rotation.status('verify', 'accounts')
      expect(first).toMatchObject({ state: 'finished', seen: 12, isSettled: true, working: 0 })
      const late = { kind: 'verify', table: 'accounts', run: first!.run, slot: 1 }
      await utils.addJob('waxseal:turn', late)
      await workHere(rotation)
      expect(await rotation.status('verify', 'accounts')).toEqual(first)
      await rotation.enqueue(utils, 'verify', 'accounts')
      await workHere(rotation)
      const second = await rotation.status('verify', 'accounts')
      expect(second).toMatchObject({ state: 'finished', seen: 12 })
      expect(second?.run).not.toBe(first?.run)
      await utils.addJob('waxseal:turn', late)
      await workHere(rotation)
      expect(await rotation.status('verify', 'accounts')).toEqual(second)
      expect(await client.query('select 1 from waxseal_run')).toHaveLength(1)
      const kept = (run?: string) => client.query(`select 1 from waxseal_job where job like '%${run}%'`)
      expect([await kept(first?.run), await kept(second?.run)]).toMatchObject([[], [{}]])
      expect(await changes()).toEqual([])
    })
  })

  it('a worker that joins a job which ended meanwhile does not begin it anew', async () => {
    const { keys, record, changes } = await make(9)
    const table = client.table(record)
    const job = async (filter: readonly string[], once: boolean) =>
      (await runJob(table, rewrapWork(keys, table, filter), `late ${record.schema.table}`, {}, { once })).report
    const old = keys.status().versions.flatMap(({ id, state }) => (state === 'deactivated' ? [id] : []))
    const first = await job(old, true)
    expect(first).toMatchObject({ seen: 9, written: 9 })
    expect(await job(old, true)).toEqual(first)
    expect(await changes()).toHaveLength(9)
    expect(await job(old, false)).toMatchObject({ seen: 0, written: 0 })
  })

  describe('the end of a run', () => {
    it('comes at more than maxFailures broken rows, and the queue does not try again', async () => {
      const { start, utils, rotation, queued, table, ended } = await make(200)
      await client.query(`update ${table} set envelope = 'broken' || envelope where id % 20 = 0`)
      await client.query(`delete from ${table}_audit`)
      await rotation.enqueue(utils, 'verify', 'accounts')
      const workers = await Promise.all([start({ maxFailures: 3 }), start({ maxFailures: 3 })])
      const status = await ended('verify')
      expect(status).toMatchObject({ state: 'failed', error: 'LIMIT_EXCEEDED', written: 0 })
      expect(status.failed).toBeGreaterThan(3)
      await told(workers)
      const [report] = reports(workers)
      expect(report).toMatchObject({ ...status })
      expect(report?.failures).toHaveLength(status.failed)
      expect(report?.failures[0]).toMatchObject({ code: 'MALFORMED' })
      while ((await queued()).length > 0) await pause(50)
    })

    it('is reached over broken rows that are fewer: they are counted, named and left', async () => {
      const { utils, rotationWith, workHere, table } = await make(60)
      await client.query(`update ${table} set email = 'broken' where id in (7, 50)`)
      const ended: unknown[] = []
      const rotation = rotationWith({ onEnded: (report) => ended.push(report) })
      await rotation.enqueue(utils, 'verify', 'accounts')
      await workHere(rotation)
      const failures = ['50', '7'].map((rowId) => ({ rowId, code: 'MALFORMED' }))
      expect(ended).toMatchObject([{ state: 'finished', seen: 60, failed: 2, failures }])
    })

    it('is told again when telling failed, and not when it did not', async () => {
      const { utils, rotationWith, workHere } = await make(5)
      const runs: string[] = []
      const errors: unknown[] = []
      const rotation = rotationWith({
        leaseMs: 100,
        onError: (error) => errors.push(error),
        async onEnded({ run }) {
          runs.push(run)
          if (runs.length < 3) throw new Error('the mail server is away')
        },
      })
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      for (let i = 0; i < 8; i++) {
        await workHere(rotation)
        await pause(150)
      }
      expect(runs).toHaveLength(3)
      expect(new Set(runs).size).toBe(1)
      expect(errors).toHaveLength(2)
    })

    it('comes when it is cancelled: the totals are those of what was written', async () => {
      const { start, utils, rotation, ended, changes, expectRows, queued } = await make(400)
      const workers = await Promise.all([start(SLOW), start(SLOW)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(workers[0]!, 3)
      expect(await rotation.cancel('rewrap', 'accounts')).toBe(true)
      const status = await ended('rewrap')
      expect(await rotation.cancel('rewrap', 'accounts')).toBe(false)
      const changed = await changes()
      expect(status).toMatchObject({ state: 'cancelled', written: changed.length, seen: changed.length, working: 0 })
      expect(changed.length).toBeLessThan(400)
      while ((await queued()).length > 0) await pause(50)
      expect(await changes()).toEqual(changed)
      await told(workers)
      expect(reports(workers)).toMatchObject([{ state: 'cancelled', written: changed.length }])
      await expectRows(400)
    })

    it('waits while it is paused, on all machines', async () => {
      const { start, utils, rotation, changes, ...rest } = await make(400)
      const workers = await Promise.all([start(SLOW), start(SLOW)])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await begun(workers[0]!)
      expect(await rotation.pause('rewrap', 'accounts')).toBe(true)
      expect(await rotation.pause('rewrap', 'accounts')).toBe(false)
      while ((await rotation.status('rewrap', 'accounts'))!.working > 0) await pause(20)
      const before = (await changes()).length
      await pause(2_500) // longer than a lease, and than the watch over a run waits
      expect((await changes()).length).toBe(before)
      expect(before).toBeLessThan(400)
      expect(await rotation.status('rewrap', 'accounts')).toMatchObject({ state: 'paused', written: before })
      expect(await rotation.resume('rewrap', 'accounts')).toBe(true)
      expect(await rotation.resume('rewrap', 'accounts')).toBe(false)
      await expectExact({ start, utils, rotation, changes, ...rest }, 400)
    })

    it('comes after the last attempt of a turn, with the name of what failed', async () => {
      const { utils, rotationWith, workHere, keys, ended } = await make(5)
      const failing = {
        ...keys,
        ready: () => Promise.reject(Object.assign(new Error('secret'), { code: 'EHOSTDOWN' })),
      }
      const rotation = rotationWith({ keys: failing as never, attempts: 1, workers: 1 })
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await workHere(rotation)
      expect(await ended('rewrap')).toMatchObject({ state: 'failed', error: 'EHOSTDOWN', seen: 0 })
    })
  })

  describe('whoever can write to the tables of the queue', () => {
    const REGISTERED = { kind: 'rewrap', table: 'accounts' }
    const ID = '00000000-0000-4000-8000-000000000000'

    it.each<[string, string, unknown]>([
      ['a job that is not registered', 'waxseal:rotation', { ...REGISTERED, kind: 'decryptInPlace' }],
      ['a job that there is not', 'waxseal:rotation', { ...REGISTERED, kind: 'constructor' }],
      ['a table that is not registered', 'waxseal:rotation', { ...REGISTERED, table: 'other' }],
      ['a name that every object has', 'waxseal:rotation', { ...REGISTERED, table: '__proto__' }],
      ['settings of its own', 'waxseal:rotation', { ...REGISTERED, maxFailures: 1_000_000 }],
      ['a run of its own', 'waxseal:rotation', { ...REGISTERED, run: "' or true --" }],
      ['a list', 'waxseal:rotation', [REGISTERED]],
      ['nothing', 'waxseal:rotation', null],
      ['a turn without a run', 'waxseal:turn', { ...REGISTERED, slot: 1 }],
      [
        'a turn of a job that is not registered',
        'waxseal:turn',
        { kind: 'decryptInPlace', table: 'accounts', run: ID, slot: 1 },
      ],
      ['a turn of slot 0', 'waxseal:turn', { ...REGISTERED, run: ID, slot: 0 }],
    ])('gets nothing done with %s', async (_, task, payload) => {
      const { rotationWith, workHere, changes, queued } = await make(3)
      const errors: unknown[] = []
      const rotation = rotationWith({ onError: (error) => errors.push(error) })
      await client.query('select graphile_worker.add_job($1, $2::json)', [task, JSON.stringify(payload)])
      await workHere(rotation)
      expect(errors).toMatchObject([{ code: 'CONFIG' }])
      expect(await changes()).toEqual([])
      expect(await rotation.status('rewrap', 'accounts')).toBeUndefined()
      expect(await queued()).toMatchObject([{ attempts: 1, locked_by: null }])
    })

    it('gets nothing done with a turn of a run that there is not, or in a slot that is taken', async () => {
      const { rotationWith, utils, workHere, changes, queued } = await make(3)
      const rotation = rotationWith({ workers: 1 })
      await utils.addJob('waxseal:turn', { ...REGISTERED, run: ID, slot: 1 })
      await workHere(rotation)
      expect(await changes()).toEqual([])
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await workHere(rotation)
      const { run } = (await rotation.status('rewrap', 'accounts'))!
      for (const slot of [1, 2, 256]) await utils.addJob('waxseal:turn', { ...REGISTERED, run, slot })
      await workHere(rotation)
      expect((await queued()).filter(({ task }) => task === 'waxseal:turn')).toEqual([])
      expect(await changes()).toHaveLength(3)
      expect((await changes()).every(({ n }) => n === 1)).toBe(true)
    })

    it('reads names there: of the job, the table, the run and the slot', async () => {
      const { start, utils, rotation, queued, ended } = await make(200)
      await rotation.enqueue(utils, 'rewrap', 'accounts')
      await start()
      const seen = new Map<string, unknown>()
      while (!(await rotation.status('rewrap', 'accounts'))?.isSettled) {
        for (const { task, payload, key } of await queued()) seen.set(`${task} ${key}`, payload)
        await pause(5)
      }
      const { run } = await ended('rewrap')
      for (const payload of seen.values()) {
        const { slot, ...named } = payload as Record<string, unknown>
        expect([{ ...REGISTERED, run }, REGISTERED]).toContainEqual(named)
        expect([undefined, 1, 2, 3, 4]).toContain(slot)
      }
      expect(seen.size).toBeGreaterThan(2)
    })
  })

  describe('jobs in place', () => {
    it('are done when they are registered, in the phase of the table, and fail at once in another', async () => {
      const { utils, rotationWith, workHere } = await make(1)
      const name = freshName('placed')
      const [prepare, encrypt] = (['prepare', 'encrypt'] as const).map((phase) =>
        declare(name, {
          id: { id: int() },
          fields: { email: text() },
          migrate: { phase, until: new Date(Date.now() + 1e9) },
        }),
      )
      await createTable(client.query, encrypt!)
      for (let id = 0; id < 30; id++)
        await client.query(`insert into ${name} (id, email) values ($1, $2)`, [id, `e${id}`])
      const jobs = ['encryptInPlace', 'decryptInPlace'] as const
      const there = rotationWith({ jobs, tables: { placed: client.table(encrypt!) } })
      await there.enqueue(utils, 'encryptInPlace', 'placed')
      await there.enqueue(utils, 'decryptInPlace', 'placed')
      await workHere(there)
      expect(await there.status('encryptInPlace', 'placed')).toMatchObject({ state: 'finished', written: 30 })
      expect(await there.status('decryptInPlace', 'placed')).toMatchObject({ state: 'failed', error: 'CONFIG' })
      const back = rotationWith({ jobs, tables: { placed: client.table(prepare!) } })
      await back.enqueue(utils, 'decryptInPlace', 'placed')
      await workHere(back)
      expect(await back.status('decryptInPlace', 'placed')).toMatchObject({ state: 'finished', written: 30 })
      expect(await client.query(`select email from ${name} where id = 7`)).toEqual([{ email: 'e7' }])
    })
  })

  it('is refused with settings that are wrong', async () => {
    const { rotationWith, rotation, utils, record } = await make(1)
    const tables = { accounts: client.table(record) }
    for (const [options, argument] of [
      [{ keys: undefined }, 'keys'],
      [{ tables: {} }, 'tables'],
      [{ tables: { 'a#b': tables.accounts } }, 'tables'],
      [{ tables: { a: {} } }, 'tables.a'],
      [{ jobs: [] }, 'jobs'],
      [{ jobs: ['rewrap', 'rewrap'] }, 'jobs'],
      [{ jobs: ['retire'] }, 'jobs'],
      [{ workers: 257 }, 'workers'],
      [{ turnMs: 99 }, 'turnMs'],
      [{ leaseMs: 99 }, 'leaseMs'],
      [{ attempts: 26 }, 'attempts'],
      [{ name: 'a b' }, 'name'],
    ] as const) {
      const wrong = () => rotationWith(options as never)
      expect(wrong).toThrow(expect.objectContaining({ code: 'CONFIG', argument }))
    }
    const unknown = rotation.enqueue(utils, 'reencrypt', 'accounts')
    await expect(unknown).rejects.toMatchObject({ code: 'CONFIG', argument: 'kind' })
    const other = rotation.status('rewrap', 'other')
    await expect(other).rejects.toMatchObject({ code: 'CONFIG', argument: 'table' })
    const nobody = rotation.enqueue({} as never, 'rewrap', 'accounts')
    await expect(nobody).rejects.toMatchObject({ code: 'CONFIG', argument: 'queue' })
  })
})
