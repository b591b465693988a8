import { deepStrictEqual as same } from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { createKeyring, type Keyring } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import { localKms } from 'waxseal/kms/local'
import { postgresMissing, startPostgres } from '../../test/support/postgres.ts'
import { customer, NAME, openKeys, recordOf, SEALED } from './record.ts'
import { startWorkers, type Workers } from './workers.ts'

/** A PostgreSQL server of its own, a keyring that was rotated once, and tables whose rows are under the old version. */
export interface Arena {
  readonly db: pg.Pool
  readonly version: string
  readonly oldId: string
  readonly newId: string
  /** The table that holds the rows 1 … `rows` under the old version, made when first asked for. */
  pristine(rows: number): Promise<string>
  /** A fresh copy of such a table: same rows, same indexes, vacuumed, analyzed. */
  restored(rows: number, name: string): Promise<string>
  /** Processes that have the old version active, or the new one. */
  workers(count: number, when?: 'before' | 'after'): Promise<Workers>
  /** Throws unless every row is under the new version and a sample opens to what went in. */
  checkRotated(table: string, rows: number): Promise<void>
  /** Throws unless the columns of every row differ from the pristine ones, with the same size. */
  checkWritten(table: string, rows: number, columns: readonly string[]): Promise<void>
  close(): Promise<void>
}

const SAMPLE = 50
/** Rows that are encrypted; those of a larger table repeat their ciphertext under other ids, which wraps do not know of. */
export const DISTINCT = 1_000_000
const original = (id: number): number => ((id - 1) % DISTINCT) + 1

/** `program`: the compiled worker. `durable`: commits wait for the disk. */
export async function arena(program: string, { durable }: { readonly durable: boolean }): Promise<Arena> {
  const missing = postgresMissing()
  if (missing) throw new Error(missing)
  const server = await startPostgres({ fsync: durable })
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-bench-'))
  const root = randomBytes(32).toString('hex')
  const file = (when: string): string => join(folder, `${when}.json`)
  const db = new pg.Pool({ connectionString: server.url, max: 4 })
  db.on('error', () => undefined) // the server is stopped before idle connections are

  // What the server does by itself would hit one side or the other.
  await db.query('alter system set autovacuum = off')
  await db.query(`alter system set max_wal_size = '8GB'`)
  await db.query(`alter system set checkpoint_timeout = '1h'`)
  await db.query('select pg_reload_conf()')

  const store = fileKeyStore(file('after'))
  const made = await createKeyring({ name: NAME, store, kms: localKms(root), propagationMs: 0 })
  const oldId = made.status().active!
  copyFileSync(file('after'), file('before'))
  await made.rotate()
  await made.maintain()
  await made.close()
  const keys: Keyring = await openKeys(file('after'), root)
  const newId = keys.status().active!

  const workers: Arena['workers'] = (count, when = 'after') =>
    startWorkers(program, count, { BENCH_URL: server.url, BENCH_KEYS: file(when), BENCH_ROOT: root })

  async function pristine(rows: number): Promise<string> {
    const table = `pristine_${rows}`
    const { rows: found } = await db.query('select 1 from pg_class where relname = $1', [table])
    if (found.length > 0) return table
    await db.query(`create table ${table} (id bigint primary key, city text not null,
      ${SEALED.map((name) => `${name} text not null`).join(', ')})`)
    const hands = await workers(2, 'before')
    const made = Math.min(rows, DISTINCT)
    const middle = Math.ceil(made / 2)
    await hands.carryOut([
      { kind: 'fill', table, from: 1, to: middle },
      { kind: 'fill', table, from: middle + 1, to: made },
    ])
    hands.stop()
    for (let from = made; from < rows; from += DISTINCT) {
      const copied = ['city', ...SEALED].join(', ')
      await db.query(
        `insert into ${table} (id, ${copied}) select id + $1, ${copied} from ${table} where id <= $2 order by id`,
        [from, Math.min(DISTINCT, rows - from)],
      )
    }
    await db.query(recordOf(table).sql.createIndex)
    return table
  }

  async function restored(rows: number, name: string): Promise<string> {
    const from = await pristine(rows)
    await db.query(`drop table if exists ${name}`)
    await db.query(`create table ${name} (like ${from} including all)`)
    await db.query(`insert into ${name} select * from ${from} order by id`)
    await db.query(`vacuum (analyze) ${name}`)
    await db.query('checkpoint')
    return name
  }

  async function count(table: string, where: string, values: readonly unknown[] = []): Promise<number> {
    const { rows } = await db.query(`select count(*)::int as n from ${table} where ${where}`, [...values])
    return rows[0].n
  }

  return {
    db,
    version: server.version,
    oldId,
    newId,
    pristine,
    restored,
    workers,
    async checkRotated(table, rows) {
      const record = recordOf(table)
      same(await count(table, `${record.sql.keyId} = $1`, [newId]), rows)
      same(await count(table, 'true'), rows)
      const every = Math.max(1, Math.floor(rows / SAMPLE))
      const { rows: sample } = await db.query(`select * from ${table} where id % $1 = 0 order by id`, [every])
      const opened = sample.map((row) => record.decrypt(keys, { ...row, id: original(Number(row.id)) }))
      same(
        opened,
        sample.map((row) => customer(original(Number(row.id)))),
      )
    },
    async checkWritten(table, rows, columns) {
      const isNew = columns.map((name) => `p.${name} <> t.${name} and length(p.${name}) = length(t.${name})`)
      same(await count(`${await pristine(rows)} as p join ${table} as t using (id)`, isNew.join(' and ')), rows)
    },
    async close() {
      await keys.close()
      await db.end()
      server.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
