import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { beforeAll, describe, expect, it } from 'vitest'
import { fileKeyStore } from 'waxseal/keystore/file'
import { document } from './document.ts'
import { temporaryFolder } from './folder.ts'

const newPath = temporaryFolder()
let script: string

/** child.ts as one file of JavaScript, so that a process starts in a moment. */
beforeAll(async () => {
  script = join(dirname(newPath()), 'child.mjs')
  const entryPoints = [fileURLToPath(new URL('./child.ts', import.meta.url))]
  await build({ entryPoints, outfile: script, bundle: true, platform: 'node', format: 'esm', logLevel: 'error' })
})

const start = (...args: string[]): ChildProcess =>
  fork(script, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'], execArgv: [] })

async function started() {
  const path = newPath()
  const store = fileKeyStore(path)
  await store.save('crm', document(1, ''), null)
  return { path, store }
}

describe('real processes on one file', () => {
  it.each([
    { processes: 2, times: 20 },
    { processes: 8, times: 6 },
  ])('$processes of them, $times compare-and-swaps each, lose no update', async ({ processes, times }) => {
    const { path, store } = await started()
    const names = 'abcdefgh'.slice(0, processes).split('')
    const ends = names.map((name) => once(start('increment', path, name, String(times)), 'exit'))
    expect(await Promise.all(ends)).toEqual(names.map(() => [0, null]))
    const { epoch, manifest } = (await store.load('crm'))!
    expect(epoch).toBe(1 + processes * times)
    expect([...manifest].sort().join('')).toBe(names.map((name) => name.repeat(times)).join(''))
    expect(await readdir(dirname(path))).toEqual(['keys.json'])
  })

  it('killed 30 times in the middle of saving leave one of the documents that were saved', async () => {
    const lanes = await Promise.all([killed(10), killed(10), killed(10)])
    expect(lanes.some((insideTheLock) => insideTheLock > 0)).toBe(true)
  })
})

/** Kills saving processes at any instant, one after the other; resolves to how many of them held the lock. */
async function killed(times: number): Promise<number> {
  const { path, store } = await started()
  let last = 1
  let insideTheLock = 0
  for (let kill = 0; kill < times; kill++) {
    const child = start('save', path)
    await once(child.stdout!, 'data')
    await new Promise((done) => setTimeout(done, Math.random() * 30))
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    expect((await exit)[1]).toBe('SIGKILL')

    const { epoch, ...rest } = (await store.load('crm'))!
    expect(epoch).toBeGreaterThan(last)
    expect({ epoch, ...rest }).toEqual(document(epoch, `${epoch} `.repeat(20_000)))
    last = epoch
    if ((await readdir(dirname(path))).includes('keys.json.lock')) insideTheLock++
  }
  await store.save('crm', document(last + 1), last)
  expect(await store.load('crm')).toEqual(document(last + 1))
  return insideTheLock
}
