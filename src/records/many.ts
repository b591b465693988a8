import { WaxsealError } from '../errors.ts'

/** What became of one row. */
export type RowResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: WaxsealError; readonly index: number }

/** Rows between two turns of the event loop: some 10 ms of work at most on a slow engine's record, less on Node. */
const ROWS_PER_TURN = 100

/** Maps rows, in order, letting other work of the process run in between. Errors that are not typed always end it. */
export function mapRows<R, T>(rows: readonly R[], work: (row: R) => T): Promise<RowResult<T>[]> {
  return mapTurns(rows, ROWS_PER_TURN, () => work)
}

/** The same for work that `begin` does for the rows of a turn at once, as far as it goes. */
export async function mapTurns<R, T>(
  rows: readonly R[],
  rowsPerTurn: number,
  begin: (rows: readonly R[]) => (row: R, i: number) => T,
): Promise<RowResult<T>[]> {
  const results: RowResult<T>[] = []
  for (let first = 0; first < rows.length; first += rowsPerTurn) {
    if (first > 0) await nextTurn()
    const turn = rows.slice(first, first + rowsPerTurn)
    const work = begin(turn)
    for (let i = 0; i < turn.length; i++) {
      try {
        results.push({ ok: true, value: work(turn[i]!, i) })
      } catch (error) {
        if (!WaxsealError.is(error)) throw error
        results.push({ ok: false, error, index: first + i })
      }
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
