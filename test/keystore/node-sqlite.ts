import { deepStrictEqual } from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type Database, sqliteSuite } from './sqlite-suite.ts'

/** The suite with node:sqlite and node:test, in a process of its own, since both may need a newer Node than vitest's. */
type DatabaseSync = new (path: string, options?: { readOnly: boolean }) => Database
const { DatabaseSync } = createRequire(import.meta.url)('node:sqlite') as { DatabaseSync: DatabaseSync }

const folder = mkdtempSync(join(tmpdir(), 'waxseal-sqlite-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
let count = 0

sqliteSuite(
  {
    describe,
    it: (name, body) =>
      it(name, async () => {
        const failure = await body().then(
          () => undefined,
          (error: unknown) => String((error as Error)?.stack ?? error),
        )
        process.send?.({ name, failure })
      }),
    expect: (value) => ({ toEqual: (expected) => deepStrictEqual(value, expected) }),
  },
  {
    name: 'node:sqlite',
    open: (path, options) => (options ? new DatabaseSync(path, options) : new DatabaseSync(path)),
    newPath: () => join(folder, `${count++}.db`),
  },
)
