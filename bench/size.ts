import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build, type Metafile } from 'esbuild'
import { browserFiles, buildCore, root, work } from './build.ts'
import { compared, type Effort, type Result } from './harness.ts'

/** A string, not a property: the schema has one called `node`. */
const NODE_MODULE = /["'`]node:/

/**
 * What a bundler loads into the browser for encrypting and decrypting records. The budget is held against all that a page
 * needs, opening a keyring included; without it, for what a keyring is handed to, the size is told besides.
 */
export async function bundleSizes(): Promise<Result[]> {
  const rest = { unit: 'KB', limit: null, ratio: null, spread: null, better: 'lower' } as const
  return [
    { ...rest, name: 'bundle_gzip_kb', value: await kilobytesOf('int, openKeyring, records, text'), budget: 30 },
    { ...rest, name: 'bundle_gzip_kb.records', value: await kilobytesOf('int, records, text'), budget: null },
  ]
}

/** The entry and what it imports statically, each compressed as it is served. 1 KB is 1,000 bytes. */
async function kilobytesOf(names: string): Promise<number> {
  const contents = `export { ${names} } from 'waxseal'`
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: root },
    absWorkingDir: root,
    bundle: true,
    write: false,
    outdir: 'unwritten',
    splitting: true,
    metafile: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    alias: browserFiles(),
    legalComments: 'none',
    logLevel: 'error',
  })
  const entry = Object.keys(metafile.outputs).find((file) => metafile.outputs[file]!.entryPoint === '<stdin>')!
  const loaded = loadedWith(metafile.outputs, entry)
  let bytes = 0
  for (const { path, text, contents: code } of outputFiles) {
    if (NODE_MODULE.test(text)) throw new Error('bundle_gzip_kb: the browser bundle names a node: module')
    if ([...loaded].some((file) => path.endsWith(file))) bytes += gzipSync(code, { level: 9 }).length
  }
  return bytes / 1000
}

function loadedWith(outputs: Metafile['outputs'], file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const { path, kind } of outputs[file]!.imports) if (kind === 'import-statement') loadedWith(outputs, path, seen)
  return seen
}

/** Whole processes that import the built core, over empty ones; the limit imports what the core imports. */
export async function importTime({ processes }: Effort): Promise<Result> {
  const { core, packages } = await buildCore()
  const programs = {
    empty: program('empty', []),
    ours: program('ours', [core]),
    limit: program('limit', [...packages, 'node:crypto']),
  }
  const names = ['empty', 'ours', 'limit'] as const
  const values: number[] = []
  const limits: number[] = []
  for (let round = 0; round < processes; round++) {
    const time = { empty: 0, ours: 0, limit: 0 }
    for (let i = 0; i < names.length; i++) {
      const name = names[(round + i) % names.length]!
      time[name] = processTime(programs[name])
    }
    values.push(time.ours - time.empty)
    limits.push(time.limit - time.empty)
  }
  return compared({ name: 'import_ms', unit: 'ms', budget: 1.4, better: 'lower' }, values, limits)
}

function program(name: string, imports: readonly string[]): string {
  const file = join(work, `program-${name}.mjs`)
  writeFileSync(file, imports.map((from) => `import '${from}'\n`).join(''))
  return file
}

/** ms from start to exit. */
function processTime(file: string): number {
  const start = performance.now()
  const { status, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8', env: {} })
  if (status !== 0) throw new Error(`import_ms: ${file} failed: ${stderr}`)
  return performance.now() - start
}
