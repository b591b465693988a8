import { readFileSync } from 'node:fs'
import { defineConfig } from 'tsup'

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

export default defineConfig({
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
})
