import { describe, expect, it, vi } from 'vitest'
import { createKeyring, openKeyring, WaxsealError } from 'waxseal'
import { nodeEngine } from 'waxseal/engine'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { type KmsDriver, localKms } from 'waxseal/kms/local'
import { type KmsContext, MAX_WRAPPED_BYTES, type Wrap } from '../../src/kms/kms.ts'
import { checkPatience } from '../../src/kms/portable.ts'
import * as wraps from '../../src/kms/wraps.ts'
import { refusal, watchedKms, watchedStore } from '../keyring/support.ts'

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'k', 'waxseal:key': 'integrity' }
const STORED = [{ uri: 'fake:1', wrapped: 'AAAA' }]

/** One driver, without the pauses between tries. */
const roots = (driver: KmsDriver) => ({
  drivers: [driver],
  patience: checkPatience({ attempts: 2, backoffMs: 0 }),
  engine: nodeEngine()!,
})
const wrapKey = async (driver: KmsDriver, key: Uint8Array, context: KmsContext): Promise<Wrap> =>
  (await wraps.wrapKey(roots(driver), key, context))[0]!
const unwrapKey = (driver: KmsDriver, stored: readonly Wrap[], context: KmsContext): Promise<Uint8Array> =>
  wraps.unwrapKey(roots(driver), stored, context, () => true)

/** A driver whose service answers, or throws, what a test wants. */
function fake(answer: () => unknown): KmsDriver & { calls: unknown[][] } {
  const calls: unknown[][] = []
  const request = async (...args: unknown[]) => {
    calls.push(args.map((arg) => (arg instanceof Uint8Array ? Uint8Array.from(arg) : arg)))
    return answer() as Uint8Array
  }
  return { keyUri: 'fake:1', wrap: request, unwrap: request, calls }
}

function throws(error: unknown): () => never {
  return () => {
    throw error
  }
}

describe('what a driver throws', () => {
  /** As the clients of cloud services throw: with the request and its body on them. */
  const vendor = Object.assign(new Error('socket hang up'), {
    name: 'TimeoutError',
    code: 'ECONNRESET',
    body: 'plaintext key',
    $response: { body: 'plaintext key' },
  })

  it.each(['wrap', 'unwrap'] as const)(
    'unknown to us becomes KMS_UNAVAILABLE, with a reduced cause: %s',
    async (call) => {
      const kms = fake(throws(vendor))
      const error = await refusal(() =>
        call === 'wrap' ? wrapKey(kms, KEY, CONTEXT) : unwrapKey(kms, STORED, CONTEXT),
      )
      expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect(error.message).toContain(`kms.${call}`)
      expect(error.cause).toEqual({ name: 'TimeoutError', code: 'ECONNRESET', message: 'no HTTP status' })
      expect(JSON.stringify(error) + JSON.stringify(error.cause) + error.stack).not.toContain('plaintext key')
    },
  )

  it.each<[string, unknown]>([
    ['text', 'plaintext key'],
    ['an object', { body: 'plaintext key' }],
    ['nothing', undefined],
  ])('that is %s and no Error becomes KMS_UNAVAILABLE', async (_, thrown) => {
    const error = await refusal(() => unwrapKey(fake(throws(thrown)), STORED, CONTEXT))
    expect(error.code).toBe('KMS_UNAVAILABLE')
    expect(error.cause).toEqual({ name: 'Error', message: 'no HTTP status' })
  })

  it.each(['KMS_DENIED', 'KMS_UNAVAILABLE', 'DECRYPTION_FAILED'] as const)('as %s passes through', async (code) => {
    const thrown = new WaxsealError(code, 'from the driver')
    expect(await refusal(() => wrapKey(fake(throws(thrown)), KEY, CONTEXT))).toBe(thrown)
    expect(await refusal(() => unwrapKey(fake(throws(thrown)), STORED, CONTEXT))).toBe(thrown)
  })

  it('while a keyring is created leaves nothing in the store', async () => {
    const store = watchedStore()
    const kms = watchedKms()
    kms.broken = vendor
    const patience = { attempts: 1 }
    expect(await refusal(() => createKeyring({ name: 'crm', store, kms, patience }))).toMatchObject({
      code: 'KMS_UNAVAILABLE',
    })
    expect(store.document).toBeUndefined()
  })
})

describe('an answer', () => {
  it.each<[string, unknown]>([
    ['no bytes', new Uint8Array(0)],
    ['too many bytes', new Uint8Array(MAX_WRAPPED_BYTES + 1)],
    ['text', 'AAAA'],
    ['undefined', undefined],
    ['null', null],
    ['a list', [1, 2, 3]],
  ])('to wrap of %s is refused', async (_, answer) => {
    const error = await refusal(() =>
      wrapKey(
        fake(() => answer),
        KEY,
        CONTEXT,
      ),
    )
    expect(error.code).toBe('KMS_UNAVAILABLE')
  })

  it('to wrap of 16 KiB is the largest, and is stored as base64url beside the URI', async () => {
    const largest = { ...fake(() => new Uint8Array(MAX_WRAPPED_BYTES)), unwrap: async () => Uint8Array.from(KEY) }
    const wrap = await wrapKey(largest, KEY, CONTEXT)
    expect(wrap).toEqual({ uri: 'fake:1', wrapped: 'A'.repeat(21_846) })
    const kms = fake(() => KEY)
    expect(await unwrapKey(kms, [wrap], CONTEXT)).toEqual(KEY)
    expect(kms.calls).toEqual([[new Uint8Array(MAX_WRAPPED_BYTES), CONTEXT, expect.any(AbortSignal)]])
  })

  it.each<[string, unknown]>([
    ['no bytes', new Uint8Array(0)],
    ['16 bytes', new Uint8Array(16)],
    ['31 bytes', new Uint8Array(31)],
    ['33 bytes', new Uint8Array(33)],
    ['text', 'A'.repeat(32)],
    ['undefined', undefined],
    ['a list', Array(32).fill(0)],
  ])('to unwrap of %s is refused', async (_, answer) => {
    const error = await refusal(() =>
      unwrapKey(
        fake(() => answer),
        STORED,
        CONTEXT,
      ),
    )
    expect(error.code).toBe('DECRYPTION_FAILED')
  })
})

describe('a stored wrap', () => {
  it('whose URI is not the configured one is CONFIG, and nobody is asked', async () => {
    const kms = fake(() => KEY)
    const foreign = [{ uri: 'https://evil.example/keys/1', wrapped: 'AAAA' }]
    const error = await refusal(() => unwrapKey(kms, foreign, CONTEXT))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'kms' })
    expect(error.message).toContain('https://evil.example/keys/1')
    expect(error.message).toContain('fake:1')
    expect(kms.calls).toEqual([])
  })

  it.each(['fake:1/', 'FAKE:1', ' fake:1', 'fake:10', 'fake:'])(
    'with the URI %j is not that of fake:1',
    async (uri) => {
      const error = await refusal(() =>
        unwrapKey(
          fake(() => KEY),
          [{ uri, wrapped: 'AAAA' }],
          CONTEXT,
        ),
      )
      expect(error.code).toBe('CONFIG')
    },
  )

  it('is never dialled: no network is touched by opening a keyring whose URIs were edited', async () => {
    const dial = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new Error('dialled'))
    const kms = localKms(KEY)
    const store = watchedStore()
    await createKeyring({ name: 'crm', store, kms })
    const text = JSON.stringify(store.document).replaceAll(kms.keyUri, 'https://evil.example/keys/1')
    const edited = memoryKeyStore({ crm: JSON.parse(text) })
    expect(await refusal(() => openKeyring({ name: 'crm', store: edited, kms }))).toMatchObject({ code: 'CONFIG' })
    expect(dial).not.toHaveBeenCalled()
    dial.mockRestore()
  })

  it('is found among several by its URI', async () => {
    const kms = fake(() => KEY)
    const wraps = [{ uri: 'other:1', wrapped: 'BBBB' }, ...STORED, { uri: 'fake:1', wrapped: 'CCCC' }]
    await unwrapKey(kms, wraps, CONTEXT)
    expect(kms.calls).toEqual([[new Uint8Array(3), CONTEXT, expect.any(AbortSignal)]])
  })

  it.each(['AA==', 'AAA+', 'A', 'AB', 'AA A', 'AA\n'])(
    'of text %j, which is not canonical, is MALFORMED',
    async (wrapped) => {
      const kms = fake(() => KEY)
      expect(await refusal(() => unwrapKey(kms, [{ uri: 'fake:1', wrapped }], CONTEXT))).toMatchObject({
        code: 'MALFORMED',
      })
      expect(kms.calls).toEqual([])
    },
  )

  it('that is larger than any service makes is refused before the service is asked', async () => {
    const kms = fake(() => KEY)
    const huge = [{ uri: 'fake:1', wrapped: 'A'.repeat(1 << 20) }]
    expect(await refusal(() => unwrapKey(kms, huge, CONTEXT))).toMatchObject({ code: 'MALFORMED' })
    expect(kms.calls).toEqual([])
  })
})
