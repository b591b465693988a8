import { compareBytes, readU16, readU32, wipe, writeU16, writeU32 } from '../bytes.ts'
import { fieldAad, MAX_LABEL_BYTES, MAX_PLAINTEXT_BYTES, malformed } from '../envelope/format.ts'
import { WaxsealError } from '../errors.ts'
import type { Column, Leaf, Row, Schema } from './compile.ts'
import type { Place } from './located.ts'
import { plaintextOf, valueAt } from './row.ts'

/**
 * The plaintext of the packed shape: entries in the order of their labels' bytes, each
 * label length 2 ‖ label ‖ plaintext length 4 ‖ plaintext. A field that is undefined has no entry.
 */

/** AAD of a packed blob: the kind alone, since its labels are inside. */
export const PACKED_AAD: Uint8Array = fieldAad('packed', [])

/** Bytes of a plaintext's length, and of both lengths. */
const LENGTH = 4
const HEAD = 2 + LENGTH

/** Reused, because calls are synchronous. A call that runs inside another, from a getter, packs behind it. */
let room = new Uint8Array(4096)
let used = 0

function append(label: Uint8Array, plaintext: Uint8Array): void {
  const end = used + HEAD + label.length + plaintext.length
  if (end > MAX_PLAINTEXT_BYTES) throw new WaxsealError('LIMIT_EXCEEDED', 'the packed fields are over 16 MiB')
  if (end > room.length) {
    const larger = new Uint8Array(end * 2)
    larger.set(room.subarray(0, used))
    room.fill(0, 0, used)
    room = larger
  }
  writeU16(room, used, label.length)
  room.set(label, used + 2)
  writeU32(room, used + 2 + label.length, plaintext.length)
  room.set(plaintext, used + HEAD + label.length)
  used = end
}

/** Packs, lends the packed bytes to `use`, and wipes them, whatever happens. */
function packing<T>(pack: () => void, use: (packed: Uint8Array) => T): T {
  const start = used
  try {
    pack()
    return use(room.subarray(start, used))
  } finally {
    room.fill(0, start, used)
    used = start
    if (start === 0 && room.length > 65_536) room = new Uint8Array(4096)
  }
}

/** Lends the plaintext of a row's fields to `use`. */
export function packFields<T>(schema: Schema, row: Row, place: Place, use: (packed: Uint8Array) => T): T {
  return packing(() => {
    for (const column of inLabelOrder(schema)) packField(column, row[column.name], place)
  }, use)
}

/**
 * Lends the plaintext with some fields changed. All other entries are kept byte for byte, also those that this schema
 * does not declare: an older instance must not delete what a newer one wrote.
 */
export function repackFields<T>(
  schema: Schema,
  packed: Uint8Array,
  changes: Row,
  place: Place,
  use: (packed: Uint8Array) => T,
): T {
  return packing(() => {
    const changed = inLabelOrder(schema).filter(({ name }) => changes[name] !== undefined)
    let next = 0
    eachEntry(packed, (label, labelEnd, end) => {
      const order = (): number => orderAt(changed, next, packed, label, labelEnd)
      while (order() < 0) packField(changed[next]!, changes[changed[next++]!.name], place)
      if (order() > 0) append(packed.subarray(label, labelEnd), packed.subarray(labelEnd + LENGTH, end))
    })
    for (; next < changed.length; next++) packField(changed[next]!, changes[changed[next]!.name], place)
  }, use)
}

/** Where the label of a column stands to the one at `from`: before (< 0), the same (0), after; past the end is after. */
function orderAt(columns: readonly Column[], index: number, packed: Uint8Array, from: number, to: number): number {
  return index < columns.length ? compareBytes(columns[index]!.path[0], packed, from, to) : 1
}

function packField({ name, node, path }: Column, value: unknown, place: Place): void {
  if (value === undefined) return
  place.field = name
  const plaintext = plaintextOf(node as Leaf, value)
  append(path[0], plaintext)
  wipe(plaintext)
  place.field = undefined
}

/** Writes the declared fields of a packed plaintext into `out`; entries of other labels are skipped. */
export function unpackFields(schema: Schema, packed: Uint8Array, out: Record<string, unknown>, place: Place): void {
  const columns = inLabelOrder(schema)
  let next = 0
  eachEntry(packed, (label, labelEnd, end) => {
    let order = orderAt(columns, next, packed, label, labelEnd)
    while (order < 0) order = orderAt(columns, ++next, packed, label, labelEnd)
    if (order !== 0) return
    const { name, node } = columns[next]!
    place.field = name
    out[name] = valueAt(node as Leaf, packed, labelEnd + LENGTH, end)
    place.field = undefined
  })
}

/** Whether there are entries that this schema does not declare. */
export function hasOthers(schema: Schema, packed: Uint8Array): boolean {
  let found = false
  eachEntry(packed, (label, labelEnd) => {
    if (!schema.columns.some(({ path }) => compareBytes(path[0], packed, label, labelEnd) === 0)) found = true
  })
  return found
}

/** Tells where each entry's label begins, where it ends, and where the entry ends: views take longer than to read it. */
function eachEntry(packed: Uint8Array, visit: (label: number, labelEnd: number, end: number) => void): void {
  let previous = 0
  let previousEnd = 0
  for (let at = 0; at < packed.length; ) {
    const label = at + 2
    const labelEnd = label + (label <= packed.length ? readU16(packed, at) : 0)
    if (at + HEAD > packed.length || labelEnd + LENGTH > packed.length)
      throw malformed('plaintext: a packed entry is cut off')
    if (labelEnd === label || labelEnd - label > MAX_LABEL_BYTES)
      throw malformed('plaintext: a packed label of a wrong length')
    const end = labelEnd + LENGTH + readU32(packed, labelEnd)
    if (end > packed.length) throw malformed('plaintext: a packed entry is cut off')
    if (compareBytes(packed, packed, label, labelEnd, previous, previousEnd) >= 0)
      throw malformed('plaintext: packed entries are not in order')
    visit(label, labelEnd, end)
    previous = label
    previousEnd = labelEnd
    at = end
  }
}

const sorted = new WeakMap<Schema, readonly Column[]>()

function inLabelOrder(schema: Schema): readonly Column[] {
  let columns = sorted.get(schema)
  if (!columns) {
    columns = [...schema.columns].sort((a, b) => compareBytes(a.path[0], b.path[0]))
    sorted.set(schema, columns)
  }
  return columns
}
