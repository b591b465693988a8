import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { bigint, boolean, bytes, cell, date, int, json, number, object, records, text, uuid } from 'waxseal'
import { decryptBytes } from 'waxseal/envelope'
import { ascii } from '../../src/bytes.ts'
import { kdf, LABELS } from '../../src/engine/kdf.ts'
import { openEnvelope, openValue, rewrapHeader } from '../../src/envelope/envelope.ts'
import {
  bindingPrefix,
  checkBody,
  exactHeader,
  FIELD_PREFIX,
  fieldAad,
  fromStored,
  headerBeforeBody,
  KINDS,
  type Kind,
} from '../../src/envelope/format.ts'
import type { KeySource } from '../../src/envelope/keys.ts'
import { suiteById } from '../../src/envelope/suites.ts'
import { decodeValue, type ValueKind } from '../../src/envelope/value.ts'
import { WaxsealError } from '../../src/errors.ts'
import { unpackFields } from '../../src/records/packed.ts'
import { type AnyField, array, type Fields } from '../../src/records/schema.ts'
import { generateVectors, vectorKeys } from '../vectors/make.ts'
import { bytesOfHex, code, ENGINES, handleOf, hexOf } from './support.ts'

/** The committed file, typed by what makes it. */
const file = JSON.parse(readFileSync(new URL('../vectors/envelope.json', import.meta.url), 'utf8')) as Vectors
type Vectors = ReturnType<typeof generateVectors>
type Vector = Vectors['vectors'][number]
type Columns = Extract<Vector, { fields: unknown }>
type Packed = Extract<Vector, { entries: unknown }>
type Cell = Extract<Vector, { field: unknown }>

const isColumns = (vector: Vector): vector is Columns => vector.kind === 'columns'
const isPacked = (vector: Vector): vector is Packed => vector.kind === 'packed'
const isCell = (vector: Vector): vector is Cell => vector.kind === 'cell'

const TYPES = { text, bytes, number, int, bigint, boolean, date, json } as const

function typedValue({ type, value }: { type: keyof typeof TYPES; value: unknown }): unknown {
  if (value === null) return null
  switch (type) {
    case 'bytes':
      return bytesOfHex(value as string)
    case 'number':
    case 'int':
      return Number(value)
    case 'bigint':
      return BigInt(value as string)
    case 'date':
      return new Date(value as number)
    case 'json':
      return JSON.parse(value as string)
    default:
      return value
  }
}

type Place = Columns['fields'][number]['path']
type Tree = { [name: string]: unknown }

/** Puts a leaf at its path in a tree of objects and arrays; used for fields, ciphertexts and values alike. */
function plant(tree: Tree, path: Place, leaf: unknown): void {
  const [first, second, third] = path as [string, unknown, string]
  if (second === undefined) tree[first] = leaf
  else if (typeof second === 'string') tree[first] = { ...(tree[first] as Tree), [second]: leaf }
  else {
    const list = (tree[first] ?? []) as unknown[]
    tree[first] = list
    element(list, (second as [number, number])[0])[third] = leaf
  }
}
function element(list: unknown[], index: number): Tree {
  list[index] ??= {}
  return list[index] as Tree
}

/** The declaration that the vector's fields belong to. */
function fieldsOf(entries: readonly { path: Place; type: keyof typeof TYPES }[]): Fields {
  const fields: Record<string, AnyField> = {}
  for (const { path, type } of entries) {
    const [first, second, third] = path as [string, unknown, string]
    const leaf = (TYPES[type] as (options: { nullable: true }) => AnyField)({ nullable: true })
    if (second === undefined) fields[first] = leaf
    else if (typeof second === 'string') fields[first] = object({ [second]: leaf })
    else fields[first] = array(object({ [third]: leaf }))
  }
  return fields
}

const IDS = { customer_id: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' }
const ORDER = { no: -9007199254740993n, key: Uint8Array.of(0, 255) }

function openRow(keys: ReturnType<typeof handleOf>, vector: Columns, row: Tree): Tree {
  const fields = fieldsOf(vector.fields)
  return vector.name.includes('typed context')
    ? records('orders', { id: { no: int(), key: bytes() }, context: { tenant: text() }, fields }).decrypt(
        keys,
        { ...ORDER, envelope: row.envelope as string, ...row },
        { tenant: 'Ærø & Søn' },
      )
    : records('customers', { id: { customer_id: uuid() }, fields }).decrypt(keys, {
        ...IDS,
        envelope: row.envelope as string,
        ...row,
      })
}

function sealedRow(fields: Columns['fields'], envelope: string): Tree {
  const row: Tree = { envelope }
  for (const field of fields) plant(row, field.path, field.text)
  return row
}

function plainRow(fields: Columns['fields']): Tree {
  const row: Tree = {}
  for (const field of fields) plant(row, field.path, typedValue(field))
  return row
}

it('the generator gives the committed vectors, byte for byte', () => {
  expect(JSON.parse(JSON.stringify(generateVectors()))).toEqual(file)
})

describe.each(ENGINES)('every vector opens on the $engineName engine', ({ engine }) => {
  const source = vectorKeys(engine)
  const keys = handleOf(source)

  it.each(file.vectors)('$name: data key, derivation and commitment', (vector) => {
    const header = isColumns(vector)
      ? exactHeader(bytesOfHex(vector.header), 'columns')
      : headerBeforeBody(bytesOfHex(vector.blob), vector.kind)
    const suite = suiteById(vector.suite)!
    const head = header.bytes.subarray(0, 53)
    const dataKey = source.find(header.keyId, 'decrypt').wrapFor(suite).unwrap(header.wrappedKey, head)
    expect(hexOf(dataKey!)).toBe(vector.data_key)
    const context = bytesOfHex(vector.context.encoded)
    const derived = kdf(engine, dataKey!, LABELS.record, bindingPrefix(suite, vector.kind), context)
    expect(hexOf(derived)).toBe(vector.derived)
    expect(hexOf(engine.hmacSha512(dataKey!, [bytesOfHex(vector.kdf_input)]))).toBe(vector.derived)
    expect(hexOf(header.commitment)).toBe(vector.derived.slice(64))
  })

  it.each(file.vectors.filter(isColumns))('$name: every field, by its place', (vector) => {
    const context = bytesOfHex(vector.context.encoded)
    for (const [hex, fields] of [
      [vector.header, vector.fields],
      [vector.rewrapped.header, [...vector.fields, ...vector.patched]],
    ] as const) {
      const header = exactHeader(bytesOfHex(hex), 'columns')
      const { key } = openEnvelope(source, header, 'columns', context, 'decrypt')
      for (const field of fields) {
        const aad = fieldAad('columns', pathOf(field.path))
        expect(hexOf(aad)).toBe(field.aad)
        expect(hexOf(fromStored(field.text, FIELD_PREFIX))).toBe(field.sealed)
        const plaintext = openValue(key, checkBody(bytesOfHex(field.sealed), header.suite), aad, header.keyId)
        expect(hexOf(plaintext)).toBe(field.plaintext)
        expect(decodeValue(field.type, plaintext)).toStrictEqual(typedValue(field))
      }
    }
  })

  // Records have `table` and ids in their context; the vector of names and places has other names.
  const ofRecords = file.vectors.filter(isColumns).filter((v) => v.context.entries.some((e) => e.name === 'table'))
  it.each(ofRecords)('$name: every field, by a declared record', (vector) => {
    const expected = plainRow(vector.fields)
    expect(openRow(keys, vector, sealedRow(vector.fields, vector.header_text))).toMatchObject(expected)
    const rewrapped = `wxh:${Buffer.from(vector.rewrapped.header, 'hex').toString('base64url')}`
    expect(openRow(keys, vector, sealedRow(vector.fields, rewrapped))).toMatchObject(expected)
    const patched = { ...sealedRow(vector.fields, rewrapped), ...sealedRow(vector.patched, rewrapped) }
    expect(openRow(keys, vector, patched)).toMatchObject({ ...expected, ...plainRow(vector.patched) })
  })

  it.each(file.vectors.filter(isPacked))('$name: every entry, by a declared record', (vector) => {
    const entries = vector.entries.map((entry) => ({ ...entry, path: [entry.label] }))
    const declared = entries.length > 0 ? fieldsOf(entries) : { any: text() }
    const customers = records('customers', { id: { customer_id: uuid() }, shape: 'packed', fields: declared })
    const values = Object.fromEntries(entries.map((entry) => [entry.path[0], typedValue(entry)]))
    expect(customers.decrypt(keys, { ...IDS, envelope: vector.blob_text })).toEqual({ ...IDS, ...values })
    expect(customers.decrypt(keys, { ...IDS, envelope: bytesOfHex(vector.blob) })).toEqual({ ...IDS, ...values })
  })

  it.each(file.vectors.filter(isCell))('$name: the value', (vector) => {
    const value = typedValue(vector.field)
    if (vector.name.includes('without a declaration')) {
      expect(decryptBytes(keys, vector.blob_text, { id: 17 })).toEqual(value)
    } else {
      const body = cell('notes', 'body', { type: text(), bind: 'column' })
      expect(body.decrypt(keys, vector.blob_text)).toBe(value)
      expect(body.decrypt(keys, bytesOfHex(vector.blob))).toBe(value)
    }
  })

  it.each(file.vectors.filter((v) => !isCell(v) && v.suite === 1))('$name: rewrapping gives the same header', (v) => {
    const vector = v as Columns | Packed
    const header = isColumns(vector)
      ? exactHeader(bytesOfHex(vector.header), 'columns')
      : headerBeforeBody(bytesOfHex(vector.blob), 'packed')
    expect(hexOf(rewrapHeader(vectorKeys(engine, 1), header)!)).toBe(vector.rewrapped.header)
  })
})

interface Failure {
  readonly name: string
  readonly kind: string
  readonly code: string
  readonly text?: string
  readonly blob?: string
  readonly header?: string
  readonly suite_allowed?: number[]
  readonly context?: { readonly encoded: string }
  readonly field?: { readonly path: Place; readonly sealed?: string; readonly type?: ValueKind }
}

/** The vectors name two keys; any other is unknown. */
const withUnknown = (source: KeySource): KeySource => ({
  ...source,
  find(keyId, operation) {
    try {
      return source.find(keyId, operation)
    } catch {
      throw new WaxsealError('UNKNOWN_KEY', 'no such key')
    }
  },
})

const pathOf = (path: Place) =>
  path.map((part) => (typeof part === 'string' ? ascii(part) : { index: part[0], count: part[1] }))
const { schema } = records('customers', {
  id: { customer_id: uuid() },
  shape: 'packed',
  fields: { email: text(), phone: text() },
})

function attempt(source: KeySource, failure: Failure): unknown {
  if (failure.text !== undefined) {
    const prefix = failure.kind === 'field' ? FIELD_PREFIX : KINDS[failure.kind as Kind].prefix
    return fromStored(failure.text, prefix)
  }
  const kind = failure.kind as Kind
  const context = bytesOfHex(failure.context!.encoded)
  const header =
    failure.blob === undefined
      ? exactHeader(bytesOfHex(failure.header!), kind)
      : headerBeforeBody(bytesOfHex(failure.blob), kind)
  const { key } = openEnvelope(source, header, kind, context, 'decrypt')
  const sealed = failure.blob
    ? bytesOfHex(failure.blob).subarray(headerBeforeBody(bytesOfHex(failure.blob), kind).length)
    : checkBody(bytesOfHex(failure.field!.sealed!), header.suite)
  const plaintext = openValue(key, sealed, fieldAad(kind, pathOf(failure.field?.path ?? [])), header.keyId)
  if (kind === 'packed') return unpackFields(schema, plaintext, {}, { field: undefined })
  return decodeValue(failure.field?.type ?? 'text', plaintext)
}

describe.each(ENGINES)('every failure vector is refused on the $engineName engine', ({ engine }) => {
  it.each(file.failures as Failure[])('$name: $code', (failure) => {
    const source = withUnknown(vectorKeys(engine, 0, suiteById(1), failure.suite_allowed ?? [1, 2]))
    expect(code(() => attempt(source, failure))).toBe(failure.code)
  })
})
