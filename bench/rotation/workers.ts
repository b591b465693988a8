import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { Answer, Order } from './worker.ts'

/** Worker processes, ready: keyring open, connected. They work at the same time. */
export interface Workers {
  /** One order each; the answers in the same order. */
  carryOut(orders: readonly Order[]): Promise<Answer[]>
  stop(): void
}

export async function startWorkers(program: string, count: number, env: Record<string, string>): Promise<Workers> {
  const children = Array.from({ length: count }, () =>
    fork(program, [], {
      env: { ...process.env, ...env },
      execArgv: [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    }),
  )
  const stop = (): void => {
    for (const child of children) child.kill()
  }
  try {
    await Promise.all(children.map(heard))
  } catch (error) {
    stop()
    throw error
  }
  return {
    stop,
    carryOut(orders) {
      return Promise.all(
        orders.map((order, i) => {
          const answer = heard<Answer>(children[i]!)
          children[i]!.send(order)
          return answer
        }),
      )
    },
  }
}

/** The next message of a child; fails when it dies instead. */
async function heard<T>(child: ChildProcess): Promise<T> {
  const over = new AbortController()
  const { signal } = over
  const died = once(child, 'exit', { signal }).then(([code]) => {
    throw new Error(`a worker of the benchmark ended with ${code}`)
  })
  try {
    const [message] = (await Promise.race([once(child, 'message', { signal }), died])) as [T]
    return message
  } finally {
    died.catch(() => undefined)
    over.abort()
  }
}
