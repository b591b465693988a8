import { rmSync, writeFileSync } from 'node:fs'
import { sleep } from '../../src/rotation/pace.ts'
import type { PostgresServer } from '../support/postgres.ts'
import type { Choices } from './random.ts'
import type { Order } from './worker.ts'
import type { Workers } from './workers.ts'

/** How long the job may take when nothing goes wrong any more. */
const PATIENCE_MS = 120_000

/** A worker is killed, or stands still; the server stops at once, is killed or restarted; the KMS is away. */
export type Fault = 'kill' | 'stall' | 'stop' | 'postmaster' | 'restart' | 'kms'

export interface Ended extends Pick<Workers, 'reports' | 'failures' | 'late'> {
  readonly faults: Readonly<Record<Fault, number>>
  /** Workers that did not come to an end. */
  readonly hung: number
}

/** Worker processes do one job among faults; after `seconds`, or when the first is done, nothing more goes wrong. */
export async function workAmongFaults(
  workers: Workers,
  { away }: Order,
  server: PostgresServer,
  chosen: Choices,
  seconds: number,
): Promise<Ended> {
  const faults = { kill: 0, stall: 0, stop: 0, postmaster: 0, restart: 0, kms: 0 }
  /** False: it could not happen. */
  const happen: Record<Fault, () => Promise<unknown>> = {
    kill: () => workers.kill(chosen),
    stall: () => workers.stall(chosen),
    stop: server.crash,
    postmaster: server.kill,
    restart: server.restart,
    async kms() {
      writeFileSync(away, '')
      await sleep(500 + chosen.int(1_500))
      rmSync(away)
    },
  }
  const quietFrom = performance.now() + seconds * 1_000
  const isQuiet = (): boolean => workers.reports.length > 0 || performance.now() >= quietFrom
  while (!isQuiet()) {
    workers.start()
    await sleep(150 + chosen.int(450))
    if (isQuiet()) break
    const fault = next(chosen, workers.isOneStalled)
    if ((await happen[fault]()) !== false) faults[fault]++
  }
  if (workers.reports.length === 0) workers.start()
  const hung = await workers.end(PATIENCE_MS)
  const { reports, failures, late } = workers
  return { faults, hung, reports, failures, late }
}

/** One worker at a time stands still. */
function next(chosen: Choices, isOneStalled: boolean): Fault {
  const die = chosen.int(20)
  if (die < 2) return chosen.pick(['stop', 'postmaster', 'restart'])
  if (die < 5) return 'kms'
  return die < 12 && !isOneStalled ? 'stall' : 'kill'
}
