import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKeyring, type Keyring } from '../../src/index.ts'
import { fileKeyStore } from '../../src/keystore/file.ts'
import { localKms } from '../../src/kms/local.ts'
import { rewrap } from '../../src/rotation/index.ts'
import { INSTANTS, JOBS, type Job, killable, type Order } from './child.ts'
import type { Client } from './clients.ts'
import {
  type AnyRecords,
  createTable,
  freshName,
  insert,
  insertStored,
  person,
  readPlain,
  readStored,
  rotate,
} from './tables.ts'

const ROWS = 60
const BATCH = 7
/** What a killed worker held is free again after it. */
const LEASE_MS = 1_500
const CHILD = fileURLToPath(new URL('./child.ts', import.meta.url))

/** Runs the child; kills it when it has printed `killAfter`. Resolves to the signal it died of, and what it printed. */
function run(order: Order, killAfter?: RegExp): Promise<{ signal: string | null; out: string }> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, WAXSEAL_TEST_ORDER: JSON.stringify(order) }
    const child = spawn(process.execPath, ['--import', 'tsx', CHILD], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
      if (killAfter?.test(out)) child.kill('SIGKILL')
    })
    child.on('error', reject)
    child.on('close', (_, signal) => resolve({ signal, out }))
  })
}

/** A job whose process is killed, on a real server: what was written stays, and the next run ends it. */
export function killSuite(client: () => Client, url: () => string): void {
  describe('a job whose process is killed', () => {
    const root = '5'.repeat(64)
    let folder: string
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'waxseal-kill-'))
    })
    afterAll(() => rmSync(folder, { recursive: true, force: true }))

    async function prepare(
      job: Job = 'rewrap',
    ): Promise<{ keys: Keyring; record: AnyRecords; order: Omit<Order, 'instant' | 'at'> }> {
      const table = freshName('killed')
      const file = join(folder, `${table}.json`)
      const keys = await createKeyring({
        name: 'kill',
        store: fileKeyStore(file),
        kms: localKms(root),
        propagationMs: 0,
      })
      const record = killable(table, job) as AnyRecords
      await createTable(client().query, record)
      const rows = Array.from({ length: ROWS }, (_, id) => person(id))
      // Plaintext for the one that seals it, ciphertext for all others.
      if (job === 'encrypt') await insertStored(client().query, record, rows)
      else await insert(client().query, killable(table) as AnyRecords, keys, rows)
      await rotate(keys)
      return { keys, record, order: { url: url(), file, root, table, batchSize: BATCH, leaseMs: LEASE_MS, job } }
    }

    async function expectEnded(keys: Keyring, record: AnyRecords): Promise<number> {
      const report = await rewrap({ keys, table: client().table(record), batchSize: BATCH })
      expect(report).toMatchObject({ failures: [], aborted: false })
      expect(report.remaining.size).toBe(0)
      expect(await readPlain(client().query, record, keys)).toEqual(Array.from({ length: ROWS }, (_, id) => person(id)))
      const left = (await readStored(client().query, record)).filter((row) => record.needsRotation(keys, row))
      expect(left).toEqual([])
      await keys.close()
      return report.written
    }

    it.each(INSTANTS)('%s: is ended by the next run', async (instant) => {
      const { keys, record, order } = await prepare()
      const { signal } = await run({ ...order, instant, at: 3 })
      expect(signal).toBe('SIGKILL')
      const moved = (await readStored(client().query, record)).filter((row) => !record.needsRotation(keys, row)).length
      // A page is read while the batch before it, and on some databases the one before that, are on their way.
      const onTheirWay = client().table(record).isOrdered ? 2 : 1
      expect(moved).toBeGreaterThanOrEqual((instant === 'before a page' ? 2 - onTheirWay : 3 - onTheirWay) * BATCH)
      expect(moved).toBeLessThanOrEqual(3 * BATCH)
      expect(await expectEnded(keys, record)).toBe(ROWS)
    })

    describe.each(['reencrypt', 'encrypt', 'decrypt', 'verify'] as const)('%s', (job) => {
      it.each(['during a batch', 'after a batch'] as const)('%s: is ended by the next run', async (instant) => {
        const { keys, record, order } = await prepare(job)
        const before = await readStored(client().query, record)
        const { signal } = await run({ ...order, instant, at: 3 })
        expect(signal).toBe('SIGKILL')
        // Every row is one or the other, whole.
        expect(await readPlain(client().query, record, keys)).toEqual(
          Array.from({ length: ROWS }, (_, id) => person(id)),
        )
        const report = await JOBS[job]({ keys, table: client().table(record), batchSize: BATCH })
        const written = job === 'verify' ? 0 : ROWS
        expect(report).toMatchObject({ seen: ROWS, written, failed: 0, raced: 0, aborted: false })
        const after = await readStored(client().query, record)
        if (job === 'verify') expect(after).toEqual(before)
        if (job === 'reencrypt') expect(after.some((row) => record.needsRotation(keys, row))).toBe(false)
        if (job === 'encrypt') expect(after.every((row) => String(row.email).startsWith('wxf:'))).toBe(true)
        if (job === 'decrypt') expect(after.every((row) => row.envelope === null)).toBe(true)
        const plain =
          job === 'decrypt'
            ? after.map(({ envelope: _, ...row }) => row)
            : await readPlain(client().query, record, keys)
        expect(plain).toEqual(Array.from({ length: ROWS }, (_, id) => person(id)))
        await keys.close()
      })
    })

    it('again and again, from outside: begins at its checkpoint every time', async () => {
      const { keys, record, order } = await prepare()
      const first = await run({ ...order, instant: 'when told', at: 0 }, /done 14\n/)
      expect(first.signal).toBe('SIGKILL')
      const second = await run({ ...order, instant: 'when told', at: 0 }, /done 35\n/)
      expect(second.signal).toBe('SIGKILL')
      const begins = Number(/^done (\d+)\n/.exec(second.out)?.[1])
      expect(begins).toBeGreaterThanOrEqual(14)
      expect(await expectEnded(keys, record)).toBe(ROWS)
    })
  })
}
