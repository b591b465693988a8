import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { importAsShipped, root } from './build.ts'

/**
 * What a keyring per tenant costs: memory of an open keyring, KMS calls to open it and per hour, and their price. Not part of
 * `npm run bench`: 100,000 keyrings take minutes. Each size runs in a process of its own.
 */
const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    tenants: { type: 'string', default: '10,1000,100000' },
    versions: { type: 'string', default: '1' },
    one: { type: 'string' },
  },
})
const versions = Number(values.versions)

/** A vendor's published price, to be checked: AWS KMS, symmetric requests. */
const USD_PER_REQUEST = 0.03 / 10_000
const HOURS_PER_MONTH = 730

if (values.one !== undefined) {
  const { openAll, hourly } = await importAsShipped<typeof import('./tenancy.ts')>('bench/tenancy.ts')
  const tenants = Number(values.one)
  console.log(JSON.stringify({ ...(await openAll(tenants, versions)), hourly: await hourly(versions) }))
} else {
  const results = values.tenants.split(',').map(inOwnProcess)
  if (values.json) console.log(JSON.stringify(results))
  else console.table(results)
}

function inOwnProcess(tenants: string) {
  const own = ['--expose-gc', '--max-old-space-size=8192', '--import', 'tsx', 'bench/tenants.ts']
  const given = [...own, '--one', tenants, '--versions', String(versions)]
  const { status, stdout, stderr } = spawnSync(process.execPath, given, { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`bench:tenants: ${tenants} tenants failed: ${stderr}`)
  const { hourly, ...opened } = JSON.parse(stdout) as import('./tenancy.ts').TenancyResult & {
    hourly: { kmsCalls: number; storeReads: number }
  }
  const perMonth = opened.tenants * hourly.kmsCalls * HOURS_PER_MONTH
  return {
    ...opened,
    openSeconds: round(opened.openSeconds),
    kmsCallsPerHour: round(hourly.kmsCalls),
    storeReadsPerHour: round(hourly.storeReads),
    usdPerMonthAllActive: round(perMonth * USD_PER_REQUEST),
  }
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}
