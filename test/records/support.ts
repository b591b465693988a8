import { bigint, boolean, bytes, date, int, json, number, text } from 'waxseal'
import type { FieldOptions } from '../../src/records/schema.ts'

export const KINDS = { text, bytes, number, int, bigint, boolean, date, json } as const
export type Kind = keyof typeof KINDS
export const KIND_NAMES = Object.keys(KINDS) as Kind[]

/** A field of a kind that is only known when the test runs, typed as JSON. */
export const fieldOf = (kind: Kind, options: FieldOptions = {}): ReturnType<typeof json> =>
  (KINDS[kind] as (options: FieldOptions) => ReturnType<typeof json>)(options)

/** Only what is there: without the properties that are undefined. */
export const given = (values: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
