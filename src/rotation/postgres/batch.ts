import type { Change } from '../source.ts'
import { STEP_VALUES } from './books.ts'

/** A batch of changes as the relation `j` that an UPDATE joins with. */

export interface BatchColumn {
  readonly name: string
  /** As format_type names it. */
  readonly type: string
  /** Text, null, or what only JSON can hold. */
  readonly of: (change: Change) => unknown
}

export interface Batch {
  readonly from: string
  readonly values: readonly string[]
}

/** The number of the first parameter that a batch has. */
export const FIRST_OF_BATCH = STEP_VALUES + 1

/** Types of columns that ciphertext is stored in, and that an array of text can carry. */
export const SEALED = /^(text|bytea|character varying(\(\d+\))?)$/

/**
 * An array a column: PostgreSQL reads it several times as fast as documents. A varchar is sent as text, because a cast
 * to it would cut what is too long, where the assignment refuses it.
 */
export function asArrays(columns: readonly BatchColumn[], changes: readonly Change[], first: number): Batch {
  const arrays = columns.map((column, i) => arrayOf(column, changes, `$${first + i}::text`))
  return {
    from: `unnest(${arrays.map(({ sql }) => sql).join(', ')}) as j(${columns.map(({ name }) => `"${name}"`).join(', ')})`,
    values: arrays.map(({ value }) => value),
  }
}

/** Whether a column gets text or bytes alone. The plaintext of a text column may be a date, or JSON, which only documents tell. */
export const holdsText = (column: string, changes: readonly Change[]): boolean =>
  changes.every(({ set }) => {
    const value = set[column] ?? null
    return value === null || typeof value === 'string' || value instanceof Uint8Array
  })

const SEPARATOR = ','

/**
 * Ciphertexts and ids are split at commas: PostgreSQL reads the literal of an array half as fast, and twice, the first time to
 * guess its length. What may be null, empty or hold a comma is a literal.
 */
function arrayOf({ type, of }: BatchColumn, changes: readonly Change[], parameter: string) {
  const element = type.startsWith('character varying') ? 'text' : type
  const values = changes.map(of)
  return values.every(isPlain)
    ? { sql: `string_to_array(${parameter}, '${SEPARATOR}')::${element}[]`, value: values.join(SEPARATOR) }
    : { sql: `${parameter}::${element}[]`, value: `{${values.map(elementOf).join(',')}}` }
}

const isPlain = (value: unknown): boolean => typeof value === 'string' && value !== '' && !value.includes(SEPARATOR)

/** An element of an array as text: in quotes, so that nothing in it has a meaning. */
const elementOf = (value: unknown): string =>
  value === null || value === undefined ? 'null' : `"${String(value).replace(/["\\]/g, '\\$&')}"`

/** A JSON document a row: for types that only JSON can tell, such as json, arrays and dates. */
export function asDocuments(columns: readonly BatchColumn[], changes: readonly Change[], first: number): Batch {
  const documents = changes.map((change) => Object.fromEntries(columns.map(({ name, of }) => [name, of(change)])))
  return {
    from: `json_to_recordset($${first}::text::json) as j(${columns.map(({ name, type }) => `"${name}" ${type}`).join(', ')})`,
    values: [JSON.stringify(documents)],
  }
}
