import { spawn } from 'node:child_process'
import type { Ended } from './run.ts'
import { fromRoot } from './sources.ts'

export type { Ended } from './run.ts'

const TSX = import.meta.resolve('tsx')

/** Runs the command waxseal from its sources, as a process of its own in a folder. */
export function runCommand(args: readonly string[], cwd: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const command = ['--import', TSX, fromRoot('src/cli/main.ts'), ...args]
    const env = { ...process.env, TSX_TSCONFIG_PATH: fromRoot('tsconfig.json') }
    const child = spawn(process.execPath, command, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, err] = ['', '']
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
