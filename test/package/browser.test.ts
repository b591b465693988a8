import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { beforeAll, describe, expect, it } from 'vitest'
import { int, type Keyring, openKeyring, records, text } from '../../src/index.ts'
import type { KeyStore, StoredKeyring } from '../../src/keystore/keystore.ts'
import { localKms } from '../../src/kms/local.ts'
import { fromRoot, platformFiles } from '../support/sources.ts'

/** What a bundler does for the `browser` condition of package.json, asked of the sources. */
const alias = Object.fromEntries(platformFiles().map(({ name, browser }) => [name, fromRoot(browser)]))

/** One script for a browser, as an application's bundler would make it; whatever it exports is on `waxseal`. */
async function bundle(contents: string): Promise<string> {
  const result = await build({
    stdin: { contents, resolveDir: fromRoot('src'), loader: 'ts' },
    bundle: true,
    write: false,
    format: 'iife',
    globalName: 'waxseal',
    platform: 'browser',
    alias,
    minify: true,
    legalComments: 'none',
    logLevel: 'silent',
  })
  expect(result.warnings).toEqual([])
  return result.outputFiles[0]!.text
}

/** What every browser, worker and edge runtime has, and nothing of Node: no process, Buffer, require or timers. */
function bareContext(): object {
  const here = globalThis as unknown as Record<string, unknown>
  const views = ['Uint8Array', 'Uint32Array', 'Int8Array', 'ArrayBuffer', 'DataView'] // instanceof across contexts
  const web = [
    'TextEncoder',
    'TextDecoder',
    'crypto',
    'structuredClone',
    'MessageChannel',
    'AbortController',
    'setTimeout',
    'clearTimeout',
  ]
  return createContext(Object.fromEntries([...views, ...web].map((name) => [name, here[name]])))
}

/** Runs `code`, the body of an async function, in the context; its answer comes back as JSON. */
async function within(context: object, code: string): Promise<unknown> {
  return JSON.parse((await runInContext(`(async () => { ${code} })().then(JSON.stringify)`, context)) as string)
}

const CORE = `export * from './index.ts'`
const WHOLE = `
  export * from './index.ts'
  export * from './envelope/index.ts'
  export * from './testing/index.ts'
  export { defaultEngine } from './engine/index.ts'
  export { localKms } from './kms/local.ts'
  export { memoryKeyStore } from './keystore/memory.ts'
`

describe('the browser bundle', () => {
  it.each([
    ['waxseal', CORE],
    ['waxseal/testing', `export * from './testing/index.ts'`],
    ['waxseal/envelope', `export * from './envelope/index.ts'`],
    ['waxseal/engine', `export * from './engine/index.ts'`],
    ['waxseal/kms/local', `export * from './kms/local.ts'`],
    ['waxseal/keystore/memory', `export * from './keystore/memory.ts'`],
    ['waxseal/rotation', `export * from './rotation/index.ts'`],
    ['waxseal/rotation/postgres', `export * from './rotation/sources/postgres.ts'`],
    ['waxseal/rotation/mysql', `export * from './rotation/sources/mysql.ts'`],
    ['waxseal/rotation/queue', `export * from './rotation/queue/index.ts'`],
    ['waxseal/rotation/sqlite', `export * from './rotation/sources/sqlite.ts'`],
    ['waxseal/postgres', `export * from './postgres.ts'`],
  ])('of %s holds no node: string and no require()', async (_, contents) => {
    const code = await bundle(contents)
    expect(code).not.toMatch(/["'`]node:/)
    expect(code).not.toMatch(/\brequire\b/)
    expect(code).not.toMatch(/getBuiltinModule|base64urlSlice/)
  })

  it('loads what changes keys only when it is first used', async () => {
    const { metafile } = await build({
      stdin: {
        contents: `export { openKeyring, records, text } from './index.ts'`,
        resolveDir: fromRoot('src'),
        loader: 'ts',
      },
      absWorkingDir: fromRoot('.'),
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'browser',
      alias,
      splitting: true,
      outdir: 'unwritten',
      metafile: true,
    })
    const lazy = Object.values(metafile.outputs).filter(({ inputs }) => 'src/keyring/manage.ts' in inputs)
    expect(lazy.map(({ entryPoint }) => entryPoint)).toEqual(['src/keyring/manage.ts'])
    expect(Object.keys(lazy[0]!.inputs)).toContain('src/keyring/transitions.ts')
  })

  it('leaves out what is not used: the parts without records are smaller', async () => {
    const [core, engine] = await Promise.all([bundle(CORE), bundle(`export { nobleEngine } from './engine/index.ts'`)])
    expect(engine.length).toBeLessThan(core.length * 0.7)
  })
})

describe('a context without anything of Node', () => {
  let code: string
  let context: object
  beforeAll(async () => {
    code = await bundle(WHOLE)
    context = bareContext()
    runInContext(code, context)
  })

  it('has no process, Buffer or require', async () => {
    expect(await within(context, 'return [typeof process, typeof Buffer, typeof require]')).toEqual(
      Array(3).fill('undefined'),
    )
  })

  it('computes with @noble, chosen by itself', async () => {
    expect(
      await within(
        context,
        'const { name, preferredSuite } = waxseal.defaultEngine(); return { name, preferredSuite }',
      ),
    ).toEqual({
      name: 'noble',
      preferredSuite: 2,
    })
  })

  it('encrypts, patches, rotates, rewraps and decrypts records and texts', async () => {
    const answer = await within(
      context,
      `
      const { testKeyring, records, int, text, date, encryptText, decryptText, inspect } = waxseal
      const keys = testKeyring()
      const people = records('people', { id: { id: int() }, fields: { email: text(), born: date() } })
      const rows = Array.from({ length: 150 }, (_, id) => ({ id, email: 'é' + id, born: new Date(id) }))
      let stored = await people.encryptMany(keys, rows)
      stored[0] = { ...stored[0], ...people.patch(keys, stored[0], { email: 'new' }).set }
      await keys.rotate()
      await keys.maintain()
      stored = stored.map((row) => ({ ...row, envelope: people.rewrap(keys, row).envelope }))
      const back = await people.decryptMany(keys, stored)
      const note = encryptText(keys, '雪', { id: 1 })
      return {
        suite: inspect(note).suite,
        note: decryptText(keys, note, { id: 1 }),
        emails: back.map((row) => row.email).join(),
        years: back.every((row, id) => row.born.getTime() === id),
        old: stored.some((row) => people.needsRotation(keys, row)),
      }`,
    )
    const emails = Array.from({ length: 150 }, (_, id) => (id === 0 ? 'new' : `é${id}`)).join()
    expect(answer).toEqual({ suite: 2, note: '雪', emails, years: true, old: false })
  })

  it('refuses with the same codes', async () => {
    const answer = await within(
      context,
      `
      const { testKeyring, encryptText, decryptText, WaxsealError, localKms } = waxseal
      const keys = testKeyring()
      const sealed = encryptText(keys, 'x', { id: 1 })
      const code = (fn) => { try { fn(); return 'none' } catch (e) { return WaxsealError.is(e) ? e.code : String(e) } }
      return [
        code(() => decryptText(keys, sealed, { id: 2 })),
        code(() => decryptText(keys, sealed.slice(0, 60), { id: 1 })),
        code(() => decryptText(testKeyring(), sealed, { id: 1 })),
        code(() => encryptText(keys, '\\ud800', { id: 1 })),
        code(() => localKms('short')),
      ]`,
    )
    expect(answer).toEqual(['DECRYPTION_FAILED', 'MALFORMED', 'UNKNOWN_KEY', 'SCHEMA', 'CONFIG'])
  })

  describe('shares a keyring with Node', () => {
    const root = '7'.repeat(64)
    const people = records('people', { id: { id: int() }, fields: { email: text() } })
    let keys: Keyring
    beforeAll(async () => {
      const stored = (await within(
        context,
        `
        globalThis.store = waxseal.memoryKeyStore()
        globalThis.kms = waxseal.localKms('${root}')
        globalThis.keys = await waxseal.createKeyring({ name: 'shared', store, kms })
        globalThis.people = waxseal.records('people', {
          id: { id: waxseal.int() }, fields: { email: waxseal.text() },
        })
        return await store.load('shared')`,
      )) as StoredKeyring
      const store: KeyStore = { load: async () => stored, save: async () => {} }
      keys = await openKeyring({ name: 'shared', store, kms: localKms(root) })
    })

    it('Node opens what the browser sealed', async () => {
      const row = await within(context, `return people.encrypt(keys, { id: 1, email: 'from the browser' })`)
      expect(people.decrypt(keys, row as never)).toEqual({ id: 1, email: 'from the browser' })
    })

    it('the browser opens what Node sealed', async () => {
      const row = people.encrypt(keys, { id: 2, email: 'from Node' })
      const back = await within(context, `return people.decrypt(keys, ${JSON.stringify(row)})`)
      expect(back).toEqual({ id: 2, email: 'from Node' })
    })
  })
})
