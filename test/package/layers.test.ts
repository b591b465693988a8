import { describe, expect, it } from 'vitest'
import { importsOf, parse, read, sourceFiles, target } from '../support/sources.ts'

/** The rules of docs/architecture.md, asked of every import that stands in src; imports of types count. */
const LAYERS = [
  ['errors', 'bytes', 'events', 'secret', 'context', 'postgres'],
  ['engine'],
  ['envelope'],
  ['kms', 'keystore'],
  ['keyring'],
  ['recovery', 'keyrings'],
  ['records'],
  ['rotation'],
  ['testing'],
]
/** A driver, and what of ours it may import. */
const LOWEST = ['src/bytes.ts', 'src/errors.ts']
const DRIVERS: Record<string, readonly RegExp[]> = {
  'src/kms/local.ts': [/^src\/kms\/kms\.ts$/, /^src\/engine\//, /^src\/(secret|context)\.ts$/],
  'src/keystore/file.ts': [/^src\/keystore\/keystore\.ts$/],
  'src/keystore/memory.ts': [/^src\/keystore\/keystore\.ts$/],
}
const MAX_LINES = 350
const MAX_NAMES = 35

const files = sourceFiles()
const imports = new Map(files.map((file) => [file, importsOf(file).map((specifier) => target(file, specifier))]))
const ours = (file: string): string[] => imports.get(file)!.filter((path) => path.startsWith('src/'))

/** The first folder below src, or the name of a file that stands there itself. */
const unitOf = (file: string): string => file.split('/')[1]!.replace(/\.ts$/, '')
const layerOf = (file: string): number => LAYERS.findIndex((layer) => layer.includes(unitOf(file)))

/** Every import that goes to the right, or to a neighbour in the same layer that is no file of the lowest one. */
function violations(file: string): string[] {
  return ours(file).filter((to) => {
    if (unitOf(file) === unitOf(to)) return false
    const sideways = layerOf(file) === layerOf(to)
    // kms and keystore stand in one layer: a stored keyring is made of wraps.
    if (sideways) return layerOf(file) > 0 && !(unitOf(file) === 'keystore' && unitOf(to) === 'kms')
    return layerOf(to) > layerOf(file)
  })
}

/** A cycle through `file`, as a path; undefined when there is none. */
function cycleFrom(file: string, path: readonly string[] = [], done = new Set<string>()): string[] | undefined {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
  if (done.has(file)) return undefined
  for (const to of ours(file)) {
    const cycle = cycleFrom(to, [...path, file], done)
    if (cycle) return cycle
  }
  done.add(file)
  return undefined
}

describe('the look-out for imports', () => {
  it('sees every way of importing, types included', () => {
    const text = `
      import a from 'a'
      import type { B } from './b.ts'
      import { type C } from '../c.ts'
      export * from './d.ts'
      export type { E } from './e.ts'
      import './f.ts'
      const g = await import('g'), h: import('./h.ts').H = require('i'), j = await import(a)
      // import 'no'
      const k = "from 'no'"`
    const seen = ['a', './b.ts', '../c.ts', './d.ts', './e.ts', './f.ts', 'g', './h.ts', 'i', '(computed)']
    expect(importsOf('src/x/y.ts', text)).toEqual(seen)
    expect(target('src/x/y.ts', '../c.ts')).toBe('src/c.ts')
  })
})

describe('every file of src', () => {
  it('stands in a layer, except the front door', () => {
    expect(files.filter((file) => layerOf(file) < 0)).toEqual(['src/index.ts'])
  })

  it('imports files that are there, and nothing that is computed', () => {
    const missing = files.flatMap((file) => ours(file).filter((to) => !files.includes(to)))
    expect(missing).toEqual([])
    expect(files.filter((file) => imports.get(file)!.includes('(computed)'))).toEqual([])
  })

  it.each(files.filter((file) => file !== 'src/index.ts'))('%s imports only what stands left of it', (file) => {
    expect(violations(file)).toEqual([])
  })

  it('is on no import cycle', () => {
    for (const file of files) expect(cycleFrom(file)).toBeUndefined()
  })

  it(`has at most ${MAX_LINES} lines`, () => {
    const long = files.map((file) => [file, read(file).trimEnd().split('\n').length] as const)
    expect(long.filter(([, lines]) => lines > MAX_LINES)).toEqual([])
  })
})

describe('drivers', () => {
  it('are the files beside an interface', () => {
    const beside = files.filter(
      (file) => /^src\/(kms|keystore)\//.test(file) && !/\/(kms|portable|wraps|keystore)\.ts$/.test(file),
    )
    expect(Object.keys(DRIVERS).sort()).toEqual(beside)
  })

  it.each(Object.entries(DRIVERS))(
    '%s imports its interface, bytes and errors, nothing else of ours',
    (file, allowed) => {
      const rest = ours(file).filter((to) => !LOWEST.includes(to) && !allowed.some((pattern) => pattern.test(to)))
      expect(rest).toEqual([])
    },
  )

  it('are named by no other file but the test keyring', () => {
    const users = files.filter((file) => ours(file).some((to) => to in DRIVERS))
    expect(users).toEqual(['src/testing/index.ts'])
  })
})

describe('cryptography', () => {
  const isCrypto = (specifier: string): boolean => /^@noble\//.test(specifier) || /^(node:)?crypto$/.test(specifier)

  it('is imported by the engines alone', () => {
    const users = files.filter((file) => imports.get(file)!.some(isCrypto))
    expect(users.filter((file) => !file.startsWith('src/engine/'))).toEqual([])
    expect(users.length).toBeGreaterThan(0)
  })

  it('of the platform is reached by the engines alone; others may ask it for the name of a file', () => {
    const platform = /getBuiltinModule|\bcrypto\.(?!randomUUID\(\))/
    const users = files.filter((file) => platform.test(code(file)))
    expect(users.filter((file) => !file.startsWith('src/engine/'))).toEqual([])
  })

  it('is the only thing imported from a package; Node’s own modules are for the file store', () => {
    const outside = files.flatMap((file) =>
      imports
        .get(file)!
        .filter((to) => !to.startsWith('src/'))
        .map((to) => [file, to]),
    )
    const rest = outside.filter(([file, to]) => !(isCrypto(to!) && file!.startsWith('src/engine/')))
    expect([...new Set(rest.map(([file]) => file))]).toEqual(['src/keystore/file.ts'])
  })
})

describe('the front door', () => {
  it(`has at most ${MAX_NAMES} names`, async () => {
    const names = parse('src/index.ts').statements.flatMap((statement) => exported(statement.getText()))
    expect(names.length).toBeLessThanOrEqual(MAX_NAMES)
    expect(new Set(names).size).toBe(names.length)
  })

  it('names no driver and no client', () => {
    expect(ours('src/index.ts').filter((to) => to in DRIVERS || /postgres|rotation|testing/.test(to))).toEqual([])
  })
})

/** The names of `export { a, type B } from …`. */
function exported(statement: string): string[] {
  const list = /^export (?:type )?\{([^}]*)\}/.exec(statement)?.[1]
  if (list === undefined) throw new Error(`src/index.ts holds more than lists: ${statement.slice(0, 40)}`)
  return list
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter(Boolean)
}

/** A file without its comments. */
function code(file: string): string {
  return read(file)
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
}
