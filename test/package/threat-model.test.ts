import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { filesUnder, fromRoot, read } from '../support/sources.ts'

const PAGE = 'docs/threat-model.md'
/** `folder/name`, the way the page names tests. */
const NAME = /^[a-z0-9-]+\/[a-z0-9-]+$/

/** The cells of the column `test`, of every table that has one. */
function testCells(): string[] {
  let column = -1
  return read(PAGE)
    .split('\n')
    .flatMap((line) => {
      const cells = line.startsWith('|') ? line.split('|').map((cell) => cell.trim()) : []
      if (cells.length === 0) column = -1
      else if (column < 0) column = cells.indexOf('test') < 0 ? cells.length : cells.indexOf('test')
      else if (!/^-+$/.test(cells[1]!) && column < cells.length) return [cells[column]!]
      return []
    })
}

/** A test file, or a suite that one runs. */
const isThere = (name: string): boolean =>
  ['.test.ts', '-suite.ts'].some((end) => existsSync(fromRoot(`test/${name}${end}`)))

describe('the threat model', () => {
  const cells = testCells()
  const inTables = cells.flatMap((cell) => cell.split(/,\s*/)).filter((name) => name !== '')

  it('names tests in its tables, and nothing else in their place', () => {
    expect(inTables.length).toBeGreaterThan(40)
    expect(inTables.filter((name) => !NAME.test(name))).toEqual([])
  })

  it('names tests that are there, in its tables and in its text', () => {
    const folders = new Set(filesUnder('test', '.test.ts').map((file) => file.split('/')[1]!))
    const inText = [...read(PAGE).matchAll(/(?<![\w./-])([a-z0-9-]+)\/[a-z0-9-]+(?![\w/.-])/g)]
      .filter(([, folder]) => folders.has(folder!))
      .map(([name]) => name)
    expect(inText.length).toBeGreaterThanOrEqual(inTables.length)
    expect([...new Set([...inTables, ...inText])].filter((name) => !isThere(name))).toEqual([])
  })

  it('leaves the column empty only where it says that nothing holds, or that others do it', () => {
    expect(cells.filter((cell) => cell === '').length).toBeLessThanOrEqual(3)
  })
})
