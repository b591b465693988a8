import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { createKeyring } from '../../src/index.ts'
import { keyStoreSchema, postgresKeyStore } from '../../src/keystore/postgres.ts'
import { localKms } from '../../src/kms/local.ts'
import { type PostgresClient, pgClient } from '../rotation/clients.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { fromRoot } from '../support/sources.ts'
import { discrepancies, install } from './audit.ts'
import { type Ended, workAmongFaults } from './faults.ts'
import { differences, type Model } from './model.ts'
import { choices } from './random.ts'
import { otherShape, recordOf, type Shape, type Stored, shapeOf } from './record.ts'
import { fill, leftovers, makeTable, readAll, retired } from './table.ts'
import { JOBS, type Job, NAME, type Order } from './worker.ts'
import { workersOf } from './workers.ts'
import { COUNTED, type Counts, WRITERS, write } from './writers.ts'

/**
 * Jobs among faults, on a real PostgreSQL that syncs to disk: four worker processes do one job while writers write,
 * workers are killed, or stand still for longer than their lease, the server is killed, and the KMS is away. `--job` is one of
 * them, or all in their order; `--seed` determines every choice (not the timing); `--rows` is the size of the table,
 * `--minutes` how long faults go on in each job at most.
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
const STRICT = { columns: recordOf('columns'), packed: recordOf('packed') }

async function main(folder: string, server: PostgresServer, client: PostgresClient): Promise<string[]> {
  const shape: Shape = seed % 2 === 0 ? 'columns' : 'packed'
  const script = join(folder, 'worker.mjs')
  const entryPoints = [fromRoot('test/faults/worker.ts')]
  const banner = { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)" }
  await build({ entryPoints, outfile: script, bundle: true, platform: 'node', format: 'esm', target: 'node20', banner })

  await client.query(keyStoreSchema())
  const store = postgresKeyStore(client.db)
  const keys = await createKeyring({ name: NAME, store, kms: localKms(ROOT), propagationMs: 0 })
  await makeTable(client, STRICT[shape])
  const model: Model = { rows: new Map(), unsure: new Map() }
  await fill(client, jobs[0] === 'encrypt' ? recordOf(shape, 'prepare') : STRICT[shape], keys, model, rows)
  await install(client.query)

  const wrong: string[] = []
  for (const job of jobs) {
    const old = keys.status().active!
    const own = seed * 100 + JOBS.indexOf(job) * 10
    if (job !== 'encrypt') await keys.promote(await keys.rotate(), { urgent: true })
    const started = performance.now()
    let isOver = false
    const recordNow = releases(job, shape, started)
    const writers = Array.from({ length: WRITERS }, (_, writer) =>
      write(
        client,
        (row) => recordNow(writer, row),
        keys,
        writer,
        model,
        own + writer + 1,
        () => isOver,
      ),
    )
    // Slow enough to be hit many times.
    const rowsPerSecond = Math.max(200, Math.ceil(rows / (minutes * 60)))
    const order: Order = { url: server.url, root: ROOT, job, shape, away: join(folder, 'away'), rowsPerSecond }
    const workers = workersOf(script, order, client.query)
    const ended = await workAmongFaults(workers, order, server, choices(own), minutes * 60)
    isOver = true
    const counts = await Promise.all(writers)

    const { wrong: found, ...sums } = await discrepancies(client.query, ended.reports)
    if (ended.reports.length === 0) found.push('no worker came to an end')
    if (ended.hung > 0) found.push(`${ended.hung} workers did not come to an end`)
    for (const { failed, left } of ended.reports) {
      if (failed > 0 || left > 0) found.push(`a worker reported ${failed} failed, ${left} left`)
    }
    const after = shapeAfter(job, shape)
    found.push(...differences(model, await readAll(client, STRICT[after], keys)), ...(await leftovers(client, after)))
    if (job !== 'encrypt') found.push(...(await retired(client, STRICT[after], keys, old)))
    wrong.push(...found.map((line) => `${job}: ${line}`))
    tell(job, shape, performance.now() - started, ended, { ...total(counts), ...sums }, model)
  }
  await keys.close()
  return wrong
}

const shapeAfter = (job: Job, shape: Shape): Shape => (job === 'move' ? otherShape(shape) : shape)

/** The record that a writer writes with at this moment, or patches a row with. */
function releases(job: Job, shape: Shape, started: number) {
  if (job !== 'encrypt') return (_: number, row?: Stored) => STRICT[row ? shapeOf(row) : shapeAfter(job, shape)]
  const [before, after] = [recordOf(shape, 'prepare'), recordOf(shape, 'encrypt')]
  // Half of the writers are of the last release until an eighth of the time is over: they still write plaintext.
  const isLate = (writer: number): boolean => writer % 2 === 0 && performance.now() - started < minutes * 7_500
  return (writer: number) => (isLate(writer) ? before : after)
}

const total = (counts: readonly Counts[]): Counts =>
  counts.reduce((sum, count) => Object.fromEntries(COUNTED.map((kind) => [kind, sum[kind] + count[kind]])) as Counts)

type Sums = Counts & { readonly seen: number; readonly raced: number }

function tell(job: Job, shape: Shape, ms: number, { faults, late, failures }: Ended, counts: Sums, model: Model): void {
  const { kill, stall, stop, postmaster, restart, kms } = faults
  console.log(
    `${job} (${shape}): ${(ms / 1000).toFixed(1)} s; ${kill} kills, ${stall} stalls (${late} came back too late), ` +
      `${stop} crashes, ${postmaster} kills of the server, ${restart} restarts, KMS away ${kms} times; ` +
      `${counts.insert} inserts, ${counts.update} updates, ${counts.patch} patches, ${counts.delete} deletes; ` +
      `the job saw ${counts.seen} rows and lost ${counts.raced} races, patches ${counts.conflict}; ` +
      `${counts.lost} answers lost; ${model.rows.size + model.unsure.size} rows; ` +
      `workers got over ${JSON.stringify(failures)}`,
  )
}

console.log(`seed ${seed}, ${rows} rows, ${jobs.join(', ')}: faults for ${minutes} minutes at most in each`)
const folder = mkdtempSync(join(tmpdir(), 'waxseal-faults-'))
const server = await startPostgres({ fsync: true })
const client = pgClient(server.url)
// What is left to `exit` is done then as well: no process of ours goes on, not even one that stands still.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
try {
  const wrong = await main(folder, server, client)
  for (const line of wrong) console.error(line)
  console.log(`seed ${seed}: ${wrong.length === 0 ? 'nothing lost' : `${wrong.length} VIOLATIONS`}`)
  process.exitCode = wrong.length === 0 ? 0 : 1
} finally {
  await client.close()
  server.stop()
}
