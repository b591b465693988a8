import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { freePort } from './port.ts'

/** An imitation of AWS in a process of its own, gone when it is stopped. */
export interface MotoServer {
  readonly url: string
  readonly version: string
  stop(): void
}

const HOW = "install it (pip install 'moto[server]==5.2.1') or set MOTO_SERVER to the program"

/** MOTO_SERVER, then what is on the PATH. */
function program(): string | undefined {
  const named = process.env.MOTO_SERVER || 'moto_server'
  return spawnSync(named, ['--help'], { stdio: 'ignore' }).status === 0 ? named : undefined
}

/** Why there is no imitation of AWS to be had here; undefined when there is one. Starts nothing. */
export function motoMissing(): string | undefined {
  return program() ? undefined : `no moto_server found, which imitates AWS: ${HOW}`
}

/** Two or three seconds. */
export async function startMoto(): Promise<MotoServer> {
  const file = program()
  if (!file) throw new Error(motoMissing())
  const port = await freePort()
  const child = spawn(file, ['-H', '127.0.0.1', '-p', String(port)], { stdio: ['ignore', 'ignore', 'pipe'] })
  let told = ''
  child.stderr.on('data', (chunk) => {
    told = (told + chunk).slice(-4000)
  })
  const stop = (): void => void child.kill('SIGKILL')
  process.on('exit', stop)
  const url = `http://127.0.0.1:${port}`
  const version = await answers(url, child, () => told)
  return {
    url,
    version,
    stop() {
      process.off('exit', stop)
      stop()
    },
  }
}

/** Waits until the server says which version it is. */
async function answers(url: string, child: ChildProcess, told: () => string): Promise<string> {
  for (let waited = 0; waited < 60_000; waited += 100) {
    if (child.exitCode !== null) throw new Error(`moto_server ended with ${child.exitCode}: ${told()}`)
    const response = await fetch(`${url}/moto-api/`).catch(() => undefined)
    if (response?.ok) return response.headers.get('server') ?? ''
    await new Promise((done) => setTimeout(done, 100))
  }
  child.kill('SIGKILL')
  throw new Error(`moto_server did not answer: ${told()}`)
}
