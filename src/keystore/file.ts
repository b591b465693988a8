import { mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { WaxsealError } from '../errors.ts'
import { conflict, type KeyStore, MAX_DOCUMENT, parseStored, type StoredKeyring } from './keystore.ts'
import { errorCode, ignoreMissing, type Lock, takeLock } from './lock.ts'

export type { KeyStore, StoredKeyring } from './keystore.ts'

const FORMAT = 'waxseal key store, draft 0'

/**
 * Keyrings in one JSON file, mode 0600. A save writes a new file, syncs it, renames it over the old one and syncs the
 * folder: a kill at any instant leaves the old file or the new one. A lock file beside it (`….lock`) keeps processes
 * of one machine apart; one that a killed process left is taken over at once, or after 30 seconds where the system does not
 * tell. Network file systems are not supported.
 *
 * Errors: MALFORMED for a torn or edited file (which is left as it is), CONFLICT when another process won,
 * KMS_UNAVAILABLE when the file system fails.
 *
 * @example
 * ```ts
 * import { openKeyring } from 'waxseal'
 * import { fileKeyStore } from 'waxseal/keystore/file'
 * import { localKms } from 'waxseal/kms/local'
 *
 * const open = () => openKeyring({ name: 'crm', store: fileKeyStore('keys.json'), kms: localKms(process.env['ROOT_KEY']) })
 * console.log(typeof open)
 * ```
 */
export function fileKeyStore(path: string): KeyStore {
  if (typeof path !== 'string' || path === '') {
    throw new WaxsealError('CONFIG', '"path" expected a file path', { argument: 'path' })
  }
  const file = resolve(path)
  return {
    async load(name) {
      const keyrings = await guarded(() => readKeyrings(file))
      return Object.hasOwn(keyrings, name) ? parseStored(keyrings[name]) : undefined
    },
    async save(name, next, expectedEpoch) {
      await guarded(async () => {
        await mkdir(dirname(file), { recursive: true })
        const held = await takeLock(`${file}.lock`)
        try {
          await sweep(file)
          const keyrings = await readKeyrings(file)
          const current = Object.hasOwn(keyrings, name) ? parseStored(keyrings[name]).epoch : null
          if (current !== expectedEpoch) throw conflict(name, expectedEpoch)
          await replaceFile(
            file,
            `${JSON.stringify({ format: FORMAT, keyrings: { ...keyrings, [name]: next } }, null, 2)}\n`,
            held,
          )
        } finally {
          await held.release()
        }
      })
    },
  }
}

async function readKeyrings(file: string): Promise<Record<string, StoredKeyring>> {
  let text: string
  try {
    const found = await stat(file)
    if (!found.isFile() && !found.isDirectory()) throw malformed(file, 'it is no regular file')
    if (found.size > MAX_DOCUMENT) throw malformed(file, 'it is over 64 MiB')
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return {}
    throw error
  }
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw malformed(file, 'it is torn or is not JSON; restore it from a backup')
  }
  const { format, keyrings } = (document ?? {}) as { format?: unknown; keyrings?: unknown }
  if (format !== FORMAT) throw malformed(file, `its format is not "${FORMAT}"`)
  if (typeof keyrings !== 'object' || keyrings === null || Array.isArray(keyrings)) {
    throw malformed(file, 'it holds no keyrings')
  }
  return keyrings as Record<string, StoredKeyring>
}

/** The names that replaceFile and lock.ts give, and no other. */
const LEFTOVER = /^(\.[0-9a-f-]{36}\.tmp|\.lock(\.claim)?\.[0-9a-f-]{36}\.new)$/

/** What a killed save left behind: it may hold wrapped keys that were destroyed since. Only with the lock held. */
async function sweep(file: string): Promise<void> {
  const leftovers = (await readdir(dirname(file))).filter(
    (name) => name.startsWith(`${basename(file)}.`) && LEFTOVER.test(name.slice(basename(file).length)),
  )
  for (const name of leftovers) await unlink(join(dirname(file), name)).catch(ignoreMissing)
}

async function replaceFile(file: string, text: string, lock: Lock): Promise<void> {
  const temporary = `${file}.${globalThis.crypto.randomUUID()}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    // Stopped for longer than a lock lasts, somebody else has it, and perhaps has written.
    if (!(await lock.isMine())) throw new WaxsealError('CONFLICT', `key store: the lock of ${file} was lost`)
    await rename(temporary, file)
  } catch (error) {
    await unlink(temporary).catch(ignoreMissing)
    throw error
  }
  await syncFolder(dirname(file))
}

/** Makes the rename durable; some systems (Windows) cannot open folders, and need not. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined)
  if (!handle) return
  try {
    await handle.sync()
  } catch (error) {
    if (errorCode(error) !== 'EPERM' && errorCode(error) !== 'EINVAL') throw error
  } finally {
    await handle.close()
  }
}

async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (WaxsealError.is(cause)) throw cause
    throw new WaxsealError('KMS_UNAVAILABLE', 'key store: the file system refused', { cause })
  }
}

function malformed(file: string, why: string): WaxsealError {
  return new WaxsealError('MALFORMED', `key store: ${file}: ${why}`)
}
