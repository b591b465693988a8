import { utf8 } from '../bytes.ts'
import { type ContextShape, type ContextType, canonicalId, contextShape } from '../context.ts'
import {
  type Encoding,
  fieldAad,
  type Kind,
  MAX_LABEL_BYTES,
  MAX_PLAINTEXT_BYTES,
  type PathComponent,
} from '../envelope/format.ts'
import type { Padding, ValueKind } from '../envelope/value.ts'
import { config, expectInteger, expectWord } from '../errors.ts'
import type { AnyField, Declaration, Field, FieldOptions, IdFields, Migrate, Nullable } from './schema.ts'

/** A row, as the untyped side sees it. */
export type Row = Readonly<Record<string, unknown>>

/** A declaration, checked and prepared once, so that the hot path only copies. */
export interface Schema {
  readonly label: string
  readonly table: string
  readonly kind: Extract<Kind, 'columns' | 'packed'>
  readonly encoding: Encoding
  readonly envelope: string
  readonly envelopeColumn: string
  readonly ids: readonly IdColumn[]
  readonly contextNames: readonly string[]
  readonly context: ContextShape
  readonly columns: readonly Column[]
  /** Properties that hold plaintext or ciphertext of a field. */
  readonly isProtected: ReadonlySet<string>
  /** Fields whose ciphertext is in another property than their plaintext. */
  readonly moved: readonly Column[]
  /** Properties of a plain row that a stored one does not have, and what must not be taken over from it. */
  readonly movedNames: ReadonlySet<string>
  /** Properties of a stored row that a plain one does not have. */
  readonly storedNames: ReadonlySet<string>
  readonly migrate: Migrate | undefined
}

export interface IdColumn {
  readonly name: string
  readonly type: ContextType
  readonly column: string
}

/** One protected property of a row. */
export interface Column {
  readonly name: string
  /** The property that holds the ciphertext. */
  readonly stored: string
  /** The database column that holds it. */
  readonly column: string
  readonly label: string
  readonly path: readonly [Uint8Array]
  readonly node: Node
}

export type Node = Leaf | ObjectNode | ArrayNode

export interface Leaf {
  readonly type: 'leaf'
  readonly kind: ValueKind
  readonly nullable: Nullable
  readonly pad: Padding | undefined
  readonly maxBytes: number
  /** AAD of the leaf where its path is fixed; undefined inside an array. */
  readonly aad: Uint8Array | undefined
}

export interface ObjectNode {
  readonly type: 'object'
  readonly members: readonly { readonly name: string; readonly label: Uint8Array; readonly node: Node }[]
}

export interface ArrayNode {
  readonly type: 'array'
  readonly item: Node
}

export const MAX_VALUE_BYTES = MAX_PLAINTEXT_BYTES - 1
const MAX_FIELDS = 512
const KINDS: readonly string[] = [
  'text',
  'bytes',
  'number',
  'int',
  'bigint',
  'boolean',
  'date',
  'json',
  'object',
  'array',
]
const DECLARATION = ['id', 'fields', 'context', 'shape', 'envelope', 'envelopeColumn', 'table', 'encoding', 'migrate']
const FIELD_OPTIONS = ['nullable', 'label', 'column', 'pad', 'maxBytes', 'into']
const ID_KINDS: readonly string[] = ['text', 'bytes', 'int', 'uuid']

export function compile(label: string, declaration: Declaration): Schema {
  labelBytes(label, 'label')
  refuseUnknown('declaration', declaration, DECLARATION)
  if (declaration.migrate) refuseUnknown('migrate', declaration.migrate, ['phase', 'until'])
  const { id, fields, context = {}, shape = 'columns', encoding = 'text', envelope = 'envelope' } = declaration
  expectWord('shape', shape, 'columns', 'packed')
  expectWord('encoding', encoding, 'text', 'bytes')
  if (typeof envelope !== 'string' || envelope === '') throw config('envelope', 'the name of a property', envelope)
  if (Object.keys(id ?? {}).length === 0) throw config('id', 'at least one column that identifies the row', id)
  const names = Object.keys(fields ?? {})
  if (names.length === 0 || names.length > MAX_FIELDS) throw config('fields', '1 to 512 fields', fields)

  const columns = names.map((name) => column(name, fields[name]!, shape, encoding))
  const ids = idColumns(id, 'id')
  unique('property', [
    ...columns.flatMap((c) => (c.stored === c.name ? [c.name] : [c.name, c.stored])),
    ...ids.map((c) => c.name),
    ...Object.keys(context),
    envelope,
  ])
  unique(
    'field label',
    columns.map((c) => c.label),
  )
  const moved = columns.filter((c) => shape === 'packed' || c.stored !== c.name)
  const movedNames = new Set(moved.flatMap((c) => [c.name, c.stored]))
  return {
    label,
    table: declaration.table ?? label,
    kind: shape,
    encoding,
    envelope,
    envelopeColumn: declaration.envelopeColumn ?? envelope,
    ids,
    contextNames: Object.keys(context),
    context: contextOf(label, id, context),
    columns,
    isProtected: new Set(columns.flatMap((c) => [c.name, c.stored])),
    moved,
    movedNames,
    storedNames: new Set([...movedNames, envelope]),
    migrate: checkMigrate(declaration.migrate),
  }
}

/** The entries of docs/spec/records.md: `table`, `id.<label>` for ids, and the declared names. */
export function contextOf(label: string, id: IdFields, context: IdFields, more: readonly string[] = []): ContextShape {
  const names = Object.entries(context).flatMap(([name, field]) => [name, field?.options?.label ?? name])
  const reserved = names.find((name) => name === 'table' || name.includes('.'))
  if (reserved) throw config(`context.${reserved}`, 'a name other than "table" and without "."', reserved)
  idColumns(context, 'context')
  return contextShape([
    { name: 'table', type: 'text', constant: label },
    ...more.map((column) => ({ name: 'column', type: 'text' as const, constant: column })),
    ...Object.entries(id).map(([name, field]) => ({ name: `id.${field.options.label ?? name}`, type: field.kind })),
    ...Object.entries(context).map(([name, field]) => ({ name: field.options.label ?? name, type: field.kind })),
  ])
}

export function idColumns(fields: IdFields, argument: string): IdColumn[] {
  return Object.entries(fields).map(([name, field]) => {
    if (!ID_KINDS.includes(field?.kind) || typeof field.options !== 'object') {
      throw config(`${argument}.${name}`, 'uuid(), int(), text() or bytes()', field)
    }
    const option = Object.keys(field.options).find((key) => key !== 'label' && key !== 'column')
    if (option) throw config(`${argument}.${name}.${option}`, 'label or column: an id has no other options', option)
    return { name, type: field.kind, column: field.options.column ?? name }
  })
}

/** The canonical ids of a row, for events and errors. Called off the hot path. */
export function rowId(ids: readonly IdColumn[], row: Readonly<Record<string, unknown>>): string | undefined {
  try {
    return ids.map(({ name, type }) => canonicalId(type, row[name], name).slice(0, 2_048)).join(',')
  } catch {
    return undefined
  }
}

function column(name: string, field: AnyField, shape: Schema['kind'], encoding: Encoding): Column {
  const options: FieldOptions = field?.options ?? {}
  const label = options.label ?? name
  const path = [labelBytes(label, `fields.${name}.label`)] as const
  if (shape === 'packed' && (field.kind === 'object' || field.kind === 'array')) {
    throw config(`fields.${name}`, 'json() in the packed shape, which seals every value whole', field)
  }
  if (shape === 'packed' && options.into)
    throw config(`fields.${name}.into`, 'nothing in the packed shape', options.into)
  if (encoding === 'bytes' && field.kind === 'array') {
    throw config(`fields.${name}`, "encoding 'text': ciphertext inside JSON is text", field)
  }
  return {
    name,
    stored: options.into ?? name,
    column: options.column ?? options.into ?? name,
    label,
    path,
    node: node(field, `fields.${name}`, path, shape),
  }
}

function node(field: AnyField, argument: string, path: readonly PathComponent[] | undefined, kind: Kind): Node {
  if (!KINDS.includes(field?.kind)) throw config(argument, 'a field: text(), int(), date(), object() …', field)
  switch (field.kind) {
    case 'object': {
      const members = Object.entries(field.members as Record<string, AnyField>).map(([name, member]) => {
        const label = labelBytes(member?.options?.label ?? name, `${argument}.${name}.label`)
        if ((member as Field).options?.into) throw config(`${argument}.${name}.into`, 'nothing inside JSON', member)
        return { name, label, node: node(member, `${argument}.${name}`, path && [...path, label], kind) }
      })
      if (members.length === 0) throw config(argument, 'at least one member', field)
      unique(
        `label in ${argument}`,
        members.map((m) => String.fromCharCode(...m.label)),
      )
      return { type: 'object', members }
    }
    case 'array':
      return { type: 'array', item: node(field.item, `${argument}[]`, undefined, kind) }
    default:
      return leafOf(field, argument, path, kind)
  }
}

/** One protected value, checked. */
export function leafOf(field: Field, argument: string, path: readonly PathComponent[] | undefined, kind: Kind): Leaf {
  if (typeof field.options !== 'object') throw config(argument, 'a field: text(), int(), date() …', field)
  refuseUnknown(argument, field.options, FIELD_OPTIONS)
  const { nullable = false, pad, maxBytes = MAX_VALUE_BYTES } = field.options
  if (nullable !== true && nullable !== false && nullable !== 'sql')
    throw config(`${argument}.nullable`, "a boolean or 'sql'", nullable)
  expectInteger(`${argument}.maxBytes`, maxBytes, 1, MAX_VALUE_BYTES)
  if (pad) expectInteger(`${argument}.pad`, 'multiple' in pad ? pad.multiple : pad.to, 1, 65_536)
  return {
    type: 'leaf',
    kind: field.kind,
    nullable,
    pad,
    maxBytes,
    aad: path && fieldAad(kind, kind === 'packed' ? [] : path),
  }
}

export function checkMigrate(migrate: Migrate | undefined): Migrate | undefined {
  if (migrate === undefined) return undefined
  const { phase, until } = migrate
  expectWord('migrate.phase', phase, 'prepare', 'encrypt')
  if (!(until instanceof Date) || Number.isNaN(until.getTime())) throw config('migrate.until', 'a valid Date', until)
  return migrate
}

export function labelBytes(label: unknown, argument: string): Uint8Array {
  const bytes = typeof label === 'string' ? utf8(label) : undefined
  if (bytes && bytes.length >= 1 && bytes.length <= MAX_LABEL_BYTES) return bytes
  throw config(argument, 'a label of 1 to 255 bytes', label)
}

/** A misspelt option would silently not be what was meant. */
function refuseUnknown(argument: string, options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !known.includes(name))
  if (unknown !== undefined) throw config(`${argument}.${unknown}`, `one of ${known.join(', ')}`, unknown)
}

function unique(what: string, names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw config(twice, `one ${what} of this name`, twice)
}
