import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { buildAsShipped } from '../build.ts'
import { isOver, type Result } from '../harness.ts'
import { arena, DISTINCT } from './arena.ts'
import { duels, growth, JOBS, type Scale } from './measure.ts'

const USAGE = `usage: npm run bench:rotation -- [--quick] [--json] [--check] [--rows <n,n,…>] [--batch <n>] [--only duels|growth] [--job rewrap|reencrypt] [--no-sync]
  --quick    fewer rounds and smaller tables: done within five minutes
  --json     one JSON array on stdout, nothing else
  --check    exit with 1 when something is over its budget
  --rows     sizes of the table for the growth of time and memory; 10000,100000,1000000 by default; above, with --job rewrap
  --batch    rows in a transaction, on both sides; 1000 by default
  --only     one half
  --job      one of the two
  --no-sync  commits do not wait for the disk: the server's own work alone`

const FULL: Scale = {
  rows: 50_000,
  rounds: 9,
  batchSize: 1_000,
  jobs: JOBS,
  workers: [1, 2, 4],
  sizes: [10_000, 100_000, 1_000_000],
}
const QUICK: Scale = { ...FULL, rows: 20_000, rounds: 3, sizes: [10_000, 100_000] }

function readArguments() {
  try {
    return parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        rows: { type: 'string' },
        job: { type: 'string' },
        batch: { type: 'string', default: '1000' },
        only: { type: 'string', default: 'duels,growth' },
        'no-sync': { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    console.error(`bench:rotation: ${(error as Error).message}\n${USAGE}`)
    process.exit(2)
  }
}

const given = readArguments()
const usual = given.quick ? QUICK : FULL
const jobs = JOBS.filter((job) => (given.job ?? job) === job)
const scale: Scale = {
  ...usual,
  jobs,
  batchSize: Number(given.batch),
  sizes: given.rows?.split(',').map(Number) ?? usual.sizes,
}
if (scale.sizes.some((size) => !Number.isSafeInteger(size) || size < 100)) {
  console.error(`bench:rotation: --rows ${given.rows}: whole numbers from 100\n${USAGE}`)
  process.exit(2)
}
if (jobs.includes('reencrypt') && scale.sizes.some((size) => size > DISTINCT)) {
  console.error(
    `bench:rotation: --rows above ${DISTINCT} repeat ciphertext, which only --job rewrap can do with\n${USAGE}`,
  )
  process.exit(2)
}

const line = (name: string, ...cells: string[]): string =>
  name.padEnd(38) + cells.map((cell) => cell.padStart(10)).join('')

function row(result: Result): string {
  const { name, unit, value, limit, ratio, spread, budget, better } = result
  return line(
    name,
    value.toFixed(0),
    limit?.toFixed(0) ?? '–',
    unit,
    ratio?.toFixed(3) ?? '–',
    spread === null ? '–' : `${(spread * 100).toFixed(1)} %`,
    budget === null ? '–' : `${better === 'lower' ? '≤' : '≥'} ${budget.toFixed(2)}`,
    isOver(result) ? ' OVER BUDGET' : '',
  )
}

const place = await arena(await buildAsShipped('bench/rotation/worker.ts'), { durable: !given['no-sync'] })
const results: Result[] = []
try {
  if (!given.json) {
    const sync = given['no-sync'] ? 'fsync off' : 'durable commits'
    console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores; Node ${process.version}, PostgreSQL ${place.version}, ${sync}
medians of ${scale.rounds} interleaved rounds over ${scale.rows} rows of 8 columns, batches of ${scale.batchSize}; growth: one run a size
`)
    console.log(line('name', 'waxseal', 'limit', 'unit', 'ratio', 'spread', 'budget'))
  }
  const parts = { duels, growth }
  for (const [name, measure] of Object.entries(parts)) {
    if (!given.only.split(',').includes(name)) continue
    for await (const result of measure(place, scale)) {
      results.push(result)
      if (!given.json) console.log(row(result))
    }
  }
} finally {
  await place.close()
}
if (given.json) console.log(JSON.stringify(results))
if (given.check && results.some(isOver)) process.exitCode = 1
