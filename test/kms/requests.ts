import { createCipheriv } from 'node:crypto'
import { nodeEngine } from 'waxseal/engine'
import type { KmsContext, KmsDriver } from '../../src/kms/kms.ts'
import { checkPatience, type KmsPatience } from '../../src/kms/portable.ts'

export const KEY = Uint8Array.from({ length: 32 }, (_, i) => i + 1)
export const CONTEXT: KmsContext = { 'waxseal:keyring': 'k', 'waxseal:key': 'integrity' }
export const BLOB = Uint8Array.of(1, 2, 3)
/** Of every fake driver here. */
export const URI = 'fake:1'
export const STORED = [{ uri: URI, wrapped: Buffer.from(BLOB).toString('base64url') }]

/** Root keys as a keyring has them; no pauses between tries unless asked for. */
export const rootsOf = (drivers: readonly KmsDriver[], patience: KmsPatience = {}) => ({
  drivers,
  patience: checkPatience({ backoffMs: 0, ...patience }),
  engine: nodeEngine()!,
})

export interface Asked {
  readonly operation: 'wrap' | 'unwrap'
  /** The very buffer that the driver was lent. */
  readonly lent: Uint8Array
  /** What stood in it then. */
  readonly input: Uint8Array
  readonly context: KmsContext
  readonly signal: AbortSignal | undefined
}

export interface FakeKms extends KmsDriver {
  readonly asked: Asked[]
}

/** A driver whose service answers, or throws, what a test wants. */
export function fakeKms(answer: (asked: Asked, count: number) => unknown, more: Partial<KmsDriver> = {}): FakeKms {
  const asked: Asked[] = []
  const ask =
    (operation: Asked['operation']) => async (lent: Uint8Array, context: KmsContext, signal?: AbortSignal) => {
      const one = { operation, lent, input: Uint8Array.from(lent), context, signal }
      asked.push(one)
      return (await answer(one, asked.length)) as Uint8Array
    }
  return { keyUri: URI, wrap: ask('wrap'), unwrap: ask('unwrap'), ...more, asked }
}

/**
 * A service that takes no context, and has nothing but a key: AES-256-CTR, the worst that a driver may bring. Whatever
 * authenticates and binds is the portable layer's.
 */
export function mutePads(uri = 'mute:1', root = 7): FakeKms {
  return fakeKms(
    ({ input }) => {
      const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, root), Buffer.alloc(16))
      return Uint8Array.from(Buffer.concat([cipher.update(input), cipher.final()]))
    },
    { keyUri: uri, ignoresContext: true },
  )
}

/** A promise and its handles. */
export function deferred<T>() {
  let resolve: (value: T) => void = () => undefined
  let reject: (error: unknown) => void = () => undefined
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
