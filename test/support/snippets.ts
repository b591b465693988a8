import { existsSync } from 'node:fs'
import { filesUnder, fromRoot, read, sourceFiles } from './sources.ts'

/** One block of TypeScript that a reader may copy. */
export interface Snippet {
  /** File and line of its first line. */
  readonly where: string
  readonly code: string
  /** False for `// compile only`, as its first line or as the comment before the block. */
  readonly runs: boolean
}

/** Every page that the project shows: in the root, and below docs and examples. */
export function pages(): string[] {
  const root = ['README.md', 'SECURITY.md', 'CONTRIBUTING.md', 'CHANGELOG.md'].filter((name) =>
    existsSync(fromRoot(name)),
  )
  return [...root, ...filesUnder('docs', '.md'), ...filesUnder('examples', '.md')]
}

const MARK = /^(?:\/\/|<!--) *compile only\b/

/** Fenced blocks of a Markdown text, with what stands behind the fence and the last line before it. */
export function fences(text: string): { info: string; code: string; line: number; before: string }[] {
  const lines = text.split('\n')
  const found: { info: string; code: string; line: number; before: string }[] = []
  for (let i = 0; i < lines.length; i++) {
    const open = /^(\s*)(```+)(.*)$/.exec(lines[i]!)
    if (!open) continue
    const end = lines.findIndex((line, at) => at > i && line.trim() === open[2])
    if (end < 0) throw new Error(`the block in line ${i + 1} has no end`)
    const code = lines.slice(i + 1, end).map((line) => (line.startsWith(open[1]!) ? line.slice(open[1]!.length) : line))
    const before = lines.slice(0, i).findLast((line) => line.trim() !== '') ?? ''
    found.push({ info: open[3]!.trim(), code: code.join('\n'), line: i + 2, before: before.trim() })
    i = end
  }
  return found
}

/** Doc comments of a source, as text without the stars; blank lines stand for the code between, so that lines agree. */
export function docComments(text: string): string {
  let inside = false
  return text
    .split('\n')
    .map((line) => {
      if (!inside && /^\s*\/\*\*/.test(line)) inside = true
      if (!inside) return ''
      if (line.includes('*/')) inside = false
      return line.replace(/^\s*(\/\*\*|\*\/|\*) ?/, '').replace(/\*\/\s*$/, '')
    })
    .join('\n')
}

const isCode = (info: string): boolean => /^(ts|typescript|js|javascript|mts|tsx|jsx|mjs)\b/i.test(info)

/** Every snippet of pages and docstrings. */
export function snippets(): Snippet[] {
  const texts = [
    ...pages().map((page) => [page, read(page)] as const),
    ...sourceFiles().map((file) => [file, docComments(read(file))] as const),
  ]
  return texts.flatMap(([file, text]) =>
    fences(text)
      .filter(({ info }) => isCode(info))
      .map(({ code, line, before }) => ({
        where: `${file}:${line}`,
        code,
        runs: !MARK.test(code.trimStart()) && !MARK.test(before),
      })),
  )
}

/** The blocks of SQL of a page, in order. */
export const sqlOf = (page: string): string[] =>
  fences(read(page))
    .filter(({ info }) => info === 'sql')
    .map(({ code }) => code)

/** Blocks of code that would escape: marked in another way than `ts`, or with more behind it. */
export function oddlyMarked(): string[] {
  const texts = [
    ...pages().map((page) => [page, read(page)] as const),
    ...sourceFiles().map((f) => [f, docComments(read(f))] as const),
  ]
  return texts.flatMap(([file, text]) =>
    fences(text)
      .filter(({ info }) => info === '' || isCode(info))
      .filter(({ info, code }) => (info === '' ? /^\s*(import|export|const|await)\b/m.test(code) : info !== 'ts'))
      .map(({ line, info }) => `${file}:${line} ${info}`),
  )
}
