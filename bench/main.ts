import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { importAsShipped } from './build.ts'
import { duel, type Effort, FULL, isOver, QUICK, type Result } from './harness.ts'
import { PAYLOAD } from './payload.ts'
import { bundleSizes, importTime } from './size.ts'

const USAGE = `usage: npm run bench -- [--quick] [--json] [--check] [--only <start of a name>]
  --quick   fewer and shorter rounds: done within a minute
  --json    one JSON array on stdout, nothing else
  --check   exit with 1 when something is over its budget
  --only    benchmarks whose name begins so`

function readArguments() {
  try {
    return parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
      },
    }).values
  } catch (error) {
    console.error(`bench: ${(error as Error).message}\n${USAGE}`)
    process.exit(2)
  }
}

async function* measure(effort: Effort, wanted: (name: string) => boolean): AsyncGenerator<Result> {
  const { duels, concurrentOpen } = await importAsShipped<typeof import('./workloads.ts')>('bench/workloads.ts')
  for (const one of await duels()) if (wanted(one.name)) yield duel(one, effort)
  if (wanted('keyring.open.concurrent_calls')) yield await concurrentOpen()
  if (wanted('import_ms')) yield await importTime(effort)
  if (wanted('bundle_gzip_kb')) yield* await bundleSizes()
}

function header({ rounds, roundMs, processes }: Effort): string {
  return [
    `${cpus()[0]?.model}, ${availableParallelism()} cores; Node ${process.version}, OpenSSL ${process.versions.openssl}`,
    PAYLOAD,
    `medians of ${rounds} interleaved rounds of ${roundMs} ms of processor time a side; import_ms: ${processes} processes a program`,
    ...(globalThis.gc ? [] : ['without --expose-gc: no collection between rounds']),
    '',
    line('name', 'waxseal', 'limit', 'unit', 'ratio', 'spread', 'budget', ''),
  ].join('\n')
}

function row(result: Result): string {
  const { name, unit, value, limit, ratio, spread, budget } = result
  return line(
    name,
    value.toFixed(2),
    limit?.toFixed(2) ?? '–',
    unit,
    ratio?.toFixed(3) ?? '–',
    spread === null ? '–' : `${(spread * 100).toFixed(1)} %`,
    budget === null ? '–' : `≤ ${budget.toFixed(2)}`,
    isOver(result) ? 'OVER BUDGET' : '',
  )
}

function line(name: string, ...cells: string[]): string {
  return name.padEnd(30) + cells.map((cell, i) => (i === 6 ? `  ${cell}` : cell.padStart(9))).join('')
}

const { quick, json, check, only } = readArguments()
const effort = quick ? QUICK : FULL
const results: Result[] = []
if (!json) console.log(header(effort))
for await (const result of measure(effort, (name) => name.startsWith(only))) {
  results.push(result)
  if (!json) console.log(row(result))
}
if (json) console.log(JSON.stringify(results))
if (results.length === 0) {
  console.error(`bench: --only ${only}: no benchmark of that name`)
  process.exit(2)
}
if (check && results.some(isOver)) process.exitCode = 1
