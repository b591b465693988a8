import { promises as fs } from 'node:fs'

/**
 * `node:fs/promises` that counts its calls, those of file handles too, and lets `instant` decide before each of them:
 * it may throw, or end the process. It stands in for the module in the tests of faults.
 */
export const faults: { instant: (call: string, path: unknown) => void } = { instant: () => {} }

type AnyCall = (...given: unknown[]) => Promise<unknown>

function counted(name: string): AnyCall {
  return async (...given) => {
    faults.instant(name, given[0])
    return (fs as unknown as Record<string, AnyCall>)[name]!(...given)
  }
}

export async function open(...given: unknown[]): Promise<unknown> {
  faults.instant('open', given[0])
  const handle = await (fs.open as unknown as AnyCall)(...given)
  return new Proxy(handle as Record<string, unknown>, {
    get(target, call: string) {
      const value = target[call]
      if (typeof value !== 'function') return value
      return async (...args: unknown[]) => {
        // A fault of close() leaves the handle open, as nowhere in nature.
        if (call !== 'close') faults.instant(call, given[0])
        return value.apply(target, args)
      }
    },
  })
}

export const link = counted('link')
export const mkdir = counted('mkdir')
export const readFile = counted('readFile')
export const readdir = counted('readdir')
export const readlink = counted('readlink')
export const rename = counted('rename')
export const stat = counted('stat')
export const unlink = counted('unlink')
export const writeFile = counted('writeFile')
