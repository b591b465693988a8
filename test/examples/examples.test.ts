import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Ended, runTypeScript } from '../support/run.ts'
import { fromRoot } from '../support/sources.ts'

/** The examples as a reader runs them, each in a process of its own, side by side. */
const quickstart = runTypeScript('examples/quickstart/main.ts')
const drizzle = runTypeScript('examples/drizzle/main.ts')

describe('the quickstart', () => {
  let ended: Ended
  beforeAll(async () => {
    ended = await quickstart
  })

  it('ends well, and every customer was read back', () => {
    expect(ended.err.replace(/.*rewrap \[.*rows/g, '').trim()).toBe('') // the progress bar goes to stderr
    expect(ended.err).toContain('59/59 rows')
    expect(ended.code).toBe(0)
    expect(ended.out).toContain('59 customers, every field as it went in')
    expect(ended.out.trimEnd().split('\n').at(-1)).toMatch(
      /^Done: 59 customers encrypted, .* rotated and retired, 6 attacks/,
    )
  })

  it('shows ciphertext beside plaintext, and a row that it holds back from retiring', () => {
    expect(ended.out).toMatch(/first_name.*wxf:[\w-]{20,}.*Luís/)
    expect(ended.out).toMatch(/envelope\s.*wxh:/)
    expect(ended.out).toMatch(/retire now\? 59 rows of public\.customers still refer/)
  })

  it('has every attack answered by the expected code', () => {
    const answers = ended.out.split('\n').filter((line) => / (DECRYPTION_FAILED|MALFORMED)$/.test(line))
    expect(answers).toHaveLength(6)
  })

  it('leaves nothing behind', () => {
    const folder = /(\S*waxseal-quickstart-\w+)/.exec(ended.out)?.[1]
    expect(folder).toBeDefined()
    expect(() => readFileSync(join(folder!, 'keys.json'))).toThrow('ENOENT')
  })
})

describe('the quickstart, sabotaged', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'waxseal-sabotage-'))
    symlinkSync(fromRoot('node_modules'), join(folder, 'node_modules'))
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
    cpSync(fromRoot('examples'), join(folder, 'examples'), { recursive: true })
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('fails when an attack is answered by another code than the expected one', async () => {
    const file = join(folder, 'examples/quickstart/attacks.ts')
    const text = readFileSync(file, 'utf8')
    const changed = text.replace("expected: 'DECRYPTION_FAILED'", "expected: 'MALFORMED'")
    expect(changed).not.toBe(text)
    writeFileSync(file, changed)
    const { code, out, err } = await runTypeScript(join(folder, 'examples/quickstart/main.ts'), folder)
    expect(code).not.toBe(0)
    expect(err).toContain('was answered by DECRYPTION_FAILED, not MALFORMED')
    expect(out).not.toContain('Done:')
  })
})

describe('the Drizzle example', () => {
  it('ends well and reads the row back after a rotation', async () => {
    const { code, out, err } = await drizzle
    expect(err).toBe('')
    expect(code).toBe(0)
    expect(out.trimEnd()).toBe('Bjørn Hansen, new@example.org, born 1970-05-17: read back after a rotation')
  })
})
