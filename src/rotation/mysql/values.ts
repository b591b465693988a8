import { ascii, toBase64url } from '../../bytes.ts'
import type { Node } from '../../records/compile.ts'
import { fromClient } from '../values.ts'
import type { SqlColumn } from './column.ts'

/** Values on their way between MySQL, which is asked for bytes of text whatever the column, and records. */

const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** Of what a client gives for bytes, or for text in ASCII. */
export const textOf = (value: unknown): string => (value instanceof Uint8Array ? decoder.decode(value) : String(value))

/** For from_base64(), of bytes or of the UTF-8 of a text. */
export function base64Of(value: string | Uint8Array): string {
  const text = toBase64url(typeof value === 'string' ? ascii(value) : value)
  return text
    .replaceAll('-', '+')
    .replaceAll('_', '/')
    .padEnd(Math.ceil(text.length / 4) * 4, '=')
}

/** How a client reads a datetime, which has no zone: as local time of the process, or as so many ms behind UTC. */
export type Clock = 'local' | number

const DAYS = ['2001-01-01', '2001-07-01'] as const
/** Asked of the client with its own settings, for {@link clockOf}. */
export const CLOCK_SQL = `select ${DAYS.map((day, i) => `cast('${day} 00:00:00' as datetime) as d${i}`).join(', ')}`

/** Where a client gives no Date for a datetime, it is taken for UTC. */
export function clockOf(answer: unknown): Clock {
  const [first] = Array.isArray(answer) && Array.isArray(answer[0]) ? answer[0] : (answer as unknown[])
  const read = Object.values((first ?? {}) as object)
  if (!read.every((value) => value instanceof Date)) return 0
  const isAll = (offset: (i: number) => number): boolean =>
    read.every((date, i) => (date as Date).getTime() === Date.parse(`${DAYS[i]}T00:00:00Z`) - offset(i))
  if (isAll(() => 0)) return 0
  if (isAll((i) => Date.parse(`${DAYS[i]}T00:00:00Z`) - Date.parse(`${DAYS[i]}T00:00:00`))) return 'local'
  return Date.parse(`${DAYS[0]}T00:00:00Z`) - (read[0] as Date).getTime()
}

/** The plaintext of a field. What does not fit stays as it is, or becomes what no field takes: the record refuses it. */
export function plaintextOf(node: Node, column: SqlColumn, value: string | Uint8Array | null, clock: Clock): unknown {
  if (value === null || value instanceof Uint8Array) return value
  if (node.type !== 'leaf' || node.kind === 'json') return parsed(value)
  if (node.kind === 'boolean') return value === '0' ? false : value === '1' ? true : value
  if (node.kind === 'date') return dateOf(value, column.type, clock)
  if (node.kind === 'number') return numberOf(value, column.type)
  return fromClient(node, value)
}

/** A number has some 15 decimal digits: a decimal or an integer with more would come back as another one. */
function numberOf(text: string, type: string): unknown {
  const number = Number(text)
  if (text === '' || !Number.isFinite(number)) return text
  const digits = text.replace(/^-?[0.]*|\./g, '').length
  return type === 'float' || type === 'double' || digits <= 15 || String(number) === text ? number : text
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return Number.NaN
  }
}

/** A Date has milliseconds; a time with more digits, or one that the zone does not have, is none. */
function dateOf(text: string, type: string, clock: Clock): unknown {
  const date = type === 'timestamp' ? new Date(Number(text) * 1000) : instant(text, clock)
  if (Number.isNaN(date.getTime())) return text
  const again = type === 'timestamp' ? (date.getTime() / 1000).toFixed(6) : timeText(date, type, clock)
  const full = (time: string): string => (type === 'date' ? time : padded(time))
  return full(again) === full(text) ? date : text
}

/** With six digits of a second. */
const padded = (time: string): string => {
  const [whole, fraction = ''] = time.split('.')
  return `${whole}.${fraction.padEnd(6, '0')}`
}

function instant(text: string, clock: Clock): Date {
  const [, day, time = '00:00:00'] = /^(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d:\d\d(?:\.\d+)?))?$/.exec(text) ?? []
  if (day === undefined) return new Date(Number.NaN)
  const iso = `${day}T${time.slice(0, 12)}`
  return clock === 'local' ? new Date(iso) : new Date(Date.parse(`${iso}Z`) - clock)
}

/** A Date as its column keeps it; a timestamp in UTC, the zone of a session that writes. */
function timeText(date: Date, type: string, clock: Clock): string {
  const shift = type === 'timestamp' ? 0 : clock === 'local' ? -date.getTimezoneOffset() * 60_000 : clock
  const text = new Date(date.getTime() + shift).toISOString().replace('T', ' ').slice(0, -1)
  return type === 'date' ? text.slice(0, 10) : text
}

/** A value as its column takes it. `node` is that of a field whose plaintext it is. */
export function kept(node: Node | undefined, column: SqlColumn, value: unknown, clock: Clock): string | Uint8Array {
  if (value instanceof Uint8Array) return value
  if (value instanceof Date) return timeText(value, column.type, clock)
  if (node && (node.type !== 'leaf' || node.kind === 'json')) return JSON.stringify(value)
  if (typeof value === 'boolean') return value ? '1' : '0'
  if (Object.is(value, -0)) return '-0'
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
