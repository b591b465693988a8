import { toHex } from '../../bytes.ts'
import type { Query } from '../../postgres.ts'

/** Values on their way between PostgreSQL, its clients and records. */

/** Whether this client reads a value of an SQL type as the time of its process's zone. */
export type LocalTypes = (type: string) => boolean

/**
 * date and timestamp have no zone, and clients differ in which one they read into a Date; a Date must be written as the
 * same client would read it.
 */
export async function localTypes(query: Query): Promise<LocalTypes> {
  const [row] = await query(`select '2001-01-01'::date as d1, '2001-07-01'::date as d2,
    '2001-01-01 00:00'::timestamp as t1, '2001-07-01 00:00'::timestamp as t2`)
  const isLocal = (...names: string[]): boolean =>
    names.some((name, i) => {
      const read = row?.[name]
      return read instanceof Date && read.getTime() !== Date.UTC(2001, i === 0 ? 0 : 6, 1)
    })
  const [date, timestamp] = [isLocal('d1', 'd2'), isLocal('t1', 't2')]
  return (type) => (type === 'date' ? date : /^timestamp.*without time zone$/.test(type) && timestamp)
}

function localText(date: Date): string {
  const two = (n: number): string => String(n).padStart(2, '0')
  const day = `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  const ms = String(date.getMilliseconds()).padStart(3, '0')
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`
}

/** A value as json_to_recordset reads it: bytes in PostgreSQL's hexadecimal form, dates as ISO 8601. */
export function asJson(value: unknown, isLocal = false): unknown {
  if (isLocal && value instanceof Date) return localText(value)
  if (value instanceof Uint8Array) return `\\x${toHex(value)}`
  if (typeof value === 'bigint') return String(value)
  // JSON has no NaN, no infinities and no −0; the input of float8 and numeric does.
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (Object.is(value, -0)) return '-0'
  return value ?? null
}
