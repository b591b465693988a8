import { WaxsealError } from '../errors.ts'

/** What became of one row. */
export type RowResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: WaxsealError; readonly index: number }

/** Rows between two turns of the event loop: some 10 ms of work at most on a slow engine's record, less on Node. */
const ROWS_PER_TURN = 100

/** Maps rows, in order, letting other work of the process run in between. Errors that are not typed always end it. */
export async function mapRows<R, T>(rows: readonly R[], work: (row: R) => T): Promise<RowResult<T>[]> {
  const results: RowResult<T>[] = []
  for (const [index, row] of rows.entries()) {
    if (index > 0 && index % ROWS_PER_TURN === 0) await nextTurn()
    try {
      results.push({ ok: true, value: work(row) })
    } catch (error) {
      if (!WaxsealError.is(error)) throw error
      results.push({ ok: false, error, index })
    }
  }
  return results
}

/** The first failure, thrown; otherwise the values. */
export function allOrThrow<T>(results: readonly RowResult<T>[]): T[] {
  return results.map((result) => {
    if (!result.ok) throw result.error
    return result.value
  })
}

/** A macrotask that fake timers do not hold up. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    const channel = new MessageChannel()
    channel.port1.onmessage = () => {
      channel.port1.close()
      resolve()
    }
    channel.port2.postMessage(null)
  })
}
