import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fromRoot, packageJson, ROOT } from './sources.ts'

/** The package as it would be published: built once, beside the sources and not into `dist`, and packed. */
export interface Built {
  /** A folder that is laid out like the package; @noble is found from it. */
  readonly folder: string
  readonly tarball: Uint8Array
  /** Names in the tarball, without the leading `package/`. */
  readonly packed: readonly string[]
  text(path: string): string
  remove(): void
}

/** tsup with the project's configuration, then `npm pack` without scripts: some twenty seconds. */
export function buildPackage(): Built {
  const cache = fromRoot('node_modules/.cache')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, 'waxseal-build-'))
  try {
    node('node_modules/tsup/dist/cli-default.js', '--out-dir', join(folder, 'dist'), '--silent')
    for (const name of ['package.json', 'README.md', 'LICENSE', ...packageJson().files]) {
      if (name !== 'dist' && existsSync(fromRoot(name))) cpSync(fromRoot(name), join(folder, name), { recursive: true })
    }
    const answer = execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--offline'], {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const [{ filename, files }] = JSON.parse(answer) as [{ filename: string; files: { path: string }[] }]
    return {
      folder,
      tarball: readFileSync(join(folder, filename)),
      packed: files.map((file) => file.path),
      text: (path) => readFileSync(join(folder, path), 'utf8'),
      remove: () => rmSync(folder, { recursive: true, force: true }),
    }
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    throw error
  }
}

function node(script: string, ...args: string[]): void {
  execFileSync(process.execPath, [fromRoot(script), ...args], { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Every file below `folder`, as paths from it. */
export function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}
