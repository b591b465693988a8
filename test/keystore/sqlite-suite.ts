import { writeFileSync } from 'node:fs'
import { keyStoreSchema, type Sqlite, sqliteKeyStore } from 'waxseal/keystore/sqlite'
import type { SuiteFramework } from '../../src/testing/framework.ts'
import { keyStoreSuite } from '../../src/testing/keystore-suite.ts'
import { document } from './document.ts'
import { EDITS } from './edits.ts'

export type Database = Sqlite & { close(): void }

/** How a client opens a database, and a path that is new at each call. */
export interface Subject {
  readonly name: string
  open(path: string, options?: { readOnly: boolean }): Database
  newPath(): string
}

/** Everything about SQLite, for each client that applications have, and in processes without vitest. */
export function sqliteSuite(framework: SuiteFramework, { name, open, newPath }: Subject): void {
  const { describe, it, expect } = framework

  function made(options: { table?: string } = {}, path = newPath()): { db: Database; path: string } {
    const db = open(path)
    db.exec(keyStoreSchema(options))
    return { db, path }
  }
  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'done',
      (error: { code?: unknown; argument?: unknown }) => [error.code, error.argument].filter(Boolean).join(' '),
    )
  const column = (db: Database, what: string): unknown =>
    (db.prepare(`select ${what} as it from waxseal_keyring`).all()[0] as { it: unknown } | undefined)?.it

  keyStoreSuite(framework, {
    name: `${name}, a file with a connection each,`,
    make: () => {
      const { path } = made()
      return () => sqliteKeyStore(open(path))
    },
  })
  keyStoreSuite(framework, {
    name: `${name}, in memory,`,
    make: () => {
      const { db } = made({}, ':memory:')
      return () => sqliteKeyStore(db)
    },
  })
  keyStoreSuite(framework, {
    name: `${name}, in WAL mode, with a table of another name,`,
    make: () => {
      const { db, path } = made({ table: 'Keys$2' })
      db.exec('pragma journal_mode = wal')
      return () => sqliteKeyStore(open(path), { table: 'Keys$2' })
    },
  })

  describe(`a SQLite key store with ${name}`, () => {
    it('keeps one row a keyring, in ASCII', async () => {
      const { db } = made()
      await sqliteKeyStore(db).save('crm', document(3, 'ключ "é"'), null)
      expect(
        db
          .prepare('select name, epoch from waxseal_keyring')
          .all()
          .map((row) => ({ ...(row as object) })),
      ).toEqual([{ name: 'crm', epoch: 3 }])
      const text = column(db, 'document') as string
      expect(/^[\x20-\x7e]+$/.test(text)).toEqual(true)
      expect(JSON.parse(text)).toEqual(document(3, 'ключ "é"'))
    })

    it('may run its statement again, and loses nothing', async () => {
      const { db } = made()
      await sqliteKeyStore(db).save('crm', document(1), null)
      db.exec(keyStoreSchema())
      expect(await sqliteKeyStore(db).load('crm')).toEqual(document(1))
    })

    it('without a table, or with another one of that name, is CONFIG', async () => {
      const db = open(newPath())
      const store = sqliteKeyStore(db)
      expect(await codeOf(store.load('crm'))).toEqual('CONFIG table')
      expect(await codeOf(store.save('crm', document(1), null))).toEqual('CONFIG table')
      db.exec('create table waxseal_keyring (name text, epoch integer)')
      expect(await codeOf(store.load('crm'))).toEqual('CONFIG table')
      expect(await codeOf(store.save('crm', document(1), null))).toEqual('CONFIG table')
      db.exec('drop table waxseal_keyring; create table waxseal_keyring (name text, epoch integer, document text)')
      expect(await codeOf(store.save('crm', document(1), null))).toEqual('CONFIG table')
      expect(await store.load('crm')).toEqual(undefined)
    })

    it('in a transaction is CONFIG, for writing, and changes nothing', async () => {
      const { db, path } = made()
      const store = sqliteKeyStore(db)
      await store.save('crm', document(1), null)
      db.exec('begin')
      expect(await codeOf(store.save('crm', document(2), 1))).toEqual('CONFIG db')
      expect(await codeOf(store.save('hr', document(1), null))).toEqual('CONFIG db')
      expect(await store.load('crm')).toEqual(document(1))
      db.exec('commit')
      expect(await sqliteKeyStore(open(path)).load('crm')).toEqual(document(1))
      await store.save('crm', document(2), 1)
    })

    it('waits while another writes, and is KMS_UNAVAILABLE, retryable, when that takes over 5 seconds', async () => {
      const { db, path } = made()
      db.exec('pragma busy_timeout = 0')
      const other = open(path)
      other.exec('begin immediate')
      const started = Date.now()
      const late = sqliteKeyStore(db).save('crm', document(1), null)
      const error = (await late.catch((thrown: unknown) => thrown)) as { code?: string; retryable?: boolean }
      expect([error.code, error.retryable, Date.now() - started >= 5000]).toEqual(['KMS_UNAVAILABLE', true, true])
      const waiting = sqliteKeyStore(db).save('crm', document(1), null)
      setTimeout(() => other.exec('commit'), 100)
      await waiting
      expect(await sqliteKeyStore(other).load('crm')).toEqual(document(1))
    })

    it('that may only read is KMS_DENIED for writing, and reads', async () => {
      const { db, path } = made()
      await sqliteKeyStore(db).save('crm', document(1), null)
      db.close()
      const store = sqliteKeyStore(open(path, { readOnly: true }))
      expect(await store.load('crm')).toEqual(document(1))
      expect(await codeOf(store.save('crm', document(2), 1))).toEqual('KMS_DENIED')
    })

    it('is written with synchronous = full at least, and leaves the setting as it was', async () => {
      for (const [was, wanted] of [
        [0, 2],
        [1, 2],
        [2, 2],
        [3, 3],
      ]) {
        const { db } = made()
        db.exec(`pragma synchronous = ${was}`)
        const during: number[] = []
        const level = () => Number((db.prepare('pragma synchronous').all()[0] as { synchronous: number }).synchronous)
        const watching: Sqlite = {
          exec: (sql) => db.exec(sql),
          prepare(sql) {
            if (!sql.startsWith('pragma')) during.push(level())
            return db.prepare(sql)
          },
        }
        await sqliteKeyStore(watching).save('crm', document(1), null)
        await sqliteKeyStore(watching)
          .save('crm', document(1), null)
          .catch(() => {})
        expect([during, level()]).toEqual([[wanted, wanted], was])
      }
    })

    it('in a damaged file is MALFORMED, and KMS_UNAVAILABLE once closed', async () => {
      const { db, path } = made()
      await sqliteKeyStore(db).save('crm', document(1, 'x'.repeat(100_000)), null)
      writeFileSync(path, 'no database any more'.repeat(1000), { flag: 'r+' })
      expect(await codeOf(sqliteKeyStore(open(path)).load('crm'))).toEqual('MALFORMED')
      const store = sqliteKeyStore(db)
      db.close()
      expect(await codeOf(store.load('crm'))).toEqual('KMS_UNAVAILABLE')
      expect(await codeOf(store.save('crm', document(1), null))).toEqual('KMS_UNAVAILABLE')
    })

    for (const [what, change] of Object.entries(EDITS)) {
      it(`a row with ${what} is MALFORMED, and is replaced by nobody`, async () => {
        const { db } = made()
        const store = sqliteKeyStore(db)
        await store.save('crm', document(1), null)
        await store.save('hr', document(1), null)
        db.exec(`update waxseal_keyring set ${change} where name = 'crm'`)
        const epoch = column(db, 'cast(epoch as text)')
        expect(await codeOf(store.load('crm'))).toEqual('MALFORMED')
        expect(await codeOf(store.save('crm', document(2), null))).toEqual('CONFLICT')
        expect(column(db, 'cast(epoch as text)')).toEqual(epoch)
        expect(await store.load('hr')).toEqual(document(1))
      })
    }
  })
}
