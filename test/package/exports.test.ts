import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Built, buildPackage, filesOf } from '../support/build.ts'
import { entries, fromRoot, packageJson, platformFiles, read, sourceFiles } from '../support/sources.ts'

/** Files that an application imports: index files, and the drivers and helpers that stand for themselves. */
const INTERNAL =
  /^src\/(bytes|context|errors|events|secret|sqlite)\.ts$|\/(kms|portable|wraps|vault-json|keystore|table|lock)\.ts$/
const isPublic = (file: string): boolean =>
  /^src\/([^/]+\/|rotation\/queue\/)?index\.ts$/.test(file) ||
  (!INTERNAL.test(file) && (/^src\/[^/]+\.ts$/.test(file) || /^src\/(kms|keystore|rotation\/sources)\//.test(file)))

describe('the exports map', () => {
  it('has a source file for every entry, and an entry for every public file', () => {
    const named = entries().map((entry) => entry.source)
    expect(named.filter((source) => !existsSync(fromRoot(source)))).toEqual([])
    expect([...named].sort()).toEqual(sourceFiles().filter(isPublic))
  })

  it('names types first, and the same file for both', () => {
    for (const { subpath, dist, types } of entries()) {
      expect(Object.keys(packageJson().exports[subpath]!)).toEqual(['types', 'default'])
      expect(types.replace(/\.d\.ts$/, '.js')).toBe(dist)
    }
  })

  it('is what tsconfig.json and vitest.config.ts map the same names to', () => {
    const { paths } = ts.parseConfigFileTextToJson('tsconfig.json', read('tsconfig.json')).config.compilerOptions
    for (const { subpath, source } of entries()) {
      const name = subpath.replace('.', 'waxseal')
      const pattern = paths[name] ?? paths['waxseal/*']?.map((to: string) => to.replace('*', subpath.slice(2)))
      expect(pattern).toEqual([`./${source}`])
    }
  })

  it('has a file for every name of "imports", on Node and in a browser, with the same names inside', async () => {
    const { paths } = ts.parseConfigFileTextToJson('tsconfig.json', read('tsconfig.json')).config.compilerOptions
    for (const { name, node, browser } of platformFiles()) {
      expect(paths[name]).toEqual([`./${node}`])
      const [onNode, inBrowser] = await Promise.all([import(fromRoot(node)), import(fromRoot(browser))])
      expect(await import(/* @vite-ignore */ name)).toBe(onNode)
      expect(Object.keys(inBrowser)).toEqual(expect.arrayContaining(Object.keys(onNode)))
    }
  })

  it('has no runtime dependency but @noble, each at an exact version, and one optional peer that it never imports', () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = packageJson()
    for (const [name, version] of Object.entries(dependencies)) {
      expect(name).toMatch(/^@noble\//)
      expect(version).toMatch(/^\d+\.\d+\.\d+$/)
    }
    expect(Object.keys(packageJson()).filter((key) => /^(optional|bundle)/.test(key))).toEqual([])
    expect(peerDependencies).toEqual({ 'graphile-worker': expect.stringMatching(/^\^0\.17\./) })
    expect(peerDependenciesMeta).toEqual({ 'graphile-worker': { optional: true } })
  })
})

describe('the built package', () => {
  let built: Built
  beforeAll(() => {
    built = buildPackage()
  })
  afterAll(() => built?.remove())

  it('has code and types for every entry', () => {
    const missing = entries().flatMap(({ dist, types }) =>
      [dist, types].filter((path) => !existsSync(join(built.folder, path))),
    )
    expect(missing).toEqual([])
  })

  it('satisfies publint', async () => {
    const tarball = Uint8Array.from(built.tarball).buffer
    const { messages, pkg } = await publint({ pack: { tarball }, strict: true })
    expect(messages.map((message) => formatMessage(message, pkg, { color: false }))).toEqual([])
  })

  it('has types that are right for every importer of ES modules', async () => {
    const result = await checkPackage(createPackageFromTarballData(built.tarball))
    if (!result.types) throw new Error('attw finds no types')
    // ES modules only, on Node ≥ 20: resolution without an exports map, and require() of an ES module, are not served.
    const problems = result.problems.filter(
      (problem) =>
        !('resolutionKind' in problem && (problem.resolutionKind === 'node10' || problem.kind === 'CJSResolvesToESM')),
    )
    expect(problems).toEqual([])
    expect(Object.keys(result.entrypoints).sort()).toEqual(Object.keys(packageJson().exports).sort())
  })

  it('holds what `files` names and nothing else: no tests, no sources, no source maps', () => {
    expect(packageJson().files.filter((name) => !existsSync(fromRoot(name)) && name !== 'dist')).toEqual([])
    const known = /^(dist\/.*\.(js|d\.ts)|docs\/.*\.(md|svg)|(README|CHANGELOG|SECURITY)\.md|LICENSE|package\.json)$/
    expect(built.packed.filter((name) => !known.test(name))).toEqual([])
    expect(built.packed).toContain('LICENSE')
    expect(built.packed).toContain('README.md')
  })

  it('holds no path of the machine that built it', () => {
    const texts = filesOf(join(built.folder, 'dist')).map((name) => [name, built.text(join('dist', name))] as const)
    expect(texts.length).toBeGreaterThan(entries().length * 2)
    expect(texts.filter(([, text]) => text.includes(fromRoot()) || text.includes('sourceMappingURL'))).toEqual([])
  })

  it('names no Node module but in the file store and the command, and needs no package but @noble', () => {
    const names = filesOf(join(built.folder, 'dist')).filter((name) => name.endsWith('.js'))
    const users = names.filter((name) => /\bfrom\s*["']node:/.test(built.text(join('dist', name))))
    expect(users.filter((name) => name !== 'cli/main.js')).toEqual(['keystore/file.js'])
    const all = names.map((name) => built.text(join('dist', name))).join('\n')
    const packages = new Set(
      [...all.matchAll(/(?<!["'-])\b(?:from|import)\s*\(?["']([^."'][^"']*)["']/g)].map((match) => match[1]!),
    )
    expect([...packages].filter((name) => !/^(@noble\/(ciphers|hashes)\/|node:|#)/.test(name))).toEqual([])
  })

  it('has a command that runs on plain Node with what is in the package, and names what is bundled', () => {
    const text = built.text('dist/cli/main.js')
    expect(text.startsWith('#!/usr/bin/env node\n')).toBe(true)
    expect(text).toContain('Permission is hereby granted')
    const main = join(built.folder, 'dist/cli/main.js')
    expect(execFileSync(process.execPath, [main, '--help'], { encoding: 'utf8' })).toContain('waxseal <command>')
    const config = join(built.folder, 'cli.mjs')
    writeFileSync(
      config,
      `import { PGlite } from '@electric-sql/pglite'
       import { createKeyring, int, records, text } from 'waxseal'
       import { memoryKeyStore } from 'waxseal/keystore/memory'
       import { localKms } from 'waxseal/kms/local'
       import { postgresTable } from 'waxseal/rotation/postgres'
       export default async () => {
         const keys = await createKeyring({ name: 'crm', store: memoryKeyStore(), kms: localKms('7'.repeat(64)) })
         const people = records('people', { id: { id: int() }, fields: { email: text() } })
         const db = new PGlite()
         await db.exec('create table people (id int primary key, email text, envelope text not null)')
         return { keys, tables: [postgresTable(db, people)] }
       }`,
    )
    const told = execFileSync(process.execPath, [main, 'plan', '--json', '-c', config], { encoding: 'utf8' })
    expect(JSON.parse(told)).toMatchObject({ event: 'plan', rows: { rewrap: 0 } })
    const asked = spawnSync(process.execPath, [main, 'rewrap', '-c', config], { encoding: 'utf8' })
    expect(asked).toMatchObject({ status: 0, stderr: '' }) // one copy of the library
  })

  it.each([true, false])('compiles for a strict consumer, exactOptionalPropertyTypes: %s', (exact) => {
    const file = join(built.folder, 'consumer.ts')
    const imports = entries().map(({ dist }, i) => `import * as m${i} from '${dist}'\nexport { m${i} }\n`)
    writeFileSync(
      file,
      `${imports.join('')}
      import { date, int, type Keyring, records, text } from './dist/index.js'
      const people = records('people', {
        id: { id: int() },
        fields: { email: text(), phone: text({ nullable: true }), birth: date({ into: 'birthSealed' }) },
      })
      export function use(keys: Keyring): [string, string | null, Date, string] {
        const row = people.encrypt(keys, { id: 1, email: 'e', phone: null, birth: new Date(0), city: 'Oslo' })
        const sealed: string = row.birthSealed
        // @ts-expect-error the plaintext column is gone
        row.birth
        // @ts-expect-error no such column
        row.nonsense
        const { email, phone, birth, city } = people.decrypt(keys, row)
        return [email + sealed, phone, birth, city]
      }`,
    )
    const program = ts.createProgram([file], {
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      exactOptionalPropertyTypes: exact,
      types: [],
      target: ts.ScriptTarget.ES2022,
      lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts', 'lib.dom.d.ts'],
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
    })
    const told = ts.getPreEmitDiagnostics(program).map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n'))
    expect(told).toEqual([])
  })

  it('encrypts and decrypts on plain Node, imported by its own name', () => {
    const script = `
      import { createKeyring, int, records, text } from 'waxseal'
      import { memoryKeyStore } from 'waxseal/keystore/memory'
      import { localKms } from 'waxseal/kms/local'
      const kms = localKms({ passphrase: 'correct horse battery staple', log2N: 14 })
      await using_(await createKeyring({ name: 'crm', store: memoryKeyStore(), kms }))
      async function using_(keys) {
        const people = records('people', { id: { id: int() }, fields: { email: text() } })
        const row = people.encrypt(keys, { id: 1, email: 'a@example.org' })
        if (row.email.includes('example')) throw new Error('plaintext')
        console.log(people.decrypt(keys, row).email)
        await keys.close()
      }`
    const run = (code: string) =>
      execFileSync(process.execPath, ['--input-type=module', '-e', code], { cwd: built.folder, encoding: 'utf8' })
    expect(run(script).trim()).toBe('a@example.org')
    const every = entries().map(({ subpath }) => `await import('${subpath.replace('.', 'waxseal')}')`)
    expect(run(`${every.join('\n')}\nconsole.log('all')`).trim()).toBe('all')
  })
})
