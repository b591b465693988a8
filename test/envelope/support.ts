import type { KeyEvent, Keys, OnEvent } from 'waxseal'
import { type ErrorCode, WaxsealError } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { nobleEngine } from '../../src/engine/noble.ts'
import { nodeCrypto, nodeEngine } from '../../src/engine/node.ts'
import { type KeySource, SOURCE } from '../../src/envelope/keys.ts'

export const ENGINES = [
  { engineName: 'node', engine: nodeEngine(nodeCrypto()!) },
  { engineName: 'noble', engine: nobleEngine() },
] as const

export const SUITE_IDS = [1, 2] as const

/** nonce and tag of a suite, and its header. */
export const SIZES = { 1: { nonce: 12, header: 93 }, 2: { nonce: 24, header: 125 } } as const

/** A handle around a bare key source. */
export function handleOf(source: KeySource): Keys {
  const keys: Keys = { name: 'bare', as: () => keys, ready: async () => undefined, [SOURCE]: source }
  return keys
}

/** A test keyring that keeps what its listener is told. */
export function listening(options: Parameters<typeof testKeyring>[0] = {}) {
  const events: KeyEvent[] = []
  const onEvent: OnEvent = (event) => void events.push(event)
  return { keys: testKeyring({ ...options, onEvent }), events }
}

/** The WaxsealError that `fn` throws; anything else, and nothing, fails the test. */
export function refusal(fn: () => unknown): WaxsealError {
  try {
    fn()
  } catch (error) {
    if (error instanceof WaxsealError) return error
    throw new Error(`expected a WaxsealError, got ${String(error)}`, { cause: error })
  }
  throw new Error('expected a WaxsealError, but nothing was thrown')
}

/** The code of the WaxsealError that `fn` throws. */
export const code = (fn: () => unknown): ErrorCode => refusal(fn).code

/** What bytes that somebody tampered with may end in. */
export const TAMPERED: readonly ErrorCode[] = ['MALFORMED', 'DECRYPTION_FAILED', 'UNKNOWN_KEY', 'KEY_NOT_LOADED']

/** The same bytes with bit `bit` flipped. */
export function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const flipped = Uint8Array.from(bytes)
  flipped[bit >> 3]! ^= 1 << (bit & 7)
  return flipped
}

export const bytesOfHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))
export const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** Prefix and base64url → bytes. */
export const unwrapText = (stored: string): Uint8Array => Uint8Array.from(Buffer.from(stored.slice(4), 'base64url'))
export const asText = (prefix: string, bytes: Uint8Array): string =>
  prefix + Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url')
