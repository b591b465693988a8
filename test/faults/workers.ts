import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import type { PostgresServer } from '../support/postgres.ts'
import type { Choices } from './random.ts'
import type { Order, Report } from './worker.ts'

const WORKERS = 4
/** How long the job may take when nothing goes wrong any more. */
const PATIENCE_MS = 120_000

/** A worker is killed; the server stops at once, is killed or restarted; the KMS is away. */
export type Fault = 'kill' | 'stop' | 'postmaster' | 'restart' | 'kms'

export interface Ended {
  readonly reports: readonly Report[]
  readonly faults: Readonly<Record<Fault, number>>
  /** What workers met and got over, by code. */
  readonly failures: Readonly<Record<string, number>>
}

/** Worker processes do one job among faults; after `seconds`, or when the first is done, nothing more goes wrong. */
export async function workAmongFaults(
  script: string,
  order: Order,
  server: PostgresServer,
  chosen: Choices,
  seconds: number,
): Promise<Ended> {
  const alive = new Set<ChildProcess>()
  const reports: Report[] = []
  const faults = { kill: 0, stop: 0, postmaster: 0, restart: 0, kms: 0 }
  const failures: Record<string, number> = {}
  const env = { ...process.env, WAXSEAL_FAULTS_ORDER: JSON.stringify(order) }

  function start(): void {
    const child = fork(script, { env, execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    alive.add(child)
    child.on('message', ({ done, failure }: { done?: Report; failure?: string }) => {
      if (done) reports.push(done)
      if (failure !== undefined) failures[failure] = (failures[failure] ?? 0) + 1
    })
    child.on('exit', () => alive.delete(child))
  }
  async function kill(child: ChildProcess): Promise<void> {
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  }
  const killAll = (): void => {
    for (const child of alive) child.kill('SIGKILL')
  }
  process.on('exit', killAll)

  for (let i = 0; i < WORKERS; i++) start()
  const quietFrom = performance.now() + seconds * 1_000
  while (reports.length === 0 && performance.now() < quietFrom) {
    await pause(150 + chosen.int(450))
    if (reports.length > 0) break
    const die = chosen.int(20)
    if (die < 2) {
      const how = chosen.pick(['stop', 'postmaster', 'restart'] as const)
      faults[how]++
      await { stop: server.crash, postmaster: server.kill, restart: server.restart }[how]()
    } else if (die < 5) {
      faults.kms++
      writeFileSync(order.away, '')
      await pause(500 + chosen.int(1_500))
      rmSync(order.away)
    } else if (alive.size > 0) {
      faults.kill++
      await kill(chosen.pick([...alive]))
    }
    while (reports.length === 0 && alive.size < WORKERS) start()
  }
  const until = performance.now() + PATIENCE_MS
  while (alive.size > 0 && performance.now() < until) await pause(50)
  killAll()
  process.off('exit', killAll)
  return { reports, faults, failures }
}

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
