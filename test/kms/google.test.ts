import { inspect } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { type GoogleKmsClient, googleKms, type KmsDriver } from 'waxseal/kms/google'
import { kmsSuite } from 'waxseal/testing'
import { CONTEXT, codeOf, KEY, OTHER, once, unwrapped, wrapped } from './imitations/asked.ts'
import {
  type Answer,
  type Code,
  type Connected,
  crc32c,
  type Fault,
  GoogleImitation,
  overGrpc,
  overRest,
} from './imitations/google.ts'

const RING = 'projects/shop/locations/europe-west1/keyRings/waxseal/cryptoKeys'
const [CRM, HR] = [`${RING}/crm`, `${RING}/hr`]
// Without it the client asks the network whether it runs on Google's machines.
vi.stubEnv('METADATA_SERVER_DETECTION', 'none')

it('the imitation’s checksum is CRC-32C: the check value of its catalogue entry', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
})

describe.each([
  ['gRPC', overGrpc],
  ['REST', overRest],
] as const)('Google’s client over %s', (transport, connect) => {
  const kms = new GoogleImitation()
  let connected: Connected
  let driver: KmsDriver
  const make = (keyName = CRM): KmsDriver => googleKms({ client: connected.client, keyName })

  beforeAll(async () => {
    connected = await connect(kms)
    driver = make()
  })
  afterAll(() => connected.close())
  beforeEach(() => {
    kms.create(CRM)
    kms.create(HR)
    kms.faults.length = 0
    kms.calls.length = 0
  })

  kmsSuite(
    { describe, it, expect, inspect },
    {
      name: `googleKms over ${transport}`,
      make: () => make(),
      other: () => make(HR),
      hanging: () => {
        kms.faults.push(...Array.from({ length: 4 }, (): Fault => () => 'hang'))
        return make()
      },
    },
  )

  it('sends the pairs as canonical JSON, once a call', async () => {
    await driver.unwrap(await driver.wrap(KEY, { b: 'é"', a: '2', B: '3' }), { B: '3', a: '2', b: 'é"' })
    const aad = '[["B","3"],["a","2"],["b","é\\""]]'
    expect(kms.calls.map((call) => [call.method, call.name, call.aad])).toEqual([
      ['encrypt', CRM, aad],
      ['decrypt', CRM, aad],
    ])
  })

  it('opens what an older version of the key wrapped', async () => {
    const wraps = await wrapped(driver)
    kms.rotate(CRM)
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
    expect(await codeOf(unwrapped(driver, wraps, OTHER))).toBe('DECRYPTION_FAILED')
  })

  it.each([
    ['denied', 'KMS_DENIED'],
    ['disabled', 'KMS_DENIED'],
    ['asymmetric', 'KMS_DENIED'],
  ] as const)('a key that is %s is %s, and asked once', async (state, code) => {
    kms.keys.get(CRM)!.state = state
    expect(await codeOf(wrapped(driver))).toBe(code)
    expect(kms.calls).toHaveLength(1)
  })

  it('a key that is not there is KMS_DENIED', async () => {
    expect(await codeOf(wrapped(make(`${RING}/none`)))).toBe('KMS_DENIED')
    expect(await codeOf(once(make(`${RING}/none`), 'unwrap'))).toBe('KMS_DENIED')
    expect(kms.calls).toHaveLength(2)
  })

  it.each<[Code, string]>([
    [3, 'DECRYPTION_FAILED'],
    [4, 'KMS_UNAVAILABLE'],
    [5, 'KMS_DENIED'],
    [7, 'KMS_DENIED'],
    [8, 'KMS_UNAVAILABLE'],
    [9, 'KMS_DENIED'],
    [10, 'KMS_UNAVAILABLE'],
    [12, 'KMS_DENIED'],
    [13, 'KMS_UNAVAILABLE'],
    [14, 'KMS_UNAVAILABLE'],
    [16, 'KMS_DENIED'],
  ])('status %i at decrypting is %s', async (code, expected) => {
    const blob = await driver.wrap(KEY, CONTEXT)
    kms.faults.push(() => ({ code, message: 'told to' }))
    expect(await codeOf(once(driver, 'unwrap', blob))).toBe(expected)
  })

  it('throttled, then broken, then well: the third request is answered; the client does not retry by itself', async () => {
    const wraps = await wrapped(driver)
    kms.calls.length = 0
    kms.faults.push(
      () => ({ code: 8, message: 'quota' }),
      () => ({ code: 14, message: 'try again' }),
    )
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
    expect(kms.calls).toHaveLength(3)
    kms.faults.push(...Array.from({ length: 3 }, (): Fault => () => ({ code: 14, message: 'down' })))
    expect(await codeOf(unwrapped(driver, wraps))).toBe('KMS_UNAVAILABLE')
    expect(kms.calls).toHaveLength(6)
  })

  it('gives up a request that hangs, and asks again', async () => {
    const wraps = await wrapped(driver)
    kms.faults.push(() => 'hang')
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
  })

  const changed =
    (change: Answer): Fault =>
    (answer) => ({ ...answer, ...change })
  const without =
    (field: keyof Answer): Fault =>
    (answer) =>
      Object.fromEntries(Object.entries(answer).filter(([name]) => name !== field))
  const flipped =
    (field: 'plaintext' | 'ciphertext'): Fault =>
    (answer) => ({ ...answer, [field]: (answer as Answer)[field]!.map((byte, i) => byte ^ Number(i === 20)) })
  const garbled =
    (field: string): Fault =>
    () => ({ code: 3, message: `The checksum in field ${field}_crc32c did not match the data in field ${field}.` })

  it.each<[string, 'wrap' | 'unwrap', Fault]>([
    ['a ciphertext with a bit flipped', 'wrap', flipped('ciphertext')],
    ['a wrong checksum of the ciphertext', 'wrap', changed({ ciphertextCrc32c: { value: '1' } })],
    ['no checksum of the ciphertext', 'wrap', without('ciphertextCrc32c')],
    ['an unverified key', 'wrap', changed({ verifiedPlaintextCrc32c: false })],
    ['unverified AAD', 'wrap', without('verifiedAdditionalAuthenticatedDataCrc32c')],
    ['the name of another key', 'wrap', changed({ name: `${HR}/cryptoKeyVersions/1` })],
    ['the name of a key that begins alike', 'wrap', changed({ name: `${CRM}2/cryptoKeyVersions/1` })],
    ['no ciphertext', 'wrap', without('ciphertext')],
    ['a request that arrived changed', 'wrap', garbled('plaintext')],
    ['a key with a bit flipped', 'unwrap', flipped('plaintext')],
    ['a wrong checksum of the key', 'unwrap', changed({ plaintextCrc32c: { value: '1' } })],
    ['no checksum of the key', 'unwrap', without('plaintextCrc32c')],
    ['a ciphertext that arrived changed', 'unwrap', garbled('ciphertext')],
  ])('does not believe %s, and asks again', async (_, operation, fault) => {
    const input = operation === 'wrap' ? KEY : await driver.wrap(KEY, CONTEXT)
    kms.faults.push(fault)
    expect(await codeOf(once(driver, operation, input))).toBe('KMS_UNAVAILABLE')
    expect(await once(driver, operation, input)).toBeInstanceOf(Uint8Array)
  })

  it('an answer that is no key at all, with a right checksum, is not taken for one', async () => {
    const blob = await driver.wrap(KEY, CONTEXT)
    kms.faults.push(() => {
      const plaintext = Buffer.alloc(70_000)
      return { plaintext, plaintextCrc32c: { value: String(crc32c(plaintext)) } }
    })
    const wraps = [{ uri: driver.keyUri, wrapped: Buffer.from(blob).toString('base64url') }]
    expect(await codeOf(unwrapped(driver, wraps))).toBe('DECRYPTION_FAILED')
  })

  it('an answer of another key is found out before it is believed', async () => {
    const stranger = Buffer.alloc(32, 1)
    const answer = { plaintext: stranger, plaintextCrc32c: { value: String(crc32c(stranger)) } }
    kms.faults.push(
      (real) => real,
      () => answer,
    )
    await wrapped(driver)
    expect(kms.calls.map(({ method }) => method)).toEqual(['encrypt', 'decrypt', 'encrypt', 'decrypt'])
  })
})

describe('a client of Google', () => {
  it('that signs with a key that is not known is KMS_DENIED', async () => {
    const connected = await overRest(new GoogleImitation(), { isKnown: false })
    expect(await codeOf(wrapped(googleKms({ client: connected.client, keyName: CRM })))).toBe('KMS_DENIED')
    await connected.close()
  })

  it('that finds no credentials is KMS_DENIED, without a rejection that nobody handles', async () => {
    const encrypt = vi.fn()
    const initialize = () => Promise.reject(new Error('Could not load the default credentials.'))
    const client = { initialize, encrypt, decrypt: encrypt } satisfies GoogleKmsClient
    expect(await codeOf(wrapped(googleKms({ client, keyName: CRM })))).toBe('KMS_DENIED')
    expect(encrypt).not.toHaveBeenCalled()
  })

  it('is cancelled where its promise can be, and a late answer is wiped', async () => {
    const plaintext = Buffer.from(KEY)
    let answer: (value: readonly [object]) => void = () => undefined
    const cancel = vi.fn()
    const call = () => {
      const made = new Promise<readonly [object]>((done) => {
        answer = done
      })
      return Object.assign(made, { cancel })
    }
    const driver = googleKms({ client: { encrypt: call, decrypt: call }, keyName: CRM })
    const controller = new AbortController()
    const asked = driver.unwrap(new Uint8Array(61), CONTEXT, controller.signal)
    await new Promise(setImmediate)
    controller.abort()
    await expect(asked).rejects.toThrow('aborted')
    expect(cancel).toHaveBeenCalledTimes(1)
    answer([{ plaintext, plaintextCrc32c: { value: crc32c(plaintext) } }])
    await new Promise(setImmediate)
    expect(plaintext.every((byte) => byte === 0)).toBe(true)
  })

  it('may give a checksum as a number or an object that prints as one', async () => {
    for (const value of [crc32c(KEY), { toString: () => String(crc32c(KEY)) }]) {
      const decrypt = async () => [{ plaintext: Uint8Array.from(KEY), plaintextCrc32c: { value } }] as const
      const client: GoogleKmsClient = { decrypt, encrypt: async () => [{}] }
      expect(await googleKms({ client, keyName: CRM }).unwrap(KEY, CONTEXT)).toEqual(KEY)
    }
  })

  const client: GoogleKmsClient = { encrypt: async () => [{}], decrypt: async () => [{}] }
  it.each([
    '',
    'crm',
    `${CRM}/cryptoKeyVersions/1`,
    `/${CRM}`,
    `${CRM}/`,
    `${CRM}\n`,
    CRM.replace('projects', 'folders'),
    CRM.replace('crm', 'c r m'),
    CRM.replace('shop', 's'.repeat(1024)),
    undefined,
    7,
  ])('is not asked for the key name %j: CONFIG', async (keyName) => {
    expect(await codeOf(() => googleKms({ client, keyName: keyName as string }))).toBe('CONFIG')
  })

  it('may be of a project in a domain', () => {
    const keyName = CRM.replace('shop', 'example.com:shop')
    expect(googleKms({ client, keyName }).keyUri).toBe(`google-kms:${keyName}`)
  })

  it('has to be one', async () => {
    expect(await codeOf(() => googleKms({ client: {} as never, keyName: CRM }))).toBe('CONFIG')
    expect(await codeOf(() => googleKms({ client: undefined as never, keyName: CRM }))).toBe('CONFIG')
  })

  it('tells nothing by an error that is none', () => {
    const { failureOf } = googleKms({ client, keyName: CRM })
    for (const error of [undefined, null, 'x', 7, {}, { code: 'ECONNRESET' }]) expect(failureOf!(error)).toBeUndefined()
  })
})
