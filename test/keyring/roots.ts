import { localKms } from 'waxseal/kms/local'
import type { KmsContext, KmsDriver } from '../../src/kms/kms.ts'

/** A root key in one region: counts what it is asked, and fails as a test wants. */
export interface Region extends KmsDriver {
  wraps: number
  unwraps: number
  /** Requests under way at the moment, and at most. */
  now: number
  most: number
  /** Thrown by every call while it is set. */
  down: unknown
  /** Answers an unwrap instead of the service. */
  lie: ((context: KmsContext, truth: Uint8Array) => unknown) | undefined
  /** Waited for before every answer. */
  slow: (() => Promise<unknown>) | undefined
  /** What an unwrap handed out: the very buffers. */
  readonly handed: Uint8Array[]
}

/** As a client fails that cannot reach its service, and one whose identity was taken away. */
export const AWAY = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' })
export const DENIED = Object.assign(new Error('AccessDenied'), { status: 403 })

export function region(root: number): Region {
  const inner = localKms(new Uint8Array(32).fill(root))
  async function during<T>(work: () => Promise<T>): Promise<T> {
    kms.most = Math.max(kms.most, ++kms.now)
    try {
      await kms.slow?.()
      if (kms.down !== undefined) throw kms.down
      return await work()
    } finally {
      kms.now--
    }
  }
  const kms: Region = {
    keyUri: inner.keyUri,
    wraps: 0,
    unwraps: 0,
    now: 0,
    most: 0,
    down: undefined,
    lie: undefined,
    slow: undefined,
    handed: [],
    async wrap(key, context) {
      kms.wraps++
      return during(() => inner.wrap(key, context))
    },
    async unwrap(blob, context) {
      kms.unwraps++
      return during(async () => {
        const truth = Uint8Array.from(await inner.unwrap(blob, context))
        const answer = (kms.lie ? kms.lie(context, truth) : truth) as Uint8Array
        kms.handed.push(answer)
        return answer
      })
    },
  }
  return kms
}

/** Key ids that a KMS is asked for, without the integrity key. */
export const keyIn = (context: KmsContext): string => context['waxseal:key']!
