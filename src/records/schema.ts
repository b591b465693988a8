import type { ContextInput, ContextType } from '../context.ts'
import type { Encoding, Stored } from '../envelope/format.ts'
import type { Padding, ValueKind } from '../envelope/value.ts'

/**
 * The declaration of a record: which columns are ids, which are protected, and how. Everything here is data and types;
 * compile.ts checks and prepares it.
 */

/** `true`: null is sealed like a value. `'sql'`: null is stored as SQL NULL, so whoever reads the table sees it. */
export type Nullable = boolean | 'sql'

export interface FieldOptions<N extends Nullable = Nullable, Into extends string = string> {
  /** Whether null is a value of the field; false by default. */
  readonly nullable?: N
  /** The stable name that is bound into the ciphertext; the property's name by default. Never change it. */
  readonly label?: string
  /** The database column, for SQL; the property's name by default. */
  readonly column?: string
  /** Hides the length of the value. */
  readonly pad?: Padding
  /** Largest value in bytes (UTF-8 for text); 16 MiB − 1 by default. */
  readonly maxBytes?: number
  /** The property that holds the ciphertext where the field's own column cannot (a date, a number). */
  readonly into?: Into
}

declare const TYPES: unique symbol

// NoInfer in what the field functions return: otherwise an argument that is left out would be inferred from the place
// the call stands in, and every field would be nullable and moved.

/** One protected value. `V` is its type in the application. */
export interface Field<V = unknown, N extends Nullable = Nullable, Into extends string = string> {
  readonly kind: ValueKind
  readonly options: FieldOptions<N, Into>
  /** For the compiler alone. In an object of its own: an optional `never` is `undefined` to some settings. */
  readonly [TYPES]?: { readonly value: V; readonly into: Into }
}

/** Protected leaves inside a JSON column; members that are not named stay as they are. */
export interface ObjectField<M extends Fields = Fields> {
  readonly kind: 'object'
  readonly members: M
  readonly options: { readonly label?: string; readonly column?: string }
}

/** An array of protected values or objects; each element is bound to its place and to the array's length. */
export interface ArrayField<I extends AnyField = AnyField> {
  readonly kind: 'array'
  readonly item: I
  readonly options: { readonly label?: string; readonly column?: string }
}

// biome-ignore lint/suspicious/noExplicitAny: a field of any value type
export type AnyField = Field<any, Nullable, string> | ObjectField<any> | ArrayField<any>
export type Fields = { readonly [name: string]: AnyField }

/** A column whose value is bound into every ciphertext of the row. */
export interface IdField<K extends ContextType = ContextType> {
  readonly kind: K
  readonly options: { readonly label?: string; readonly column?: string }
}
export type IdFields = { readonly [name: string]: IdField }

type NullOf<N extends Nullable> = N extends false ? never : null

function field<V>(kind: ValueKind) {
  return <const N extends Nullable = false, const Into extends string = never>(
    options: FieldOptions<N, Into> = {},
  ): Field<V | NullOf<N>, NoInfer<N>, NoInfer<Into>> => ({ kind, options })
}

/** Well-formed text, kept exactly: no normalisation. As an id: compared exactly. */
export function text<const N extends Nullable = false, const Into extends string = never>(
  options: FieldOptions<N, Into> = {},
): Field<string | NullOf<N>, NoInfer<N>, NoInfer<Into>> & IdField<'text'> {
  return { kind: 'text', options }
}
/** Bytes (Uint8Array). As an id: at most 1,024. */
export function bytes<const N extends Nullable = false, const Into extends string = never>(
  options: FieldOptions<N, Into> = {},
): Field<Uint8Array | NullOf<N>, NoInfer<N>, NoInfer<Into>> & IdField<'bytes'> {
  return { kind: 'bytes', options }
}
/** A safe integer. As an id it may also come as bigint or decimal string: one database id comes in all three. */
export function int<const N extends Nullable = false, const Into extends string = never>(
  options: FieldOptions<N, Into> = {},
): Field<number | NullOf<N>, NoInfer<N>, NoInfer<Into>> & IdField<'int'> {
  return { kind: 'int', options }
}
/** Any JavaScript number: −0, NaN and the infinities come back as they went in. Always 9 bytes of plaintext. */
export const number = field<number>('number')
/** A bigint of at most 512 bytes. */
export const bigint = field<bigint>('bigint')
/** true or false: one byte of plaintext, null too. */
export const boolean = field<boolean>('boolean')
/** A valid Date, to the ms. Always 9 bytes of plaintext. */
export const date = field<Date>('date')

/** Values of {@link json}. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue | undefined }

/**
 * A JSON value, sealed whole. Members that are undefined are left out and −0 becomes 0, as JSON has it; what JSON
 * cannot hold (NaN, Date, bigint, class instances, undefined in an array) is a SCHEMA error. At most 100 levels deep.
 */
export function json<V = NonNullable<JsonValue>, const N extends Nullable = false, const Into extends string = never>(
  options: FieldOptions<N, Into> = {},
): Field<NoInfer<V> | NullOf<N>, NoInfer<N>, NoInfer<Into>> {
  return { kind: 'json', options }
}

/** Protected members inside a JSON or JSONB column. */
export function object<const M extends Fields>(members: M, options: ObjectField['options'] = {}): ObjectField<M> {
  return { kind: 'object', members, options }
}

/** Protected elements of a JSON array, or of an SQL array of text. */
export function array<const I extends AnyField>(item: I, options: ArrayField['options'] = {}): ArrayField<I> {
  return { kind: 'array', item, options }
}

/** A UUID id: 36 characters, either case. */
export function uuid(options: IdField['options'] = {}): IdField<'uuid'> {
  return { kind: 'uuid', options }
}

/** The phases of an existing plaintext table on its way to {@link Declaration} without `migrate`, which is strict. */
export interface Migrate {
  /** `prepare`: reads plaintext and ciphertext, writes plaintext. `encrypt`: reads both, writes ciphertext. */
  readonly phase: 'prepare' | 'encrypt'
  /** From then on the declaration is strict. Events warn 30 days ahead. */
  readonly until: Date
}

export interface Declaration {
  /** The columns that identify the row: bound into every ciphertext, needed to read. */
  readonly id: IdFields
  readonly fields: Fields
  /** Facts that the caller gives with every call: a tenant, a purpose. */
  readonly context?: IdFields
  /** `columns` (default): a ciphertext per field. `packed`: all fields in one. */
  readonly shape?: 'columns' | 'packed'
  /** The property that holds the header, or everything in the packed shape; `envelope` by default. */
  readonly envelope?: string
  /** Its database column; the same by default. */
  readonly envelopeColumn?: string
  /** The database table, perhaps with its schema; the label by default. */
  readonly table?: string
  /** `text` (default): base64url behind a prefix. `bytes`: Uint8Array, for BYTEA and BLOB columns. */
  readonly encoding?: Encoding
  readonly migrate?: Migrate
}

// ── What the rows look like ──────────────────────────────────────────────────────────────────────────────────────

type EnvelopeName<D extends Declaration> = D extends { envelope: infer E extends string } ? E : 'envelope'
type Sealed<D extends Declaration> = D extends { encoding: 'bytes' } ? Uint8Array : string
type IsPacked<D extends Declaration> = D extends { shape: 'packed' } ? true : false
type Migrating<D extends Declaration> = D extends { migrate: Migrate } ? true : false

type IntoOf<F> = F extends Field
  ? F extends { readonly [TYPES]?: infer T }
    ? NonNullable<T> extends { readonly into: infer Into extends string }
      ? Into
      : never
    : never
  : never
/** Fields whose ciphertext is in another property. */
type MovedNames<D extends Declaration> = {
  [K in keyof D['fields']]: [IntoOf<D['fields'][K]>] extends [never] ? never : K
}[keyof D['fields']]
type IntoNames<D extends Declaration> = IntoOf<D['fields'][keyof D['fields']]>

/** The application's type of a field. */
export type ValueOf<F> =
  F extends Field<infer V, infer _N, infer _I>
    ? V
    : F extends ObjectField<infer M>
      ? { [K in keyof M]?: ValueOf<M[K]> | undefined } | null
      : F extends ArrayField<infer I>
        ? readonly ValueOf<I>[] | null
        : never

type SealedOf<F, V, S> =
  F extends ObjectField<infer M>
    ? V extends object
      ? { [K in keyof V]: K extends keyof M ? SealedOf<M[K], V[K], string> : V[K] }
      : V
    : F extends ArrayField<infer I>
      ? V extends readonly (infer X)[]
        ? SealedOf<I, X, string>[]
        : V
      : F extends Field<infer _V, infer N, infer _I>
        ? S | ('sql' extends N ? null : never) | (undefined extends V ? undefined : never)
        : never

type OpenedOf<F, V> =
  F extends ObjectField<infer M>
    ? V extends object
      ? { [K in keyof V]: K extends keyof M ? OpenedOf<M[K], V[K]> : V[K] }
      : V
    : F extends ArrayField<infer I>
      ? V extends readonly (infer X)[]
        ? OpenedOf<I, X>[]
        : V
      : ValueOf<F> | (undefined extends V ? undefined : never)

type Flat<T> = { [K in keyof T]: T[K] } & unknown

/** The values that the caller gives as context. */
export type ContextValues<D extends Declaration> = D extends { context: infer C extends IdFields }
  ? { readonly [K in keyof C]: ContextInput[C[K]['kind']] }
  : Record<never, never>

/** A context argument is required exactly when the declaration has one. */
export type ContextArgument<D extends Declaration> = D extends { context: IdFields } ? [context: ContextValues<D>] : []

export type Ids<D extends Declaration> = { readonly [K in keyof D['id']]: ContextInput[D['id'][K]['kind']] }

/** What {@link Records.encrypt} takes: ids and every declared field; other columns pass through. */
export type PlainRow<D extends Declaration> = Ids<D> & {
  readonly [K in keyof D['fields']]: ValueOf<D['fields'][K]> | undefined
} & { readonly [K in EnvelopeName<D>]?: null | undefined }

/** What decrypt takes: ids, the envelope, and any of the protected columns. Null where a join found no row. */
export type StoredRow<D extends Declaration> = {
  readonly [K in keyof D['id']]: ContextInput[D['id'][K]['kind']] | null
} & { readonly [K in EnvelopeName<D>]: Stored | null }

/**
 * A row as the database holds it: protected fields sealed, the envelope added, all else as it was.
 */
export type Encrypted<R, D extends Declaration> = Flat<
  {
    [K in keyof R as K extends EnvelopeName<D>
      ? never
      : IsPacked<D> extends true
        ? K extends keyof D['fields']
          ? never
          : K
        : K extends MovedNames<D>
          ? never
          : K]: K extends keyof D['fields']
      ? SealedOf<D['fields'][K], R[K], Sealed<D>> | (Migrating<D> extends true ? R[K] : never)
      : R[K]
  } & {
    [K in MovedNames<D> as IsPacked<D> extends true ? never : IntoOf<D['fields'][K]>]:
      | SealedOf<D['fields'][K], R[K & keyof R], Sealed<D>>
      | (Migrating<D> extends true ? null : never)
  } & {
    [K in EnvelopeName<D>]: Sealed<D> | (Migrating<D> extends true ? null : never)
  }
>

/** A row as the application sees it: exactly the columns that were read, opened. */
export type Decrypted<R, D extends Declaration> = Flat<
  {
    [K in keyof R as K extends EnvelopeName<D> | IntoNames<D> ? never : K]: K extends keyof D['fields']
      ? OpenedOf<D['fields'][K], R[K]>
      : R[K]
  } & (IsPacked<D> extends true
    ? { -readonly [K in keyof D['fields']]: ValueOf<D['fields'][K]> }
    : { [K in MovedNames<D> as IntoOf<D['fields'][K]> extends keyof R ? K : never]: ValueOf<D['fields'][K]> })
>

/** Null exactly where the envelope may be: a left join that found nothing. */
export type OrNull<R, D extends Declaration> = null extends R[EnvelopeName<D> & keyof R] ? null : never

/** The fields that a patch may change. */
export type Changes<D extends Declaration> = { readonly [K in keyof D['fields']]?: ValueOf<D['fields'][K]> | undefined }

/** The columns that a patch writes. */
export type PatchSet<D extends Declaration, C> =
  IsPacked<D> extends true
    ? { [K in EnvelopeName<D>]: Sealed<D> }
    : {
        -readonly [K in keyof C & keyof D['fields'] as K extends MovedNames<D> ? IntoOf<D['fields'][K]> : K]:
          | SealedOf<D['fields'][K], C[K], Sealed<D>>
          | (Migrating<D> extends true ? C[K] | null : never)
      }

/** A stored row by name: `EncryptedRow<typeof customers, Customer>`. */
export type EncryptedRow<T extends { encrypt: unknown }, R> = T extends {
  readonly declaration: infer D extends Declaration
}
  ? Encrypted<R, D>
  : never
