import { FIELD_PREFIX } from '../envelope/format.ts'
import { config } from '../errors.ts'
import { type Column, type IdColumn, type Node, rowId, type Schema } from '../records/compile.ts'
import type { Records } from '../records/records.ts'
import type { Declaration } from '../records/schema.ts'
import { keyIdParameter } from '../records/sql.ts'
import type { Dialect, Found, Layout, Place } from './dialect.ts'
import { addSuspects, checkOthers, guardOf, knownColumns } from './orphans.ts'
import type { AnyRecord, Cursor, Extent, Filter, ReadRow, RotationSource, SourceRow, Span } from './source.ts'
import { columnsOf } from './work.ts'

/** What the sources share: which rows are read, in which order, and how a row that was read is told apart. */

export interface TableOptions {
  /** Columns to read besides, that `context` or `subject` needs. */
  readonly select?: readonly string[]
  /** Columns of the plaintext of fields that are sealed `into` another, where they are not called as the property. */
  readonly plaintext?: Readonly<Record<string, string>>
  /** The values of the record's declared context for a row; needed by all jobs that open rows. */
  readonly context?: (row: SourceRow) => SourceRow
  /** Whose data a row is, of its ids and the columns of `select`: for the list of an incident. */
  readonly subject?: (row: SourceRow) => string | undefined
  /**
   * Records that share the table, each with an envelope column of its own. What is sealed in columns of nobody makes a row one
   * that jobs leave as it is (SCHEMA), where they would give up its data key.
   */
  readonly otherRecords?: readonly AnyRecord[]
}

/** The node of a column that is JSON also when it is sealed. */
const nestedIn = (schema: Schema, column: string): Node | undefined =>
  schema.columns.find((each) => each.column === column && each.node.type !== 'leaf')?.node

export function tableSource<D extends Declaration>(
  record: Records<D>,
  options: TableOptions,
  dialect: Dialect,
  to?: Schema,
): RotationSource {
  const { schema } = record
  const { ids, encoding } = schema
  const { query, books, quote } = dialect
  const { sql: table, name } = dialect.table ?? { sql: quote.name(schema.table), name: schema.table }
  const envelope = quote.column(schema.envelopeColumn)
  const own = ids.map((id) => `t.${quote.column(id.column)}`)
  const alias = ids.map((_, i) => quote.column(`id${i}`))
  const extra = options.select ?? []
  const leftover = leftoverOf(schema, dialect, options.plaintext)
  const unknown = Object.keys(options.plaintext ?? {}).find(
    (name) => !schema.moved.some((field) => field.name === name),
  )
  if (unknown !== undefined) throw config(`plaintext.${unknown}`, 'a field that is sealed into another column', unknown)

  const others = options.otherRecords ?? []
  checkOthers(schema, others)
  const sealed = knownColumns(schema, to, others)

  /** A condition and its parameters. */
  function where(layout: Layout, filter: Filter, span: Span): { text: string; values: unknown[] } {
    const values: unknown[] = []
    const place: Place = (value) => dialect.place(values.push(value), value)
    const places = (keyIds: readonly string[]): string =>
      keyIds.map((id) => place(keyIdParameter(id, encoding))).join(', ')
    const parts: string[] = []
    if (filter === 'plaintext') parts.push(`t.${envelope} is null`)
    else if (filter === 'sealed') parts.push(`t.${envelope} is not null`)
    else if (filter === 'leftover') parts.push(`t.${envelope} is not null and (${leftover})`)
    else if ('keys' in filter) parts.push(`${layout.keyId} in (${places(filter.keys) || 'null'})`)
    else if ('chance' in filter) parts.push(`t.${envelope} is not null and ${dialect.random} < ${chanceOf(filter)}`)
    else {
      const none = filter.notKeys.length > 0 ? ` and ${layout.keyId} not in (${places(filter.notKeys)})` : ''
      parts.push(`t.${envelope} is not null${none}`)
    }
    const compare = (cursor: Cursor, than: 'behind' | 'upTo'): string =>
      dialect.compare(own, than, (i) => layout.ids[i]!.bound(cursor[i]!, place))
    if (span.after) parts.push(compare(span.after, 'behind'))
    if (span.upTo) parts.push(compare(span.upTo, 'upTo'))
    return { text: parts.join(' and '), values }
  }

  const known = new Map<Extent, ReadonlyMap<string, string>>()
  /** Asked for every row of a job. */
  function columns(extent: Extent): ReadonlyMap<string, string> {
    const found = known.get(extent) ?? columnsOf(schema, extent, options.plaintext)
    known.set(extent, found)
    return found
  }

  const idTexts = (layout: Layout): string[] => layout.ids.map(({ text }, i) => `${text} as ${alias[i]}`)
  const cursorIn = (layout: Layout, row: Found): string[] => layout.ids.map(({ cursor }, i) => cursor(row[`id${i}`]))

  async function countWhere(text: string, values: readonly unknown[]): Promise<number> {
    const [row] = await query<{ n: string }>(
      `select ${dialect.countText('count(*)')} as n from ${table} as t where ${text}`,
      values,
    )
    return Number(row?.n)
  }

  async function count(filter: Filter, span: Span = { after: null, upTo: null }): Promise<number> {
    const { text, values } = where(await dialect.layout(), filter, span)
    return countWhere(text, values)
  }

  /**
   * In the order of the index, which `=` would leave to the planner: by statistics from before a job, the whole table would be
   * read to find nothing.
   */
  async function isAnyUnder(keyIds: readonly string[]): Promise<boolean> {
    const { keyId } = await dialect.layout()
    for (const id of keyIds) {
      const value = keyIdParameter(id, encoding)
      const bounds = `${dialect.place(1, value)} and ${dialect.place(2, value)}`
      const sql = `select 1 as n from ${table} as t where ${keyId} between ${bounds} order by ${keyId} limit 1`
      if ((await query(sql, [value, value])).length > 0) return true
    }
    return false
  }

  return {
    name,
    record,
    books,
    columns,
    rowId: (row) => rowId(ids, row) ?? ids.map(({ name }) => String(row[name])).join(','),
    contextOf: (row) => options.context?.(row),
    subjectOf: (row) => options.subject?.(row),

    locate: dialect.locate ?? (async () => name.split('.')),
    lookalikes: dialect.lookalikes ?? (async () => []),

    async census(keyIds) {
      const { keyId } = await dialect.layout()
      const values = keyIds.map((id) => keyIdParameter(id, encoding))
      const under = values.map(
        (value, i) => `count(case when ${keyId} = ${dialect.place(i + 1, value)} then 1 end) as k${i}`,
      )
      const [row] = await query<Found>(
        `select ${['count(*) as n', `count(t.${envelope}) as sealed`, ...under].join(', ')} from ${table} as t`,
        values,
      )
      const byKey = new Map(keyIds.map((id, i) => [id, Number(row?.[`k${i}`])]))
      return { total: Number(row?.n), sealed: Number(row?.sealed), byKey }
    },

    async countByKey(keyIds) {
      const { keyId } = await dialect.layout()
      const counts = new Map<string, number>()
      // One query a key: each is served by the index, and `group by` on an expression would not be.
      for (const id of keyIds) {
        const value = keyIdParameter(id, encoding)
        counts.set(id, await countWhere(`${keyId} = ${dialect.place(1, value)}`, [value]))
      }
      return counts
    },

    count,

    async countLeft(filter) {
      const isByKey = typeof filter === 'object' && 'keys' in filter
      return isByKey && !(await isAnyUnder(filter.keys)) ? 0 : count(filter)
    },

    async page(filter, span, limit, extent, orphans) {
      const layout = await dialect.layout()
      const cells = await dialect.cells(extent)
      const suspects = orphans ? await dialect.suspects(sealed) : []
      const stored = [...columns(extent)]
      const read = new Set(stored.map(([column]) => column))
      const targets = to ? [...columnsOf(to, 'sealed')] : []
      const more = targets.filter(([column]) => !read.has(column)).map(([column]) => column)
      const places = new Map([...read, ...more].map((column, i) => [column, i]))
      const plain = new Map(extent === 'all' ? schema.columns.map(({ name, node }) => [name, node]) : [])
      const selected = [
        ...idTexts(layout),
        ...[...places].flatMap(([column, i]) => cells.select(column, i)),
        ...extra.flatMap((column, i) => cells.selectExtra(column, i)),
        ...suspects.flatMap(({ sql, digest }, i) => [`${sql} as o${i}`, `${digest} as d${i}`]),
      ]
      const { text, values } = where(layout, filter, span)
      const rows = await query<Found>(
        `select ${selected.join(', ')} from ${table} as t where ${text} order by ${own.join(', ')}
          limit ${Math.trunc(limit)}`,
        values,
      )
      const compared = [...places.keys()]
      const putIds = (into: Record<string, unknown>, names: readonly IdColumn[], cursor: Cursor): void => {
        for (let i = 0; i < names.length; i++) into[names[i]!.name] = layout.ids[i]!.value(cursor[i]!)
      }
      // Loops by number: a job makes a million rows, and what it makes besides is collected.
      return rows.map((found): ReadRow => {
        const row: Record<string, unknown> = {}
        const was: Record<string, string | null> = {}
        for (let i = 0; i < stored.length; i++) {
          const [column, property] = stored[i]!
          row[property] = cells.value(found, column, i, plain.get(property))
        }
        for (let i = 0; i < compared.length; i++) was[compared[i]!] = cells.was(found, compared[i]!, i)
        for (let i = 0; i < extra.length; i++) row[extra[i]!] = cells.extra(found, i)
        const cursor = cursorIn(layout, found)
        putIds(row, ids, cursor)
        const one = { row, was, cursor, ...(orphans && { guard: guardOf(suspects, found) }) }
        if (!to) {
          addSuspects(suspects, found, [[row, schema]])
          return one
        }
        const next: Record<string, unknown> = {}
        for (const [column, property] of targets) {
          next[property] = cells.value(found, column, places.get(column)!, nestedIn(to, column))
        }
        putIds(next, to.ids, cursor)
        addSuspects(suspects, found, [
          [row, schema],
          [next, to],
        ])
        return { ...one, next }
      })
    },

    async cut(filter, span, parts) {
      const layout = await dialect.layout()
      const { text, values } = where(layout, filter, span)
      const k = Math.trunc(parts)
      // A row ends a part where rn × k / n passes a whole number.
      const rows = await query<Found>(
        `select ${alias.join(', ')} from (
            select ${idTexts(layout).join(', ')}, row_number() over (order by ${own.join(', ')}) as rn, count(*) over () as n
            from ${table} as t where ${text}) as q
          where rn < n and rn * ${k} % n < ${k} order by rn`,
        values,
      )
      return rows.map((row) => cursorIn(layout, row))
    },

    write: dialect.write,
    ...(dialect.isOrdered && { isOrdered: true }),
    movingTo: (other) => tableSource(record, options, dialect, other.schema),
    assertSeesAll: dialect.assertSeesAll,
  }
}

/**
 * True where plaintext stands beside an envelope: a column that sealing empties has a value (while the table migrates: it may be
 * dropped afterwards), or a text that has to be a ciphertext is none. Bytes and JSON are told by opening them.
 */
function leftoverOf(schema: Schema, { quote, differs }: Dialect, plaintext: TableOptions['plaintext']): string {
  const moved = new Set(schema.moved.map(({ name }) => name))
  const sealed = schema.kind === 'columns' ? schema.columns : []
  const emptied = schema.migrate ? [...columnsOf(schema, 'all', plaintext)].filter(([, name]) => moved.has(name)) : []
  const isText = (column: Column): boolean => schema.encoding === 'text' && column.node.type === 'leaf'
  const parts = [
    ...emptied.map(([column]) => `t.${quote.column(column)} is not null`),
    ...sealed.filter(isText).map(({ column }) => {
      return differs(`substr(t.${quote.column(column)}, 1, ${FIELD_PREFIX.length})`, `'${FIELD_PREFIX}'`)
    }),
  ]
  return parts.join(' or ') || '1 = 0'
}

/** As a decimal number: SQL knows no `1e-7` everywhere. */
function chanceOf({ chance }: { readonly chance: number }): string {
  if (!(chance >= 0 && chance <= 1)) throw config('chance', 'a number from 0 to 1', chance)
  return chance.toFixed(18)
}
