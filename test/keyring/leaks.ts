import { inspect } from 'node:util'
import { vi } from 'vitest'
import { type Engine, nodeEngine } from 'waxseal/engine'

/** Node's engine, keeping a copy of every key that it draws or derives. */
export function recordingEngine(known: Uint8Array[]): Engine {
  const inner = nodeEngine()!
  return {
    ...inner,
    randomKey(length) {
      const key = inner.randomKey(length)
      if (length === 32) known.push(Uint8Array.from(key)) // ids are shorter, and public
      return key
    },
    hmacSha512(key, data) {
      const out = inner.hmacSha512(key, data)
      known.push(Uint8Array.from(out.subarray(0, 32)), Uint8Array.from(out))
      return out
    },
  }
}

/** Every way in which bytes turn up in text. */
export const FORMS: Record<string, (bytes: Uint8Array) => string> = {
  hex: (bytes) => Buffer.from(bytes).toString('hex'),
  'hex, in capitals': (bytes) => Buffer.from(bytes).toString('hex').toUpperCase(),
  'hex, as Buffers print': (bytes) =>
    Buffer.from(bytes)
      .toString('hex')
      .replace(/..(?=.)/g, '$& '),
  base64: (bytes) => Buffer.from(bytes).toString('base64').replace(/=+$/, ''),
  base64url: (bytes) => Buffer.from(bytes).toString('base64url'),
  latin1: (bytes) => Buffer.from(bytes).toString('latin1'),
  'a list of decimals': (bytes) => [...bytes].join(','),
  'a list of decimals with spaces': (bytes) => [...bytes].join(', '),
  'members of an object': (bytes) => JSON.stringify(Uint8Array.from(bytes)).slice(1, -1),
}

/** Which of `secrets` is in `text`, in which form. */
export function found(text: string, secrets: readonly Uint8Array[]): string[] {
  const dense = text.replace(/\s+/g, ' ')
  return Object.entries(FORMS).flatMap(([form, encode]) =>
    secrets.flatMap((bytes, i) =>
      dense.includes(encode(bytes)) || text.includes(encode(bytes)) ? [`${i}, ${form}`] : [],
    ),
  )
}

/** How an object is printed, by everything that prints. */
export function printed(value: unknown): string {
  const lines: string[] = []
  const spies = (['log', 'error', 'dir', 'table'] as const).map((name) =>
    vi
      .spyOn(console, name)
      .mockImplementation((...args: unknown[]) => void lines.push(...args.map((arg) => inspect(arg)))),
  )
  console.log(value)
  console.error('keys:', { value })
  for (const spy of spies) spy.mockRestore()
  const options = { depth: Number.POSITIVE_INFINITY, showHidden: true, maxArrayLength: null, maxStringLength: null }
  lines.push(inspect(value, options), inspect([value], options), inspect({ value }, { ...options, getters: true }))
  lines.push(inspect(value, { ...options, customInspect: false }))
  lines.push(JSON.stringify(value) ?? '', JSON.stringify({ value }), String(value))
  return lines.join('\n')
}
