import { type ErrorCode, WaxsealError } from '../errors.ts'
import type { RowResult } from '../records/many.ts'
import { isRowRefusal } from './refusal.ts'
import type { Change, ReadRow, RotationSource, RowFailure, Step } from './source.ts'
import type { Work } from './work.ts'

/** A batch of a job: what becomes of its rows, and how it is written although some of them cannot be. */

/** What becomes of one row: a change, a failure, or nothing. */
export interface Outcome {
  readonly read: ReadRow
  readonly change?: Change
  readonly failure?: RowFailure
}

/** What a batch came to. */
export interface Settled {
  readonly written: number
  readonly raced: number
  readonly failed: number
}

/** Longer ids are cut in the books: an index of PostgreSQL holds 2,704 bytes. */
const MAX_ROW_ID = 600

export async function applyAll(source: RotationSource, work: Work, rows: readonly ReadRow[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  const results = await work.applyMany?.(rows)
  for (let i = 0; i < rows.length; i++) {
    const read = rows[i]!
    const result = results?.[i]
    try {
      const change = result?.ok ? result.value : await applyOne(work, read, result)
      outcomes.push(change ? { read, change } : { read })
    } catch (error) {
      // A configuration is wrong for every row; what may be tried again is no fault of the row.
      if (!WaxsealError.is(error) || error.retryable || error.code === 'CONFIG') throw error
      outcomes.push(broken(source, read, error.code))
    }
  }
  return outcomes
}

async function applyOne(work: Work, read: ReadRow, result?: RowResult<Change | null>): Promise<Change | null> {
  try {
    if (!result) return work.apply(read)
    if (!result.ok) throw result.error
    return result.value
  } catch (error) {
    if (!WaxsealError.is(error) || !error.retryable) throw error
    await work.ready()
    return work.apply(read)
  }
}

const broken = (source: RotationSource, read: ReadRow, code: ErrorCode): Outcome => ({
  read,
  failure: { rowId: shortened(source.rowId(read.row)), code },
})

/** Cut, and without the half of a character that the cut, or SQLite, may leave: JSON of PostgreSQL takes none. */
const shortened = (id: string): string => id.slice(0, MAX_ROW_ID).replace(/\p{Surrogate}/gu, '\ufffd')

/** The parts of a step that are the same for the whole batch. */
export type Place = Omit<Step, 'cursor' | 'isDone' | 'seen' | 'failures'>

/**
 * Writes a batch. When the database refuses it on account of a row, its halves are written instead, each with how far it
 * came, down to the row, which is a failure then. Null when the range was lost; what was written before that counts.
 * `allow` is told of failures before they are written, and throws when they are too many.
 */
export async function settle(
  source: RotationSource,
  place: Place,
  outcomes: readonly Outcome[],
  isDone: boolean,
  allow: (step: Step) => Promise<void>,
): Promise<Settled | null> {
  const changes = outcomes.flatMap(({ change }) => change ?? [])
  const failures = outcomes.flatMap(({ failure }) => failure ?? [])
  const cursor = outcomes.at(-1)?.read.cursor ?? null
  const step: Step = { ...place, cursor, isDone, seen: outcomes.length, failures }
  if (failures.length > 0) await allow(step)
  try {
    const stepped = await source.write(changes, step)
    if (!stepped) return null
    const { written } = stepped
    return { written, raced: changes.length - written, failed: failures.length }
  } catch (error) {
    const [only] = outcomes
    if (!only || changes.length === 0 || !isRowRefusal(error)) throw error
    if (outcomes.length === 1) {
      const code = WaxsealError.is(error) ? error.code : 'ROW_REFUSED'
      return settle(source, place, [broken(source, only.read, code)], isDone, allow)
    }
  }
  const half = outcomes.length >> 1
  const first = await settle(source, place, outcomes.slice(0, half), false, allow)
  const rest = { ...place, after: outcomes[half - 1]!.read.cursor }
  const second = first && (await settle(source, rest, outcomes.slice(half), isDone, allow))
  return (
    second && {
      written: first.written + second.written,
      raced: first.raced + second.raced,
      failed: first.failed + second.failed,
    }
  )
}
