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
import { NAME, type Order, recordOf, type Shape } from './worker.ts'
import { workAmongFaults } from './workers.ts'
import { WRITERS, write } from './writers.ts'

/**
 * Rotation among faults, on a real PostgreSQL that syncs to disk: four worker processes do one job while writers write,
 * workers are killed, the server crashes and the KMS is away. `--seed` determines every choice (not the timing), `--rows`
 * the size of the table, `--seconds` how long faults go on in each of the two jobs. Exit code 1: something was lost.
 */
const isQuick = process.env.CI === 'true'
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    rows: { type: 'string', default: isQuick ? '20000' : '200000' },
    seconds: { type: 'string', default: isQuick ? '30' : '90' },
  },
})
const [seed, rows, seconds] = [values.seed, values.rows, values.seconds].map(Number) as [number, number, number]
if (![seed, rows, seconds].every((n) => Number.isSafeInteger(n) && n >= 0) || rows < 100 || seconds < 1) {
  console.error('usage: npm run test:faults -- [--seed n] [--rows n, 100 or more] [--seconds n, 1 or more]')
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
  await createTable(client.query, record as never)
  const model: Model = { rows: new Map(), unsure: new Map() }
  await fill(client, record, keys, model)
  await install(client.query)

  const wrong: string[] = []
  for (const [phase, job] of (['rewrap', 'reencrypt'] as const).entries()) {
    const old = keys.status().active!
    await keys.promote(await keys.rotate(), { urgent: true })
    const started = performance.now()
    let isOver = false
    const writers = Array.from({ length: WRITERS }, (_, own) =>
      write(client, record, keys, own, model, seed * 100 + phase * 10 + own + 1, () => isOver),
    )
    // Slow enough to be hit many times.
    const rowsPerSecond = Math.max(200, Math.ceil(rows / (seconds / 2) / 2))
    const order: Order = { url: server.url, root: ROOT, job, shape, away: join(folder, 'away'), rowsPerSecond }
    const ended = await workAmongFaults(script, order, server, choices(seed * 100 + phase * 10), seconds)
    isOver = true
    const counts = await Promise.all(writers)

    const found = [...(await discrepancies(client.query))]
    if (ended.reports.length === 0) found.push('no worker came to an end')
    for (const { failed, remaining } of ended.reports) {
      if (failed > 0 || remaining.length > 0) found.push(`a worker reported ${failed} failed, ${remaining} remaining`)
    }
    const table = postgresTable(client.db, record)
    const left = (await table.countByKey([old])).get(old)
    if (left !== 0) found.push(`${left} rows refer to the old version`)
    found.push(...differences(model, await read(client, record, keys)))
    await retire({ keys, keyId: old, tables: [table] }).catch((error) => found.push(String(error)))
    if (keys.status().versions.find(({ id }) => id === old)?.retired !== true)
      found.push('the old version is not retired')
    wrong.push(...found.map((line) => `${job}: ${line}`))

    const sum = (name: keyof (typeof counts)[number]) => counts.reduce((total, count) => total + count[name], 0)
    const { kill, crash, kms } = ended.faults
    console.log(
      `${job} (${shape}): ${((performance.now() - started) / 1000).toFixed(1)} s, ${kill} kills, ${crash} crashes, KMS away ${kms} times; ` +
        `${sum('insert')} inserts, ${sum('update')} updates, ${sum('patch')} patches, ${sum('delete')} deletes, ` +
        `${sum('conflict')} conflicts, ${sum('lost')} answers lost; ${model.rows.size + model.unsure.size} rows; ` +
        `workers got over ${JSON.stringify(ended.failures)}`,
    )
  }
  await keys.close()
  return wrong
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
        found.set(id, { id, email: String(error), note: null, city: '' })
      }
      after = id
    }
    if (page.length === 0) return found
  }
}

console.log(`seed ${seed}, ${rows} rows, faults for ${seconds} s a job`)
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
