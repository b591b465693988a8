import { ascii, toBase64url, toHex } from '../../src/bytes.ts'
import { type ContextType, contextShape } from '../../src/context.ts'
import type { Engine } from '../../src/engine/engine.ts'
import { kdf, LABELS } from '../../src/engine/kdf.ts'
import { nobleEngine } from '../../src/engine/noble.ts'
import { createEnvelope, reopenEnvelope, rewrapHeader } from '../../src/envelope/envelope.ts'
import {
  bindingPrefix,
  exactHeader,
  FIELD_PREFIX,
  fieldAad,
  headerBeforeBody,
  KINDS,
  type Kind,
  type PathComponent,
} from '../../src/envelope/format.ts'
import type { KeySource } from '../../src/envelope/keys.ts'
import { SUITES, type Suite } from '../../src/envelope/suites.ts'
import { encodeValue, type Padding, type ValueKind } from '../../src/envelope/value.ts'
import { type LoadedMaster, loadedMaster } from '../../src/keyring/master.ts'
import { Secret } from '../../src/secret.ts'
import { recordingEngine, seededRandom } from './seeded.ts'

export const KEYRING_ID = Uint8Array.from({ length: 16 }, (_, i) => 0xc0 + i)
export const MASTERS = [0, 1].map((n) => ({
  id: Uint8Array.from({ length: 15 }, (_, i) => (i < 5 ? 0 : 0x10 * (n + 1) + i)),
  key: Uint8Array.from({ length: 32 }, (_, i) => 0x40 * (n + 1) + i),
}))

type Label = string | [index: number, count: number]
interface FieldInput {
  path: Label[]
  type: ValueKind
  value: unknown
  pad?: Padding
}
interface ContextInputEntry {
  name: string
  type: ContextType
  value: unknown
}

/** Keys that need no keyring: the first master is active, or the second after a rotation. */
export function vectorKeys(engine: Engine, active = 0, suite: Suite = SUITES[0]!, allowed = [1, 2]): KeySource {
  const masters = MASTERS.map(({ id, key }): LoadedMaster => {
    const version = { id: toBase64url(id), state: 'active' as const, history: [] }
    return loadedMaster(engine, toBase64url(KEYRING_ID), version, new Secret(Uint8Array.from(key)))
  })
  return {
    engine,
    writeSuite: suite,
    allowsSuite: (id) => allowed.includes(id),
    active: () => masters[active]!,
    inactive: () => [],
    find(keyId) {
      const master = masters.find((m) => m.idText === keyId)
      if (!master) throw new Error('the vectors name only two keys')
      return master
    },
    used: () => undefined,
    recordKeys: undefined,
    listening: false,
    emit: () => undefined,
    now: () => 0,
  }
}

const ROW: ContextInputEntry[] = [
  { name: 'table', type: 'text', value: 'customers' },
  { name: 'id.customer_id', type: 'uuid', value: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' },
]
const TENANT: ContextInputEntry[] = [
  { name: 'table', type: 'text', value: 'orders' },
  { name: 'tenant', type: 'text', value: 'Ærø & Søn' },
  { name: 'id.no', type: 'int', value: '-9007199254740993' },
  { name: 'id.key', type: 'bytes', value: Uint8Array.of(0, 255) },
]
const CELL: ContextInputEntry[] = [
  { name: 'table', type: 'text', value: 'notes' },
  { name: 'column', type: 'text', value: 'body' },
]

const FIELDS: FieldInput[] = [
  { path: ['email'], type: 'text', value: 'luís@example.org' },
  { path: ['empty'], type: 'text', value: '' },
  { path: ['nothing'], type: 'text', value: null },
  { path: ['padded'], type: 'text', value: 'short', pad: { to: 32 } },
  { path: ['rounded'], type: 'text', value: 'fifteen bytes..', pad: { multiple: 16 } },
  { path: ['padded, empty'], type: 'text', value: '', pad: { to: 4 } },
  { path: ['padded, full'], type: 'text', value: 'full', pad: { to: 4 } },
  { path: ['padded, like padding'], type: 'bytes', value: Uint8Array.of(1, 0x80, 0, 0), pad: { multiple: 8 } },
  { path: ['padded null'], type: 'text', value: null, pad: { to: 4 } },
  { path: ['padded no number'], type: 'number', value: null, pad: { multiple: 8 } },
  { path: ['marked'], type: 'text', value: '\ufeffbyte order mark, \u0000 and 🜚' },
  { path: ['no bytes'], type: 'bytes', value: new Uint8Array(0) },
  { path: ['null bytes'], type: 'bytes', value: null },
  { path: ['null bigint'], type: 'bigint', value: null },
  { path: ['null boolean'], type: 'boolean', value: null },
  { path: ['null json'], type: 'json', value: null },
  { path: ['raw'], type: 'bytes', value: Uint8Array.of(0, 1, 0x80, 0xff) },
  { path: ['rate'], type: 'number', value: 0.1 },
  { path: ['minus zero'], type: 'number', value: -0 },
  { path: ['not a number'], type: 'number', value: Number.NaN },
  { path: ['endless'], type: 'number', value: Number.NEGATIVE_INFINITY },
  { path: ['endless, up'], type: 'number', value: Number.POSITIVE_INFINITY },
  { path: ['least'], type: 'number', value: 5e-324 },
  { path: ['exponent'], type: 'number', value: 1e21 },
  { path: ['no number'], type: 'number', value: null },
  { path: ['lowest int'], type: 'int', value: -9007199254740991 },
  { path: ['count'], type: 'int', value: 9007199254740991 },
  { path: ['zero'], type: 'bigint', value: 0n },
  { path: ['127'], type: 'bigint', value: 127n },
  { path: ['128'], type: 'bigint', value: 128n },
  { path: ['-128'], type: 'bigint', value: -128n },
  { path: ['-129'], type: 'bigint', value: -129n },
  { path: ['-1'], type: 'bigint', value: -1n },
  { path: ['255'], type: 'bigint', value: 255n },
  { path: ['longest'], type: 'bigint', value: -(2n ** 4095n) },
  { path: ['large'], type: 'bigint', value: 2n ** 200n },
  { path: ['yes'], type: 'boolean', value: true },
  { path: ['no'], type: 'boolean', value: false },
  { path: ['born'], type: 'date', value: new Date('1969-07-20T20:17:40.123Z') },
  { path: ['first date'], type: 'date', value: new Date(-8.64e15) },
  { path: ['last date'], type: 'date', value: new Date(8.64e15) },
  { path: ['unborn'], type: 'date', value: null },
  { path: ['profile'], type: 'json', value: { a: [1, null, 'é'], b: {} } },
  { path: ['address', 'street'], type: 'text', value: 'Av. Brigadeiro Faria Lima, 2170' },
  { path: ['a.b'], type: 'text', value: 'one label with a dot' },
  { path: ['a', 'b'], type: 'text', value: 'two labels' },
  { path: ['phones', [0, 2], 'number'], type: 'text', value: '+55 (12) 3923-5555' },
  { path: ['phones', [1, 2], 'number'], type: 'text', value: '+55 (12) 3923-5566' },
]
const LABELLED: FieldInput[] = ['é', 'z', 'za', 'Z', '\uffff', '𐀀', 'x'.repeat(255)].map((label) => ({
  path: [label],
  type: 'text',
  value: label,
}))
const PLACED: FieldInput[] = [
  { path: ['x'.repeat(255)], type: 'text', value: 'a long label' },
  { path: ['grid', [2, 3], [256, 300], 'ü'], type: 'text', value: 'a nested array' },
]
const NAMES: ContextInputEntry[] = [
  { name: 'a', type: 'text', value: '' },
  { name: 'ab', type: 'int', value: '0' },
  { name: 'B', type: 'int', value: `-${'9'.repeat(39)}` },
  { name: 'é', type: 'bytes', value: new Uint8Array(1024).fill(7) },
  { name: '\uffff', type: 'text', value: 'before the next in UTF-8, after it in UTF-16' },
  { name: '𐀀', type: 'text', value: 'x' },
  { name: 'n'.repeat(64), type: 'uuid', value: '00000000-0000-4000-8000-00000000000a' },
  ...Array.from({ length: 9 }, (_, i): ContextInputEntry => ({ name: `more${i}`, type: 'int', value: String(i) })),
]
const PACKED = FIELDS.filter((field) => field.path.length === 1)
const PATCH: FieldInput[] = [{ path: ['email'], type: 'text', value: 'new@example.org' }]

const encodeEntries = (entries: ContextInputEntry[]): Uint8Array =>
  contextShape(entries).encode(entries.map((entry) => entry.value))

const pathOf = (labels: Label[]): PathComponent[] =>
  labels.map((label) => (typeof label === 'string' ? ascii(label) : { index: label[0], count: label[1] }))

function portable(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value)
  if (value instanceof Date) return value.getTime()
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (typeof value === 'bigint') return String(value)
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : value
}

const text = (prefix: string, bytes: Uint8Array): string => prefix + toBase64url(bytes)

export function generateVectors() {
  const vectors = SUITES.flatMap((suite) => [
    columns('columns', suite, ROW, FIELDS),
    columns('columns, typed context', suite, TENANT, FIELDS.slice(0, 1)),
    columns('columns, names and places', suite, NAMES, PLACED),
    packed('packed, order of labels', suite, ROW, LABELLED),
    packed('packed', suite, ROW, PACKED),
    packed('packed, no field', suite, ROW, []),
    cell('cell', suite, CELL, { path: ['body'], type: 'text', value: 'a note' }),
    cell('cell without a declaration', suite, [{ name: 'id', type: 'int', value: '17' }], {
      path: [],
      type: 'bytes',
      value: Uint8Array.of(1, 2, 3),
    }),
  ])
  const subkeys = (master: (typeof MASTERS)[number]) =>
    Object.fromEntries(
      SUITES.map((suite) => {
        const binding = Uint8Array.of(1, suite.id)
        const derived = kdf(nobleEngine(), master.key, LABELS.subkey, binding, KEYRING_ID, master.id)
        return [suite.id, toHex(derived.subarray(0, 32))]
      }),
    )
  return {
    format: 'waxseal envelope vectors, draft 0',
    keyring_id: toHex(KEYRING_ID),
    master_keys: MASTERS.map((m) => ({ id: toHex(m.id), key: toHex(m.key), subkeys: subkeys(m) })),
    vectors,
    failures: failures(),
  }
}

function start(name: string, suite: Suite, kind: Kind, entries: ContextInputEntry[]) {
  const engine = recordingEngine(nobleEngine(seededRandom(`${name} ${suite.id}`)))
  const context = encodeEntries(entries)
  const keys = vectorKeys(engine, 0, suite)
  const { header, key } = createEnvelope(keys, kind, context)
  const { dataKey, derived } = engine.recorded()
  const common = {
    name: `${name}, suite ${suite.id}`,
    kind,
    suite: suite.id,
    context: {
      entries: entries.map((entry) => ({ ...entry, value: portable(entry.value) })),
      encoded: toHex(context),
    },
    key_id: toHex(MASTERS[0]!.id),
    data_key: toHex(dataKey),
    kdf_input: toHex(Uint8Array.from([...LABELS.record, ...bindingPrefix(suite, kind), ...context, 0, 0, 2, 0])),
    derived: toHex(derived),
  }
  return { engine, context, keys, header, key, common }
}

type Sealer = { seal(plaintext: Uint8Array, aad: Uint8Array): Uint8Array }

function sealField(key: Sealer, kind: Kind, field: FieldInput) {
  const aad = fieldAad(kind, pathOf(field.path))
  const plaintext = Uint8Array.from(encodeValue(field.type, field.value, field.pad))
  const sealed = key.seal(plaintext, aad)
  return {
    path: field.path,
    aad: toHex(aad),
    type: field.type,
    value: portable(field.value),
    ...(field.pad ? { pad: field.pad } : {}),
    plaintext: toHex(plaintext),
    sealed: toHex(sealed),
    text: text(FIELD_PREFIX, sealed),
  }
}

function columns(name: string, suite: Suite, entries: ContextInputEntry[], fields: FieldInput[]) {
  const { engine, context, keys, header, key, common } = start(name, suite, 'columns', entries)
  const sealed = fields.map((field) => sealField(key, 'columns', field))
  const parsed = exactHeader(header, 'columns')
  const rewrapped = rewrapHeader(vectorKeys(engine, 1, suite), parsed)
  const again = reopenEnvelope(keys, parsed, 'columns', context)
  return {
    ...common,
    header: toHex(header),
    header_text: text(KINDS.columns.prefix, header),
    fields: sealed,
    rewrapped: { key_id: toHex(MASTERS[1]!.id), header: toHex(rewrapped!) },
    patched: PATCH.map((field) => sealField(again.key, 'columns', field)),
  }
}

function packed(name: string, suite: Suite, entries: ContextInputEntry[], fields: FieldInput[]) {
  const { engine, header, key, common } = start(name, suite, 'packed', entries)
  const inOrder = fields
    .map((field) => ({ field, label: ascii(field.path[0] as string) }))
    .sort((a, b) => Buffer.compare(a.label, b.label))
    .map(({ field, label }) => ({
      field,
      label,
      plaintext: Uint8Array.from(encodeValue(field.type, field.value, field.pad)),
    }))
  const plaintext = Buffer.concat(
    inOrder.flatMap((entry) => {
      const head = Buffer.alloc(2)
      head.writeUInt16BE(entry.label.length)
      const length = Buffer.alloc(4)
      length.writeUInt32BE(entry.plaintext.length)
      return [head, entry.label, length, entry.plaintext]
    }),
  )
  const aad = fieldAad('packed', [])
  const blob = Uint8Array.from([...header, ...key.seal(plaintext, aad)])
  const rewrapped = rewrapHeader(vectorKeys(engine, 1, suite), headerBeforeBody(blob, 'packed'))
  return {
    ...common,
    header: toHex(header),
    entries: inOrder.map(({ field, plaintext: p }) => ({
      label: field.path[0] as string,
      type: field.type,
      value: portable(field.value),
      ...(field.pad ? { pad: field.pad } : {}),
      plaintext: toHex(p),
    })),
    plaintext: toHex(plaintext),
    aad: toHex(aad),
    blob: toHex(blob),
    blob_text: text(KINDS.packed.prefix, blob),
    rewrapped: { key_id: toHex(MASTERS[1]!.id), header: toHex(rewrapped!) },
  }
}

function cell(name: string, suite: Suite, entries: ContextInputEntry[], field: FieldInput) {
  const { header, key, common } = start(name, suite, 'cell', entries)
  const { sealed, text: _, ...rest } = sealField(key, 'cell', field)
  const blob = Uint8Array.from([...header, ...fromHexStrict(sealed)])
  return {
    ...common,
    header: toHex(header),
    field: { ...rest, sealed },
    blob: toHex(blob),
    blob_text: text(KINDS.cell.prefix, blob),
  }
}

const fromHexStrict = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

/** Authentic plaintexts that no writer makes. */
const PLAINTEXTS: { name: string; type: ValueKind; bytes: number[]; code: string }[] = [
  { name: 'empty', type: 'text', bytes: [], code: 'MALFORMED' },
  { name: 'tag 00', type: 'text', bytes: [0], code: 'MALFORMED' },
  { name: 'tag 0a', type: 'text', bytes: [10, 120], code: 'MALFORMED' },
  { name: 'padded without its mark', type: 'text', bytes: [0x84, 120], code: 'MALFORMED' },
  { name: 'padded, nothing but zeros', type: 'text', bytes: [0x84, 0, 0], code: 'MALFORMED' },
  { name: 'null with a value', type: 'text', bytes: [1, 0], code: 'MALFORMED' },
  { name: 'boolean with a value', type: 'boolean', bytes: [2, 0], code: 'MALFORMED' },
  { name: 'text that is not UTF-8', type: 'text', bytes: [4, 0xc3], code: 'MALFORMED' },
  { name: 'text with an encoded surrogate', type: 'text', bytes: [4, 0xed, 0xa0, 0x80], code: 'MALFORMED' },
  { name: 'bigint without bytes', type: 'bigint', bytes: [7], code: 'MALFORMED' },
  { name: 'bigint longer than needed', type: 'bigint', bytes: [7, 0, 0], code: 'MALFORMED' },
  { name: 'negative bigint longer than needed', type: 'bigint', bytes: [7, 0xff, 0xff], code: 'MALFORMED' },
  { name: 'number of 7 bytes', type: 'number', bytes: [6, 0, 0, 0, 0, 0, 0, 0], code: 'MALFORMED' },
  { name: 'number of 9 bytes', type: 'number', bytes: [6, 0, 0, 0, 0, 0, 0, 0, 0, 0], code: 'MALFORMED' },
  { name: 'another NaN', type: 'number', bytes: [6, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1], code: 'MALFORMED' },
  { name: 'date out of range', type: 'date', bytes: [8, 0x7f, 0, 0, 0, 0, 0, 0, 0], code: 'MALFORMED' },
  { name: 'not JSON', type: 'json', bytes: [9, 0x7b], code: 'MALFORMED' },
  { name: 'null as JSON', type: 'json', bytes: [9, ...ascii('null')], code: 'MALFORMED' },
  { name: 'text where bytes are declared', type: 'bytes', bytes: [4, 120], code: 'SCHEMA' },
  { name: 'a fraction where int is declared', type: 'int', bytes: [6, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0], code: 'SCHEMA' },
  { name: 'a boolean where text is declared', type: 'text', bytes: [2], code: 'SCHEMA' },
]

/** What must be refused, with the code to refuse it with. */
function failures() {
  return SUITES.flatMap((suite) => {
    const both = [1, 2]
    const row = start('failures', suite, 'columns', ROW)
    const email = sealField(row.key, 'columns', FIELDS[0]!)
    const phone = sealField(row.key, 'columns', FIELDS.find((field) => field.path.length === 3)!)
    const box = start('failures', suite, 'cell', CELL)
    const blob = Uint8Array.from([
      ...box.header,
      ...box.key.seal(encodeValue('text', 'a note', undefined), fieldAad('cell', pathOf(['body']))),
    ])
    const context = (entries: ContextInputEntry[]) => ({
      entries: entries.map((entry) => ({ ...entry, value: portable(entry.value) })),
      encoded: toHex(encodeEntries(entries)),
    })
    const columnsCase = (
      name: string,
      code: string,
      change: {
        header?: Uint8Array
        sealed?: string
        type?: ValueKind
        path?: Label[]
        entries?: ContextInputEntry[]
        allowed?: number[]
      },
    ) => ({
      name: `${name}, suite ${suite.id}`,
      kind: 'columns',
      suite_allowed: change.allowed ?? both,
      context: context(change.entries ?? ROW),
      header: toHex(change.header ?? row.header),
      field: {
        path: change.path ?? ['email'],
        ...(change.type && { type: change.type }),
        sealed: change.sealed ?? email.sealed,
      },
      code,
    })
    const blobCase = (name: string, code: string, bytes: Uint8Array) => ({
      name: `${name}, suite ${suite.id}`,
      kind: 'cell',
      suite_allowed: both,
      context: context(CELL),
      blob: toHex(bytes),
      field: { path: ['body'] },
      code,
    })
    const pack = start('failures', suite, 'packed', ROW)
    const sealPacked = (entries: number[][]) =>
      Uint8Array.from([...pack.header, ...pack.key.seal(Uint8Array.from(entries.flat()), fieldAad('packed', []))])
    const entry = (label: string): number[] => [0, label.length, ...ascii(label), 0, 0, 0, 2, 4, 120]
    const packedBlob = sealPacked([entry('a')])
    const asKind = (header: Uint8Array, body: Uint8Array) =>
      Uint8Array.from([...set(header, 2, body[2]!), ...body.subarray(header.length)])
    const packedCase = (name: string, code: string, bytes: Uint8Array) => ({
      name: `${name}, suite ${suite.id}`,
      kind: 'packed',
      suite_allowed: both,
      context: context(ROW),
      blob: toHex(bytes),
      code,
    })
    const textCase = (name: string, kind: string, value: string) => ({
      name: `${name}, suite ${suite.id}`,
      kind,
      text: value,
      code: 'MALFORMED',
    })
    const changed = (bytes: Uint8Array, offset: number, xor: number) =>
      bytes.map((byte, i) => (i === offset ? byte ^ xor : byte))
    const set = (bytes: Uint8Array, offset: number, value: number) =>
      bytes.map((byte, i) => (i === offset ? value : byte))
    const flippedHex = (hex: string, byte: number) => toHex(changed(fromHexStrict(hex), byte, 1))
    const otherRow = ROW.map((e) => (e.type === 'uuid' ? { ...e, value: '6ba7b810-9dad-11d1-80b4-00c04fd430c9' } : e))
    const otherType = ROW.map((e) => (e.type === 'uuid' ? { ...e, type: 'text' as const } : e))
    const headerText = text(KINDS.columns.prefix, row.header)
    const wrongMaster = Uint8Array.from([...row.header.subarray(0, 6), ...MASTERS[1]!.id, ...row.header.subarray(21)])
    const unknownMaster = Uint8Array.from([
      ...row.header.subarray(0, 6),
      ...new Uint8Array(15).fill(9),
      ...row.header.subarray(21),
    ])

    return [
      columnsCase('version 1', 'MALFORMED', { header: set(row.header, 0, 1) }),
      columnsCase('suite 0', 'MALFORMED', { header: set(row.header, 1, 0) }),
      columnsCase('suite 255', 'MALFORMED', { header: set(row.header, 1, 255) }),
      columnsCase('suite 3', 'MALFORMED', { header: set(row.header, 1, 3) }),
      columnsCase('a suite that is not allowed', 'MALFORMED', { allowed: [3 - suite.id] }),
      columnsCase('kind packed', 'MALFORMED', { header: set(row.header, 2, 2) }),
      columnsCase('kind 0', 'MALFORMED', { header: set(row.header, 2, 0) }),
      columnsCase('wrap type 2', 'MALFORMED', { header: set(row.header, 3, 2) }),
      columnsCase('flags set', 'MALFORMED', { header: set(row.header, 4, 1) }),
      columnsCase('reserved byte set', 'MALFORMED', { header: set(row.header, 5, 128) }),
      columnsCase('header one byte short', 'MALFORMED', { header: row.header.subarray(0, -1) }),
      columnsCase('header one byte long', 'MALFORMED', { header: Uint8Array.from([...row.header, 0]) }),
      columnsCase('header empty', 'MALFORMED', { header: new Uint8Array(0) }),
      columnsCase('unknown key', 'UNKNOWN_KEY', { header: unknownMaster }),
      columnsCase('key id of another master key', 'DECRYPTION_FAILED', { header: wrongMaster }),
      columnsCase('commitment, first bit', 'DECRYPTION_FAILED', { header: changed(row.header, 21, 128) }),
      columnsCase('commitment, last bit', 'DECRYPTION_FAILED', { header: changed(row.header, 52, 1) }),
      columnsCase('wrapped key, first bit', 'DECRYPTION_FAILED', { header: changed(row.header, 53, 128) }),
      columnsCase('wrapped key, last bit', 'DECRYPTION_FAILED', {
        header: changed(row.header, row.header.length - 1, 1),
      }),
      columnsCase('another row', 'DECRYPTION_FAILED', { entries: otherRow }),
      columnsCase('a missing context entry', 'DECRYPTION_FAILED', { entries: ROW.slice(0, 1) }),
      columnsCase('an extra context entry', 'DECRYPTION_FAILED', {
        entries: [...ROW, { name: 'x', type: 'text', value: '' }],
      }),
      columnsCase('the same id as text', 'DECRYPTION_FAILED', { entries: otherType }),
      columnsCase('another column', 'DECRYPTION_FAILED', { path: ['phone'] }),
      columnsCase('another place in the array', 'DECRYPTION_FAILED', {
        path: ['phones', [1, 2], 'number'],
        sealed: phone.sealed,
      }),
      columnsCase('a shorter array', 'DECRYPTION_FAILED', { path: ['phones', [0, 1], 'number'], sealed: phone.sealed }),
      columnsCase('nonce flipped', 'DECRYPTION_FAILED', { sealed: flippedHex(email.sealed, 0) }),
      columnsCase('ciphertext flipped', 'DECRYPTION_FAILED', { sealed: flippedHex(email.sealed, suite.nonceBytes) }),
      columnsCase('tag flipped', 'DECRYPTION_FAILED', {
        sealed: flippedHex(email.sealed, email.sealed.length / 2 - 1),
      }),
      columnsCase('field one byte short', 'DECRYPTION_FAILED', { sealed: email.sealed.slice(0, -2) }),
      columnsCase('field shorter than nonce and tag', 'MALFORMED', {
        sealed: email.sealed.slice(0, 2 * (suite.nonceBytes + 15)),
      }),
      blobCase('cell, last bit', 'DECRYPTION_FAILED', changed(blob, blob.length - 1, 1)),
      blobCase('cell, header alone', 'MALFORMED', box.header),
      blobCase('cell of another kind', 'MALFORMED', set(blob, 2, 1)),
      textCase('text with another prefix', 'columns', `wxc:${headerText.slice(4)}`),
      textCase('text without its prefix', 'columns', headerText.slice(4)),
      blobCase('cell, one byte short', 'DECRYPTION_FAILED', blob.subarray(0, -1)),
      packedCase('packed, last bit', 'DECRYPTION_FAILED', changed(packedBlob, packedBlob.length - 1, 1)),
      packedCase('packed, one byte short', 'DECRYPTION_FAILED', packedBlob.subarray(0, -1)),
      packedCase('packed, header alone', 'MALFORMED', pack.header),
      packedCase('packed, the header of a row', 'DECRYPTION_FAILED', asKind(row.header, packedBlob)),
      packedCase('packed, out of order', 'MALFORMED', sealPacked([entry('b'), entry('a')])),
      packedCase('packed, a label twice', 'MALFORMED', sealPacked([entry('a'), entry('a')])),
      packedCase('packed, an empty label', 'MALFORMED', sealPacked([entry('')])),
      packedCase('packed, cut off in a label', 'MALFORMED', sealPacked([[0, 9, 97]])),
      packedCase('packed, cut off in a value', 'MALFORMED', sealPacked([[0, 1, 97, 0, 0, 0, 2, 1]])),
      packedCase('packed, a huge length', 'MALFORMED', sealPacked([[0, 1, 97, 255, 255, 255, 255, 1]])),
      ...PLAINTEXTS.map(({ name: what, type, bytes, code }) =>
        columnsCase(`plaintext: ${what}`, code, {
          type,
          sealed: toHex(row.key.seal(Uint8Array.from(bytes), fieldAad('columns', pathOf(['email'])))),
        }),
      ),
      textCase('text with padding', 'field', `wxf:${toBase64url(new Uint8Array(64))}==`),
      textCase('text with too little padding', 'field', `${email.text}=`),
      textCase('text with white space', 'columns', `${headerText.slice(0, 60)}\n${headerText.slice(60)}`),
      textCase('text with the other alphabet', 'field', 'wxf:+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/'),
      textCase('text with trailing bits', 'field', `wxf:${'A'.repeat(37)}B`),
      textCase('text of an impossible length', 'field', `wxf:${'A'.repeat(41)}`),
    ]
  })
}
