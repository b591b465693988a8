import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { type ErrorCode, WaxsealError } from 'waxseal'
import type { KmsDriver, KmsFailure } from '../../src/kms/kms.ts'
import { unwrapKey, wrapKey } from '../../src/kms/wraps.ts'
import { refusal } from '../keyring/support.ts'
import { CONTEXT, fakeKms, KEY, rootsOf, STORED, URI } from './requests.ts'

/** What the errors of a client come to, and what of them is kept. */
async function failed(thrown: unknown, more: Partial<KmsDriver> = {}): Promise<WaxsealError> {
  const kms = fakeKms(() => {
    throw thrown
  }, more)
  const unwrapping = await refusal(() => unwrapKey(rootsOf([kms], { attempts: 1 }), STORED, CONTEXT, () => true))
  const wrapping = await refusal(() => wrapKey(rootsOf([kms], { attempts: 1 }), KEY, CONTEXT))
  expect([wrapping.code, wrapping.cause]).toEqual([unwrapping.code, unwrapping.cause])
  return unwrapping
}

/** Where clients put an HTTP status. */
const PLACES: Record<string, (status: unknown) => object> = {
  status: (status) => ({ status }),
  statusCode: (statusCode) => ({ statusCode }),
  '$metadata.httpStatusCode': (httpStatusCode) => ({ $metadata: { httpStatusCode } }),
  'response.status': (status) => ({ response: { status } }),
  'response.statusCode': (statusCode) => ({ response: { statusCode } }),
}

const MEANING: readonly [number, ErrorCode][] = [
  [400, 'KMS_UNAVAILABLE'],
  [401, 'KMS_DENIED'],
  [403, 'KMS_DENIED'],
  [404, 'KMS_DENIED'],
  [408, 'KMS_UNAVAILABLE'],
  [429, 'KMS_UNAVAILABLE'],
  [500, 'KMS_UNAVAILABLE'],
  [503, 'KMS_UNAVAILABLE'],
]

describe('an HTTP status', () => {
  const cases = Object.keys(PLACES).flatMap((place) => MEANING.map(([status, code]) => ({ place, status, code })))

  it.each(cases)('of $status in $place is $code', async ({ place, status, code }) => {
    const error = await failed(Object.assign(new Error('no'), PLACES[place]!(status)))
    expect(error).toMatchObject({ code, retryable: code === 'KMS_UNAVAILABLE' })
    expect(error.cause).toEqual({ name: 'Error', message: `HTTP status ${status}` })
    expect((await failed(PLACES[place]!(status))).code).toBe(code)
  })

  it.each(Object.keys(PLACES))('that is text in %s is none', async (place) => {
    const error = await failed(Object.assign(new Error('no'), PLACES[place]!('403')))
    expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', cause: { message: 'no HTTP status' } })
  })

  it('is found behind places that hold something else', async () => {
    const thrown = { status: 'PERMISSION_DENIED', statusCode: null, $metadata: 'x', response: { status: 403 } }
    expect((await failed(thrown)).code).toBe('KMS_DENIED')
    expect((await failed({ response: null, $metadata: null, statusCode: 403 })).code).toBe('KMS_DENIED')
  })
})

describe('what a driver says of an error', () => {
  it.each<[KmsFailure, ErrorCode]>([
    ['denied', 'KMS_DENIED'],
    ['rejected', 'DECRYPTION_FAILED'],
    ['unavailable', 'KMS_UNAVAILABLE'],
  ])('%s is %s, whatever its status', async (failure, code) => {
    const thrown = Object.assign(new Error('no'), { status: failure === 'denied' ? 500 : 403 })
    const seen: unknown[] = []
    const failureOf = (error: unknown) => {
      seen.push(error)
      return failure
    }
    expect((await failed(thrown, { failureOf })).code).toBe(code)
    expect(seen).toEqual([thrown, thrown])
  })

  it('nothing of leaves it to the status', async () => {
    expect((await failed({ status: 403 }, { failureOf: () => undefined })).code).toBe('KMS_DENIED')
    expect((await failed({ status: 500 }, { failureOf: () => undefined })).code).toBe('KMS_UNAVAILABLE')
  })

  it.each([null, '', 'toString', '__proto__', 'DENIED', 7, {}, ['denied', 'x'], Symbol('denied')])(
    'that is nonsense leaves it to the status: %s',
    async (nonsense) => {
      const failureOf = () => nonsense as KmsFailure
      expect((await failed({ status: 404 }, { failureOf })).code).toBe('KMS_DENIED')
      expect((await failed(new Error('x'), { failureOf })).code).toBe('KMS_UNAVAILABLE')
    },
  )

  it('by throwing leaves it to the status, and what it threw is not told', async () => {
    const failureOf = (): never => {
      throw new Error(`cannot read ${KEY}`)
    }
    const error = await failed({ status: 403 }, { failureOf })
    expect(error.code).toBe('KMS_DENIED')
    expect(inspect(error)).not.toContain('cannot read')
  })

  it('is not asked of an error that is ours already', async () => {
    const ours = new WaxsealError('KMS_DENIED', 'no permission')
    const failureOf = (): never => {
      throw new Error('asked')
    }
    expect(await failed(ours, { failureOf })).toBe(ours)
  })
})

describe('what is kept of a client’s error', () => {
  const hex = Buffer.from(KEY).toString('hex')
  const base64 = Buffer.from(KEY).toString('base64')
  const loud = () =>
    Object.assign(new Error(`cannot wrap ${hex}: {"Plaintext":"${base64}"}`), {
      name: 'ValidationException',
      code: 'E_BODY',
      status: 500,
      body: base64,
      config: { data: base64 },
      request: { key: KEY },
      cause: new Error(hex),
      response: { status: 500, data: base64 },
    })

  /** Everything that a logger may print of an error. */
  const printed = (error: Error) =>
    [
      inspect(error, { depth: 20, showHidden: true }),
      inspect(error.cause, { depth: 20, showHidden: true }),
      JSON.stringify(error),
      JSON.stringify(Object.getOwnPropertyDescriptors(error)),
      String(error),
      error.stack,
    ].join('\n')

  it('is name, code and status, never message, body or request: a body may hold the key', async () => {
    const error = await failed(loud())
    expect(error.message).toBe(`kms.unwrap: ${URI} failed`)
    expect(error.cause).toEqual({ name: 'ValidationException', code: 'E_BODY', message: 'HTTP status 500' })
    expect(printed(error)).toContain('ValidationException')
    for (const form of [hex, base64, [...KEY].join(','), [...KEY].join(', ')])
      expect(printed(error)).not.toContain(form)
  })

  it.each<[string, object, object]>([
    ['a name with spaces', { name: `Error: ${hex}` }, { name: 'Error' }],
    ['a name of 81 characters', { name: 'x'.repeat(81) }, { name: 'Error' }],
    ['a name with a line break', { name: 'A\nB' }, { name: 'Error' }],
    ['an empty name', { name: '' }, { name: 'Error' }],
    ['a name that is an object', { name: { toString: () => hex } }, { name: 'Error' }],
    ['a code in base64', { code: base64 }, { name: 'Error' }],
    ['a code that is an object', { code: { key: hex } }, { name: 'Error' }],
    ['a code that is a list', { code: [hex] }, { name: 'Error' }],
    ['a code that is a number', { code: 7 }, { name: 'Error', code: '7' }],
    ['name and code that are words', { name: 'A.b-c_1', code: 'E.b-c_1' }, { name: 'A.b-c_1', code: 'E.b-c_1' }],
  ])('of %s', async (_, own, kept) => {
    const thrown = Object.defineProperties(new Error('m'), Object.getOwnPropertyDescriptors(own))
    const error = await failed(thrown)
    expect(error.cause).toEqual({ ...kept, message: 'no HTTP status' })
    expect(printed(error)).not.toContain(hex)
  })

  it('of one that throws when it is read is nothing, and it is KMS_UNAVAILABLE', async () => {
    const trap = (): never => {
      throw new Error(`trapped ${hex}`)
    }
    for (const key of ['status', 'response', '$metadata', 'name', 'code']) {
      const error = await failed(Object.defineProperty(new Error('m'), key, { get: trap }))
      expect([key, error.code, printed(error).includes('trapped')]).toEqual([key, 'KMS_UNAVAILABLE', false])
    }
  })
})

describe('the key that a driver is lent', () => {
  it('to wrap is a copy, which is wiped when the driver has answered', async () => {
    const kms = fakeKms(({ operation, input }) => (operation === 'wrap' ? input : Uint8Array.from(KEY)))
    const key = Uint8Array.from(KEY)
    await wrapKey(rootsOf([kms]), key, CONTEXT)
    expect(key).toEqual(KEY)
    expect(kms.asked[0]!.input).toEqual(KEY)
    expect(kms.asked[0]!.lent).toEqual(new Uint8Array(32))
    expect(kms.asked[0]!.lent).not.toBe(key)
  })

  it('is wiped at every try, also by a driver that fails, or throws before it makes a promise', async () => {
    const lent: Uint8Array[] = []
    const fail = (key: Uint8Array): never => {
      lent.push(key)
      throw new Error('no')
    }
    const asynchronous: KmsDriver = { keyUri: URI, wrap: async (key) => fail(key), unwrap: async () => KEY }
    const synchronous: KmsDriver = { keyUri: URI, wrap: fail, unwrap: async () => KEY }
    for (const kms of [asynchronous, synchronous]) {
      lent.length = 0
      const error = await refusal(() => wrapKey(rootsOf([kms], { attempts: 3 }), KEY, CONTEXT))
      expect(error.code).toBe('KMS_UNAVAILABLE')
      expect(lent).toEqual(Array(3).fill(new Uint8Array(32)))
    }
  })

  it('is wiped also when the driver answers with no promise', async () => {
    const lent: Uint8Array[] = []
    const wrap = (key: Uint8Array) => {
      lent.push(key)
      return Uint8Array.of(1) as never
    }
    await wrapKey(rootsOf([{ keyUri: URI, wrap, unwrap: async () => Uint8Array.from(KEY) }]), KEY, CONTEXT)
    expect(lent).toEqual([new Uint8Array(32)])
  })

  it('is not the one that it may spoil: a driver that overwrites what it is lent harms nobody', async () => {
    const kms = fakeKms(({ operation, lent, input }) => {
      lent.fill(0xff)
      return operation === 'wrap' ? input : Uint8Array.from(KEY)
    })
    const key = Uint8Array.from(KEY)
    const [wrap] = await wrapKey(rootsOf([kms]), key, CONTEXT)
    expect([key, wrap!.wrapped]).toEqual([KEY, Buffer.from(KEY).toString('base64url')])
  })

  it('back from an unwrap at wrap time is wiped, and so is a wrong one', async () => {
    const answers = [Uint8Array.from(KEY), Uint8Array.from(KEY).fill(9)]
    for (const answer of answers) {
      const kms = fakeKms(({ operation }) => (operation === 'wrap' ? Uint8Array.of(1) : answer))
      await wrapKey(rootsOf([kms], { attempts: 1 }), KEY, CONTEXT).catch(() => undefined)
      expect(answer).toEqual(new Uint8Array(32))
    }
  })
})
