import { readdirSync, readFileSync } from 'node:fs'
import { defineConfig } from 'tsup'
import { coreInOneFile } from './tsup.core.ts'

// package.json is the only list of entry points: dist/x/y.js is built from src/x/y.ts. What it calls #… is resolved by
// whoever loads the package, so that a browser's bundle gets other files than Node.
const { exports, imports } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  exports: Record<string, { default?: string }>
  imports: Record<string, { browser: string; default: string }>
}
const files = [...Object.values(exports).map((e) => e.default), ...Object.values(imports).flatMap(Object.values)]
const entry = files.flatMap((file: string | undefined) =>
  file ? [file.replace('./dist/', 'src/').replace(/\.js$/, '.ts')] : [],
)

/** What the command line has inside, for people; their licences ask to be named. */
const BUNDLED = ['cli-progress', 'string-width', 'emoji-regex', 'is-fullwidth-code-point', 'strip-ansi', 'ansi-regex']
const licences = BUNDLED.map((name) => {
  const file = readdirSync(`node_modules/${name}`).find((entry) => /^licen[cs]e/i.test(entry))
  return `${name}:\n${readFileSync(`node_modules/${name}/${file}`, 'utf8').trim()}`
})

const library = defineConfig({
  entry,
  outDir: 'dist',
  format: 'esm',
  target: 'node20',
  platform: 'neutral',
  removeNodeProtocol: false,
  external: [/^node:/, /^#/],
  dts: true,
  clean: true,
  splitting: true,
  treeshake: true,
  esbuildPlugins: [coreInOneFile],
})

/**
 * The command is a file of its own, for Node: cli-progress is inside, what is ours is imported from the entries beside
 * it, so that a keyring which the configuration opened is of the same copy.
 */
const command = defineConfig({
  entry: { 'cli/main': 'src/cli/main.ts' },
  outDir: 'dist',
  format: 'esm',
  target: 'node20',
  platform: 'node',
  removeNodeProtocol: false,
  noExternal: BUNDLED,
  esbuildPlugins: [
    {
      name: 'ours',
      setup: (build) =>
        build.onResolve({ filter: /^\.\.\/.*\.ts$/ }, ({ path, importer }) =>
          /[/\\]src[/\\]cli[/\\]/.test(importer) ? { path: path.replace(/\.ts$/, '.js'), external: true } : undefined,
        ),
    },
  ],
  banner: {
    js: `import { createRequire } from 'node:module'\nconst require = createRequire(import.meta.url)\n/*\n${licences.join('\n\n')}\n*/`,
  },
  dts: false,
  clean: false,
  splitting: false,
  treeshake: false,
})

export default [library, command]
