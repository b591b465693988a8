import { mkdir, readdir, readFile, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { fileKeyStore } from 'waxseal/keystore/file'
import { keyStoreSuite } from 'waxseal/testing'
import { refusal } from '../keyring/support.ts'
import { document } from './document.ts'
import { temporaryFolder } from './folder.ts'

const newPath = temporaryFolder()

keyStoreSuite(
  { describe, it, expect },
  {
    name: 'a file',
    make: () => {
      const path = newPath()
      return () => fileKeyStore(path)
    },
  },
)

/** A store with one keyring, and the text of its file. */
async function started() {
  const path = newPath()
  const store = fileKeyStore(path)
  await store.save('crm', document(1), null)
  return { path, store, text: await readFile(path, 'utf8') }
}

async function withText(text: string | Uint8Array): Promise<string> {
  const path = newPath()
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  return path
}

describe('the file of a key store', () => {
  it('is readable and writable for its owner alone, also after it was not', async () => {
    const { path, store } = await started()
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const other = await withText(await readFile(path))
    expect((await stat(other)).mode & 0o077).not.toBe(0)
    await fileKeyStore(other).save('crm', document(2), 1)
    expect((await stat(other)).mode & 0o777).toBe(0o600)
    await store.save('crm', document(2), 1)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  it('is made with its folder at the first save, and not by loading', async () => {
    const path = newPath()
    const store = fileKeyStore(path)
    await store.load('crm')
    await expect(stat(dirname(path))).rejects.toMatchObject({ code: 'ENOENT' })
    await store.save('crm', document(1), null)
    expect(await readdir(dirname(path))).toEqual(['keys.json']) // no lock, no temporary file
  })

  it('is one JSON object with a format, for people and for backups', async () => {
    const { text } = await started()
    expect(JSON.parse(text)).toEqual({ format: 'waxseal key store, draft 0', keyrings: { crm: document(1) } })
    expect(text.endsWith('}\n')).toBe(true)
  })

  it('is seen whole by whoever reads while 200 saves replace it', async () => {
    const { store } = await started()
    const manifest = (epoch: number) => `${epoch} `.repeat(20_000)
    let saving = true
    const seen = new Set<number>()
    const reading = (async () => {
      while (saving) {
        const read = (await store.load('crm'))!
        if (read.epoch > 1) expect(read).toEqual(document(read.epoch, manifest(read.epoch)))
        seen.add(read.epoch)
      }
    })()
    for (let epoch = 2; epoch <= 201; epoch++) await store.save('crm', document(epoch, manifest(epoch)), epoch - 1)
    saving = false
    await reading
    expect(seen.size).toBeGreaterThan(5)
  })
})

describe('a file that is not as it was written', () => {
  it('torn at any length is MALFORMED, for loading and for saving, and left as it is', async () => {
    const { text } = await started()
    for (let length = 0; length < text.length - 1; length += 97) {
      const path = await withText(text)
      await truncate(path, length)
      const store = fileKeyStore(path)
      expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'MALFORMED' })
      expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'MALFORMED' })
      expect(await refusal(() => store.save('hr', document(1), null))).toMatchObject({ code: 'MALFORMED' })
      expect(await readFile(path, 'utf8')).toBe(text.slice(0, length))
      expect(await readdir(dirname(path))).toEqual(['keys.json'])
    }
  })

  it.each([
    ['no JSON', 'ROOT_KEY=hunter2'],
    ['bytes', Uint8Array.of(0xff, 0xfe, 0, 1)],
    ['null', 'null'],
    ['a list', '[]'],
    ['text', '"waxseal key store, draft 0"'],
    ['no format', JSON.stringify({ keyrings: {} })],
    ['a later format', JSON.stringify({ format: 'waxseal key store, draft 9', keyrings: {} })],
    ['no keyrings', JSON.stringify({ format: 'waxseal key store, draft 0' })],
    ['keyrings in a list', JSON.stringify({ format: 'waxseal key store, draft 0', keyrings: [] })],
    ['keyrings that are null', JSON.stringify({ format: 'waxseal key store, draft 0', keyrings: null })],
    ['a merge conflict', '<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n'],
  ])('because it holds %s is MALFORMED, and its content is not in the message', async (_, content) => {
    const path = await withText(content)
    const error = await refusal(() => fileKeyStore(path).load('crm'))
    expect(error.code).toBe('MALFORMED')
    expect(error.message).toContain(path)
    expect(error.message).not.toContain('hunter2')
    expect(await refusal(() => fileKeyStore(path).save('crm', document(1), null))).toMatchObject({ code: 'MALFORMED' })
    expect(new Uint8Array(await readFile(path))).toEqual(Uint8Array.from(Buffer.from(content as string)))
  })

  const { epoch: _, ...withoutEpoch } = document(1)
  it.each<[string, unknown]>([
    ['null', null],
    ['a list', []],
    ['no epoch', withoutEpoch],
    ['an epoch of 0', { ...document(1), epoch: 0 }],
    ['an epoch that is text', { ...document(1), epoch: '1' }],
    ['a fractional epoch', { ...document(1), epoch: 1.5 }],
    ['a manifest that is an object', { ...document(1), manifest: {} }],
    ['a manifest over 1 MiB', { ...document(1), manifest: 'x'.repeat((1 << 20) + 1) }],
    ['a short mac', { ...document(1), mac: 'm'.repeat(42) }],
    ['keys in a list', { ...document(1), keys: [] }],
    ['a key without wraps', { ...document(1), keys: { integrity: [] } }],
    ['a key with 17 wraps', { ...document(1), keys: { k: Array(17).fill({ uri: 'x', wrapped: '' }) } }],
    ['a wrap that is null', { ...document(1), keys: { k: [null] } }],
    ['a wrap without URI', { ...document(1), keys: { k: [{ wrapped: '' }] } }],
    ['a wrap with more in it', { ...document(1), keys: { k: [{ uri: 'x', wrapped: '', note: '' }] } }],
    ['a wrap over 16 KiB', { ...document(1), keys: { k: [{ uri: 'x', wrapped: 'A'.repeat(21_849) }] } }],
    ['a URI over 2 KiB', { ...document(1), keys: { k: [{ uri: 'x'.repeat(2049), wrapped: '' }] } }],
    ['an unknown property', { ...document(1), note: 'hello' }],
  ])('because a keyring in it is %s is MALFORMED, while other keyrings load', async (_name, value) => {
    const keyrings = { crm: value, hr: document(1) }
    const path = await withText(JSON.stringify({ format: 'waxseal key store, draft 0', keyrings }))
    const store = fileKeyStore(path)
    expect(await refusal(() => store.load('crm'))).toMatchObject({ code: 'MALFORMED' })
    expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'MALFORMED' })
    expect(await store.load('hr')).toEqual(document(1))
  })

  it('because it is over 64 MiB is MALFORMED without being read', async () => {
    const { path, store } = await started()
    await truncate(path, (64 << 20) + 1)
    const error = await refusal(() => store.load('crm'))
    expect(error.code).toBe('MALFORMED')
    expect(error.message).toContain('over 64 MiB')
  })
})

describe('a file system that refuses', () => {
  it.each([
    ['a folder in the place of the file', async (path: string) => void (await mkdir(path, { recursive: true }))],
    ['a file in the place of the folder', async (path: string) => writeFile(dirname(path), '')],
  ])('because of %s is KMS_UNAVAILABLE with a reduced cause', async (_, prepare) => {
    const path = newPath()
    await mkdir(dirname(dirname(path)), { recursive: true })
    await prepare(path)
    const store = fileKeyStore(path)
    for (const work of [() => store.load('crm'), () => store.save('crm', document(1), null)]) {
      const error = await refusal(work)
      expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect(Object.keys(error.cause as object).sort()).toEqual(['code', 'message', 'name'])
    }
  })

  it.each(['', undefined, null, 5, {}])('path %j is CONFIG at once', async (path) => {
    expect(await refusal(() => fileKeyStore(path as string))).toMatchObject({ code: 'CONFIG', argument: 'path' })
  })
})

describe('what a process that died left behind', () => {
  it('as temporary files does not matter', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.0b0e6f5c-aaaa.tmp`, 'half a docu')
    await store.save('crm', document(2), 1)
    expect(await store.load('crm')).toEqual(document(2))
  })

  it('as a lock is taken over after 30 seconds', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.lock`, 'token of a dead process')
    const old = new Date(Date.now() - 31_000)
    await utimes(`${path}.lock`, old, old)
    await store.save('crm', document(2), 1)
    expect(await store.load('crm')).toEqual(document(2))
    expect(await readdir(dirname(path))).toEqual(['keys.json'])
  })

  it('as a lock is taken over by one of many only', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.lock`, 'token of a dead process')
    const old = new Date(Date.now() - 31_000)
    await utimes(`${path}.lock`, old, old)
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => store.save('crm', document(2), 1)))
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(await readdir(dirname(path))).toEqual(['keys.json'])
  })
})

describe('a lock that another process holds', () => {
  it('is waited for', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.lock`, 'token of a living process')
    let saved = false
    const saving = store.save('crm', document(2), 1).then(() => {
      saved = true
    })
    await new Promise((done) => setTimeout(done, 150))
    expect([saved, (await store.load('crm'))!.epoch]).toEqual([false, 1]) // loading does not wait
    const { unlink } = await import('node:fs/promises')
    await unlink(`${path}.lock`)
    await saving
    expect(await store.load('crm')).toEqual(document(2))
  })

  it('for too long is CONFLICT, and the lock is left to its holder', async () => {
    const { path, store } = await started()
    await writeFile(`${path}.lock`, 'token of a living process')
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    try {
      let error: { code?: string; retryable?: boolean } | undefined
      const saving = refusal(() => store.save('crm', document(2), 1)).then((refused) => {
        error = refused
      })
      while (!error) {
        await vi.advanceTimersByTimeAsync(25)
        await new Promise((done) => setImmediate(done))
      }
      await saving
      expect(error).toMatchObject({ code: 'CONFLICT', retryable: true })
    } finally {
      vi.useRealTimers()
    }
    expect(await readFile(`${path}.lock`, 'utf8')).toBe('token of a living process')
    expect(await store.load('crm')).toEqual(document(1))
  })
})
