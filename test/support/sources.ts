import { readdirSync, readFileSync } from 'node:fs'
import { join, posix, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

/** The folder of the repository. */
export const ROOT: string = fileURLToPath(new URL('../../', import.meta.url)).replace(/[/\\]$/, '')

export const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** Files below a folder, as paths from the root with forward slashes. */
export function filesUnder(folder: string, extension: string): string[] {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
  const paths = names.map((name) => posix.join(folder, name.replaceAll('\\', '/')))
  return paths.filter((path) => path.endsWith(extension)).sort()
}

export const sourceFiles = (): string[] => filesUnder('src', '.ts')

export function parse(path: string, text = read(path)): ts.SourceFile {
  return ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
}

export function visit(node: ts.Node, work: (node: ts.Node) => void): void {
  work(node)
  ts.forEachChild(node, (child) => visit(child, work))
}

/** What a file imports in any way: import and export … from, import(), import('…') types, require(). */
export function importsOf(path: string, text?: string): string[] {
  const found: string[] = []
  visit(parse(path, text), (node) => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      if (node.moduleSpecifier && ts.isStringLiteral(node.moduleSpecifier)) found.push(node.moduleSpecifier.text)
    } else if (ts.isCallExpression(node)) {
      const isImport = node.expression.kind === ts.SyntaxKind.ImportKeyword
      const isRequire = ts.isIdentifier(node.expression) && node.expression.text === 'require'
      const [from] = node.arguments
      if (isImport || isRequire) found.push(from && ts.isStringLiteralLike(from) ? from.text : '(computed)')
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) found.push(node.argument.literal.text)
    }
  })
  return found
}

const sourceOf = (dist: string): string => dist.replace(/^\.\/dist\//, 'src/').replace(/\.js$/, '.ts')

/** A relative import, or one that package.json names, as a path from the root; anything else as it is. */
export function target(from: string, specifier: string): string {
  const named = packageJson().imports[specifier]
  if (named) return sourceOf(named.default)
  return specifier.startsWith('.') ? posix.join(posix.dirname(from), specifier) : specifier
}

export interface PackageJson {
  readonly files: readonly string[]
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>
  readonly imports: Readonly<Record<string, { readonly browser: string; readonly default: string }>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional: boolean }>>
  readonly scripts: Readonly<Record<string, string>>
}

export const packageJson = (): PackageJson => JSON.parse(read('package.json')) as PackageJson

/** The entries that are code: subpath, and the source file that it is built from. */
export function entries(): { subpath: string; source: string; dist: string; types: string }[] {
  return Object.entries(packageJson().exports).flatMap(([subpath, entry]) => {
    if (typeof entry === 'string') return []
    return [{ subpath, source: sourceOf(entry.default), dist: entry.default, types: entry.types }]
  })
}

/** What is imported by a name of package.json: the source file on Node, and the one in a browser's bundle. */
export function platformFiles(): { name: string; node: string; browser: string }[] {
  return Object.entries(packageJson().imports).map(([name, to]) => {
    return { name, node: sourceOf(to.default), browser: sourceOf(to.browser) }
  })
}

/** An absolute path. */
export const fromRoot = (...parts: string[]): string => resolve(ROOT, ...parts)
