import { buildAsShipped } from '../build.ts'
import { median } from '../harness.ts'
import { type Arena, arena } from './arena.ts'
import { recordOf, SEALED } from './record.ts'

/**
 * What an index for the needs-rotation query costs and saves: `npm run bench:rotation:indexes [-- <rows>]`. Server times
 * of whole statements, so that no client is in them.
 */
const ROWS = Number(process.argv[2] ?? 50_000)
const ROUNDS = 3
const TABLE = 'target'
const { keyId } = recordOf(TABLE).sql

const VARIANTS: readonly { name: string; index?: string; fillfactor?: number }[] = [
  { name: 'no index' },
  { name: 'no index, fillfactor 50', fillfactor: 50 },
  { name: 'key id', index: `((${keyId}))` },
  { name: 'key id, fillfactor 50', index: `((${keyId}))`, fillfactor: 50 },
  { name: 'key id, then id', index: `((${keyId}), id)` },
]

async function ms(place: Arena, sql: string): Promise<number> {
  const { rows } = await place.db.query<Record<string, [{ 'Execution Time': number }]>>(
    `explain (analyze, timing off, format json) ${sql}`,
  )
  return rows[0]!['QUERY PLAN']![0]['Execution Time']
}

async function one(place: Arena, from: string, { index, fillfactor }: (typeof VARIANTS)[number]) {
  const { db, oldId, newId } = place
  await db.query(`drop table if exists ${TABLE}`)
  await db.query(
    `create table ${TABLE} (like ${from} including defaults, primary key (id)) with (fillfactor = ${fillfactor ?? 100})`,
  )
  if (index) await db.query(`create index target_key on ${TABLE} ${index}`)
  const insert = await ms(place, `insert into ${TABLE} select * from ${from} order by id`)
  await db.query(`vacuum (analyze) ${TABLE}`)
  const { rows: size } = await db.query(`select coalesce(pg_relation_size(to_regclass('target_key')), 0)::int as bytes`)
  // A thousand rows are moved: the far end of a table that is nearly done, or what stragglers wrote.
  await db.query(`update ${TABLE} set envelope = replace(envelope, '${oldId}', '${newId}') where id <= ${ROWS - 1000}`)
  await db.query(`vacuum (analyze) ${TABLE}`)
  const count = await ms(place, `select count(*) from ${TABLE} as t where ${keyId} = '${oldId}'`)
  const page = await ms(
    place,
    `select id, envelope from ${TABLE} as t where ${keyId} in ('${oldId}') order by id limit 1000`,
  )
  await db.query(`truncate ${TABLE}`)
  await db.query(`insert into ${TABLE} select * from ${from} order by id`)
  await db.query(`vacuum (analyze) ${TABLE}`)
  await db.query('checkpoint')
  await db.query('select pg_stat_force_next_flush()')
  await db.query(`select pg_stat_reset_single_table_counters('${TABLE}'::regclass)`)
  let update = 0
  for (let first = 1; first <= ROWS; first += 1000) {
    update += await ms(
      place,
      `update ${TABLE} set envelope = replace(envelope, '${oldId}', '${newId}') where id between ${first} and ${first + 999}`,
    )
  }
  await db.query('select pg_stat_force_next_flush()')
  const { rows: hot } = await db.query(`select round(100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0), 0)::int as percent
    from pg_stat_user_tables where relname = '${TABLE}'`)
  return {
    insert,
    update,
    count,
    page,
    bytes: size[0].bytes as number,
    hot: (hot[0]?.percent ?? null) as number | null,
  }
}

const place = await arena(await buildAsShipped('bench/rotation/worker.ts'), { durable: false })
try {
  const from = await place.pristine(ROWS)
  const found = new Map<string, Awaited<ReturnType<typeof one>>[]>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const variant of VARIANTS) {
      const list = found.get(variant.name) ?? []
      found.set(variant.name, [...list, await one(place, from, variant)])
    }
  }
  console.log(`${ROWS} rows, ${SEALED.length + 2} columns; medians of ${ROUNDS} rounds; PostgreSQL ${place.version}`)
  console.table(
    [...found].map(([index, runs]) => {
      const of = (pick: (run: (typeof runs)[number]) => number): number => median(runs.map(pick))
      const perRow = (pick: (run: (typeof runs)[number]) => number): number =>
        Number(((of(pick) * 1000) / ROWS).toFixed(2))
      return {
        index,
        'insert, us a row': perRow((run) => run.insert),
        'update, us a row': perRow((run) => run.update),
        'hot updates, %': runs.at(-1)!.hot,
        'count of 1,000, ms': Number(of((run) => run.count).toFixed(2)),
        'page of 1,000, ms': Number(of((run) => run.page).toFixed(2)),
        'index, MB': Number((runs[0]!.bytes / 1e6).toFixed(1)),
      }
    }),
  )
} finally {
  await place.close()
}
