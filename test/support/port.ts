import { spawnSync } from 'node:child_process'
import { createServer } from 'node:net'

/** The system hands one out; somebody else could take it before we do, so the start may fail, and says so. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}

export const isRoot = (): boolean => process.getuid?.() === 0

/** Who a server runs as when we are root, which servers refuse; undefined when there is nobody of that name. */
export function systemUser(name: string): { uid: number; gid: number } | undefined {
  const id = (flag: string): number => {
    const { status, stdout } = spawnSync('id', [flag, name], { encoding: 'utf8' })
    return status === 0 ? Number(stdout) : Number.NaN
  }
  const user = { uid: id('-u'), gid: id('-g') }
  return Number.isNaN(user.uid + user.gid) ? undefined : user
}
