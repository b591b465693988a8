import { afterAll, beforeAll, describe } from 'vitest'
import { type PostgresClient, pgliteClient } from './clients.ts'
import { failureSuite } from './failures.ts'
import { incidentSuite } from './incident.ts'
import { inPlaceSuite } from './inplace.ts'
import { jobSuite } from './jobs.ts'
import { matrixSuite } from './matrix.ts'
import { movingSuite } from './moving.ts'
import { nameSuite } from './names.ts'
import { pageSuite, sequenceSuite } from './pages.ts'
import { planSuite } from './plan.ts'
import { rangeSuite } from './ranges.ts'
import { reencryptSuite } from './reencrypt.ts'
import { refusedSuite } from './refused.ts'
import { runSuite } from './runs.ts'
import { verifySuite } from './verify.ts'
import { writerSuite } from './writers.ts'

/** Everything that needs no second connection, on PGlite: PostgreSQL in this process. */
let client: PostgresClient
beforeAll(async () => {
  client = pgliteClient()
  await client.query('select 1')
})
afterAll(() => client.close())

describe('rewrap on PGlite', () => {
  matrixSuite(() => client)
  jobSuite(() => client)
  failureSuite(() => client)
  pageSuite(() => client)
  sequenceSuite(() => client)
  nameSuite(() => client)
  writerSuite(() => client)
  reencryptSuite(() => client)
  movingSuite(() => client)
  verifySuite(() => client)
  inPlaceSuite(() => client)
  rangeSuite(() => client)
  runSuite(() => client)
  refusedSuite(() => client)
  planSuite(() => client)
  incidentSuite(() => client)
})
