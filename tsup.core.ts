import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'esbuild'

const CORE = fileURLToPath(new URL('src/index.ts', import.meta.url))

/**
 * Has every entry point load the core, so that esbuild, which makes a chunk for each set of entries that share a module,
 * leaves the core in one file: Node takes half a millisecond for every file that it loads.
 */
export const coreInOneFile: Plugin = {
  name: 'core in one file',
  setup(build) {
    const entries = new Set<string>()
    build.onResolve({ filter: /./ }, async ({ path, kind, resolveDir, pluginData }) => {
      if (path === CORE && kind === 'import-statement') return { path: CORE, sideEffects: true }
      if (kind !== 'entry-point' || pluginData === 'core') return undefined
      const found = await build.resolve(path, { kind, resolveDir, pluginData: 'core' })
      entries.add(found.path)
      return found
    })
    build.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      if (!entries.has(path) || path === CORE) return undefined
      return { contents: `import ${JSON.stringify(CORE)}\n${await readFile(path, 'utf8')}`, loader: 'ts' }
    })
  },
}
