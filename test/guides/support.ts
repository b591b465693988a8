import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { createKeyring, type Keyring, openKeyring } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import { type Client, pgClient } from '../rotation/clients.ts'
import { type Ended, runCommand } from '../support/command.ts'
import { fences } from '../support/snippets.ts'
import { fromRoot, read } from '../support/sources.ts'

/** Follows a page of the guides as somebody would who reads it: every statement and command, in order, as written. */

/** The versions of a keyring as the pages call them, in the order in which they are made. */
const KEY_IDS = ['AbCdEfGhIjKlMnOpQrSt', 'UvWxYzAbCdEfGhIjKlMn', '0123456789AbCdEfGhIj']
const ROOT_KEY = '5'.repeat(64)

export interface Reader {
  readonly folder: string
  readonly client: Client
  keys(): Promise<Keyring>
  /** Does what a page says; `before` is called ahead of each block, with what it holds. */
  follow(page: string, before?: (code: string) => unknown): Promise<{ commands: number; statements: number }>
  close(): Promise<void>
}

/** A folder with a keyring of no propagation time, and a configuration whose `tables` come from the source given. */
export async function reader(url: string, tables: string): Promise<Reader> {
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-guide-'))
  symlinkSync(fromRoot('node_modules'), join(folder, 'node_modules'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  const store = fileKeyStore(join(folder, 'keys.json'))
  const kms = localKms(ROOT_KEY)
  await (await createKeyring({ name: 'crm', store, kms, propagationMs: 0 })).close()
  const keys = () => openKeyring({ name: 'crm', store, kms })
  const client = pgClient(url)
  writeFileSync(
    join(folder, 'waxseal.config.ts'),
    `import pg from 'pg'
     import { int, openKeyring, records, text } from 'waxseal'
     import { fileKeyStore } from 'waxseal/keystore/file'
     import { localKms } from 'waxseal/kms/local'
     import { postgresTable } from 'waxseal/rotation/postgres'
     export default async () => {
       const keys = await openKeyring({ name: 'crm', store: fileKeyStore('keys.json'), kms: localKms('${ROOT_KEY}') })
       const pool = new pg.Pool({ connectionString: '${url}' })
       const tables = await (${tables})
       return { keys, tables, close: () => pool.end() }
     }`,
  )

  /** The ids that the page has for those of this keyring. */
  async function names(): Promise<readonly (readonly [string, string])[]> {
    const opened = await keys()
    const ids = opened.status().versions.map(({ id }, i) => [KEY_IDS[i]!, id] as const)
    await opened.close()
    return ids
  }

  async function run(line: string): Promise<Ended> {
    const [command, wanted] = line.split(/ *# exits with /)
    let text = command!
    for (const [name, id] of await names()) text = text.replaceAll(name, id)
    const [program, ...args] = words(text)
    expect(program, line).toBe('waxseal')
    const ended = await runCommand([...args, '--config', 'waxseal.config.ts'], folder)
    expect([ended.code, ended.err.includes('\n    at ')], `${line}\n${ended.out}${ended.err}`).toEqual([
      Number(wanted ?? 0),
      false,
    ])
    return ended
  }

  return {
    folder,
    client,
    keys,
    async follow(page, before) {
      // Two pipes have no order between them: what a page shows may begin with either.
      let said: readonly [string, string] = ['', '']
      let [commands, statements] = [0, 0]
      for (const { info, code, line } of fences(read(page))) {
        await before?.(code)
        const file = /^\/\/ (\w+\.ts)\n/.exec(code)?.[1]
        if (info === 'ts' && file) writeFileSync(join(folder, file), code)
        if (info === 'sql') {
          for (const statement of code.split(/;\n|;$/)) {
            await client.query(statement)
            statements++
          }
        }
        if (info === 'sh') {
          said = ['', '']
          for (const command of code.split('\n')) {
            const { out, err } = await run(command)
            said = [said[0] + out + err, said[1] + err + out]
            commands++
          }
        }
        if (info === 'text') {
          const ids = await names()
          const named = (text: string): string => ids.reduce((all, [name, id]) => all.replaceAll(id, name), text)
          const [first, second] = said.map((text) => alike(named(text), code))
          const isSecond = JSON.stringify(second) === JSON.stringify(plain(code))
          expect(isSecond ? second : first, `${page}:${line}`).toEqual(plain(code))
        }
      }
      return { commands, statements }
    },
    async close() {
      await client.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** As a shell takes a line apart, with single quotes. */
const words = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare!)

/** Lines without what differs from run to run: times, durations, the keyring's id, what a sample drew. */
function plain(text: string): string[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return lines.map((line) =>
    line
      .trim()
      .replace(/\s+/g, ' ')
      .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
      .replace(/\b\d+(\.\d)? (ms|s|min|h)\b/g, '<duration>')
      .replace(/\bid [\w-]{22}\b/, 'id <id>')
      .replace(/^sample: [\d,]+ of/, 'sample: <n> of')
      .replace(/^customers: 3\d\d rows open, 0|^customers: 2\d\d rows open, 0/, 'customers: <n> rows open, 0')
      .replace(/at most [\d.]+ % of all are broken: [\d,]+ rows/, 'at most <n> % of all are broken: <n> rows'),
  )
}

/** What was said, as far as the page shows it: a line `…` of the page stands for any number of lines. */
function alike(said: string, page: string): string[] {
  const lines = plain(said)
  const wanted = plain(page)
  const gap = wanted.indexOf('…')
  if (gap < 0) return lines
  const behind = wanted.length - gap - 1
  return [...lines.slice(0, gap), '…', ...(behind > 0 ? lines.slice(-behind) : [])]
}
