import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { rewrap } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { aheadServerSuite, aheadSuite } from './ahead.ts'
import { type PostgresClient, pgClient, postgresJsClient } from './clients.ts'
import { columnSuite } from './columns.ts'
import { failureSuite } from './failures.ts'
import { incidentSuite } from './incident.ts'
import { inPlaceSuite } from './inplace.ts'
import { jobSuite, oldRows } from './jobs.ts'
import { killSuite } from './killed.ts'
import { matrixSuite } from './matrix.ts'
import { movingSuite } from './moving.ts'
import { nameSuite } from './names.ts'
import { orphanSuite } from './orphans.ts'
import { collationSuite, pageSuite, sequenceSuite } from './pages.ts'
import { planSuite } from './plan.ts'
import { rangeSuite } from './ranges.ts'
import { reencryptSuite } from './reencrypt.ts'
import { refusedSuite } from './refused.ts'
import { runSuite } from './runs.ts'
import { serverSuite } from './servers.ts'
import { people } from './tables.ts'
import { tenantSuite } from './tenants.ts'
import { triggerSuite } from './triggers.ts'
import { verifySuite } from './verify.ts'
import { writerSuite } from './writers.ts'

/** One real server for the whole file, and both clients that applications have. */
describe.skipIf(missing('rotation on a real PostgreSQL', postgresMissing()))('a real PostgreSQL', () => {
  let server: PostgresServer
  const clients: PostgresClient[] = []
  beforeAll(async () => {
    server = await startPostgres()
    clients.push(pgClient(server.url), postgresJsClient(server.url))
  })
  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close()))
    server?.stop()
  })

  describe.each(['pg', 'postgres.js'])('with %s', (name) => {
    const client = () => clients.find((each) => each.name === name)!
    matrixSuite(client)
    jobSuite(client)
    failureSuite(client)
    pageSuite(client)
    sequenceSuite(client)
    collationSuite(client)
    columnSuite(client)
    nameSuite(client)
    writerSuite(client)
    reencryptSuite(client)
    orphanSuite(client)
    movingSuite(client)
    verifySuite(client)
    inPlaceSuite(client)
    rangeSuite(client)
    runSuite(client)
    refusedSuite(client)
    aheadSuite(client)
    planSuite(client)
    incidentSuite(client)
  })

  describe('servers, roles and sessions', () => {
    serverSuite(
      () => clients[0]!,
      () => server.url,
    )
  })

  describe('a batch that is sent ahead', () => {
    aheadServerSuite(
      () => clients[0]!,
      () => server.url,
    )
  })

  describe('tenants, partitions and copies', () => {
    tenantSuite(
      () => clients[0]!,
      () => server.url,
    )
  })

  describe('triggers, generated columns and replication', () => {
    beforeAll(async () => {
      await clients[0]!.query('alter system set wal_level = logical')
      await server.crash()
    })
    triggerSuite(
      () => clients[0]!,
      () => server.url,
    )
  })

  killSuite(
    () => clients[0]!,
    () => server.url,
  )

  describe('the tables of the books', () => {
    it('are made once when many jobs begin at the same time', async () => {
      const { db, query } = clients[0]!
      for (let round = 0; round < 5; round++) {
        await query('drop table if exists waxseal_job, waxseal_range, waxseal_failure')
        const jobs = Array.from({ length: 6 }, () => postgresTable(db, people()).books.prepare())
        await Promise.all(jobs)
        expect(await query('select 1 from waxseal_job, waxseal_range, waxseal_failure')).toEqual([])
      }
    })

    it('serve a role that may not create tables, when a migration made them', async () => {
      const { db, query } = clients[0]!
      await postgresTable(db, people()).books.prepare()
      const { keys, record, table } = await oldRows(clients[0]!, 3)
      await query('create role app login')
      await query(
        `grant select, insert, update, delete on waxseal_job, waxseal_range, waxseal_failure, ${table.name} to app`,
      )
      const app = pgClient(server.url.replace('postgres@', 'app@'))
      try {
        const report = await rewrap({ keys, table: postgresTable(app.db, record), batchSize: 2 })
        expect(report).toMatchObject({ written: 3, failures: [] })
      } finally {
        await app.close()
      }
    })

    it('are tried again after a failure', async () => {
      const { db } = clients[0]!
      let fail = true
      const flaky = {
        query: (sql: string, params?: unknown[]) => {
          if (fail) return Promise.reject(new Error('no connection'))
          return (db as { query(sql: string, params?: unknown[]): Promise<never> }).query(sql, params)
        },
      }
      const table = postgresTable(flaky, people())
      await expect(table.books.prepare()).rejects.toThrow('no connection')
      fail = false
      await table.books.prepare()
    })
  })
})
