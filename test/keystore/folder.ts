import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'

/** A folder of this test file's own; the function gives a new path in it. */
export function temporaryFolder(): (name?: string) => string {
  let folder: string
  let count = 0
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'waxseal-store-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))
  return (name = 'keys.json') => join(folder, String(count++), name)
}
