import { inspect } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type AzureAlgorithm, type AzureCryptographyClient, azureKms, type KmsDriver } from 'waxseal/kms/azure'
import { kmsSuite } from 'waxseal/testing'
import { CONTEXT, codeOf, KEY, OTHER, once, unwrapped, wrapped } from './imitations/asked.ts'
import { AzureImitation, failure } from './imitations/azure.ts'
import type { Fault } from './imitations/server.ts'

const ID = 'https://shop.vault.azure.net/keys/crm/78deebed173b48e48f55abf87ed4cf71'

describe.each([
  ['RSA-OAEP-256', 'RSA', 256],
  ['A256KW', 'oct-HSM', 40],
] as const)('Azure’s client with %s', (algorithm, kty, bytes) => {
  let vault: AzureImitation
  let crm: string
  let hr: string
  let driver: KmsDriver
  const make = (id = crm): KmsDriver => azureKms({ client: vault.client(id), algorithm })

  beforeAll(async () => {
    vault = await AzureImitation.start()
    crm = vault.create('crm', kty)
    hr = vault.create('hr', kty)
  })
  afterAll(() => vault.close())
  beforeEach(() => {
    vault.faults.length = 0
    for (const operation of ['get', 'wrapKey', 'unwrapKey'] as const) vault.permissions.add(operation)
    vault.at(crm).enabled = true
    driver = make()
  })
  const calls = async (work: () => Promise<unknown>): Promise<string[]> => {
    vault.calls.length = 0
    await work()
    return vault.calls.map(({ operation, authorization }) => (authorization ? operation : 'challenge'))
  }

  kmsSuite(
    { describe, it, expect, inspect },
    {
      name: `azureKms with ${algorithm}`,
      make: () => make(),
      other: () => make(hr),
      hanging: () => {
        vault.faults.push(...Array.from({ length: 4 }, (): Fault => () => 'hang'))
        return make()
      },
      randomises: algorithm !== 'A256KW',
    },
  )

  it('wraps at the service, never here; the public key is fetched once', async () => {
    const wraps = await driver.wrap(KEY, CONTEXT)
    expect(wraps).toHaveLength(bytes)
    expect(await calls(() => driver.wrap(KEY, CONTEXT))).toEqual(['wrapKey'])
    expect(await calls(() => make().unwrap(wraps, CONTEXT))).toEqual(['challenge', 'get', 'unwrapKey'])
  })

  it('works without the permission to get the key', async () => {
    vault.permissions.delete('get')
    expect(Buffer.compare(await unwrapped(driver, await wrapped(driver)), KEY)).toBe(0)
  })

  it('has its context bound by the portable layer', async () => {
    const wraps = await wrapped(driver)
    expect(await codeOf(unwrapped(driver, wraps, OTHER))).toBe('DECRYPTION_FAILED')
    expect(Buffer.from(wraps[0]!.wrapped, 'base64url')).toHaveLength(2 + bytes + 72)
  })

  it('names the version, which has to stay: a later one is another root key', async () => {
    const later = vault.create('crm', kty)
    const wraps = await wrapped(driver)
    expect(driver.keyUri).toBe(`azure-kms:${crm}`)
    expect(await codeOf(unwrapped(make(later), wraps))).toBe('CONFIG')
    const blob = wraps[0]!.wrapped
    expect(await codeOf(unwrapped(make(later), [{ uri: `azure-kms:${later}`, wrapped: blob }]))).toBe(
      'DECRYPTION_FAILED',
    )
    vault.at(crm).enabled = false
    expect(await codeOf(unwrapped(driver, wraps))).toBe('KMS_DENIED')
  })

  it.each(['wrapKey', 'unwrapKey'] as const)(
    'without the permission to %s is KMS_DENIED, asked once',
    async (operation) => {
      const wraps = await wrapped(driver)
      vault.permissions.delete(operation)
      vault.calls.length = 0
      expect(await codeOf(operation === 'wrapKey' ? wrapped(driver) : unwrapped(driver, wraps))).toBe('KMS_DENIED')
      expect(vault.calls).toHaveLength(1)
    },
  )

  it('a key that is not there is KMS_DENIED', async () => {
    const none = make(`${ID.slice(0, -1)}0`)
    expect(await codeOf(wrapped(none))).toBe('KMS_DENIED')
    expect(await codeOf(once(none, 'unwrap'))).toBe('KMS_DENIED')
  })

  it('a key of another type is KMS_DENIED when wrapping', async () => {
    const other = azureKms({ client: vault.client(crm), algorithm: kty === 'RSA' ? 'A256KW' : 'RSA-OAEP-256' })
    expect(await codeOf(wrapped(other))).toBe('KMS_DENIED')
  })

  it.each([
    ['has expired', { exp: 1_767_225_600 }],
    ['is not made for wrapping', { operations: ['sign'] }],
  ])('a key that %s is refused by the client itself, which is KMS_DENIED', async (_, attributes) => {
    const id = vault.create('spent', kty)
    Object.assign(vault.at(id), attributes)
    expect(await codeOf(wrapped(make(id)))).toBe('KMS_DENIED')
    expect(await codeOf(once(make(id), 'unwrap'))).toBe('KMS_DENIED')
  })

  it('a token that the vault does not know is KMS_DENIED', async () => {
    const stranger = azureKms({ client: vault.client(crm, { token: 'another' }), algorithm })
    expect(await codeOf(wrapped(stranger), 'another')).toBe('KMS_DENIED')
  })

  it.each<[number, string, string]>([
    [400, 'BadParameter', 'DECRYPTION_FAILED'],
    [401, 'Unauthorized', 'KMS_DENIED'],
    [403, 'Forbidden', 'KMS_DENIED'],
    [404, 'KeyNotFound', 'KMS_DENIED'],
    [408, 'RequestTimeout', 'KMS_UNAVAILABLE'],
    [429, 'Throttled', 'KMS_UNAVAILABLE'],
    [500, 'InternalServerError', 'KMS_UNAVAILABLE'],
    [503, 'ServiceUnavailable', 'KMS_UNAVAILABLE'],
  ])('HTTP %i %s when unwrapping is %s', async (status, code, expected) => {
    const blob = await driver.wrap(KEY, CONTEXT)
    vault.faults.push(() => failure(status, code, 'told to'))
    expect(await codeOf(once(driver, 'unwrap', blob))).toBe(expected)
  })

  it('throttled, then broken, then well: the third request is answered', async () => {
    const wraps = await wrapped(driver)
    vault.faults.push(
      () => ({ ...failure(429, 'Throttled', 'slow down'), headers: { 'Retry-After': '1' } }),
      () => failure(503, 'ServiceUnavailable', 'away'),
    )
    const work = () => unwrapped(driver, wraps)
    expect(await calls(work)).toEqual(['unwrapKey', 'unwrapKey', 'unwrapKey'])
  })

  it('ends a request that hangs, and asks again', async () => {
    const wraps = await wrapped(driver)
    vault.faults.push(() => 'hang')
    vault.calls.length = 0
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
    expect(vault.calls.map(({ aborted }) => aborted)).toEqual([true, false])
  })

  it.each<[string, unknown, string]>([
    ['another key', { kid: ID, value: Buffer.alloc(32, 1).toString('base64url') }, 'DECRYPTION_FAILED'],
    ['31 bytes', { kid: ID, value: Buffer.alloc(31).toString('base64url') }, 'DECRYPTION_FAILED'],
    ['70,000 bytes', { kid: ID, value: Buffer.alloc(70_000).toString('base64url') }, 'DECRYPTION_FAILED'],
    ['no value', { kid: ID }, 'KMS_UNAVAILABLE'],
    ['text that is no JSON', '<html>', 'KMS_UNAVAILABLE'],
  ])('%s in the answer is not taken for the key: %s', async (_, body, code) => {
    const wraps = await wrapped(driver)
    vault.faults.push(...Array.from({ length: 3 }, (): Fault => () => ({ status: 200, body })))
    expect(await codeOf(unwrapped(driver, wraps))).toBe(code)
  })

  it('an answer of 20,000 bytes is no blob', async () => {
    await driver.wrap(KEY, CONTEXT)
    const value = Buffer.alloc(20_000).toString('base64url')
    vault.faults.push(...Array.from({ length: 3 }, (): Fault => () => ({ status: 200, body: { kid: ID, value } })))
    expect(await codeOf(wrapped(driver))).toBe('KMS_UNAVAILABLE')
  })
})

describe('a client of Azure', () => {
  const idle: AzureCryptographyClient = {
    keyID: ID,
    wrapKey: async () => ({ result: new Uint8Array(256) }),
    unwrapKey: async () => ({ result: new Uint8Array(32) }),
  }
  const algorithm = 'RSA-OAEP-256'

  it('says what a keyring has to know of it', () => {
    expect(azureKms({ client: idle, algorithm })).toMatchObject({ ignoresContext: true, wrapsPublicly: true })
    expect(azureKms({ client: idle, algorithm: 'A256KW' })).toMatchObject({
      ignoresContext: true,
      wrapsPublicly: false,
    })
  })

  it('has one URI however the id is spelt', () => {
    const keyID = 'https://SHOP.vault.azure.net:443/keys/CRM/78DEEBED173b48e48f55abf87ed4cf71'
    expect(azureKms({ client: { ...idle, keyID }, algorithm, keyId: ID }).keyUri).toBe(`azure-kms:${ID}`)
  })

  it.each([
    ['no version', ID.slice(0, ID.lastIndexOf('/'))],
    ['no version, but a slash', ID.slice(0, ID.lastIndexOf('/') + 1)],
    ['http', ID.replace('https', 'http')],
    ['a secret', ID.replace('/keys/', '/secrets/')],
    ['credentials', ID.replace('https://', 'https://a:b@')],
    ['a query', `${ID}?x=y`],
    ['more behind it', `${ID}/x`],
    ['a line end', `${ID}\n`],
    ['nothing', undefined],
  ])('whose id has %s is refused: CONFIG', async (_, keyID) => {
    expect(await codeOf(() => azureKms({ client: { ...idle, keyID }, algorithm }))).toBe('CONFIG')
    if (keyID)
      expect(await codeOf(() => azureKms({ client: { ...idle, keyID: undefined }, algorithm, keyId: keyID }))).toBe(
        'CONFIG',
      )
  })

  it('of another key than the one that is named is refused: CONFIG', async () => {
    const keyId = ID.replace('crm', 'hr')
    expect(await codeOf(() => azureKms({ client: idle, algorithm, keyId }))).toBe('CONFIG')
    expect(azureKms({ client: { ...idle, keyID: undefined }, algorithm, keyId }).keyUri).toBe(`azure-kms:${keyId}`)
  })

  it.each(['RSA-OAEP', 'RSA1_5', 'A128KW', '', undefined])('is not used with %j: CONFIG', async (other) => {
    expect(await codeOf(() => azureKms({ client: idle, algorithm: other as AzureAlgorithm }))).toBe('CONFIG')
  })

  it('has to be one, and not of a local key alone', async () => {
    expect(await codeOf(() => azureKms({ client: {} as never, algorithm }))).toBe('CONFIG')
    expect(await codeOf(() => azureKms({ client: undefined as never, algorithm }))).toBe('CONFIG')
    expect(await codeOf(() => azureKms({ client: { ...idle, vaultUrl: '' }, algorithm }))).toBe('CONFIG')
  })

  it('that answers for another version is not believed', async () => {
    const answer = async () => ({ result: Uint8Array.from(KEY), keyID: ID.replace('crm', 'hr') })
    const driver = azureKms({ client: { ...idle, wrapKey: answer, unwrapKey: answer }, algorithm })
    expect(await codeOf(once(driver, 'wrap'))).toBe('KMS_UNAVAILABLE')
    expect(await codeOf(once(driver, 'unwrap'))).toBe('KMS_UNAVAILABLE')
  })

  it.each([
    [{ name: 'CredentialUnavailableError', message: 'no managed identity' }, 'denied'],
    [{ name: 'AggregateAuthenticationError', message: 'all failed' }, 'denied'],
    [{ name: 'AuthenticationError', statusCode: 400, message: 'unauthorized_client' }, 'denied'],
    [{ name: 'AuthenticationError', statusCode: 503, message: 'Entra ID is away' }, undefined],
    [{ name: 'Error', message: `Key ${ID} expired at 2026-01-01T00:00:00.000Z` }, 'denied'],
    [{ name: 'Error', message: `Key ${ID} can't be used before 2026-01-01T00:00:00.000Z` }, 'denied'],
    [{ name: 'Error', message: `Operation wrapKey is not supported on key ${ID}` }, 'denied'],
    [{ name: 'RestError', statusCode: 400 }, 'rejected'],
    [{ name: 'RestError', code: 'ECONNREFUSED', message: 'no connection' }, undefined],
    [undefined, undefined],
    ['text', undefined],
  ])('that throws %j', (error, failure) => {
    expect(azureKms({ client: idle, algorithm }).failureOf!(error)).toBe(failure)
  })

  it('made of a key that was fetched before asks for it no more', async () => {
    const vault = await AzureImitation.start()
    const id = vault.create('crm')
    const [, , , , name, version] = id.split('/') as [string, string, string, string, string, string]
    const key = { id, name, keyOperations: ['wrapKey', 'unwrapKey'], properties: { vaultUrl: '', name, version } }
    const driver = azureKms({ client: vault.client(key as never), algorithm })
    expect(driver.keyUri).toBe(`azure-kms:${id}`)
    expect(Buffer.compare(await unwrapped(driver, await wrapped(driver)), KEY)).toBe(0)
    expect(vault.calls.some(({ operation }) => operation === 'get')).toBe(false)
    await vault.close()
  })
})
