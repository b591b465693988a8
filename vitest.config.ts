import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const src = fileURLToPath(new URL('./src/', import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: '#codecs', replacement: `${src}codecs/native.ts` },
      { find: '#engine/node', replacement: `${src}engine/node.ts` },
      { find: /^waxseal$/, replacement: `${src}index.ts` },
      {
        find: /^waxseal\/(engine|envelope|recovery|rotation|rotation\/queue|testing)$/,
        replacement: `${src}$1/index.ts`,
      },
      { find: /^waxseal\/rotation\/(mysql|postgres|sqlite)$/, replacement: `${src}rotation/sources/$1.ts` },
      { find: /^waxseal\/(.+)$/, replacement: `${src}$1.ts` },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Files wait for servers and for child processes: on two cores, one at a time leaves both idle.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    coverage: { include: ['src/**'] },
  },
})
