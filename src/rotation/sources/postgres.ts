import { toBase64url } from '../../bytes.ts'
import { type ContextType, canonicalId } from '../../context.ts'
import type { Stored } from '../../envelope/format.ts'
import { config } from '../../errors.ts'
import { type Postgres, queryOf } from '../../postgres.ts'
import { rowId } from '../../records/compile.ts'
import type { Records } from '../../records/records.ts'
import type { Declaration } from '../../records/schema.ts'
import { keyIdParameter, quoteColumn, quoteName } from '../../records/sql.ts'
import type { Checkpoint, RotationSource, SourceRow } from '../source.ts'

export type { Postgres } from '../../postgres.ts'

/** The statement that makes the checkpoint table, for your migrations; it is also run, if needed, when a job begins. */
export const CHECKPOINT_TABLE = `create table if not exists waxseal_checkpoint (
  job text primary key,
  checkpoint text not null,
  written_at timestamptz not null default now()
)`

/** SQL types that the text of an id is cast to: comparisons then use the id's own index. */
const SQL_TYPE: Record<ContextType, string> = { text: 'text', int: 'bigint', uuid: 'uuid', bytes: 'bytea' }

/**
 * A PostgreSQL table of a declared record, for {@link RotationSource} jobs. The record's id columns must be the
 * primary key or another unique, not-null key: pages follow them. The index of `records.sql.createIndex` makes finding
 * the rows that are left cheap.
 *
 * `db` is PGlite, a `pg` pool or client, or a postgres.js instance.
 *
 * @example
 * ```ts
 * import { int, type Keyring, records, text } from 'waxseal'
 * import type { Postgres } from 'waxseal/postgres'
 * import { rewrap } from 'waxseal/rotation'
 * import { postgresTable } from 'waxseal/rotation/postgres'
 *
 * const customers = records('customers', { id: { id: int() }, fields: { email: text() } })
 * export const rotate = (keys: Keyring, db: Postgres) => rewrap({ keys, table: postgresTable(db, customers) })
 * ```
 */
export function postgresTable<D extends Declaration>(db: Postgres, record: Records<D>): RotationSource {
  const query = queryOf(db)
  const { schema, sql } = record
  if (!schema) throw config('record', 'what records() returns', record)
  const { ids, encoding } = schema
  const table = quoteName(schema.table)
  const quoted = ids.map((id) => quoteColumn(id.column))
  const envelope = quoteColumn(schema.envelopeColumn)
  const keyParameter = (id: string) => keyIdParameter(id, encoding)
  let prepared: Promise<unknown> | undefined

  const keyList = (keyIds: readonly string[], first: number) => keyIds.map((_, i) => `$${first + i}`).join(', ')
  /** What a page selects: ids as text, so that no client rounds a bigint, and the envelope. */
  const selected = [
    ...ids.map(({ type }, i) => `${quoted[i]}${type === 'bytes' ? '' : '::text'} as "id${i}"`),
    `${envelope} as "envelope"`,
  ].join(', ')
  const fromText = (expression: string, type: ContextType) =>
    type === 'bytes' ? `decode(${expression}, 'hex')` : `${expression}::${SQL_TYPE[type]}`
  const idText = (row: SourceRow) => ids.map(({ name, type }) => canonicalId(type, row[name], name))

  async function prepare(): Promise<void> {
    prepared ??= query(CHECKPOINT_TABLE)
    await prepared
  }

  return {
    name: schema.table,

    async countByKey(keyIds) {
      const counts = new Map<string, number>()
      // One query a key: each is served by the index, and `group by` on an expression would not be.
      for (const id of keyIds) {
        const where = `${sql.keyId} = $1`
        const [row] = await query<{ count: string }>(`select count(*)::text as count from ${table} where ${where}`, [
          keyParameter(id),
        ])
        counts.set(id, Number(row?.count))
      }
      return counts
    },

    async page(keyIds, after, limit) {
      const bound =
        after && `and (${quoted.join(', ')}) > (${ids.map((id, i) => fromText(`$${i + 2}::text`, id.type)).join(', ')})`
      const keysFrom = 2 + (after?.length ?? 0)
      const rows = await query<Record<string, unknown>>(
        `select ${selected} from ${table}
          where ${sql.keyId} in (${keyList(keyIds, keysFrom)}) ${bound ?? ''}
          order by ${quoted.join(', ')} limit $1::int`,
        [limit, ...(after ?? []), ...keyIds.map(keyParameter)],
      )
      return rows.map(toSourceRow)
    },

    cursorOf: idText,
    rowId: (row) => rowId(ids, row) ?? 'unknown',
    rewrap: (keys, row) => record.rewrap(keys, row),

    async swap(swaps) {
      const list = swaps.map(({ row, was, envelope: next }) => [...idText(row), asJson(was), asJson(next)])
      const names = [...ids.map((_, i) => `id${i}`), 'was', 'next']
      const cut = names.map((name, i) => `v ->> ${i} as ${name}`).join(', ')
      const value = (name: string) => (encoding === 'text' ? name : `decode(${name}, 'base64')`)
      const match = ids.map((id, i) => `t.${quoted[i]} = ${fromText(`s.id${i}`, id.type)}`).join(' and ')
      const rows = await query(
        `update ${table} as t set ${envelope} = ${value('s.next')}
          from (select ${cut} from json_array_elements($1::text::json) as v) as s
          where ${match} and t.${envelope} = ${value('s.was')}
          returning 1 as one`,
        [JSON.stringify(list)],
      )
      return rows.length
    },

    async loadCheckpoint(job) {
      await prepare()
      const [row] = await query<{ checkpoint: string }>('select checkpoint from waxseal_checkpoint where job = $1', [
        job,
      ])
      return row ? (JSON.parse(row.checkpoint) as Checkpoint) : null
    },

    async saveCheckpoint(job, checkpoint) {
      await query(
        `insert into waxseal_checkpoint (job, checkpoint) values ($1, $2)
          on conflict (job) do update set checkpoint = excluded.checkpoint, written_at = now()`,
        [job, JSON.stringify(checkpoint)],
      )
    },

    async dropCheckpoint(job) {
      await query('delete from waxseal_checkpoint where job = $1', [job])
    },
  }

  /** Back under the names that the record knows. */
  function toSourceRow(row: Record<string, unknown>): SourceRow {
    const out: Record<string, unknown> = { [schema.envelope]: row.envelope }
    ids.forEach(({ name }, i) => {
      out[name] = row[`id${i}`]
    })
    return out
  }
}

/** base64 with the standard alphabet, as PostgreSQL's decode() reads it; text is itself. */
function asJson(stored: Stored): string {
  if (typeof stored === 'string') return stored
  const text = toBase64url(stored).replaceAll('-', '+').replaceAll('_', '/')
  return text + '='.repeat((4 - (text.length % 4)) % 4)
}
