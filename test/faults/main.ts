import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { createKeyring, type Keyring } from '../../src/index.ts'
import { keyStoreSchema, postgresKeyStore } from '../../src/keystore/postgres.ts'
import { localKms } from '../../src/kms/local.ts'
import { retire } from '../../src/rotation/index.ts'
import { postgresTable } from '../../src/rotation/sources/postgres.ts'
import { type PostgresClient, pgClient } from '../rotation/clients.ts'
import { createTable } from '../rotation/tables.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { fromRoot } from '../support/sources.ts'
import { discrepancies, install } from './audit.ts'
import { differences, type Model, type Plain } from './model.ts'
import { choices } from './random.ts'
import { JOBS, type Job, NAME, type Order, recordOf, type Shape } from './worker.ts'
import { type Ended, workAmongFaults } from './workers.ts'
import { COUNTED, type Counts, WRITERS, write } from './writers.ts'

/**
 * Jobs among faults, on a real PostgreSQL that syncs to disk: four worker processes do one job while writers write,
 * workers and the server are killed, and the KMS is away. `--job` is one of them, or all in their order; `--seed` determines
 * every choice (not the timing); `--rows` is the size of the table, `--minutes` how long faults go on in each job at most.
 * Exit code 1: something was lost.
 */
const isQuick = process.env.CI === 'true'
const { values } = parseArgs({
  options: {
    job: { type: 'string', default: 'all' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    rows: { type: 'string', default: isQuick ? '20000' : '200000' },
    minutes: { type: 'string', default: isQuick ? '0.5' : '1.5' },
  },
})
const [seed, rows, minutes] = [values.seed, values.rows, values.minutes].map(Number) as [number, number, number]
const jobs = JOBS.filter((job) => values.job === 'all' || values.job === job)
const isRight = Number.isSafeInteger(seed) && seed >= 0 && Number.isSafeInteger(rows) && rows >= 100 && minutes > 0
if (!isRight || jobs.length === 0) {
  console.error(
    `usage: npm run test:faults -- [--job all|${JOBS.join('|')}] [--seed n] [--rows n, 100 or more] [--minutes n]`,
  )
  process.exit(2)
}

const ROOT = '3c'.repeat(32)
const CHUNK = 1_000

async function main(folder: string, server: PostgresServer, client: PostgresClient): Promise<string[]> {
  const shape: Shape = seed % 2 === 0 ? 'columns' : 'packed'
  const record = recordOf(shape)
  const script = join(folder, 'worker.mjs')
  const entryPoints = [fromRoot('test/faults/worker.ts')]
  const banner = { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)" }
  await build({ entryPoints, outfile: script, bundle: true, platform: 'node', format: 'esm', target: 'node20', banner })

  await client.query(keyStoreSchema())
  const store = postgresKeyStore(client.db)
  const keys = await createKeyring({ name: NAME, store, kms: localKms(ROOT), propagationMs: 0 })
  await makeTable(client, record)
  const model: Model = { rows: new Map(), unsure: new Map() }
  await fill(client, recordOf(shape, jobs[0] === 'encrypt' ? 'prepare' : 'strict'), keys, model)
  await install(client.query)

  const wrong: string[] = []
  for (const job of jobs) {
    const old = keys.status().active!
    const own = seed * 100 + JOBS.indexOf(job) * 10
    if (job !== 'encrypt') await keys.promote(await keys.rotate(), { urgent: true })
    const started = performance.now()
    let isOver = false
    const [before, after] = (['prepare', 'encrypt'] as const).map((phase) => recordOf(shape, phase))
    // Half of the writers are of the last release until an eighth of the time is over: they still write plaintext.
    const isLate = (writer: number): boolean => writer % 2 === 0 && performance.now() - started < minutes * 7_500
    const recordNow = (writer: number) => () => (job !== 'encrypt' ? record : isLate(writer) ? before! : after!)
    const writers = Array.from({ length: WRITERS }, (_, writer) =>
      write(client, recordNow(writer), keys, writer, model, own + writer + 1, () => isOver),
    )
    // Slow enough to be hit many times.
    const rowsPerSecond = Math.max(200, Math.ceil(rows / (minutes * 60)))
    const order: Order = { url: server.url, root: ROOT, job, shape, away: join(folder, 'away'), rowsPerSecond }
    const ended = await workAmongFaults(script, order, server, choices(own), minutes * 60)
    isOver = true
    const counts = await Promise.all(writers)

    const { wrong: found, raced } = await discrepancies(client.query)
    if (ended.reports.length === 0) found.push('no worker came to an end')
    for (const { failed, left } of ended.reports) {
      if (failed > 0 || left > 0) found.push(`a worker reported ${failed} failed, ${left} left`)
    }
    found.push(...differences(model, await read(client, record, keys)))
    found.push(...(await (job === 'encrypt' ? plaintextLeft(client) : retired(client, record, keys, old))))
    wrong.push(...found.map((line) => `${job}: ${line}`))
    tell(job, shape, performance.now() - started, ended, { ...total(counts), raced }, model)
  }
  await keys.close()
  return wrong
}

/** The table of the tests; while it is encrypted, rows without an envelope are in it. */
async function makeTable({ query }: PostgresClient, record: ReturnType<typeof recordOf>): Promise<void> {
  await createTable(query, record as never)
  await query('alter table accounts alter column envelope drop not null')
  // In the packed shape the plaintext has columns of its own.
  if (record.schema.kind === 'packed') await query('alter table accounts add column email text, add column note text')
}

async function plaintextLeft({ query }: PostgresClient): Promise<string[]> {
  const [row] = await query<{ n: string }>(
    `select count(*) as n from accounts where envelope is null or email like '%@example.org' or note like 'note %'`,
  )
  return Number(row?.n) === 0 ? [] : [`${row?.n} rows hold plaintext`]
}

async function retired(
  client: PostgresClient,
  record: ReturnType<typeof recordOf>,
  keys: Keyring,
  old: string,
): Promise<string[]> {
  const table = postgresTable(client.db, record)
  const left = (await table.countByKey([old])).get(old)
  const found = left === 0 ? [] : [`${left} rows refer to the old version`]
  await retire({ keys, keyId: old, tables: [table] }).catch((error) => found.push(String(error)))
  if (keys.status().versions.find(({ id }) => id === old)?.retired !== true) {
    found.push('the old version is not retired')
  }
  return found
}

const total = (counts: readonly Counts[]): Counts =>
  counts.reduce((sum, count) => Object.fromEntries(COUNTED.map((kind) => [kind, sum[kind] + count[kind]])) as Counts)

type Told = Counts & { readonly raced: number }

function tell(job: Job, shape: Shape, ms: number, { faults, failures }: Ended, counts: Told, model: Model): void {
  const { kill, stop, postmaster, restart, kms } = faults
  console.log(
    `${job} (${shape}): ${(ms / 1000).toFixed(1)} s; ${kill} kills, ${stop} crashes, ${postmaster} kills of the server, ` +
      `${restart} restarts, KMS away ${kms} times; ${counts.insert} inserts, ${counts.update} updates, ` +
      `${counts.patch} patches, ${counts.delete} deletes; the job lost ${counts.raced} races, patches ${counts.conflict}; ` +
      `${counts.lost} answers lost; ${model.rows.size + model.unsure.size} rows; ` +
      `workers got over ${JSON.stringify(failures)}`,
  )
}

async function fill(
  { query }: PostgresClient,
  record: ReturnType<typeof recordOf>,
  keys: Keyring,
  { rows: all }: Model,
) {
  for (let from = 0; from < rows; from += CHUNK) {
    const chunk = Array.from({ length: Math.min(CHUNK, rows - from) }, (_, i): Plain => {
      const id = from + i
      return { id, email: `e${id}@example.org`, note: id % 3 === 0 ? null : `note ${id}`, city: 'Oslo' }
    })
    const stored = chunk.map((row) => record.encrypt(keys, row))
    await query('insert into accounts select * from json_populate_recordset(null::accounts, $1::text::json)', [
      JSON.stringify(stored),
    ])
    for (const row of chunk) all.set(row.id, row)
  }
}

async function read({ query }: PostgresClient, record: ReturnType<typeof recordOf>, keys: Keyring) {
  const found = new Map<number, Plain>()
  for (let after = -1; ; ) {
    const page = await query('select * from accounts where id > $1 order by id limit 5000', [after])
    for (const row of page) {
      const id = (row as { id: number }).id
      try {
        found.set(id, record.decrypt(keys, row as never) as Plain)
      } catch (error) {
        // With the row as it is: a violation cannot be made again at will.
        found.set(id, { id, email: `${error} ${JSON.stringify(row)}`, note: null, city: '' })
      }
      after = id
    }
    if (page.length === 0) return found
  }
}

console.log(`seed ${seed}, ${rows} rows, ${jobs.join(', ')}: faults for ${minutes} minutes at most in each`)
const folder = mkdtempSync(join(tmpdir(), 'waxseal-faults-'))
const server = await startPostgres({ fsync: true })
const client = pgClient(server.url)
try {
  const wrong = await main(folder, server, client)
  for (const line of wrong) console.error(line)
  console.log(`seed ${seed}: ${wrong.length === 0 ? 'nothing lost' : `${wrong.length} VIOLATIONS`}`)
  process.exitCode = wrong.length === 0 ? 0 : 1
} finally {
  await client.close()
  server.stop()
  rmSync(folder, { recursive: true, force: true })
}
