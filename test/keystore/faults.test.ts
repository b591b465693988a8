import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { readdir, unlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { build } from 'esbuild'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import { localKms } from 'waxseal/kms/local'
import { refusal } from '../keyring/support.ts'
import { fromRoot } from '../support/sources.ts'
import { faults } from './counted-fs.ts'
import { document } from './document.ts'
import { temporaryFolder } from './folder.ts'

vi.mock('node:fs/promises', async (original) => ({
  ...(await original<object>()),
  ...(await import('./counted-fs.ts')),
}))

const newPath = temporaryFolder()
const MOST_OPERATIONS = 60
/** A lock that has to grow stale takes 30 s. */
const AT_ONCE_MS = 4_000

afterEach(() => {
  faults.instant = () => {}
})

async function started() {
  const path = newPath()
  const store = fileKeyStore(path)
  await store.save('crm', document(1), null)
  return { path, store }
}

/** The store gives a whole document, the next save does not wait, and nothing is left behind. */
async function isUsable(path: string, epochs: readonly number[]): Promise<number> {
  const store = fileKeyStore(path)
  const { epoch, manifest } = (await store.load('crm'))!
  expect(epochs).toContain(epoch)
  expect(manifest).toBe(epoch === 1 ? document(1).manifest : 'x'.repeat(100_000))
  const started = performance.now()
  await store.save('crm', document(3), epoch)
  expect(performance.now() - started).toBeLessThan(AT_ONCE_MS)
  expect(await store.load('crm')).toEqual(document(3))
  expect(await readdir(dirname(path))).toEqual(['keys.json'])
  return epoch
}

describe('a process that is killed before any one of the file operations of a save', () => {
  let script: string
  beforeAll(async () => {
    script = join(dirname(newPath()), 'dying.mjs')
    await build({
      entryPoints: [fromRoot('test/keystore/dying.ts')],
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      alias: { 'node:fs/promises': fromRoot('test/keystore/counted-fs.ts') },
    })
  })

  it('leaves the old keyring or the new one, and a lock that is taken over at once', async () => {
    const left: number[] = []
    const locked: boolean[] = []
    for (let n = 1; n <= MOST_OPERATIONS; n++) {
      const { path } = await started()
      const child = spawn(process.execPath, [script, path, String(n)], { stdio: 'inherit' })
      const [code, signal] = await once(child, 'exit')
      locked.push((await readdir(dirname(path))).includes('keys.json.lock'))
      left.push(await isUsable(path, [1, 2]))
      if (signal === null) {
        expect([code, left.at(-1)]).toEqual([0, 2])
        break
      }
    }
    expect(left.length).toBeGreaterThan(15)
    expect(left.length).toBeLessThan(MOST_OPERATIONS)
    expect([...left].sort()).toEqual(left) // old, old, …, new, new
    expect(locked.filter(Boolean).length).toBeGreaterThan(5)
  })
})

describe('a file system that fails at any one of the operations of a save', () => {
  const failing = (code: string) => Object.assign(new Error(`${code}: told to fail`), { code })

  it.each(['ENOSPC', 'EIO', 'EDQUOT'])(
    'with %s is KMS_UNAVAILABLE, and leaves the old keyring or the new one',
    async (code) => {
      const met = new Set<string>()
      for (let n = 1; ; n++) {
        const { path, store } = await started()
        let count = 0
        let at: string | undefined
        faults.instant = (call) => {
          if (++count !== n) return
          at = call
          throw failing(code)
        }
        const error = await store.save('crm', document(2, 'x'.repeat(100_000)), 1).then(
          () => undefined,
          (thrown: unknown) => thrown,
        )
        faults.instant = () => {}
        if (at === undefined) {
          expect(error).toBeUndefined()
          expect(n).toBeGreaterThan(15)
          break
        }
        met.add(at)
        if (error) expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true, cause: { code } })
        await isUsable(path, [1, 2])
      }
      expect([...met]).toEqual(expect.arrayContaining(['open', 'writeFile', 'sync', 'rename', 'link', 'unlink']))
    },
  )

  it('while nothing can be written any more, keeps a keyring that is open, and lets it rotate later', async () => {
    const options = { name: 'crm', store: fileKeyStore(newPath()), kms: localKms(new Uint8Array(32).fill(9)) }
    await using keys = await createKeyring(options)
    const before = keys.status()
    faults.instant = (call) => {
      if (call === 'writeFile' || call === 'write') throw failing('ENOSPC')
    }
    expect(await refusal(() => keys.rotate())).toMatchObject({ code: 'KMS_UNAVAILABLE', cause: { code: 'ENOSPC' } })
    expect(keys.status()).toEqual(before)
    await keys.ready()
    faults.instant = () => {}
    await keys.rotate()
    await using again = await openKeyring(options)
    expect(again.status().versions).toHaveLength(2)
  })

  it('for real, because a file may not grow, is KMS_UNAVAILABLE, and the old file stays', async () => {
    const { path } = await started()
    const script = join(dirname(newPath()), 'growing.mjs')
    const contents = `
      import { fileKeyStore } from ${JSON.stringify(fromRoot('src/keystore/file.ts'))}
      const document = ${JSON.stringify(document(2, 'x'.repeat(100_000)))}
      await fileKeyStore(${JSON.stringify(path)}).save('crm', document, 1).then(() => process.exit(9), (error) => {
        process.exit(error.code === 'KMS_UNAVAILABLE' && error.cause.code === 'EFBIG' ? 3 : 8)
      })`
    await build({
      stdin: { contents, resolveDir: fromRoot(), loader: 'ts' },
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
    })
    // Blocks of 512 or 1,024 bytes: the lock fits, the document does not.
    const child = spawn('sh', ['-c', 'ulimit -f 32 && exec "$0" "$1"', process.execPath, script], { stdio: 'inherit' })
    expect(await once(child, 'exit')).toEqual([3, null])
    await isUsable(path, [1])
  })
})

describe('the lock of a process', () => {
  it('that lives is not taken over, nor one of another machine', async () => {
    const { path, store } = await started()
    let lock = ''
    faults.instant = (call) => {
      if (call === 'rename') lock = readFileSync(`${path}.lock`, 'utf8')
    }
    await store.save('crm', document(2), 1)
    faults.instant = () => {}
    const [token, where, pid, start] = lock.trim().split(' ')
    expect([token!.length, Number(pid)]).toEqual([36, process.pid])
    for (const text of [
      `${token} ${where} ${pid} ${start}`, // this process
      `${token} another-machine 999999999 1`,
      `${token} ${where}`,
      'token of somebody',
      '',
    ]) {
      await writeFile(`${path}.lock`, text)
      let saved = false
      const waiting = store.save('crm', document(3), 2).then(() => {
        saved = true
      })
      await new Promise((done) => setTimeout(done, 200))
      expect({ text, saved }).toEqual({ text, saved: false })
      await unlink(`${path}.lock`)
      await waiting
      await store.save('crm', document(2), 3)
    }
  })

  // Only Linux tells when a process started.
  it.runIf(process.platform === 'linux')(
    'that died is taken over at once, also when its number is used again',
    async () => {
      const { path, store } = await started()
      let lock = ''
      faults.instant = (call) => {
        if (call === 'rename') lock = readFileSync(`${path}.lock`, 'utf8')
      }
      await store.save('crm', document(2), 1)
      faults.instant = () => {}
      const [token, where, pid, start] = lock.trim().split(' ')
      for (const [at, text] of [
        [3, `${token} ${where} ${pid} ${Number(start) - 1}`],
        [4, `${token} ${where} 2147483647 ${start}`],
      ] as const) {
        await writeFile(`${path}.lock`, text)
        const began = performance.now()
        await store.save('crm', document(at), at - 1)
        expect(performance.now() - began).toBeLessThan(AT_ONCE_MS)
      }
      expect(await readdir(dirname(path))).toEqual(['keys.json'])
    },
  )
})
