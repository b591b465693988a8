import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { createKeyring, int, type Keyring, openKeyring, records, text } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import { queryOf } from '../../src/postgres.ts'
import { type Client, pgClient } from '../rotation/clients.ts'
import { createTable, insert, person } from '../rotation/tables.ts'
import { fromRoot } from '../support/sources.ts'

/** A folder with a keyring, a configuration and a database of two tables; the command runs in it as a real process. */
export interface Place {
  readonly folder: string
  readonly tables: readonly [string, string]
  keys(): Promise<Keyring>
  /** Runs waxseal to its end. `at` is called with all that was said so far, and the process. */
  run(args: readonly string[], at?: (said: string, child: ChildProcess) => unknown): Promise<Ended>
  /** The same in a terminal, of which `out` is everything that appears on it. */
  terminal(args: readonly string[]): Promise<Ended>
}

/** Why there is no terminal to be had here; undefined when there is one. */
export const ttyMissing = (): string | undefined =>
  spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux')
    ? undefined
    : 'no script(1) of util-linux'

export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly out: string
  readonly err: string
  /** Lines of JSON on stdout. */
  readonly events: readonly Record<string, unknown>[]
}

const ROOT_KEY = '6'.repeat(64)
const TSX = import.meta.resolve('tsx')
const declaration = { id: { id: int() }, fields: { email: text(), note: text({ nullable: true }) } }

const withConfig = (args: readonly string[]): readonly string[] =>
  args.includes('--config') ? args : [...args, '--config', 'waxseal.config.ts']

/** `url` of a PostgreSQL, or a PGlite in the folder. */
export async function place(url?: string, rows = 30): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-cli-'))
  symlinkSync(fromRoot('node_modules'), join(folder, 'node_modules'))
  const suffix = Math.random().toString(36).slice(2, 8)
  const tables = [`customers_${suffix}`, `orders_${suffix}`] as const
  const store = fileKeyStore(join(folder, 'keys.json'))
  const kms = localKms(ROOT_KEY)
  const keys = await createKeyring({ name: 'cli', store, kms, propagationMs: 60_000 })
  const pglite = url === undefined ? new PGlite(join(folder, 'db')) : undefined
  const client: Pick<Client, 'query' | 'close'> = pglite
    ? { query: queryOf(pglite), close: () => pglite.close() }
    : pgClient(url!)
  for (const name of tables) {
    const record = records(name, declaration)
    await createTable(client.query, record)
    await insert(
      client.query,
      record,
      keys,
      Array.from({ length: rows }, (_, i) => person(i + 1)),
    )
  }
  await Promise.all([client.close(), keys.close()])
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  const db = url === undefined ? `new PGlite('db')` : `new pg.Pool({ connectionString: '${url}' })`
  writeFileSync(
    join(folder, 'waxseal.config.ts'),
    `import { PGlite } from '@electric-sql/pglite'
     import pg from 'pg'
     import { int, openKeyring, records, text } from 'waxseal'
     import { fileKeyStore } from 'waxseal/keystore/file'
     import { localKms } from 'waxseal/kms/local'
     import { postgresTable } from 'waxseal/rotation/postgres'
     export default async () => {
       const keys = await openKeyring({ name: 'cli', store: fileKeyStore('keys.json'), kms: localKms('${ROOT_KEY}') })
       const db = ${db}
       const declaration = { id: { id: int() }, fields: { email: text(), note: text({ nullable: true }) } }
       const options = { select: ['city'], subject: (row: any) => row.city }
       const tables = ${JSON.stringify(tables)}.map((name) => postgresTable(db, records(name, declaration), options))
       return { keys, tables, close: () => ${url === undefined ? 'db.close()' : 'db.end()'} }
     }`,
  )

  const command = (args: readonly string[]) => ['--import', TSX, fromRoot('src/cli/main.ts'), ...args]
  const run: Place['run'] = (args, given) => ended(process.execPath, command(args), given)
  const ended = (program: string, args: readonly string[], given?: Parameters<Place['run']>[1]): Promise<Ended> =>
    new Promise((resolve, reject) => {
      const env = { ...process.env, TSX_TSCONFIG_PATH: fromRoot('tsconfig.json') }
      const child = spawn(program, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
      let [out, err] = ['', '']
      let isOver = false // one signal is enough: a second one ends the command at once
      const at = (said: string): void => {
        if (!isOver && given?.(said, child)) isOver = true
      }
      child.stdout.on('data', (chunk) => {
        out += chunk
        at(out + err)
      })
      child.stderr.on('data', (chunk) => {
        err += chunk
        at(out + err)
      })
      child.on('error', reject)
      child.on('close', (code, signal) => {
        const lines = out.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'))
        resolve({ code, signal, out, err, events: lines.map((line) => JSON.parse(line) as Record<string, unknown>) })
      })
    })
  return {
    folder,
    tables,
    keys: () => openKeyring({ name: 'cli', store, kms }),
    run: (args, at) => run(withConfig(args), at),
    terminal(args) {
      const quoted = [process.execPath, ...command(withConfig(args))].map(
        (word) => `'${word.replaceAll(`'`, `'\\''`)}'`,
      )
      return ended('script', ['--quiet', '--return', '--command', `stty cols 200; ${quoted.join(' ')}`, '/dev/null'])
    },
  }
}
