import { readFileSync } from 'node:fs'
import { defineConfig } from 'tsup'

// The exports map is the only list of entry points: dist/x/y.js is built from src/x/y.ts.
const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  exports: Record<string, { default?: string }>
}
const entry = Object.values(exports).flatMap((e) =>
  e.default ? [e.default.replace('./dist/', 'src/').replace(/\.js$/, '.ts')] : [],
)

export default defineConfig({
  entry,
  outDir: 'dist',
  format: 'esm',
  target: 'node20',
  platform: 'neutral',
  removeNodeProtocol: false,
  external: [/^node:/],
  dts: true,
  clean: true,
  splitting: true,
  treeshake: true,
})
