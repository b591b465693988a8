import { spawn } from 'node:child_process'
import { fromRoot, ROOT } from './sources.ts'

export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs a program to its end. */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: options.cwd ?? ROOT, timeout: options.timeoutMs ?? 60_000 })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, out, err }))
  })
}

/** Runs a TypeScript file with tsx and the repository's tsconfig, so that 'waxseal/…' means the sources. */
export function runTypeScript(file: string, cwd = ROOT): Promise<Ended> {
  return run(
    process.execPath,
    [fromRoot('node_modules/tsx/dist/cli.mjs'), '--tsconfig', fromRoot('tsconfig.json'), file],
    {
      cwd,
    },
  )
}
