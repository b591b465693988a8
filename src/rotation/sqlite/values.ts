import type { Node } from '../../records/compile.ts'
import type { SqliteValue } from '../../sqlite.ts'
import type { Found } from '../dialect.ts'
import { fromClient } from '../values.ts'

/** Values on their way between SQLite, which has five types and no more, and records. */

/** How a Date is kept: as text of ISO 8601, or as a number of ms or s since 1970. */
export type Dates = 'text' | 'ms' | 's'

/** What says that a text is that of another value. No text of a table begins so but by intent. */
const MARK = '\u0001'

/**
 * A value as text that no other one has: text as it is, anything else by its type and all its digits. An expression
 * has no affinity and no collation, so two such texts are equal when they are the same bytes.
 */
export function wasText(column: string): string {
  return `case typeof(${column}) when 'text' then ${column} when 'null' then null
    else char(1) || typeof(${column}) || ' ' || case typeof(${column}) when 'blob' then hex(${column}) else quote(${column}) end end`
}

/** A column and, where it is no text, the text of its value. Clients lose digits of integers, or refuse them. */
export const selectCell = (column: string, value: string, was: string): readonly string[] => [
  `case typeof(${column}) when 'integer' then null else ${column} end as "${value}"`,
  `case typeof(${column}) when 'text' then null else ${wasText(column)} end as "${was}"`,
]

/** The value of a cell; an integer as a bigint where a number would lose digits. */
export function cellOf(found: Found, value: string, was: string): unknown {
  const text = integerOf(found[was])
  if (text === undefined) return found[value]
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text)
}

function integerOf(was: unknown): string | undefined {
  const head = `${MARK}integer `
  return typeof was === 'string' && was.startsWith(head) ? was.slice(head.length) : undefined
}

const DATE = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)\s?(Z|[+-]\d\d:\d\d)?)?$/

/** The plaintext of a field. What does not fit stays as it is, or becomes what no field takes: the record refuses it. */
export function plaintextOf(node: Node, value: unknown, dates: Dates): unknown {
  if (value === null) return null
  if (node.type !== 'leaf' || node.kind === 'json') return typeof value === 'string' ? parsed(value) : Number.NaN
  if (node.kind === 'boolean') return value === 0 ? false : value === 1 ? true : value
  if (node.kind === 'date') return dateOf(value, dates)
  return fromClient(node, value)
}

function dateOf(value: unknown, dates: Dates): unknown {
  if (dates !== 'text') return typeof value === 'number' ? new Date(dates === 's' ? value * 1000 : value) : value
  const [, day, time = '00:00', zone = 'Z'] = (typeof value === 'string' && DATE.exec(value)) || []
  return day === undefined ? value : new Date(`${day}T${time}${zone}`)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return Number.NaN
  }
}

/** A plaintext as it is kept in a column. */
export function kept(node: Node, value: unknown, dates: Dates): unknown {
  if (value === null || value === undefined) return null
  if (node.type !== 'leaf' || node.kind === 'json') return JSON.stringify(value)
  if (!(value instanceof Date)) return value
  return dates === 'text' ? value.toISOString() : dates === 's' ? value.getTime() / 1000 : value.getTime()
}

/** A parameter: whole numbers as integers, because clients send every number as a real. */
export function parameter(value: unknown): SqliteValue {
  if (typeof value === 'number') return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value
  if (typeof value === 'boolean') return value ? 1n : 0n
  if (typeof value === 'bigint' && BigInt.asIntN(64, value) !== value) return String(value)
  if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array)) return JSON.stringify(value)
  return (value ?? null) as SqliteValue
}

/** An id from its text in a cursor. An integer is sent as one: a column without a type has no affinity. */
export const idOf = (text: string): SqliteValue => (/^-?\d+$/.test(text) ? parameter(BigInt(text)) : text)
