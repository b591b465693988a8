import { inspect } from 'node:util'
import { KMS } from '@aws-sdk/client-kms'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { type AwsKmsClient, awsKms } from 'waxseal/kms/aws'
import { kmsSuite } from 'waxseal/testing'
import { checkPatience, request } from '../../src/kms/portable.ts'
import { NOTE, notes, refusal } from '../keyring/support.ts'
import { missing } from '../support/missing.ts'
import { type MotoServer, motoMissing, startMoto } from '../support/moto.ts'
import { type Fault, type FaultyProxy, startProxy } from '../support/proxy.ts'

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'A'.repeat(22), 'waxseal:key': 'integrity' }
const ARN = 'arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'
const MRK = 'arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab'
const patience = { ...checkPatience(), timeoutMs: 10_000 }
const SECRET = 'an-unmistakable-secret-access-key'

describe('awsKms', () => {
  const client: AwsKmsClient = { encrypt: async () => ({}), decrypt: async () => ({}) }

  it.each([
    ARN,
    MRK,
    ARN.replace('aws', 'aws-cn').replace('eu-central-1', 'cn-north-1'),
    ARN.replace('aws', 'aws-us-gov').replace('eu-central-1', 'us-gov-west-1'),
  ])('takes %s', (keyId) => {
    expect(awsKms({ client, keyId }).keyUri).toBe(`aws-kms:${keyId}`)
  })

  it.each<unknown>([
    undefined,
    '',
    'alias/waxseal',
    ARN.replace(/key\/.*/, 'alias/waxseal'),
    ARN.slice(ARN.indexOf('key/') + 4),
    ARN.toUpperCase(),
    ` ${ARN}`,
    `${ARN}\n`,
    ARN.replace('kms', 's3'),
    ARN.replace('111122223333', ''),
    `${ARN}0`,
    { toString: () => ARN },
  ])('refuses %o for a key at once', async (keyId) => {
    const error = await refusal(() => awsKms({ client, keyId: keyId as string }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'keyId' })
  })

  it.each<unknown>([undefined, null, {}, { encrypt: () => undefined }, { send: () => undefined }])(
    'refuses the client %o at once',
    async (wrong) => {
      const error = await refusal(() => awsKms({ client: wrong as AwsKmsClient, keyId: ARN }))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'client' })
    },
  )

  it.each([
    [{}, 'KMS_UNAVAILABLE'],
    [{ KeyId: ARN }, 'KMS_UNAVAILABLE'],
    [{ KeyId: ARN, CiphertextBlob: 'AAAA', Plaintext: 'AAAA' }, 'KMS_UNAVAILABLE'],
    [{ CiphertextBlob: KEY, Plaintext: Uint8Array.from(KEY) }, /KMS_UNAVAILABLE|DECRYPTION_FAILED/],
    [{ KeyId: MRK, CiphertextBlob: KEY, Plaintext: Uint8Array.from(KEY) }, /KMS_UNAVAILABLE|DECRYPTION_FAILED/],
  ])('does not believe the answer %o', async (answer, code) => {
    const odd = { encrypt: async () => answer, decrypt: async () => answer } as unknown as AwsKmsClient
    const kms = awsKms({ client: odd, keyId: ARN })
    expect((await refusal(() => kms.wrap(KEY, CONTEXT))).code).toMatch('KMS_UNAVAILABLE')
    expect((await refusal(() => kms.unwrap(KEY, CONTEXT))).code).toMatch(code)
  })

  it('wipes the key that another key answered with', async () => {
    const Plaintext = Uint8Array.from(KEY)
    const decrypt = async () => ({ KeyId: MRK, Plaintext })
    const kms = awsKms({ client: { ...client, decrypt }, keyId: ARN })
    expect((await refusal(() => kms.unwrap(KEY, CONTEXT))).code).toBe('DECRYPTION_FAILED')
    expect(Plaintext).toEqual(new Uint8Array(32))
  })
})

describe.skipIf(missing('awsKms against moto_server', motoMissing()))(
  'awsKms against moto_server (an imitation)',
  () => {
    let moto: MotoServer
    let proxy: FaultyProxy
    let keyId: string
    let otherKeyId: string
    const clientOf = (endpoint: string, region = 'eu-central-1'): KMS =>
      new KMS({
        endpoint,
        region,
        maxAttempts: 1,
        credentials: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: SECRET },
      })
    const newKey = async (client: KMS): Promise<string> => (await client.createKey({})).KeyMetadata!.Arn!
    const driver = (key = keyId) => awsKms({ client: clientOf(proxy.url), keyId: key })
    const requestOf = (operation: 'wrap' | 'unwrap', input: Uint8Array, key = keyId, timeoutMs = 10_000) =>
      request(driver(key), operation, input, CONTEXT, { ...patience, timeoutMs })

    beforeAll(async () => {
      moto = await startMoto()
      proxy = await startProxy(moto.url)
      keyId = await newKey(clientOf(moto.url))
      otherKeyId = await newKey(clientOf(moto.url))
    })
    afterEach(() => {
      proxy.fault = undefined
      proxy.times = Number.POSITIVE_INFINITY
      proxy.asked.length = 0
    })
    afterAll(async () => {
      await proxy?.stop()
      moto?.stop()
    })

    kmsSuite(
      { describe, it, expect, inspect },
      {
        name: 'awsKms',
        make: () => driver(),
        other: () => driver(otherKeyId),
        hanging() {
          proxy.fault = 'hang'
          return driver()
        },
        secrets: [SECRET],
      },
    )

    it('sends the key, the algorithm and the context as readable pairs', async () => {
      const blob = await driver().wrap(KEY, CONTEXT)
      await driver().unwrap(blob, CONTEXT)
      const [encrypt, decrypt] = proxy.asked.map(({ headers, body }) => ({
        ...JSON.parse(body),
        to: headers['x-amz-target'],
      }))
      const both = { KeyId: keyId, EncryptionContext: CONTEXT, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' }
      expect(encrypt).toEqual({ ...both, Plaintext: Buffer.from(KEY).toString('base64'), to: 'TrentService.Encrypt' })
      const CiphertextBlob = Buffer.from(blob).toString('base64')
      expect(decrypt).toEqual({ ...both, CiphertextBlob, to: 'TrentService.Decrypt' })
    })

    it('takes a multi-Region key (the imitation wraps under one, and cannot unwrap)', async () => {
      const { KeyMetadata } = await clientOf(moto.url).createKey({ MultiRegion: true })
      expect(KeyMetadata!.Arn).toContain('key/mrk-')
      expect(await driver(KeyMetadata!.Arn!).wrap(KEY, CONTEXT)).toBeInstanceOf(Uint8Array)
    })

    it('a key that is not there, or not in this region, is KMS_DENIED', async () => {
      const gone = keyId.replace(/[^/]*$/, '00000000-0000-4000-8000-000000000000')
      expect(await refusal(() => requestOf('wrap', KEY, gone))).toMatchObject({ code: 'KMS_DENIED', retryable: false })
      const elsewhere = awsKms({ client: clientOf(proxy.url, 'us-east-1'), keyId })
      const error = await refusal(() => request(elsewhere, 'wrap', KEY, CONTEXT, patience))
      expect(error).toMatchObject({ code: 'KMS_DENIED' })
      expect(error.cause).toMatchObject({ name: 'NotFoundException' })
    })

    it.each<[name: string, code: string]>([
      ['AccessDeniedException', 'KMS_DENIED'],
      ['DisabledException', 'KMS_DENIED'],
      ['KMSInvalidStateException', 'KMS_DENIED'],
      ['NotFoundException', 'KMS_DENIED'],
      ['InvalidKeyUsageException', 'KMS_DENIED'],
      ['InvalidGrantTokenException', 'KMS_DENIED'],
      ['ValidationException', 'KMS_DENIED'],
      ['ExpiredTokenException', 'KMS_DENIED'],
      ['UnrecognizedClientException', 'KMS_DENIED'],
      ['InvalidSignatureException', 'KMS_DENIED'],
      ['SomethingNewException', 'KMS_DENIED'],
      ['InvalidCiphertextException', 'DECRYPTION_FAILED'],
      ['IncorrectKeyException', 'DECRYPTION_FAILED'],
      ['ThrottlingException', 'KMS_UNAVAILABLE'],
      ['LimitExceededException', 'KMS_UNAVAILABLE'],
      ['KeyUnavailableException', 'KMS_UNAVAILABLE'],
      ['DependencyTimeoutException', 'KMS_UNAVAILABLE'],
      ['KMSInternalException', 'KMS_UNAVAILABLE'],
      ['RequestTimeout', 'KMS_UNAVAILABLE'],
    ])('%s is %s, and what it says is not repeated', async (name, code) => {
      proxy.fault = { status: 400, body: JSON.stringify({ __type: name, message: `it says ${KEY.join()}` }) }
      const error = await refusal(() => requestOf('unwrap', Uint8Array.of(1, 2, 3)))
      expect(error).toMatchObject({ code, retryable: code === 'KMS_UNAVAILABLE' })
      expect(error.cause).toMatchObject({ name })
      expect(inspect(error, { depth: 9 })).not.toContain('it says')
      expect(error.message).toContain(keyId)
    })

    it.each<[what: string, fault: Fault]>([
      ['500 without a body', { status: 500, body: '' }],
      ['502 with a page', { status: 502, body: '<html>bad gateway</html>', type: 'text/html' }],
      ['503', { status: 503, body: '{"__type":"ServiceUnavailable"}' }],
      ['429', { status: 429, body: '{"__type":"TooManyRequestsException"}' }],
      ['429 by another name', { status: 429, body: '{"__type":"SomethingNew"}' }],
      ['an answer that is cut', 'truncate'],
      ['an answer that is no JSON', (answer) => answer.slice(0, -3)],
      ['an empty answer', () => '{}'],
      ['a line that is cut', 'reset'],
    ])('%s is KMS_UNAVAILABLE', async (_, fault) => {
      const blob = await driver().wrap(KEY, CONTEXT)
      proxy.fault = fault
      for (const [operation, input] of [['wrap', KEY] as const, ['unwrap', blob] as const]) {
        const error = await refusal(() => requestOf(operation, input))
        expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
        expect(inspect(error, { depth: 9 })).not.toContain(Buffer.from(KEY).toString('base64').slice(0, 12))
      }
    })

    it('403 without a body is KMS_DENIED', async () => {
      proxy.fault = { status: 403, body: '' }
      expect(await refusal(() => requestOf('wrap', KEY))).toMatchObject({ code: 'KMS_DENIED' })
    })

    it('a service that hangs is KMS_UNAVAILABLE after the time-out, and the connection is closed', async () => {
      proxy.fault = 'hang'
      const before = performance.now()
      expect(await refusal(() => requestOf('wrap', KEY, keyId, 100))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
      expect(performance.now() - before).toBeLessThan(3000)
      proxy.fault = undefined
      expect(await requestOf('wrap', KEY)).toBeInstanceOf(Uint8Array)
    })

    it('an answer that names another key is not believed', async () => {
      const blob = await driver().wrap(KEY, CONTEXT)
      proxy.fault = (answer) => answer.replace(keyId, otherKeyId)
      expect(await refusal(() => requestOf('wrap', KEY))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
      expect(await refusal(() => requestOf('unwrap', blob))).toMatchObject({ code: 'DECRYPTION_FAILED' })
    })

    it('an endpoint that nobody listens at is KMS_UNAVAILABLE', async () => {
      const closed = await startProxy(moto.url)
      await closed.stop()
      const kms = awsKms({ client: clientOf(closed.url), keyId })
      expect(await refusal(() => request(kms, 'wrap', KEY, CONTEXT, patience))).toMatchObject({
        code: 'KMS_UNAVAILABLE',
      })
    })

    it('a client without credentials is KMS_DENIED', async () => {
      const credentials = async () => {
        throw Object.assign(new Error('Could not load credentials from any providers'), {
          name: 'CredentialsProviderError',
        })
      }
      const kms = awsKms({
        client: new KMS({ endpoint: proxy.url, region: 'eu-central-1', maxAttempts: 1, credentials }),
        keyId,
      })
      expect(await refusal(() => request(kms, 'wrap', KEY, CONTEXT, patience))).toMatchObject({ code: 'KMS_DENIED' })
    })

    it('keeps a keyring, with as many requests as docs/guides/kms/aws.md says', async () => {
      const counted = () => {
        const asked = proxy.asked.splice(0).map(({ headers }) => String(headers['x-amz-target']).split('.')[1])
        return [asked.filter((name) => name === 'Encrypt').length, asked.filter((name) => name === 'Decrypt').length]
      }
      const clock = { now: 0 }
      const options = { name: 'crm', store: memoryKeyStore(), kms: driver(), clock: () => clock.now }
      const created = await createKeyring({ ...options, propagationMs: 0 })
      expect(counted()).toEqual([2, 2])
      const row = notes.encrypt(created, { ...NOTE })
      await created.rotate()
      expect(counted()).toEqual([1, 1])
      await created.close()
      await using keys = await openKeyring(options)
      expect(counted()).toEqual([0, 3])
      expect(notes.decrypt(keys, row)).toEqual(NOTE)
      await keys.ready()
      expect(counted()).toEqual([0, 0])
      clock.now += 3_600_001
      await keys.ready()
      await vi.waitFor(() => expect(proxy.asked).toHaveLength(3))
      expect(counted()).toEqual([0, 3])
    })

    it('is asked again after it throttled, and not after it refused', async () => {
      const options = { name: 'crm', store: memoryKeyStore(), kms: driver(), patience: { backoffMs: 0 } }
      const { id } = (await createKeyring(options)).status()
      proxy.asked.length = 0
      proxy.fault = { status: 400, body: '{"__type":"ThrottlingException"}' }
      proxy.times = 3
      expect((await openKeyring(options)).status().id).toBe(id)
      expect(proxy.asked).toHaveLength(5)
      proxy.asked.length = 0
      proxy.fault = { status: 400, body: '{"__type":"AccessDeniedException"}' }
      proxy.times = Number.POSITIVE_INFINITY
      expect(await refusal(() => openKeyring(options))).toMatchObject({ code: 'KMS_DENIED' })
      expect(proxy.asked).toHaveLength(1)
    })

    it('opens in the second region while the first is away', async () => {
      const second = new KMS({
        endpoint: moto.url,
        region: 'eu-west-1',
        maxAttempts: 1,
        credentials: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: SECRET },
      })
      const both = [driver(), awsKms({ client: second, keyId: await newKey(second) })]
      const options = { name: 'crm', store: memoryKeyStore(), kms: both, patience: { backoffMs: 0, attempts: 2 } }
      const row = notes.encrypt(await createKeyring(options), { ...NOTE })
      proxy.fault = 'reset'
      expect(notes.decrypt(await openKeyring(options), row)).toEqual(NOTE)
      expect(await refusal(() => openKeyring({ ...options, kms: both[0]! }))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    })
  },
)
