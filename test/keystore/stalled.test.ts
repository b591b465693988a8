import type * as Fs from 'node:fs/promises'
import { readFile, utimes, writeFile } from 'node:fs/promises'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { fileKeyStore } from 'waxseal/keystore/file'
import { document } from './document.ts'
import { temporaryFolder } from './folder.ts'

/**
 * A process may be stopped at any instant for longer than a lock lasts (a laptop that sleeps, a virtual machine that is
 * moved, SIGSTOP) and then go on where it was. Hooks stand for those stops; files and their locks are real.
 */
const hooks = vi.hoisted(() => ({
  beforeOpen: async (_path: string): Promise<void> => {},
  afterStat: async (_path: string): Promise<void> => {},
}))

vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof Fs>()
  return {
    ...fs,
    async open(path: string, ...rest: never[]) {
      await hooks.beforeOpen(path)
      return fs.open(path, ...rest)
    },
    async stat(path: string) {
      const seen = await fs.stat(path)
      await hooks.afterStat(path)
      return seen
    },
  }
})

const newPath = temporaryFolder()

beforeEach(() => {
  hooks.beforeOpen = async () => {}
  hooks.afterStat = async () => {}
})

async function backdate(path: string): Promise<void> {
  const old = new Date(Date.now() - 31_000)
  await utimes(path, old, old)
}

async function started() {
  const path = newPath()
  const store = fileKeyStore(path)
  await store.save('crm', document(1), null)
  return { path, store }
}

/** Stops the next call of a hook; resolves when it is there, to the function that lets it go on. */
function stopAt(hook: 'beforeOpen' | 'afterStat', suffix: string): Promise<() => void> {
  return new Promise((stopped) => {
    hooks[hook] = (path) => {
      if (!path.endsWith(suffix)) return Promise.resolve()
      hooks[hook] = async () => {}
      return new Promise<void>((goOn) => stopped(goOn))
    }
  })
}

describe('a process that stopped for longer than its lock lasts', () => {
  it('does not overwrite what another wrote meanwhile', async () => {
    const { path, store } = await started()
    const stopped = stopAt('beforeOpen', '.tmp') // epoch compared, nothing written
    const slow = store.save('crm', document(2, 'by the slow one'), 1).then(
      () => 'saved',
      (error) => error.code,
    )
    const goOn = await stopped
    await backdate(`${path}.lock`)
    await fileKeyStore(path).save('crm', document(2, 'by the quick one'), 1)
    goOn()
    expect(await slow).toBe('CONFLICT')
    expect((await store.load('crm'))!.manifest).toBe('by the quick one')
  })

  it('does not take away the lock of another', async () => {
    const { path, store } = await started()
    const stopped = stopAt('beforeOpen', '.tmp')
    const slow = store.save('crm', document(2), 1).catch(() => {})
    const goOn = await stopped
    await writeFile(`${path}.lock`, 'token of the process that took over')
    goOn()
    await slow
    expect(await readFile(`${path}.lock`, 'utf8')).toBe('token of the process that took over')
  })

  it('between looking at a stale lock and removing it removes no fresh one', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.lock`, 'token of a dead process')
    await backdate(`${path}.lock`)
    const stopped = stopAt('afterStat', '.lock')
    const waiting = store.save('crm', document(2), 1).catch(() => {})
    const goOn = await stopped
    // Another has taken over. File systems reuse inode numbers at once (ext4 does), so the number is the same.
    await writeFile(`${path}.lock`, 'token of a living process')
    await utimes(`${path}.lock`, new Date(), new Date())
    goOn()
    await new Promise((done) => setTimeout(done, 150))
    expect((await store.load('crm'))!.epoch).toBe(1)
    expect(await readFile(`${path}.lock`, 'utf8')).toBe('token of a living process')
    await backdate(`${path}.lock`)
    await waiting
    expect((await store.load('crm'))!.epoch).toBe(2)
  })
})
