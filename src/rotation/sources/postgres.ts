import { toBase64url } from '../../bytes.ts'
import { canonicalId } from '../../context.ts'
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
    ...ids.map(({ type }, i) => `t.${quoted[i]}${type === 'bytes' ? '' : '::text'} as "id${i}"`),
    `t.${envelope} as "envelope"`,
  ].join(', ')
  /** An id as the text that PostgreSQL reads as the column's own type: as it came, since a text column may hold any case. */
  const idText = (row: SourceRow) =>
    ids.map(({ name, type }) => (type === 'bytes' ? canonicalId(type, row[name], name) : String(row[name])))

  /** Made only where it is missing, so that a role that may not create tables can use one made by a migration. */
  async function prepare(): Promise<void> {
    prepared ??= makeCheckpointTable()
    try {
      await prepared
    } catch (error) {
      prepared = undefined
      throw error
    }
  }

  async function makeCheckpointTable(): Promise<void> {
    const exists = async () => {
      const [row] = await query<{ there: boolean }>(`select to_regclass('waxseal_checkpoint') is not null as there`)
      return row?.there
    }
    if (await exists()) return
    try {
      await query(CHECKPOINT_TABLE)
    } catch (error) {
      if (!(await exists())) throw error // `if not exists` is not safe against a concurrent creation
    }
  }

  return {
    name: schema.table,
    envelopeColumn: schema.envelopeColumn,

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
      // The parameters have no cast: PostgreSQL gives them the types of the columns, whatever those are.
      const own = quoted.map((name) => `t.${name}`).join(', ')
      const bound =
        after &&
        `and (${own}) > (${ids.map((id, i) => (id.type === 'bytes' ? `decode($${i + 2}::text, 'hex')` : `$${i + 2}`)).join(', ')})`
      const keysFrom = 2 + (after?.length ?? 0)
      const rows = await query<Record<string, unknown>>(
        `select ${selected} from ${table} as t
          where ${sql.keyId} in (${keyList(keyIds, keysFrom)}) ${bound ?? ''}
          order by ${own} limit $1::int`,
        [limit, ...(after ?? []), ...keyIds.map(keyParameter)],
      )
      return rows.map(toSourceRow)
    },

    cursorOf: idText,
    rowId: (row) => rowId(ids, row) ?? 'unknown',
    rewrap: (keys, row) => record.rewrap(keys, row),

    async swap(swaps, job, at) {
      const list = swaps.map(({ row, was, envelope: next }) => {
        const texts = idText(row)
        return {
          id: Object.fromEntries(ids.map((id, i) => [id.column, id.type === 'bytes' ? `\\x${texts[i]}` : texts[i]])),
          was: asJson(was),
          next: asJson(next),
        }
      })
      const value = (name: string) => (encoding === 'text' ? name : `decode(${name}, 'base64')`)
      const match = quoted.map((name) => `t.${name} = s.${name}`).join(' and ')
      const [row] = await query<{ checkpoint: string }>(
        `with moved as (
            update ${table} as t set ${envelope} = ${value(`j.doc ->> 'next'`)}
            from json_array_elements($1::text::json) as j(doc),
              lateral json_populate_record(null::${table}, j.doc -> 'id') as s
            where ${match} and t.${envelope} = ${value(`j.doc ->> 'was'`)}
            returning 1
          ), counted as (select count(*)::int as n from moved)
          insert into waxseal_checkpoint (job, checkpoint)
          select $2::text, json_build_object('cursor', $3::text::json, 'failed', $4::int,
            'rewrapped', $5::int + n, 'raced', $6::int + $7::int - n)::text from counted
          on conflict (job) do update set checkpoint = excluded.checkpoint, written_at = now()
          returning checkpoint`,
        [JSON.stringify(list), job, JSON.stringify(at.cursor), at.failed, at.rewrapped, at.raced, swaps.length],
      )
      return JSON.parse(row!.checkpoint) as Checkpoint
    },

    async loadCheckpoint(job) {
      await prepare()
      const [row] = await query<{ checkpoint: string }>('select checkpoint from waxseal_checkpoint where job = $1', [
        job,
      ])
      return row ? (JSON.parse(row.checkpoint) as Checkpoint) : null
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
