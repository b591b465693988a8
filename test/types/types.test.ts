import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { beforeAll, describe, expect, it } from 'vitest'

/** Wrong use does not compile: the claims are in the files beside this one; here the compiler reads them. */
const root = fileURLToPath(new URL('../..', import.meta.url))
const FILES = ['records.ts', 'clients.ts', 'kms-aws.ts', 'kms-clouds.ts', 'queue.ts'].map(
  (name) => `${root}test/types/${name}`,
)

/** Uses that are right or wrong as a whole, each compiled as a file of its own. */
const SNIPPETS: Record<string, { source: string; errors: RegExp | undefined }> = {
  'a cell in bytes gives bytes': {
    source: `const one = cell('t', 'c', { type: text(), bind: 'column', encoding: 'bytes' })
      export const sealed: Uint8Array = one.encrypt(keys, 'x')`,
    errors: undefined,
  },
  'a cell with a context of its own takes it by name': {
    source: `const one = cell('t', 'c', { type: text(), bind: { id: int() } })
      export const sealed: string = one.encrypt(keys, 'x', { id: 1 })`,
    errors: undefined,
  },
  'a decrypted row may be changed by its owner, in the packed shape too': {
    source: `const one = records('t', { id: { id: int() }, shape: 'packed', fields: { a: text() } })
      one.decrypt(keys, { id: 1, envelope: '' }).a = 'x'`,
    errors: undefined,
  },
  'JSON null is refused by the compiler where the field is not nullable': {
    source: `const one = records('t', { id: { id: int() }, fields: { a: json() } })
      one.encrypt(keys, { id: 1, a: null })`,
    errors: /null/,
  },
  'an error about a missing field names it': {
    source: `const one = records('t', { id: { id: int() }, fields: { a: text(), b: text() } })
      one.encrypt(keys, { id: 1, a: 'x' })`,
    errors: /'b' is missing/,
  },
  'an error about a misspelt change names it': {
    source: `const one = records('t', { id: { id: int() }, fields: { email: text() } })
      one.patch(keys, { id: 1, envelope: '' }, { emial: 'x' })`,
    errors: /'emial'/,
  },
}
const snippetFile = (name: string) => `${root}test/types/${Object.keys(SNIPPETS).indexOf(name)}.snippet.ts`
const HEAD = `import { cell, int, json, type Keys, records, text } from 'waxseal'
declare const keys: Keys
export const used = [cell, int, json, records, text]
`

const messages = new Map<string, string[]>()
beforeAll(() => {
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: FILES }, ts.sys, root)
  const virtual = new Map(Object.entries(SNIPPETS).map(([name, { source }]) => [snippetFile(name), HEAD + source]))
  const host = ts.createCompilerHost(options)
  const { readFile, fileExists } = host
  host.readFile = (file) => virtual.get(file) ?? readFile(file)
  host.fileExists = (file) => virtual.has(file) || fileExists(file)
  const program = ts.createProgram([...FILES, ...virtual.keys()], options, host)
  for (const file of [...FILES, ...virtual.keys()]) {
    const source = program.getSourceFile(file)!
    const diagnostics = [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)]
    messages.set(
      file,
      diagnostics.map(({ start = 0, messageText }) => {
        const line = source.getLineAndCharacterOfPosition(start).line + 1
        return `line ${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
      }),
    )
  }
})

describe('the compiler', () => {
  it.each(FILES.map((file) => file.slice(root.length)))('has nothing to say about %s', (file) => {
    expect(messages.get(root + file)).toEqual([])
  })

  it.each(Object.keys(SNIPPETS))('%s', (name) => {
    const said = messages.get(snippetFile(name))!
    const { errors } = SNIPPETS[name]!
    if (errors) expect(said.join('\n')).toMatch(errors)
    else expect(said).toEqual([])
  })
})
