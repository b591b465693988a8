import { link, readFile, readlink, stat, unlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { WaxsealError } from '../errors.ts'

const TRIES = 200
const WAIT_MS = 25
const RELEASE_TRIES = 3
/** A lock is held for a few file operations; one this old was left by a process that died, or stopped. */
const STALE_MS = 30_000
/** What file systems say that have no hard links (FAT). */
const NO_LINKS = ['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']

export interface Lock {
  isMine(): Promise<boolean>
  release(): Promise<void>
}

/** Takes the lock file, waiting for at most 5 seconds; one that a dead process left is taken over at once. */
export async function takeLock(path: string): Promise<Lock> {
  const text = `${globalThis.crypto.randomUUID()} ${await self()}\n`
  for (let attempt = 0; attempt < TRIES; attempt++) {
    if (await create(path, text)) {
      const isMine = async () => (await readFile(path, 'utf8').catch(ignoreMissing)) === text
      return { isMine, release: () => release(path, isMine) }
    }
    if (!(await takeOver(path, text))) await new Promise((done) => setTimeout(done, WAIT_MS))
  }
  throw new WaxsealError('CONFLICT', `key store: ${path} is held by another process`)
}

/** What was saved is saved: a lock that cannot be removed stops nobody's success, and grows stale. */
async function release(path: string, isMine: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < RELEASE_TRIES; attempt++) {
    try {
      if (await isMine()) await unlink(path).catch(ignoreMissing)
      return
    } catch {}
  }
}

/** Makes a file that has its content from the first moment on; false when there is one already. */
async function create(path: string, text: string): Promise<boolean> {
  const fresh = `${path}.${text.slice(0, 36)}.new`
  try {
    await writeFile(fresh, text, { flag: 'wx', mode: 0o600 })
    await link(fresh, path).catch((error) => {
      if (!NO_LINKS.includes(String(errorCode(error)))) throw error
      return writeFile(path, text, { flag: 'wx', mode: 0o600 })
    })
    return true
  } catch (error) {
    // Missing: swept by the holder of the lock. Try again.
    if (errorCode(error) === 'EEXIST' || errorCode(error) === 'ENOENT') return false
    throw error
  } finally {
    await unlink(fresh).catch(() => undefined) // the next holder of the lock sweeps it
  }
}

/** Removes a lock that nobody holds any more; true when it did. */
async function takeOver(path: string, text: string): Promise<boolean> {
  if (!(await isAbandoned(path))) return false
  const claim = `${path}.claim`
  if (!(await create(claim, text))) {
    if (await isAbandoned(claim)) await unlink(claim).catch(ignoreMissing)
    return false
  }
  try {
    // Whoever has the claim is alone in removing what is not his: a lock that is seen to be abandoned now stays so.
    if (!(await isAbandoned(path))) return false
    await unlink(path).catch(ignoreMissing)
    return true
  } finally {
    await unlink(claim).catch(ignoreMissing)
  }
}

async function isAbandoned(path: string): Promise<boolean> {
  const text = await readFile(path, 'utf8').catch(ignoreMissing)
  const seen = await stat(path).catch(ignoreMissing)
  if (text === undefined || !seen) return false
  return Date.now() - seen.mtimeMs >= STALE_MS || isOfTheDead(text)
}

/** Whether the text of a lock names a process of this machine that does not run any more. */
async function isOfTheDead(text: string): Promise<boolean> {
  const [, where, id, started] = text.trim().split(' ')
  const pid = Number(id)
  if (where === undefined || !Number.isSafeInteger(pid) || pid < 1 || where !== (await place())) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    return errorCode(error) === 'ESRCH'
  }
  // It runs, or another with its number does: in a restarted container, every first process is number 1.
  const now = await startOf(pid)
  return now !== undefined && now !== started
}

/** This process, among all of this machine since it started. */
const self = async (): Promise<string> => `${await place()} ${process.pid} ${await startOf(process.pid)}`

/** What process ids are ids of: a start of a kernel and a namespace of it (Linux), or a host. */
async function place(): Promise<string> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
    return `${boot.trim()}/${await readlink('/proc/self/ns/pid')}`
  } catch {
    return encodeURIComponent(hostname())
  }
}

/** When a process started, in ticks since the kernel did; `dead` for one that only waits to be reaped. Linux only. */
async function startOf(pid: number): Promise<string | undefined> {
  // The second field is the program's name, in brackets, and may hold anything.
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields && (/^[ZX]/.test(fields[0]!) ? 'dead' : fields[19])
}

export function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT') throw error
  return undefined
}

export const errorCode = (error: unknown): unknown => (error as { code?: unknown } | null)?.code
