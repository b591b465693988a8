import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Pkcs11Module } from 'waxseal/kms/pkcs11'
import { fromRoot } from './sources.ts'

/** What tests use of pkcs11js beyond the driver; test/native proves that the real module fits. */
export interface TestModule extends Pkcs11Module {
  load(path: string): void
  close(): void
  C_Initialize(): void
  C_Finalize(): void
  C_CloseAllSessions(slot: Uint8Array): void
  C_Logout(session: Uint8Array): void
  C_GenerateKey(
    session: Uint8Array,
    mechanism: { mechanism: number },
    template: { type: number; value?: number | boolean | string | Uint8Array | Date }[],
  ): Uint8Array
}

/** SoftHSM: a real PKCS #11 token in software, in a folder of its own, gone when it is stopped. */
export interface SoftHsm {
  readonly module: TestModule
  /** A new token. */
  token(label: string): void
  /** A new AES key in a token; 32 bytes and not extractable, unless told otherwise. */
  key(
    token: string,
    label: string,
    other?: { bytes?: number; extractable?: boolean; id?: Uint8Array; may?: boolean },
  ): void
  /** Takes a token away, as pulling out the device does. */
  remove(token: string): void
  stop(): void
}

export const PIN = '71828182'
const SO_PIN = '31415926'
const native = createRequire(fromRoot('test/native/package.json'))

/** Why there is no token to be had here; undefined when there is one. */
export function softHsmMissing(): string | undefined {
  if (!library() || spawnSync('softhsm2-util', ['--version']).status !== 0) {
    return 'no SoftHSM found: install it (Debian, Ubuntu: apt-get install softhsm2)'
  }
  try {
    native('pkcs11js')
  } catch {
    return 'pkcs11js is not installed: npm ci --prefix test/native (it compiles)'
  }
  return undefined
}

function library(): string | undefined {
  const folders = ['/usr/lib/softhsm', '/usr/local/lib/softhsm', '/usr/lib64/pkcs11', '/opt/homebrew/lib/softhsm']
  const paths = [process.env.SOFTHSM2_MODULE, ...folders.map((folder) => join(folder, 'libsofthsm2.so'))]
  return paths.find((path) => path && existsSync(path))
}

/** One in a process: PKCS #11 modules have the state of the process. */
export function startSoftHsm(): SoftHsm {
  const folder = mkdtempSync(join(tmpdir(), 'waxseal-softhsm-'))
  const tokens = join(folder, 'tokens')
  mkdirSync(tokens)
  const SOFTHSM2_CONF = join(folder, 'softhsm2.conf')
  writeFileSync(SOFTHSM2_CONF, `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`)
  process.env.SOFTHSM2_CONF = SOFTHSM2_CONF
  const { PKCS11 } = native('pkcs11js') as { PKCS11: new () => TestModule }
  const module = new PKCS11()
  module.load(library()!)
  module.C_Initialize()
  /** The module finds new tokens and misses old ones only when it starts. */
  const restart = (): void => {
    module.C_Finalize()
    module.C_Initialize()
  }
  const folders = new Map<string, string>()

  return {
    module,
    token(label) {
      const before = readdirSync(tokens)
      const args = ['--init-token', '--free', '--label', label, '--pin', PIN, '--so-pin', SO_PIN]
      execFileSync('softhsm2-util', args, { env: { ...process.env, SOFTHSM2_CONF }, stdio: 'ignore' })
      folders.set(label, readdirSync(tokens).find((name) => !before.includes(name))!)
      restart()
    },
    key(token, label, { bytes = 32, extractable = false, id, may = true } = {}) {
      const slot = module.C_GetSlotList(true).find((one) => module.C_GetTokenInfo(one).label.trim() === token)!
      const session = module.C_OpenSession(slot, 4 | 2)
      module.C_Login(session, 1, PIN)
      // CKM_AES_KEY_GEN; the attributes that docs/guides/kms/pkcs11.md names.
      module.C_GenerateKey(session, { mechanism: 0x1080 }, [
        { type: 0x00, value: 4 }, // CKA_CLASS: CKO_SECRET_KEY
        { type: 0x100, value: 0x1f }, // CKA_KEY_TYPE: CKK_AES
        { type: 0x161, value: bytes }, // CKA_VALUE_LEN
        { type: 0x01, value: true }, // CKA_TOKEN
        { type: 0x02, value: true }, // CKA_PRIVATE
        { type: 0x103, value: true }, // CKA_SENSITIVE
        { type: 0x162, value: extractable }, // CKA_EXTRACTABLE
        { type: 0x106, value: may }, // CKA_WRAP
        { type: 0x107, value: may }, // CKA_UNWRAP
        { type: 0x104, value: false }, // CKA_ENCRYPT
        { type: 0x105, value: false }, // CKA_DECRYPT
        { type: 0x03, value: label }, // CKA_LABEL
        ...(id ? [{ type: 0x102, value: id }] : []), // CKA_ID
      ])
      module.C_CloseSession(session)
    },
    remove(token) {
      rmSync(join(tokens, folders.get(token)!), { recursive: true })
      restart()
    },
    stop() {
      module.C_Finalize()
      module.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
