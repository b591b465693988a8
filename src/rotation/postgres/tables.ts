import { type Encoding, FIELD_PREFIX } from '../../envelope/format.ts'
import { config, WaxsealError } from '../../errors.ts'
import type { Query } from '../../postgres.ts'
import { quoteColumn } from '../../records/sql.ts'
import type { Suspect } from '../orphans.ts'

/** What the catalog of a PostgreSQL says about tables. `table` is a name in SQL, quoted. */

/** A table by its schema and name, as the catalog has them. */
export interface TablePlace {
  readonly schema: string
  readonly table: string
}

export const sqlOf = ({ schema, table }: TablePlace): string => `${quoteColumn(schema)}.${quoteColumn(table)}`
export const nameOf = ({ schema, table }: TablePlace): string => `${schema}.${table}`

/** Where the name leads on this connection, by its search_path where no schema is in it. */
export async function locate(query: Query, table: string): Promise<readonly [string, string]> {
  const [row] = await query<TablePlace>(
    `select n.nspname as schema, c.relname as "table" from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.oid = $1::text::regclass`,
    [table],
  )
  return [row!.schema, row!.table]
}

/**
 * CONFIG unless every row of the table can be seen: row-level security may hide some from a role, a view from everybody; with
 * `history` also on a standby, which may not have them yet.
 */
export async function assertSeesAll(query: Query, table: string, name: string, history?: 'history'): Promise<void> {
  const [row] = await query<{ hides: boolean; kind: string; lags: boolean }>(
    `select row_security_active(oid) as hides, relkind::text as kind, pg_is_in_recovery() as lags
      from pg_class where oid = $1::text::regclass`,
    [table],
  )
  const wrong = (message: string): WaxsealError => new WaxsealError('CONFIG', message, { table: name, argument: 'db' })
  if (row?.kind === 'v') throw wrong(`${name} is a view, which may hide rows: declare its table`)
  if (history && row?.lags !== false) throw wrong('the server is a standby, which may lag behind: ask the primary')
  if (row?.hides === false) return
  throw wrong(`row-level security of ${name} may hide rows from this role: use one that bypasses it`)
}

/**
 * Every other table with a column of the envelope's name and type, or of a domain over it. Partitions and inheritance children are parts of what they
 * belong to, as long as that has the column too; temporary tables of other sessions cannot be read.
 */
export async function lookalikes(
  query: Query,
  table: string,
  envelope: { readonly column: string; readonly encoding: Encoding },
): Promise<readonly TablePlace[]> {
  // A domain has the category of what it is over: 'S' are texts, citext among them. One over bytea has that of many others.
  const isAlike =
    envelope.encoding === 'text'
      ? `y.typcategory = 'S' and y.typname <> 'name'`
      : `exists (
          with recursive base(oid) as (
            select y.oid union select d.typbasetype from base join pg_type d on d.oid = base.oid where d.typtype = 'd')
          select 1 from base where base.oid = 'bytea'::regtype)`
  return query<TablePlace>(
    `select n.nspname as schema, c.relname as "table"
      from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
        join pg_type y on y.oid = a.atttypid
      where a.attname = $2::text and a.attnum > 0 and not a.attisdropped
        and ${isAlike}
        and c.relkind in ('r', 'p', 'm', 'f') and c.relpersistence <> 't' and c.oid <> $1::text::regclass
        and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
        and not exists (
          select 1 from pg_inherits i join pg_attribute p on p.attrelid = i.inhparent
          where i.inhrelid = c.oid and p.attname = $2::text and not p.attisdropped)
      order by 1, 2`,
    [table, envelope.column],
  )
}

/**
 * Texts, arrays and composites of them, types that are read as text, such as JSON; with `bytes` also bytea. Domains have the
 * category of what they are over. Before PostgreSQL 12 the catalog has no attgenerated.
 */
export async function suspects(
  query: Query,
  table: string,
  encoding: Encoding,
  known: ReadonlySet<string>,
): Promise<readonly Suspect[]> {
  const rows = await query<{ name: string; type: string }>(
    `with recursive base(name, type, n) as (
        select a.attname::text, a.atttypid, a.attnum from pg_attribute a
          where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped
            and coalesce(to_jsonb(a) ->> 'attgenerated', '') = ''
        union all
        select b.name, y.typbasetype, b.n from base b join pg_type y on y.oid = b.type where y.typtype = 'd')
      select b.name as name, y.typname::text as type from base b join pg_type y on y.oid = b.type
      where y.typtype <> 'd' and y.typcategory in ('S', 'U', 'A', 'C', 'R') and y.typname not in ('uuid', 'name') order by b.n`,
    [table],
  )
  const others = rows.filter(({ name, type }) => !known.has(name) && (type !== 'bytea' || encoding === 'bytes'))
  return others.map(({ name, type }) => {
    const own = `t.${quoteColumn(name)}`
    // Under some collations no text is found within another one.
    const holds = `strpos(${own}::text collate "C", '${FIELD_PREFIX}') > 0`
    const isBytes = type === 'bytea'
    const sql = isBytes ? own : `case when ${holds} then ${own}::text end`
    const bytes = isBytes ? own : `convert_to(${sql}, getdatabaseencoding())`
    const digest = `encode(sha256(${bytes}), 'hex')`
    return { column: name, sql, digest, read: (selected) => selected as string | Uint8Array }
  })
}

/** The schemas that `wanted` names and that have the table, in order. A pattern is matched against names of schemas. */
export async function schemasWith(
  query: Query,
  table: string,
  wanted: RegExp | readonly string[],
): Promise<readonly string[]> {
  const isPattern = wanted instanceof RegExp
  if (!isPattern && !(Array.isArray(wanted) && wanted.every((name) => typeof name === 'string'))) {
    throw config('schemas', 'names of schemas, or a regular expression that matches them', wanted)
  }
  const rows = await query<{ schema: string }>(
    `select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relname = $1::text and c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
      order by 1`,
    [table],
  )
  const found = rows.map(({ schema }) => schema)
  const pattern = isPattern ? new RegExp(wanted.source, wanted.flags.replace(/[gy]/g, '')) : undefined
  const schemas = found.filter((name) => (pattern ? pattern.test(name) : (wanted as string[]).includes(name)))
  const lacking = pattern ? undefined : (wanted as string[]).find((name) => !found.includes(name))
  if (lacking !== undefined) throw config('schemas', `a table ${table} in the schema "${lacking}"`, undefined)
  if (schemas.length === 0) throw config('schemas', `a schema that matches and has a table ${table}`, wanted)
  return schemas
}
