import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { Query } from '../../src/postgres.ts'
import { sleep } from '../../src/rotation/pace.ts'
import { holders } from './audit.ts'
import type { Choices } from './random.ts'
import { LEASE_MS, type Order, processName, type Report, type Told } from './worker.ts'

const WORKERS = 4
/** How long a worker stands still when nobody takes its range. */
const STILL_MS = 5 * LEASE_MS

/** The processes that do one job, and what they told. */
export interface Workers {
  readonly reports: readonly Report[]
  /** What they met and got over, by code. */
  readonly failures: Readonly<Record<string, number>>
  /** Those that stood still, came back and were refused the step that they were at. */
  readonly late: number
  readonly isOneStalled: boolean
  /** Starts as many as are missing. */
  start(): void
  /** SIGKILL for one that does not stand still. False: there is none. */
  kill(chosen: Choices): Promise<boolean>
  /**
   * SIGSTOP for one that holds a range; SIGCONT when its lease has run out and somebody else has the range: it goes on where
   * it was. Resolves when it stands still. False: nobody holds a range.
   */
  stall(chosen: Choices): Promise<boolean>
  /** Waits until all came to an end, and kills those that did not in time: their number. */
  end(patienceMs: number): Promise<number>
}

export function workersOf(script: string, order: Order, query: Query): Workers {
  const alive = new Set<ChildProcess>()
  const stalled = new Set<ChildProcess>()
  const back = new Set<ChildProcess>()
  const reports: Report[] = []
  const failures: Record<string, number> = {}
  let late = 0
  let comeBack: Promise<void> | undefined
  const env = { ...process.env, WAXSEAL_FAULTS_ORDER: JSON.stringify(order) }

  function begin(): void {
    const child = fork(script, { env, execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    alive.add(child)
    child.on('message', (told: Told) => {
      if ('done' in told) reports.push(told.done)
      else if ('failure' in told) failures[told.failure] = (failures[told.failure] ?? 0) + 1
      else if (back.delete(child)) late++
    })
    child.on('exit', () => alive.delete(child))
  }
  /** The server may be away: then nobody is known to hold anything. */
  const held = (): Promise<ReadonlyMap<string, string>> => holders(query).catch(() => new Map())

  async function resume(child: ChildProcess, range: string, moreMs: number): Promise<void> {
    const own = processName(child.pid)
    const until = performance.now() + STILL_MS
    while (((await held()).get(range) ?? own) === own && performance.now() < until) await sleep(50)
    await sleep(moreMs)
    stalled.delete(child)
    back.add(child)
    child.kill('SIGCONT')
  }
  // SIGKILL ends those that stand still as well.
  const killAll = (): void => {
    for (const child of alive) child.kill('SIGKILL')
  }
  process.on('exit', killAll)

  return {
    reports,
    failures,
    get late() {
      return late
    },
    get isOneStalled() {
      return stalled.size > 0
    },
    start() {
      while (alive.size < WORKERS) begin()
    },
    async kill(chosen) {
      const awake = [...alive].filter((child) => !stalled.has(child))
      if (awake.length === 0) return false
      const child = chosen.pick(awake)
      const exit = once(child, 'exit')
      child.kill('SIGKILL')
      await exit
      return true
    },
    async stall(chosen) {
      const byName = new Map(Array.from(alive, (child) => [processName(child.pid), child]))
      const all = Array.from(await held(), ([range, name]) => ({ range, child: byName.get(name) }))
      const { range, child } = all.length > 0 ? chosen.pick(all) : {}
      if (range === undefined || !child) return false
      child.kill('SIGSTOP')
      stalled.add(child)
      comeBack = resume(child, range, chosen.int(LEASE_MS / 3))
      return true
    },
    async end(patienceMs) {
      await comeBack
      const until = performance.now() + patienceMs
      while (alive.size > 0 && performance.now() < until) await sleep(50)
      const hung = alive.size
      killAll()
      process.off('exit', killAll)
      return hung
    },
  }
}
