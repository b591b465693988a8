import type pg from 'pg'

/**
 * The limit: a backfill of the same columns by an application that does not encrypt. Pages by keyset; new values of the
 * same size; one set-based UPDATE a page. No compare-and-swap, no checkpoint, no lease: a kill leaves it half done and
 * an edit that comes in between is lost.
 */
export interface Backfill {
  readonly table: string
  readonly columns: readonly string[]
  /** Ids from … up to and including. */
  readonly from: number
  readonly to: number
  readonly batchSize: number
  /** What changes of the value that is indexed. */
  readonly old: string
  readonly next: string
}

export async function backfill(db: pg.Pool, { table, columns, from, to, batchSize, old, next }: Backfill) {
  const names = columns.map((name) => `"${name}"`)
  const read = `select id, ${names.join(', ')} from ${table} where id > $1 and id <= $2 order by id limit $3`
  // Split at commas, which none of the values has: PostgreSQL reads the literal of an array half as fast.
  const arrays = [`string_to_array($1, ',')::bigint[]`, ...names.map((_, i) => `string_to_array($${i + 2}, ',')`)]
  const write = `update ${table} as t set ${names.map((name) => `${name} = j.${name}`).join(', ')}
    from unnest(${arrays.join(', ')}) as j(id, ${names.join(', ')}) where t.id = j.id`
  const altered = (value: string, column: string): string =>
    column === 'envelope' ? value.replace(old, next) : `${value.slice(0, 4)}${value.slice(5)}${value[4]}`

  async function batch(after: unknown) {
    const { rows } = await db.query<Record<string, string>>(read, [after, to, batchSize])
    const values = columns.map((column) => rows.map((row) => altered(row[column]!, column)).join(','))
    return { last: rows.at(-1)?.id, values: [rows.map((row) => row.id).join(','), ...values] }
  }

  let written = 0
  for (let coming = batch(from - 1); ; ) {
    const { last, values } = await coming
    if (last === undefined) return written
    // The next page is read, and made into a batch, while this one is written.
    coming = batch(last)
    written += (await db.query(write, values)).rowCount ?? 0
  }
}
