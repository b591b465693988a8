import type { KeySource } from '../envelope/keys.ts'
import { at, WaxsealError } from '../errors.ts'
import { type IdColumn, type Row, rowId } from './compile.ts'

/** Which field is being worked on: set as the work goes along, so that no closure per field is needed. */
export interface Place {
  field: string | undefined
}

/** What an error or an event is told of: a table, and how its rows are told apart. */
export interface Subject {
  readonly label: string
  readonly ids: readonly IdColumn[]
}

/** Runs `work`; a failure learns table, field and row id, and listeners learn of it. */
export function located<T>(
  subject: Subject,
  keys: KeySource,
  operation: string,
  row: Row,
  work: (place: Place) => T,
  place: Place = { field: undefined },
): T {
  try {
    return work(place)
  } catch (error) {
    const id = idOf(subject, row)
    const told = at(error, { table: subject.label, field: place.field, rowId: id })
    if (WaxsealError.is(told)) {
      const { code, field, keyId } = told
      keys.emit({ type: 'failure', operation, code, table: subject.label, field, rowId: id, keyId })
    }
    throw told
  }
}

/** The row's id for people; undefined where there is none or it is not canonical. */
export function idOf({ ids }: Subject, row: Row | undefined): string | undefined {
  return ids.length > 0 && typeof row === 'object' && row !== null ? rowId(ids, row) : undefined
}
