import { existsSync, statSync } from 'node:fs'
import { posix } from 'node:path'
import { fences, pages } from './snippets.ts'
import { fromRoot, read } from './sources.ts'

/** The anchors of a page as GitHub makes them: headings in lower case, without punctuation, blanks as dashes. */
export function anchors(text: string): Set<string> {
  const found = new Set<string>()
  for (const [, heading] of withoutFences(text).matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm)) {
    const plain = heading!.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '')
    const slug = plain
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-')
    let name = slug
    for (let n = 1; found.has(name); n++) name = `${slug}-${n}`
    found.add(name)
  }
  return found
}

function withoutFences(text: string): string {
  return fences(text).reduce((rest, { code }) => (code === '' ? rest : rest.replace(code, '')), text)
}

/** Links of the project's pages that lead nowhere: `page → target`. */
export function deadLinks(): string[] {
  return pages().flatMap((page) => {
    const text = withoutFences(read(page)).replace(/`[^`\n]*`/g, '')
    const targets = [...text.matchAll(/\]\(<?([^)>\s]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s*(\S+)/gm)].map(
      (m) => (m[1] ?? m[2])!,
    )
    return targets
      .filter((target) => !/^[a-z]+:/i.test(target) && !leadsSomewhere(page, target))
      .map((target) => `${page} → ${target}`)
  })
}

function leadsSomewhere(page: string, link: string): boolean {
  const [path, anchor] = link.split('#') as [string, string?]
  const file = path === '' ? page : posix.join(posix.dirname(page), decodeURI(path))
  if (file.startsWith('..') || !existsSync(fromRoot(file))) return false
  if (anchor === undefined) return true
  return statSync(fromRoot(file)).isFile() && (!file.endsWith('.md') || anchors(read(file)).has(decodeURI(anchor)))
}
