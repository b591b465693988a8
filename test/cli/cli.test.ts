import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { COMMANDS } from '../../src/cli/options.ts'
import { type Client, pgClient } from '../rotation/clients.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { read } from '../support/sources.ts'
import { type Place, place } from './support.ts'

const places: Place[] = []
const made = async (...args: Parameters<typeof place>): Promise<Place> => {
  const one = await place(...args)
  places.push(one)
  return one
}
afterEach(() => {
  for (const { folder } of places.splice(0)) rmSync(folder, { recursive: true, force: true })
})

const versions = async (at: Place) => {
  const keys = await at.keys()
  const { versions: all } = keys.status()
  await keys.close()
  return all
}

describe('the command on a PGlite in a folder', () => {
  it('takes a table through a rotation: status, plan, rotate, rewrap, verify, retire', {
    timeout: 240_000,
  }, async () => {
    const at = await made()
    const [first] = await versions(at)
    const status = await at.run(['status'])
    expect(status).toMatchObject({ code: 0, err: '' })
    expect(status.out).toContain(`${first!.id}  active`)

    const rotated = await at.run(['rotate', '--promote', '--urgent', '--reason', 'yearly', '--actor', 'ann', '--json'])
    expect(rotated).toMatchObject({ code: 0, events: [{ event: 'staged' }, { event: 'promoted' }] })
    expect((await versions(at)).map(({ state }) => state)).toEqual(['deactivated', 'active'])

    const planned = await at.run(['plan', '--rows-per-second', '10'])
    expect(planned).toMatchObject({ code: 0, err: '' })
    expect(planned.out).toMatch(/to rewrap 60, to re-encrypt 0, blocked 0\ntime: 6 s, one process/)

    const refused = await at.run(['retire', first!.id])
    expect(refused).toMatchObject({ code: 3, out: '' })
    expect(refused.err).toContain('30 rows of')

    const rewrapped = await at.run(['rewrap', '--batch-size', '10'])
    expect(rewrapped).toMatchObject({ code: 0 })
    for (const table of at.tables) expect(rewrapped.out).toContain(`${table}: 30 rows written, 0 failed`)
    const verified = await at.run(['verify', '--table', at.tables[1], '--json'])
    expect(verified.code).toBe(0)
    expect(verified.events.at(-1)).toMatchObject({ event: 'verify', table: at.tables[1], seen: 30, failed: 0 })
    expect(await at.run(['retire', first!.id, '--reason', 'unused'])).toMatchObject({ code: 0 })
    expect((await versions(at))[0]).toMatchObject({ retired: true })
  })
})

describe('wrong use', () => {
  let at: Place
  beforeAll(async () => {
    at = await place()
  })
  afterAll(() => rmSync(at.folder, { recursive: true, force: true }))

  it.each([
    ['no command', []],
    ['an unknown command', ['destroy']],
    ['an unknown option', ['status', '--force']],
    ['an option of another command', ['status', '--yes']],
    ['no number', ['rewrap', '--batch-size', 'many']],
    ['a number out of bounds', ['rewrap', '--batch-size', '10001']],
    ['an unknown table', ['rewrap', '--table', 'nothing']],
    ['no key id', ['retire']],
    ['a key id too many', ['rewrap', 'A'.repeat(20)]],
    ['an unknown key id', ['retire', 'A'.repeat(20)]],
    ['--urgent alone', ['rotate', '--urgent']],
    ['a configuration that is not there', ['status', '--config', 'none.mjs']],
    ['a configuration without tables', ['status', '--config', 'empty.mjs']],
    ['a configuration that is broken', ['status', '--config', 'broken.mjs']],
  ])('%s: 2, and nothing on stdout', async (_, args) => {
    writeFileSync(join(at.folder, 'empty.mjs'), 'export default { tables: [] }')
    writeFileSync(join(at.folder, 'broken.mjs'), 'export default {')
    const ended = await at.run(args)
    expect(ended).toMatchObject({ code: 2, out: '' })
    expect(ended.err).toMatch(/^waxseal: (CONFIG|UNKNOWN_KEY): /)
  })

  it('says so in JSON', async () => {
    const { code, events, err } = await at.run(['status', '--yes', '--json'])
    expect([code, err]).toEqual([2, ''])
    expect(events).toMatchObject([{ event: 'error', code: 'CONFIG' }])
  })

  it('a version that is not ready, or the state table, refuses: 3', async () => {
    const { code, err } = await at.run(['rotate', '--promote'])
    expect(code).toBe(3)
    expect(err).toContain('KEY_STATE')
  })

  it('--help says every command, and docs/guides/cli.md as well', async () => {
    const { code, out } = await at.run(['--help'])
    expect(code).toBe(0)
    for (const command of Object.keys(COMMANDS)) {
      expect(out).toContain(`  ${command} `)
      expect(read('docs/guides/cli.md')).toContain(`| \`${command}`)
    }
  })
})

describe.skipIf(missing('the command on a real PostgreSQL', postgresMissing()))(
  'the command on a real PostgreSQL',
  () => {
    let server: PostgresServer
    let client: Client
    beforeAll(async () => {
      server = await startPostgres()
      client = pgClient(server.url)
    })
    afterAll(async () => {
      await client?.close()
      server?.stop()
    })
    const rotate = async (at: Place) => {
      const keys = await at.keys()
      await keys.promote(await keys.rotate(), { urgent: true })
      await keys.close()
    }

    it.each([
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const)('%s ends it after the running batch, by %d; the next call goes on', async (signal, expected) => {
      const at = await made(server.url)
      await rotate(at)
      const slow = ['rewrap', '--batch-size', '5', '--rows-per-second', '5', '--json']
      const ended = await at.run(slow, (said, child) => /"done":[1-9]/.test(said) && child.kill(signal))
      expect(ended).toMatchObject({ code: expected, signal: null })
      const report = ended.events.find(({ event }) => event === 'rewrap')
      expect(report).toMatchObject({ table: at.tables[0], aborted: true })
      expect(Number(report!.written) % 5).toBe(0)
      const again = await at.run(['rewrap', '--json'])
      expect(again.code).toBe(0)
      const reports = again.events.filter(({ event }) => event === 'rewrap')
      expect(reports).toMatchObject([
        { written: 30, remaining: {} },
        { written: 30, remaining: {} },
      ])
    })

    it('broken rows: 1, and their ids', async () => {
      const at = await made(server.url, 4)
      await client.query(`update ${at.tables[0]} set email = 'broken' where id = 3`)
      const ended = await at.run(['verify'])
      expect(ended.code).toBe(1)
      expect(ended.out).toMatch(/3 rows open, 1 failed[\s\S]*failed: row 3: /)
      expect(ended.out).not.toContain('broken')
    })

    it('a database that is away: 4; a table that is not there: 2; a role that may not: 3', async () => {
      const at = await made(server.url, 1)
      const config = readFileSync(join(at.folder, 'waxseal.config.ts'), 'utf8')
      const away = config.replace(/127\.0\.0\.1:\d+/, '127.0.0.1:1')
      writeFileSync(join(at.folder, 'away.ts'), away)
      expect((await at.run(['verify', '--config', 'away.ts'])).code).toBe(4)
      await client.query('do $$ begin create role nobody_here login; exception when others then null; end $$')
      writeFileSync(join(at.folder, 'role.ts'), config.replace('postgres@', 'nobody_here@'))
      expect((await at.run(['verify', '--config', 'role.ts'])).code).toBe(3)
      await client.query(`drop table ${at.tables[0]}`)
      expect((await at.run(['verify'])).code).toBe(2)
    })

    describe('incident', () => {
      const rows = (at: Place) => {
        const lines = readFileSync(join(at.folder, 'list.ndjson'), 'utf8').trimEnd().split('\n')
        const all = lines.map((line) => JSON.parse(line) as { table: string; rowId: string; subject: string })
        return all.filter((line) => !('complete' in line))
      }
      const end = (at: Place) => {
        const text = readFileSync(join(at.folder, 'list.ndjson'), 'utf8')
        const last = text.slice(text.lastIndexOf('\n', text.length - 2) + 1)
        return last.startsWith('{"complete":true') && last.endsWith('}\n') ? JSON.parse(last).rows : undefined
      }
      const args = (keyId: string, ...more: string[]) => {
        return ['incident', keyId, '--reason', 'stolen', '--list', 'list.ndjson', '--settle-ms', '0', ...more]
      }

      it('changes nothing without --yes, and says what it would do', async () => {
        const at = await made(server.url, 3)
        const [leaked] = await versions(at)
        const ended = await at.run(args(leaked!.id))
        expect(ended.code).toBe(2)
        expect(ended.out).toContain(`${at.tables[1]}: 3 rows`)
        expect(ended.err).toContain('--yes')
        expect(await versions(at)).toMatchObject([{ state: 'active' }])
        expect(existsSync(join(at.folder, 'list.ndjson'))).toBe(false)
      })

      it('marks, lists and re-encrypts, the urgent table first', async () => {
        const at = await made(server.url)
        const [leaked] = await versions(at)
        const ended = await at.run(args(leaked!.id, '--yes', '--actor', 'ann', '--priority', at.tables[1], '--json'))
        expect(ended).toMatchObject({ code: 0, err: '' })
        const report = ended.events.at(-1)
        const each = { listed: 30, reencrypted: 30, failed: 0, remaining: 0 }
        expect(report).toMatchObject({
          event: 'incident',
          isDone: true,
          tables: [
            { table: at.tables[1], ...each },
            { table: at.tables[0], ...each },
          ],
        })
        expect(await versions(at)).toMatchObject([{ state: 'compromised' }, { state: 'active' }])
        expect(rows(at)).toHaveLength(60)
        expect(rows(at)[0]).toEqual({ table: at.tables[1], rowId: '1', subject: 'Lima' })
      })

      it('killed while listing: changes no row, its list has no end, and the next call makes it whole', async () => {
        const at = await made(server.url, 1_500)
        const [leaked] = await versions(at)
        const killed = await at.run(args(leaked!.id, '--yes', '--json'), (said, child) =>
          /"listing"/.test(said) ? child.kill('SIGKILL') : false,
        )
        expect(killed.signal).toBe('SIGKILL')
        expect(end(at)).toBeUndefined()
        const ended = await at.run(args(leaked!.id, '--yes', '--json'))
        expect(ended.code).toBe(0)
        const report = ended.events.at(-1)
        expect(report).toMatchObject({
          wasMarked: true,
          isDone: true,
          tables: [{ listed: 1_500 }, { reencrypted: 1_500 }],
        })
        expect(end(at)).toBe(3_000)
        expect(new Set(rows(at).map(({ table, rowId }) => `${table} ${rowId}`)).size).toBe(3_000)
      })

      it('killed while re-encrypting, with a line cut off: goes on, and the list is whole', async () => {
        const at = await made(server.url)
        const [leaked] = await versions(at)
        const slow = args(
          leaked!.id,
          '--yes',
          '--json',
          '--batch-size',
          '5',
          '--rows-per-second',
          '5',
          '--lease-ms',
          '200',
        )
        const killed = await at.run(slow, (said, child) => /"done":[1-9]/.test(said) && child.kill('SIGKILL'))
        expect(killed.signal).toBe('SIGKILL')
        expect(rows(at)).toHaveLength(60)
        appendFileSync(join(at.folder, 'list.ndjson'), '{"table":"cust')
        const ended = await at.run(args(leaked!.id, '--yes', '--json'))
        expect(ended.code).toBe(0)
        expect(ended.events.at(-1)).toMatchObject({ wasMarked: true, isDone: true, tables: [{ reencrypted: 30 }, {}] })
        expect(rows(at)).toHaveLength(60)
        expect(await versions(at)).toHaveLength(2)
      })
    })
  },
)
