import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Keyring, WaxsealError } from '../index.ts'
import type { RotationSource } from '../rotation/index.ts'
import { usage } from './options.ts'

/** What the configuration module gives. */
export interface CliConfig {
  readonly keys: Keyring
  /** Every table that holds rows under the keyring. */
  readonly tables: readonly RotationSource[]
  readonly close?: () => unknown
}

const NAMES = ['waxseal.config.js', 'waxseal.config.mjs']

/** Loads the module, calls what it exports if that is a function, and checks what comes of it. */
export async function loadConfig(given: string | undefined): Promise<CliConfig> {
  const path = given ?? NAMES.find((name) => existsSync(name))
  if (path === undefined || !existsSync(path)) {
    throw usage('config', `no configuration: expected --config, or ${NAMES.join(' or ')} in this folder`)
  }
  const module = await found(path)
  const exported = module.default ?? module.config
  const made = typeof exported === 'function' ? await opened(exported as () => unknown) : exported
  const { keys, tables, close } = (made ?? {}) as Partial<CliConfig>
  const isTable = (table: unknown): boolean => typeof (table as RotationSource | null)?.countByKey === 'function'
  const isFine =
    typeof keys?.status === 'function' &&
    Array.isArray(tables) &&
    tables.length > 0 &&
    tables.every(isTable) &&
    (close === undefined || typeof close === 'function')
  if (!isFine) {
    throw usage('config', 'the module expected to export { keys, tables, close? }, or a function that resolves to it')
  }
  return made as CliConfig
}

async function found(path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>
  } catch (cause) {
    if (WaxsealError.is(cause)) throw cause // what it opens at its top level may be away
    const isTypeScript = (cause as { code?: unknown } | null)?.code === 'ERR_UNKNOWN_FILE_EXTENSION'
    const hint = isTypeScript ? "; for TypeScript install tsx and set NODE_OPTIONS='--import tsx'" : ''
    throw new WaxsealError('CONFIG', `the module could not be loaded: ${messageOf(cause)}${hint}`, {
      argument: 'config',
      cause,
    })
  }
}

const opened = async (open: () => unknown): Promise<unknown> => open()

export const messageOf = (error: unknown): string =>
  (error instanceof Error && (error.message || (error as { code?: string }).code)) || 'unknown error'
