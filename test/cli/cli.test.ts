import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { COMMANDS } from '../../src/cli/options.ts'
import { type Client, pgClient } from '../rotation/clients.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { read } from '../support/sources.ts'
import { type Place, place, ttyMissing } from './support.ts'

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
    const sampled = await at.run(['verify', '--table', at.tables[0], '--sample', '10'])
    expect(sampled.code).toBe(0)
    expect(sampled.out).toMatch(/30 rows: 0 plaintext, 30 encrypted: 30 under \S{20}\n/)
    expect(sampled.out).toMatch(/sample: \d+ of 30 rows, drawn at random; 0 of them broken/)
    expect(sampled.out).toMatch(/with 95 % confidence at most [\d.]+ % of all are broken: \d+ rows/)
    const retired = await at.run(['retire', first!.id, '--reason', 'unused'])
    expect(retired.code).toBe(0)
    for (const table of at.tables) expect(retired.out).toContain(`public.${table}`)
    expect((await versions(at))[0]).toMatchObject({ retired: true })

    const past = await at.run(['destroy', first!.id, '--backups-expire', '2027-03-31', '--reason', 'yearly'])
    expect(past).toMatchObject({ code: 0, err: '' })
    expect((await versions(at))[0]).toMatchObject({ destroyAt: Date.UTC(2027, 2, 31) })
    expect(await at.run(['maintain'])).toMatchObject({ code: 0, out: 'nothing is due\n' })
    expect(await at.run(['destroy', first!.id, '--cancel'])).toMatchObject({ code: 0 })
    expect((await versions(at))[0]).not.toHaveProperty('destroyAt')
    const [, active] = await versions(at)
    expect(await at.run(['suspend', active!.id, '--reason', 'KMS away'])).toMatchObject({ code: 0 })
    expect((await versions(at))[1]).toMatchObject({ state: 'suspended', decrypt: 'report' })
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
    ['an unknown command', ['erase']],
    ['an unknown option', ['status', '--force']],
    ['an option of another command', ['status', '--yes']],
    ['no number', ['rewrap', '--batch-size', 'many']],
    ['a number out of bounds', ['rewrap', '--batch-size', '10001']],
    ['an unknown table', ['rewrap', '--table', 'nothing']],
    ['no key id', ['retire']],
    ['no key id to suspend', ['suspend']],
    ['no date', ['destroy', 'A'.repeat(20)]],
    ['a date that is none', ['destroy', 'A'.repeat(20), '--backups-expire', 'soon']],
    ['a sample of nothing', ['verify', '--sample', '0']],
    ['a key id too many', ['rewrap', 'A'.repeat(20)]],
    ['an unknown key id', ['retire', 'A'.repeat(20)]],
    ['--urgent alone', ['rotate', '--urgent']],
    ['a configuration that is not there', ['status', '--config', 'none.mjs']],
    ['a configuration without tables', ['status', '--config', 'empty.mjs']],
    ['a configuration that is broken', ['status', '--config', 'broken.mjs']],
    ['a configuration that throws', ['status', '--config', 'throws.mjs']],
  ])('%s: 2, and nothing on stdout', async (_, args) => {
    writeFileSync(join(at.folder, 'empty.mjs'), 'export default { tables: [] }')
    writeFileSync(join(at.folder, 'broken.mjs'), 'export default {')
    writeFileSync(join(at.folder, 'throws.mjs'), 'export default () => nothing.at.all')
    const ended = await at.run(args)
    expect(ended).toMatchObject({ code: 2, out: '' })
    expect(ended.err).toMatch(/^waxseal: (CONFIG: |UNKNOWN_KEY: |nothing is not defined)/)
    expect(ended.err.trimEnd().split('\n')).toHaveLength(1)
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
      /** One line, without a stack. */
      const line = async (...args: string[]) => {
        const { code, out, err } = await at.run(args)
        expect([out, err.trimEnd().split('\n').length]).toEqual(['', 1])
        return `${code} ${err.trimEnd()}`
      }
      expect(await line('verify', '--config', 'away.ts')).toMatch(
        /^4 waxseal: ECONNREFUSED: the database did not answer: .*127\.0\.0\.1:1$/,
      )
      const no = config.replace(`/postgres' })`, `/nowhere' })`)
      writeFileSync(join(at.folder, 'no.ts'), no)
      expect(await line('verify', '--config', 'no.ts')).toMatch(/^2 waxseal: 3D000: there is no such database: /)
      const unknown = config.replace('postgres@', 'nobody_at_all@')
      writeFileSync(join(at.folder, 'unknown.ts'), unknown)
      expect(await line('verify', '--config', 'unknown.ts')).toMatch(/^3 waxseal: 28000: the database refused /)
      await client.query('do $$ begin create role nobody_here login; exception when others then null; end $$')
      writeFileSync(join(at.folder, 'role.ts'), config.replace('postgres@', 'nobody_here@'))
      expect(await line('verify', '--config', 'role.ts')).toMatch(/^3 waxseal: 42501: permission denied: /)
      await client.query(`drop table ${at.tables[0]}`)
      expect(await line('verify')).toMatch(/^2 waxseal: 42P01: a table or column is not there, or is another: /)
    })

    it('a connection that is cut while nobody waits for it: 4, in a line', async () => {
      const at = await made(server.url, 2)
      await rotate(at)
      const config = readFileSync(join(at.folder, 'waxseal.config.ts'), 'utf8')
      // The pool has one connection that waits; the server ends it while the job sleeps.
      writeFileSync(join(at.folder, 'cut.ts'), config.replace(`' })`, `', application_name: 'cut' })`))
      let isCut = false
      const ended = await at.run(
        ['rewrap', '--config', 'cut.ts', '--rows-per-second', '1', '--batch-size', '1', '--json'],
        () => {
          if (!isCut)
            setTimeout(
              () =>
                client.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cut'`),
              300,
            )
          isCut = true
          return true
        },
      )
      expect(ended).toMatchObject({ code: 4, err: '' })
      expect(ended.events.at(-1)).toMatchObject({ event: 'error', message: expect.stringContaining('did not answer') })
    })

    it.skipIf(missing('a terminal', ttyMissing()))(
      'shows a bar to people at a terminal, and none to a pipe',
      async () => {
        const at = await made(server.url)
        await rotate(at)
        const args = ['rewrap', '--batch-size', '5', '--rows-per-second', '20', '--table', at.tables[0]]
        const seen = await at.terminal(args)
        expect(seen.code).toBe(0)
        expect(seen.out).toMatch(
          new RegExp(`${at.tables[0]} .*\\d+ % \\| \\d+ of 30 \\| \\d+ rows/s \\| .* left \\| 0 failed`),
        )
        expect(seen.out).toContain('\u001b[?25h') // the cursor is there again
        expect(seen.out).toContain(`${at.tables[0]}: 30 rows written`)
        const piped = await at.run(['rewrap', '--table', at.tables[0]])
        expect(piped).toMatchObject({ code: 0, err: '' })
      },
    )

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

      it('called again with another file: says that the list is not in it', async () => {
        const at = await made(server.url, 3)
        const [leaked] = await versions(at)
        const first = await at.run(args(leaked!.id, '--yes'))
        expect(first).toMatchObject({ code: 0, out: expect.stringMatching(/^list complete at \S+: list\.ndjson$/m) })
        const again = await at.run([...args(leaked!.id, '--yes'), '--list', 'other.ndjson'])
        expect(again.code).toBe(0)
        expect(again.err).toContain('was marked compromised before')
        expect(again.out).toMatch(
          /^list complete at \S+, in the file of an earlier call: other\.ndjson does not have it$/m,
        )
        const same = await at.run(args(leaked!.id, '--yes'))
        expect(same.out).toMatch(/^list complete at \S+: list\.ndjson$/m)
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
