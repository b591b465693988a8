import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chownSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort, isRoot, systemUser } from './port.ts'

/** A MariaDB server of our own: in a folder of its own, gone when it is stopped. */
export interface MariadbServer {
  /** As root, without a password, of an empty database `waxseal`. */
  readonly url: string
  stop(): Promise<void>
}

const HOW = 'install it (Debian, Ubuntu: apt-get install --no-install-recommends mariadb-server)'
const START_MS = 60_000

/** Why there is no server to be had here; undefined when there is one. Starts nothing. */
export function mariadbMissing(): string | undefined {
  if (!find('mariadbd') || !find('mariadb-install-db')) return `no MariaDB server found: ${HOW}`
  if (isRoot() && !systemUser('mysql')) return 'MariaDB refuses to run as root, and there is no user "mysql"'
  return undefined
}

/** mariadb-install-db and mariadbd: about three seconds. Nobody else's server is touched; `stop` deletes everything. */
export async function startMariadb(...settings: readonly string[]): Promise<MariadbServer> {
  const why = mariadbMissing()
  if (why) throw new Error(why)
  const user = isRoot() ? systemUser('mysql') : undefined
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-mariadb-'))
  if (user) chownSync(folder, user.uid, user.gid)
  const [data, log, port] = [join(folder, 'data'), join(folder, 'log'), await freePort()]
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  const told = (): string => (existsSync(log) ? readFileSync(log, 'utf8').slice(-4000) : '')

  const output = openSync(log, 'w')
  const options = { cwd: folder, env: { PATH: process.env.PATH ?? '' }, stdio: ['ignore', output, output], ...user }
  const installed = spawnSync(
    find('mariadb-install-db')!,
    ['--no-defaults', `--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db'],
    options as object,
  )
  if (installed.status !== 0) {
    const text = told()
    remove()
    throw new Error(`mariadb-install-db failed with ${installed.status}: ${text}`)
  }
  const here = [`--datadir=${data}`, `--socket=${join(folder, 'socket')}`, `--pid-file=${join(folder, 'pid')}`]
  const first = join(folder, 'first.sql')
  writeFileSync(first, 'create database waxseal;\n')
  const net = [`--init-file=${first}`, '--bind-address=127.0.0.1', `--port=${port}`, '--skip-name-resolve']
  // Tests do not survive a power cut; small buffers start quicker.
  const quick = ['--innodb-flush-log-at-trx-commit=0', '--innodb-buffer-pool-size=32M', '--innodb-log-file-size=16M']
  const server = spawn(find('mariadbd')!, ['--no-defaults', ...here, ...net, ...quick, ...settings], options as object)
  closeSync(output)
  const killed = (): void => {
    server.kill('SIGKILL')
    remove()
  }
  process.on('exit', killed)
  try {
    await answering(port, server)
  } catch (error) {
    const text = told()
    process.off('exit', killed)
    killed()
    throw new Error(`mariadbd did not start: ${text}`, { cause: error })
  }
  return {
    url: `mysql://root@127.0.0.1:${port}/waxseal`,
    async stop() {
      if (server.exitCode !== null || server.signalCode !== null) return
      process.off('exit', killed)
      const ended = new Promise((done) => server.once('exit', done))
      server.kill('SIGKILL')
      await ended
      remove()
    },
  }
}

/** Waits until the server greets whoever connects. */
async function answering(port: number, server: ChildProcess): Promise<void> {
  const until = Date.now() + START_MS
  while (Date.now() < until && server.exitCode === null) {
    const greeted = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      const end = (result: boolean): void => {
        socket.destroy()
        resolve(result)
      }
      socket.once('data', () => end(true)).once('error', () => end(false))
      socket.setTimeout(2000, () => end(false))
    })
    if (greeted) return
    await new Promise((done) => setTimeout(done, 50))
  }
  throw new Error(`exit code ${server.exitCode}`)
}

/** On the PATH, or where Debian puts it, which is not on everybody's. */
function find(program: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/bin', '/usr/local/bin']
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path))
}
