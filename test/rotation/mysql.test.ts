import { afterAll, beforeAll, describe } from 'vitest'
import { type MariadbServer, mariadbMissing, startMariadb } from '../support/mariadb.ts'
import { missing } from '../support/missing.ts'
import { aheadSuite } from './ahead.ts'
import { type MysqlClient, mariadbClient, mysql2Client } from './clients.ts'
import { failureSuite } from './failures.ts'
import { incidentSuite } from './incident.ts'
import { jobSuite } from './jobs.ts'
import { killSuite } from './killed.ts'
import { matrixSuite } from './matrix.ts'
import { movingSuite } from './moving.ts'
import { mysqlInPlaceSuite } from './mysql-inplace.ts'
import { mysqlSessionSuite } from './mysql-sessions.ts'
import { mysqlTableSuite } from './mysql-tables.ts'
import { NAMES, nameSuite } from './names.ts'
import { orphanSuite } from './orphans.ts'
import { pageSuite } from './pages.ts'
import { planSuite } from './plan.ts'
import { rangeSuite } from './ranges.ts'
import { reencryptSuite } from './reencrypt.ts'
import { verifySuite } from './verify.ts'
import { writerSuite } from './writers.ts'

/** Names of MySQL have no characters beyond U+FFFF. */
const names = NAMES.map((name) => name.replace(' 😀', ''))

/** One real server for the whole file, and both clients that applications have. */
describe.skipIf(missing('rotation on a real MariaDB', mariadbMissing()))('a real MariaDB', () => {
  let server: MariadbServer
  const clients: MysqlClient[] = []
  beforeAll(async () => {
    server = await startMariadb('--character-set-server=utf8mb4')
    clients.push(mysql2Client(server.url), mariadbClient(server.url))
  })
  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close()))
    await server?.stop()
  })

  describe.each(['mysql2', 'mariadb'])('with %s', (name) => {
    const client = () => clients.find((each) => each.name === name)!
    matrixSuite(client)
    jobSuite(client)
    failureSuite(client)
    pageSuite(client)
    nameSuite(client, names)
    writerSuite(client)
    reencryptSuite(client)
    movingSuite(client)
    orphanSuite(client)
    verifySuite(client)
    rangeSuite(client)
    aheadSuite(client)
    planSuite(client)
    incidentSuite(client)
    mysqlSessionSuite(client, () => server.url)
    mysqlTableSuite(client, () => server.url)
    mysqlInPlaceSuite(client, () => server.url)
  })

  killSuite(
    () => clients[0]!,
    () => server.url,
  )
})
