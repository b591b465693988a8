import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { build } from 'esbuild'
import { beforeAll, describe, expect, it } from 'vitest'
import { keyStoreSchema, sqliteKeyStore } from 'waxseal/keystore/sqlite'
import { refusal } from '../keyring/support.ts'
import { missing } from '../support/missing.ts'
import { nativeClient, nativeClientMissing, nodeWithSqlite, nodeWithSqliteMissing } from '../support/node.ts'
import { sqlOf } from '../support/snippets.ts'
import { fromRoot } from '../support/sources.ts'
import { temporaryFolder } from './folder.ts'
import { type Database, sqliteSuite } from './sqlite-suite.ts'

const newPath = temporaryFolder()

type BetterSqlite3 = new (path: string, options?: { readonly: boolean }) => Database

describe.skipIf(missing('better-sqlite3', nativeClientMissing('better-sqlite3')))('SQLite in this process', () => {
  const BetterSqlite3 = nativeClient<BetterSqlite3>('better-sqlite3')!
  const made = temporaryFolder()
  let folder: string
  let count = 0
  beforeAll(async () => {
    folder = dirname(made())
    await mkdir(folder, { recursive: true })
  })
  sqliteSuite(
    { describe, it, expect },
    {
      name: 'better-sqlite3',
      open: (path, options) => new BetterSqlite3(path, options && { readonly: options.readOnly }),
      newPath: () => join(folder, `${count++}.db`),
    },
  )

  it('gives the same when the client gives integers as bigint', async () => {
    const db = new BetterSqlite3(':memory:') as Database & { defaultSafeIntegers(): void }
    db.exec(keyStoreSchema())
    db.defaultSafeIntegers()
    const store = sqliteKeyStore(db)
    const document = { epoch: 1, manifest: '', mac: 'm'.repeat(43), keys: {} }
    await store.save('crm', document, null)
    await store.save('crm', { ...document, epoch: 2 }, 1)
    expect((await store.load('crm'))?.epoch).toBe(2)
  })
})

describe.skipIf(missing('node:sqlite', nodeWithSqliteMissing()))('SQLite with node:sqlite', () => {
  const results: { name: string; failure?: string }[] = []
  let code: unknown

  beforeAll(async () => {
    const script = join(dirname(newPath()), 'node-sqlite.mjs')
    const entryPoints = [fromRoot('test/keystore/node-sqlite.ts')]
    await build({
      entryPoints,
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      tsconfig: fromRoot('tsconfig.json'),
    })
    const child = fork(script, { execPath: nodeWithSqlite()!, execArgv: ['--no-warnings'], stdio: 'ignore' })
    child.on('message', (result: { name: string }) => results.push(result))
    code = (await once(child, 'exit'))[0]
  })

  it('passes the suite in a process that has it', () => {
    expect(results.filter(({ failure }) => failure)).toEqual([])
    expect(code).toBe(0)
    expect(results.length).toBeGreaterThan(120)
  })
})

describe('what is no database, or no table', () => {
  it.each([undefined, null, {}, { exec() {} }, 'file.db'])('%j is CONFIG at once', async (db) => {
    expect(await refusal(() => sqliteKeyStore(db as unknown as Database))).toMatchObject({
      code: 'CONFIG',
      argument: 'db',
    })
  })

  const db = { exec() {}, prepare: () => ({ all: () => [], run: () => ({ changes: 0 }) }) }
  it.each(['', 'a.b', 'a"b', 'a b', '1a', 'ä', 'x'.repeat(64), 5, null])('table %j is CONFIG', async (table) => {
    const options = { table: table as string }
    expect(await refusal(() => keyStoreSchema(options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
    expect(await refusal(() => sqliteKeyStore(db, options))).toMatchObject({ code: 'CONFIG', argument: 'table' })
  })

  it('has the statement on its page', () => {
    expect(sqlOf('docs/guides/keystores/sqlite.md')).toEqual([keyStoreSchema()])
  })

  it('a misspelt option is CONFIG', async () => {
    const options = { tabel: 'keys' } as object
    expect(await refusal(() => keyStoreSchema(options))).toMatchObject({ code: 'CONFIG', argument: 'tabel' })
  })
})
