import { describe, expect, it } from 'vitest'
import { importsOf, parse, read, sourceFiles, target } from '../support/sources.ts'

/** The rules of docs/architecture.md, asked of every import that stands in src; imports of types count. */
const LAYERS = [
  ['errors', 'codecs', 'bytes', 'events', 'secret', 'context', 'postgres', 'sqlite'],
  ['engine'],
  ['envelope'],
  ['kms', 'keystore'],
  ['keyring'],
  ['recovery', 'keyrings'],
  ['records'],
  ['rotation'],
  ['testing'],
  ['cli'],
]
/** What some drivers import of ours besides the lowest files and their interface. */
const ALSO: Record<string, readonly RegExp[]> = {
  'src/kms/local.ts': [/^src\/engine\//, /^src\/(secret|context)\.ts$/],
  'src/kms/vault.ts': [/^src\/kms\/vault-json\.ts$/],
  'src/keystore/file.ts': [/^src\/keystore\/lock\.ts$/],
  'src/keystore/mysql.ts': [/^src\/keystore\/table\.ts$/],
  'src/keystore/postgres.ts': [/^src\/keystore\/table\.ts$/, /^src\/postgres\.ts$/],
  'src/keystore/sqlite.ts': [/^src\/keystore\/table\.ts$/, /^src\/sqlite\.ts$/],
}
const MAX_LINES = 350
const MAX_NAMES = 40

const files = sourceFiles()
const imports = new Map(files.map((file) => [file, importsOf(file).map((specifier) => target(file, specifier))]))
const ours = (file: string): string[] => imports.get(file)!.filter((path) => path.startsWith('src/'))
/** The files beside an interface, but for what the drivers share: no list names them. */
const isDriver = (file: string): boolean =>
  /^src\/(kms|keystore)\//.test(file) && !/\/(kms|portable|wraps|vault-json|keystore|table|lock)\.ts$/.test(file)
const drivers = files.filter(isDriver)
/** What every driver may import of ours, besides its interface. */
const LOWEST = ['src/bytes.ts', 'src/errors.ts']
const interfaceOf = (file: string): string => `src/${unitOf(file)}/${unitOf(file)}.ts`

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
    // The front door is open to whoever stands right of everything.
    return to === 'src/index.ts' ? unitOf(file) !== 'cli' : layerOf(to) > layerOf(file)
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
    const computed = files.filter((file) => imports.get(file)!.includes('(computed)'))
    expect(computed).toEqual(['src/cli/config.ts']) // the module that the command line names
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
  it('are files beside an interface', () => {
    expect(drivers.length).toBeGreaterThanOrEqual(11)
    expect(Object.keys(ALSO).filter((file) => !drivers.includes(file))).toEqual([])
  })

  it.each(drivers)('%s imports its interface, bytes and errors, nothing else of ours', (file) => {
    const allowed = [...LOWEST, interfaceOf(file)]
    const rest = ours(file).filter((to) => !allowed.includes(to) && !ALSO[file]?.some((pattern) => pattern.test(to)))
    expect(rest).toEqual([])
  })

  it('share what keeps a keyring in a table, which imports bytes, errors and its interface alone', () => {
    expect(ours('src/keystore/table.ts')).toEqual(['src/bytes.ts', 'src/errors.ts', 'src/keystore/keystore.ts'])
    const users = files.filter((file) => ours(file).includes('src/keystore/table.ts'))
    expect(users).toEqual(['mysql', 'postgres', 'sqlite'].map((name) => `src/keystore/${name}.ts`))
  })

  it('are named by no other file but the test keyring', () => {
    const users = files.filter((file) => ours(file).some(isDriver))
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

  it('is the only thing imported from a package; Node’s own modules are for the file store and the command', () => {
    const outside = files.flatMap((file) =>
      imports
        .get(file)!
        .filter((to) => !to.startsWith('src/'))
        .map((to) => [file, to]),
    )
    const isCommand = ([file, to]: readonly (string | undefined)[]): boolean =>
      file!.startsWith('src/cli/') && /^(node:|cli-progress$|\(computed\)$)/.test(to!)
    const rest = outside.filter(
      ([file, to]) => !(isCrypto(to!) && file!.startsWith('src/engine/')) && !isCommand([file, to]),
    )
    expect([...new Set(rest.map(([file]) => file))]).toEqual(['src/keystore/file.ts', 'src/keystore/lock.ts'])
  })
})

describe('the command', () => {
  it('imports of ours the entries of the package alone, which its build leaves outside', () => {
    const outside = files.filter((file) => unitOf(file) === 'cli').flatMap(ours)
    const entries = outside.filter((to) => !to.startsWith('src/cli/'))
    expect([...new Set(entries)].sort()).toEqual(['src/index.ts', 'src/rotation/index.ts'])
  })
})

describe('the front door', () => {
  it(`has at most ${MAX_NAMES} names`, async () => {
    const names = parse('src/index.ts').statements.flatMap((statement) => exported(statement.getText()))
    expect(names.length).toBeLessThanOrEqual(MAX_NAMES)
    expect(new Set(names).size).toBe(names.length)
  })

  it('names no driver and no client', () => {
    expect(ours('src/index.ts').filter((to) => isDriver(to) || /postgres|rotation|testing/.test(to))).toEqual([])
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
