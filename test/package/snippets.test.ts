import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deadLinks } from '../support/links.ts'
import { runTypeScript } from '../support/run.ts'
import { oddlyMarked, type Snippet, snippets } from '../support/snippets.ts'
import { fromRoot, parse, ROOT, read, sourceFiles, visit } from '../support/sources.ts'

const all = snippets()

/** Every block of code in README, docs and docstrings, as files of a folder that finds what the repository finds. */
describe('the snippets', () => {
  let folder: string
  const fileOf = (index: number): string => join(folder, `${String(index).padStart(3, '0')}.ts`)
  const nameOf = (file: string): string => all[Number.parseInt(basename(file), 10)]?.where ?? file

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'waxseal-snippets-'))
    symlinkSync(fromRoot('node_modules'), join(folder, 'node_modules'))
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
    for (const [i, { code }] of all.entries()) writeFileSync(fileOf(i), `${code}\n`)
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('are there, in the README, in docs and in docstrings, and are marked ts and nothing more', () => {
    for (const place of [/^README\.md/, /^docs\//, /^src\//]) {
      expect(all.filter(({ where }) => place.test(where)).length).toBeGreaterThan(0)
    }
    expect(all.filter(({ runs }) => runs).length).toBeGreaterThan(all.length / 2)
    expect(oddlyMarked()).toEqual([])
  })

  it('are in every @example', () => {
    const empty = sourceFiles().flatMap((file) => {
      const examples: string[] = []
      visit(parse(file), (node) => {
        for (const tag of ts.getJSDocTags(node)) {
          if (tag.tagName.text === 'example' && !/```ts\n/.test(tag.getText())) examples.push(file)
        }
      })
      return examples
    })
    expect(empty).toEqual([])
  })

  it('compile under the strict settings of the repository', () => {
    const { config } = ts.parseConfigFileTextToJson('tsconfig.json', read('tsconfig.json'))
    const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT)
    // A snippet may declare what it does not use: it is an excerpt.
    const excerpt = { noUnusedLocals: false, noUnusedParameters: false, typeRoots: [fromRoot('node_modules/@types')] }
    const program = ts.createProgram(
      all.map((_, i) => fileOf(i)),
      { ...options, ...excerpt },
    )
    const told = ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
      const line = file && start !== undefined ? file.getLineAndCharacterOfPosition(start).line : 0
      const text = ts.flattenDiagnosticMessageText(messageText, '\n')
      return `${file ? nameOf(file.fileName) : ''} +${line}: ${text}`
    })
    expect(told).toEqual([])
  })

  it('run, all in one process', async () => {
    const runnable = all.flatMap((snippet: Snippet, i) => (snippet.runs ? [i] : []))
    const main = join(folder, 'main.ts')
    const lines = runnable.map(
      (i) => `await import('./${basename(fileOf(i))}').then(() => done.push(${i}), (e) => failed.push([${i}, e]))`,
    )
    writeFileSync(
      main,
      `import { writeFileSync } from 'node:fs'
       const done: number[] = [], failed: [number, unknown][] = []
       ${lines.join('\n')}
       const told = failed.map(([i, e]) => [i, e instanceof Error ? e.stack : String(e)])
       writeFileSync('result.json', JSON.stringify({ done, failed: told }))`,
    )
    const { code } = await runTypeScript(main, folder)
    const result = JSON.parse(readFileSync(join(folder, 'result.json'), 'utf8')) as {
      done: number[]
      failed: [number, string][]
    }
    expect(result.failed.map(([i, what]) => `${all[i]!.where}: ${what}`)).toEqual([])
    expect(result.done).toEqual(runnable)
    expect(code).toBe(0)
  })
})

describe('the pages', () => {
  it('link to files and headings that are there', () => {
    expect(deadLinks()).toEqual([])
  })
})

describe('every text file of the repository', () => {
  // Split, so that this file does not hold them itself.
  const MACHINE = ['/wo' + 'rk/', '/ro' + 'ot/', '/ho' + 'me/', '/Us' + 'ers/', 'C:\\' + 'Users']
  const REGISTRY = [
    'registry.' + 'npmjs.org',
    'registry.' + 'yarnpkg.com',
    'npm.pkg.' + 'github.com',
    'local' + 'host:4873',
  ]
  const names = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  const files = names.split('\0').filter((name) => name !== '')

  it('names no path of one machine and no package registry', () => {
    const found = files.flatMap((name) => {
      const text = contentOf(name)
      return [...MACHINE, ...REGISTRY]
        .filter((pattern) => text.includes(pattern))
        .map((pattern) => `${name}: ${pattern}`)
    })
    expect(found).toEqual([])
  })

  it('is locked without addresses: package-lock.json has no "resolved"', () => {
    const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> }
    expect(Object.keys(packages).length).toBeGreaterThan(10)
    expect(Object.entries(packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([])
  })
})

/** Text, or nothing for a file that was just deleted or is not text. */
function contentOf(name: string): string {
  try {
    const bytes = readFileSync(join(ROOT, name))
    return bytes.includes(0) ? '' : bytes.toString('utf8')
  } catch {
    return ''
  }
}
