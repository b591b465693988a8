import { spawn, spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, isRoot, systemUser } from './port.ts'

/** A PostgreSQL server of our own: in a folder of its own, gone when it is stopped. */
export interface PostgresServer {
  readonly url: string
  readonly version: string
  /** As after a power cut: no checkpoint, every connection lost. Resolves when it takes connections again. */
  crash(): Promise<void>
  /** SIGKILL for the postmaster: its backends find out by themselves, and some still write meanwhile. */
  kill(): Promise<void>
  /** As an operator restarts it: transactions under way are rolled back, and a checkpoint is made. */
  restart(): Promise<void>
  stop(): void
}

const HOW =
  'install it (Debian, Ubuntu: apt-get install postgresql) or set PG_BIN to the folder that holds initdb and pg_ctl'

/** Why there is no server to be had here; undefined when there is one. Starts nothing. */
export function postgresMissing(): string | undefined {
  if (!binFolder()) return `no PostgreSQL server found: ${HOW}`
  if (isRoot() && !serverUser()) return 'PostgreSQL refuses to run as root, and there is no user "postgres"'
  return undefined
}

/** initdb and pg_ctl: about a second. Nobody else's server is touched; `stop` deletes everything. */
export async function startPostgres({ fsync = false } = {}): Promise<PostgresServer> {
  const bin = binFolder()
  if (!bin) throw new Error(postgresMissing())
  const user = isRoot() ? serverUser() : undefined
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-postgres-'))
  const data = join(folder, 'data')
  const port = await freePort()
  if (user) chownSync(folder, user.uid, user.gid)

  const run = (program: string, ...args: string[]): void => {
    // The server inherits what pg_ctl was given, so nothing of ours may be a pipe that it would keep open.
    const result = spawnSync(join(bin, program), args, {
      cwd: folder,
      stdio: 'ignore',
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' },
      ...user,
    })
    if (result.status === 0) return
    const log = join(folder, 'log')
    const told = existsSync(log) ? readFileSync(log, 'utf8') : (result.error?.message ?? '')
    rmSync(folder, { recursive: true, force: true })
    throw new Error(`${program} failed with ${result.status}: ${told}`)
  }

  run('initdb', '-D', data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C', '--no-sync')
  const settings = `-p ${port} -k '${folder}' -c listen_addresses=127.0.0.1 -c fsync=${fsync ? 'on' : 'off'} -c max_connections=${fsync ? 200 : 50}`
  run('pg_ctl', '-D', data, '-o', settings, '-l', join(folder, 'log'), '-w', 'start')

  /** Without holding up this process, whose connections go on being used. */
  const runBeside = (...args: string[]): Promise<void> =>
    new Promise((resolve, reject) => {
      const child = spawn(join(bin, 'pg_ctl'), ['-D', data, '-w', ...args], { cwd: folder, stdio: 'ignore', ...user })
      child.on('error', reject)
      child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`pg_ctl ${args[0]} failed with ${code}`))))
    })
  const start = (): Promise<void> => runBeside('-o', settings, '-l', join(folder, 'log'), 'start')
  async function crash(): Promise<void> {
    await runBeside('-m', 'immediate', 'stop')
    await start()
  }
  async function restart(): Promise<void> {
    await runBeside('-m', 'fast', 'stop')
    await start()
  }
  async function kill(): Promise<void> {
    const postmaster = Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
    process.kill(postmaster, 'SIGKILL')
    // Until the last backend is gone, the memory that they share keeps a new server from starting.
    for (let tries = 1; ; tries++) {
      await new Promise((done) => setTimeout(done, 200))
      try {
        return await start()
      } catch (error) {
        if (tries === 100) throw error
      }
    }
  }

  let running = true
  const stop = (): void => {
    if (!running) return
    running = false
    process.off('exit', stop)
    spawnSync(join(bin, 'pg_ctl'), ['-D', data, '-m', 'immediate', '-w', 'stop'], { stdio: 'ignore', ...user })
    rmSync(folder, { recursive: true, force: true })
  }
  process.on('exit', stop)
  const version = readFileSync(join(data, 'PG_VERSION'), 'utf8').trim()
  return { url: `postgres://postgres@127.0.0.1:${port}/postgres`, version, crash, kill, restart, stop }
}

/** PG_BIN, then Debian's folders (the newest version first), then what pg_config says. */
function binFolder(): string | undefined {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const asked = spawnSync('pg_config', ['--bindir'], { encoding: 'utf8' })
  const folders = [process.env.PG_BIN, ...versions.map((version) => join(debian, version, 'bin')), asked.stdout?.trim()]
  return folders.find((folder) => folder && existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'pg_ctl')))
}

const serverUser = () => systemUser('postgres')
