import type { JobOptions, RotationSource } from '../rotation/index.ts'
import type { CliConfig } from './config.ts'
import { type Given, usage } from './options.ts'
import type { Output } from './output.ts'

/** What a command runs with. */
export interface Context extends CliConfig {
  readonly given: Given
  readonly out: Output
  readonly signal: AbortSignal
}

/** The tables that were named, or all. */
export function tablesOf({ given, tables }: Context): readonly RotationSource[] {
  const names = given.list('table')
  return names.length === 0 ? tables : names.map((name) => tableOf(tables, name))
}

export function tableOf(tables: readonly RotationSource[], name: string): RotationSource {
  const table = tables.find((each) => each.name === name)
  if (table) return table
  throw usage('table', `no table ${name} in the configuration: ${tables.map((each) => each.name).join(', ')}`)
}

/** What jobs take from the command line. */
export function jobOptions({ given, signal }: Context): Omit<JobOptions, 'onProgress'> {
  const pace = { rowsPerSecond: given.number('rows-per-second'), maxBatchMs: given.number('max-batch-ms') }
  const numbers = {
    batchSize: given.number('batch-size'),
    maxFailures: given.number('max-failures'),
    ranges: given.number('ranges'),
    leaseMs: given.number('lease-ms'),
  }
  return { signal, pace: known(pace), ...known(numbers) }
}

const known = <T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never
