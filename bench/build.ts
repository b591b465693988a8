import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { type BuildOptions, build, type Metafile } from 'esbuild'
import { coreInOneFile } from '../tsup.core.ts'

export const root = fileURLToPath(new URL('..', import.meta.url))
/** Inside node_modules, so that @noble is found from there and the tree stays clean. */
export const work = join(root, 'node_modules/.cache/waxseal-bench')

const AS_SHIPPED = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'node20',
  platform: 'neutral',
  external: ['node:*', '@noble/*', 'pg'],
  outExtension: { '.js': '.mjs' },
  metafile: true,
  logLevel: 'error',
} as const satisfies BuildOptions

/** Compiles one of our files as dist is: tsx adds a call for every closure it names. Resolves to the program's path. */
export async function buildAsShipped(file: string): Promise<string> {
  const outfile = join(work, file.replace(/\.ts$/, '.mjs'))
  await build({ ...AS_SHIPPED, entryPoints: [join(root, file)], outfile })
  return outfile
}

export async function importAsShipped<T>(file: string): Promise<T> {
  return (await import(pathToFileURL(await buildAsShipped(file)).href)) as T
}

/** Every entry point with shared chunks, as tsup builds dist; and what the core imports from outside as it loads. */
export async function buildCore(): Promise<{ core: string; packages: string[] }> {
  mkdirSync(work, { recursive: true })
  const files = Object.values(packageJson().exports).map((entry) => entry.default)
  const entryPoints = files.flatMap((file) => (file ? [sourceOf(file)] : []))
  const { metafile } = await build({
    ...AS_SHIPPED,
    entryPoints,
    outdir: work,
    outbase: 'src',
    splitting: true,
    plugins: [coreInOneFile],
  })
  const core = Object.keys(metafile.outputs).find((file) => metafile.outputs[file]!.entryPoint === 'src/index.ts')!
  return { core: join(root, core), packages: [...externals(metafile.outputs, core)] }
}

/** What a bundler takes for the names of package.json's "imports" in a browser, among the sources. */
export function browserFiles(): Record<string, string> {
  const { imports } = packageJson()
  return Object.fromEntries(Object.entries(imports).map(([name, { browser }]) => [name, join(root, sourceOf(browser))]))
}

interface PackageJson {
  exports: Record<string, { default?: string }>
  imports: Record<string, { browser: string }>
}
const packageJson = () => JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as PackageJson
const sourceOf = (dist: string): string => dist.replace('./dist/', 'src/').replace(/\.js$/, '.ts')

function externals(outputs: Metafile['outputs'], from: string, found = new Set<string>(), seen = new Set<string>()) {
  seen.add(from)
  for (const { path, external, kind } of outputs[from]!.imports) {
    if (kind !== 'import-statement') continue
    if (external) found.add(path)
    else if (!seen.has(path)) externals(outputs, path, found, seen)
  }
  return found
}
