import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { missing } from '../support/missing.ts'
import { nativeClient, nativeClientMissing, nodeWithSqlite, nodeWithSqliteMissing } from '../support/node.ts'
import { fromRoot } from '../support/sources.ts'
import { aheadSuite } from './ahead.ts'
import { type SqliteDatabase, sqliteClient } from './clients.ts'
import { failureSuite } from './failures.ts'
import { jobSuite } from './jobs.ts'
import { matrixSuite } from './matrix.ts'
import { movingSuite } from './moving.ts'
import { nameSuite } from './names.ts'
import { orphanSuite } from './orphans.ts'
import { pageSuite } from './pages.ts'
import { rangeSuite } from './ranges.ts'
import { reencryptSuite } from './reencrypt.ts'
import { refusedSuite } from './refused.ts'
import { runSuite } from './runs.ts'
import { sqliteSuite } from './sqlite.ts'
import { sqliteTriggerSuite } from './triggers.ts'
import { verifySuite } from './verify.ts'
import { writerSuite } from './writers.ts'

type Constructor = new (path: string) => SqliteDatabase

function suites(name: string, Database: () => Constructor): void {
  let folder: string
  let client: ReturnType<typeof sqliteClient>
  let count = 0
  const open = (path = join(folder, `${count++}.db`)) => new (Database())(path)
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'waxseal-sqlite-'))
    // One connection, as most applications have: a job and the application take turns on it.
    const db = open()
    db.exec('pragma journal_mode = wal; pragma synchronous = off')
    client = sqliteClient(name, db, db)
  })
  afterAll(async () => {
    await client.close()
    rmSync(folder, { recursive: true, force: true })
  })
  matrixSuite(() => client)
  jobSuite(() => client)
  failureSuite(() => client)
  pageSuite(() => client, 'of 64 bits')
  nameSuite(() => client)
  writerSuite(() => client)
  reencryptSuite(() => client)
  orphanSuite(() => client)
  movingSuite(() => client)
  verifySuite(() => client)
  rangeSuite(() => client)
  aheadSuite(() => client)
  runSuite(() => client)
  refusedSuite(() => client)
  sqliteTriggerSuite(() => client)
  sqliteSuite(name, open, () => join(folder, `${count++}.db`))
}

/** Set for the process that this file starts below, with a Node that has node:sqlite. */
const isChild = process.env.WAXSEAL_TEST_NODE_SQLITE === '1'

if (isChild) {
  describe('node:sqlite', () => {
    suites('node:sqlite', () => createRequire(import.meta.url)('node:sqlite').DatabaseSync as Constructor)
  })
} else {
  describe.skipIf(missing('rotation with better-sqlite3', nativeClientMissing('better-sqlite3')))(
    'better-sqlite3',
    () => {
      suites('better-sqlite3', () => nativeClient<Constructor>('better-sqlite3')!)
    },
  )

  describe.skipIf(missing('rotation with node:sqlite', nodeWithSqliteMissing()))('node:sqlite', () => {
    it('passes the same tests in a process that has it', { timeout: 300_000 }, () => {
      const { status, stdout } = spawnSync(
        nodeWithSqlite()!,
        [
          '--no-warnings',
          fromRoot('node_modules/vitest/vitest.mjs'),
          'run',
          '--reporter=json',
          'test/rotation/sqlite.test.ts',
        ],
        {
          cwd: fromRoot(),
          env: { ...process.env, WAXSEAL_TEST_NODE_SQLITE: '1' },
          encoding: 'utf8',
          maxBuffer: 1 << 28,
        },
      )
      const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
        numPassedTests: number
        testResults: {
          message: string
          assertionResults: { status: string; fullName: string; failureMessages: string[] }[]
        }[]
      }
      const failed = report.testResults.flatMap(({ message, assertionResults }) => [
        ...(message ? [message] : []),
        ...assertionResults
          .filter((test) => test.status === 'failed')
          .map((test) => [test.fullName, ...test.failureMessages]),
      ])
      expect(failed).toEqual([])
      expect(status).toBe(0)
      expect(report.numPassedTests).toBeGreaterThan(140)
    })
  })
}
