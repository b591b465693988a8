import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { keyStoreSchema, postgresKeyStore } from 'waxseal/keystore/postgres'
import { localKms } from 'waxseal/kms/local'
import { notes } from '../keyring/support.ts'
import { type PostgresClient, postgresJsClient } from '../rotation/clients.ts'
import { missing } from '../support/missing.ts'
import { type PostgresServer, postgresMissing, startPostgres } from '../support/postgres.ts'
import { fromRoot } from '../support/sources.ts'
import { temporaryFolder } from './folder.ts'

const ROOT = '5a'.repeat(32)
const ROUNDS = 6
const newPath = temporaryFolder()

describe.skipIf(missing('rotations on a real PostgreSQL', postgresMissing()))(
  'real processes that rotate one keyring',
  () => {
    let server: PostgresServer
    let client: PostgresClient
    let script: string
    let count = 0

    beforeAll(async () => {
      server = await startPostgres()
      client = postgresJsClient(server.url)
      script = join(dirname(newPath()), 'rotating.mjs')
      const entryPoints = [fromRoot('test/keystore/rotating.ts')]
      await build({ entryPoints, outfile: script, bundle: true, platform: 'node', format: 'esm', logLevel: 'error' })
    })
    afterAll(async () => {
      await client?.close()
      server?.stop()
    })

    async function started() {
      const table = `crm_${count++}`
      await client.query(keyStoreSchema({ table }))
      const options = { name: 'crm', store: postgresKeyStore(client.db, { table }), kms: localKms(ROOT) }
      const keys = await createKeyring(options)
      return { table, keys, open: () => openKeyring(options) }
    }
    const start = (mode: string, table: string): ChildProcess =>
      fork(script, [mode, server.url, table, ROOT], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'], execArgv: [] })
    const message = async (child: ChildProcess): Promise<unknown> => (await once(child, 'message'))[0]

    /** The server ends what a killed client had sent, so that may still be written. */
    async function settled(): Promise<void> {
      const running = `select pid from pg_stat_activity
        where backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()`
      while ((await client.query(running)).length > 0) await new Promise((done) => setTimeout(done, 10))
    }

    it.each([2, 8])('%i at once make one new version, time after time, and none is lost', async (processes) => {
      const { table, keys, open } = await started()
      const children = Array.from({ length: processes }, () => start('rotate', table))
      try {
        expect(await Promise.all(children.map(message))).toEqual(children.map(() => 'ready'))
        const rows = [notes.encrypt(keys, { id: 1, body: 'of the first version', tag: '' })]
        const made = [keys.status().active]
        for (let round = 1; round <= ROUNDS; round++) {
          const answers = children.map(message)
          for (const child of children) child.send('go')
          const ids = new Set(await Promise.all(answers))
          expect(ids.size).toBe(1)
          await using fresh = await open()
          const { versions, epoch } = fresh.status()
          expect(versions.map((version) => version.id)).toEqual([...made, ...ids])
          expect(epoch).toBe(2 * round) // one write a round by them, and one below
          await fresh.promote(versions.at(-1)!.id, { urgent: true })
          made.push(versions.at(-1)!.id)
          rows.push(notes.encrypt(fresh, { id: round, body: `of round ${round}`, tag: '' }))
        }
        await using last = await open()
        const bodies = rows.map((row) => notes.decrypt(last, row).body)
        expect(bodies).toEqual([
          'of the first version',
          ...Array.from({ length: ROUNDS }, (_, i) => `of round ${i + 1}`),
        ])
      } finally {
        for (const child of children) child.kill('SIGKILL')
      }
    })

    it('killed in the midst of rotations, alone or two at a time, leave a keyring that opens, reads and rotates', async () => {
      const { table, keys, open } = await started()
      const rows = [notes.encrypt(keys, { id: 0, body: 'body 0', tag: '' })]
      let last = keys.status().epoch
      for (let kill = 1; kill <= 12; kill++) {
        const children = Array.from({ length: 1 + (kill % 2) }, () => start('endless', table))
        const ends = children.map((child) => once(child, 'exit'))
        await Promise.race(children.map((child) => once(child.stdout!, 'data')))
        await new Promise((done) => setTimeout(done, Math.random() * 40))
        for (const child of children) child.kill('SIGKILL')
        expect(await Promise.all(ends)).toEqual(children.map(() => [null, 'SIGKILL']))
        await settled()

        await using fresh = await open()
        expect(fresh.status().epoch).toBeGreaterThan(last)
        await fresh.promote(await fresh.rotate(), { urgent: true })
        rows.push(notes.encrypt(fresh, { id: kill, body: `body ${kill}`, tag: '' }))
        expect(rows.map((row) => notes.decrypt(fresh, row).body)).toEqual(rows.map((_, i) => `body ${i}`))
        expect(fresh.status().versions.filter((version) => version.state === 'active')).toHaveLength(1)
        last = fresh.status().epoch
      }
      const left = await client.query(`select pid from pg_stat_activity where state like 'idle in transaction%'`)
      expect(left).toEqual([])
    })
  },
)
