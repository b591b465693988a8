import { inspect } from 'node:util'
import nodeVault from 'node-vault'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type KmsDriver, type VaultByFetch, type VaultClient, vaultTransit } from 'waxseal/kms/vault'
import { kmsSuite } from 'waxseal/testing'
import { CONTEXT, codeOf, KEY, OTHER, once, unwrapped, wrapped } from './imitations/asked.ts'
import type { Fault } from './imitations/server.ts'
import { errors, VaultImitation } from './imitations/vault.ts'

type Make = (vault: VaultImitation, key: string, token: string) => KmsDriver
const byNodeVault: Make = ({ url }, key, token) => vaultTransit({ client: nodeVault({ endpoint: url, token }), key })
const byFetch: Make = ({ url }, key, token) => vaultTransit({ address: url, token, key })

describe.each([
  ['node-vault', byNodeVault],
  ['fetch', byFetch],
] as const)('Vault by %s', (transport, connect) => {
  let vault: VaultImitation
  let token: string
  let driver: KmsDriver
  const make = (key = 'crm', capability: 'create' | 'update' = 'update'): KmsDriver =>
    connect(vault, key, vault.token(`transit/keys/${key}`, [capability]))

  beforeAll(async () => {
    vault = await VaultImitation.start()
  })
  afterAll(() => vault.close())
  beforeEach(() => {
    vault.faults.length = 0
    vault.isSealed = false
    vault.isOld = false
    vault.keys.clear()
    vault.create('transit/keys/crm')
    vault.create('transit/keys/hr', 'chacha20-poly1305')
    token = vault.token()
    driver = connect(vault, 'crm', token)
    vault.calls.length = 0
  })

  kmsSuite(
    { describe, it, expect, inspect },
    {
      name: `vaultTransit by ${transport}`,
      make: () => connect(vault, 'crm', token),
      other: () => make('hr'),
      hanging: () => {
        vault.faults.push(...Array.from({ length: 4 }, (): Fault => () => 'hang'))
        return make()
      },
      get secrets() {
        return [...(vault?.tokens.keys() ?? [])]
      },
    },
  )

  it('sends the pairs as canonical JSON in base64, and proves at the first wrap that they are bound', async () => {
    const blob = await driver.wrap(KEY, { b: 'é', a: '2', B: '3' })
    await driver.unwrap(blob, { B: '3', b: 'é', a: '2' })
    await driver.wrap(KEY, CONTEXT)
    const aad = Buffer.from('[["B","3"],["a","2"],["b","é"]]').toString('base64')
    expect(vault.calls.map(({ path }) => path)).toEqual([
      'transit/encrypt/crm',
      'transit/decrypt/crm',
      'transit/decrypt/crm',
      'transit/encrypt/crm',
    ])
    const [first, probe, second] = vault.calls.map(({ body }) => body.associated_data)
    expect([first, second]).toEqual([aad, aad])
    expect(probe).not.toBe(aad)
    expect(Buffer.from(blob).toString()).toMatch(/^vault:v1:[\w+/]{80}$/)
  })

  it('refuses a Vault that ignores the context, each time', async () => {
    vault.isOld = true
    expect(await codeOf(wrapped(driver), token)).toBe('CONFIG')
    expect(await codeOf(wrapped(driver), token)).toBe('CONFIG')
    vault.isOld = false
    expect(Buffer.compare(await unwrapped(driver, await wrapped(driver)), KEY)).toBe(0)
  })

  it('does not take a probe that was not answered for a proof', async () => {
    vault.faults.push(
      (reply) => reply,
      () => errors(503, 'Vault is sealed'),
    )
    expect(await codeOf(once(driver, 'wrap'))).toBe('KMS_UNAVAILABLE')
    vault.faults.push(
      (reply) => reply,
      () => errors(400, 'encryption key not found'),
    )
    expect(await codeOf(once(driver, 'wrap'))).toBe('KMS_DENIED')
    vault.faults.push(
      (reply) => reply,
      () => ({ status: 400, body: '<html>a proxy</html>' }),
    )
    expect(await codeOf(once(driver, 'wrap'))).toBe('KMS_UNAVAILABLE')
  })

  it('refuses a key that has no associated data', async () => {
    vault.create('transit/keys/rsa', 'rsa-4096')
    expect(await codeOf(wrapped(make('rsa')))).toBe('KMS_DENIED')
  })

  it('opens what an older version of the key wrapped, until that is retired', async () => {
    const wraps = await wrapped(driver)
    const key = vault.keys.get('transit/keys/crm')!
    key.versions.push(Buffer.alloc(32, 5))
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
    expect(Buffer.from(await driver.wrap(KEY, CONTEXT)).toString()).toMatch(/^vault:v2:/)
    expect(await codeOf(unwrapped(driver, wraps, OTHER))).toBe('DECRYPTION_FAILED')
    key.minDecryptionVersion = 2
    expect(await codeOf(unwrapped(driver, wraps))).toBe('KMS_DENIED')
  })

  it('a key that is not there is KMS_DENIED, and not made', async () => {
    const blob = await driver.wrap(KEY, CONTEXT)
    expect(await codeOf(wrapped(make('none')))).toBe('KMS_DENIED')
    expect(await codeOf(once(make('none'), 'unwrap', blob))).toBe('KMS_DENIED')
    expect(vault.keys.has('transit/keys/none')).toBe(false)
  })

  it('a token that may not use the key, or is not known, is KMS_DENIED', async () => {
    for (const other of [vault.token('transit/keys/hr'), 'hvs.revoked']) {
      expect(await codeOf(wrapped(connect(vault, 'crm', other)), other)).toBe('KMS_DENIED')
    }
    expect(vault.calls).toHaveLength(2)
  })

  it.each<[number, string, string]>([
    [400, 'cipher: message authentication failed', 'DECRYPTION_FAILED'],
    [400, 'invalid ciphertext: version is too new', 'DECRYPTION_FAILED'],
    [400, 'encryption key not found', 'KMS_DENIED'],
    [403, 'permission denied', 'KMS_DENIED'],
    [404, 'no handler for route', 'KMS_DENIED'],
    [412, 'required index state not present', 'KMS_UNAVAILABLE'],
    [429, 'request path rate limit quota exceeded', 'KMS_UNAVAILABLE'],
    [472, 'DR secondary', 'KMS_UNAVAILABLE'],
    [473, 'performance standby', 'KMS_UNAVAILABLE'],
    [500, 'internal error', 'KMS_UNAVAILABLE'],
    [503, 'Vault is sealed', 'KMS_UNAVAILABLE'],
  ])('HTTP %i %s at decrypting is %s', async (status, text, expected) => {
    const blob = await driver.wrap(KEY, CONTEXT)
    vault.faults.push(() => errors(status, text))
    expect(await codeOf(once(driver, 'unwrap', blob))).toBe(expected)
    vault.faults.push(() => ({ status, body: '<html>a proxy</html>' }))
    const bare = status === 400 ? 'DECRYPTION_FAILED' : expected
    expect(await codeOf(once(driver, 'unwrap', blob))).toBe(bare)
  })

  it('a mount that is not there is KMS_DENIED', async () => {
    const client = nodeVault({ endpoint: vault.url, token })
    expect(await codeOf(wrapped(vaultTransit({ client, key: 'crm', mount: 'elsewhere' })))).toBe('KMS_DENIED')
    expect(await codeOf(wrapped(vaultTransit({ address: vault.url, token, key: 'crm', mount: 'x/y' })))).toBe(
      'KMS_DENIED',
    )
  })

  it('sealed, then throttled, then well: the third request is answered', async () => {
    const wraps = await wrapped(driver)
    vault.calls.length = 0
    vault.faults.push(
      () => errors(503, 'Vault is sealed'),
      () => errors(429, 'quota'),
    )
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
    expect(vault.calls).toHaveLength(3)
    vault.isSealed = true
    expect(await codeOf(unwrapped(driver, wraps))).toBe('KMS_UNAVAILABLE')
    expect(vault.calls).toHaveLength(6)
  })

  it('gives up a request that hangs, and asks again', async () => {
    const wraps = await wrapped(driver)
    vault.faults.push(() => 'hang')
    expect(Buffer.compare(await unwrapped(driver, wraps), KEY)).toBe(0)
  })

  it.each<[string, unknown, string]>([
    ['another key', { data: { plaintext: Buffer.alloc(32, 1).toString('base64') } }, 'DECRYPTION_FAILED'],
    ['31 bytes', { data: { plaintext: Buffer.alloc(31).toString('base64') } }, 'DECRYPTION_FAILED'],
    ['70,000 bytes', { data: { plaintext: Buffer.alloc(70_000).toString('base64') } }, 'KMS_UNAVAILABLE'],
    ['no plaintext', { data: {} }, 'KMS_UNAVAILABLE'],
    ['a plaintext that is no base64', { data: { plaintext: '\u0000' } }, 'KMS_UNAVAILABLE'],
    ['no data', {}, 'KMS_UNAVAILABLE'],
    ['null', 'null', 'KMS_UNAVAILABLE'],
    ['text that is no JSON', '<html>', 'KMS_UNAVAILABLE'],
    ['nothing', '', 'KMS_UNAVAILABLE'],
  ])('%s in the answer is not taken for the key: %s', async (_, body, code) => {
    const wraps = await wrapped(driver)
    vault.faults.push(...Array.from({ length: 3 }, (): Fault => () => ({ status: 200, body })))
    expect(await codeOf(unwrapped(driver, wraps))).toBe(code)
  })

  it.each([
    'vault:v1:',
    'vault:v0:'.padEnd(89, 'A'),
    'vault:1:'.padEnd(89, 'A'),
    'plain'.padEnd(89, 'A'),
    'vault:v1:'.padEnd(2000, 'A'),
    `${'vault:v1:'.padEnd(89, 'A')}\n`,
    undefined,
    7,
  ])('%j in the answer is not taken for a blob', async (ciphertext) => {
    vault.faults.push(() => ({ status: 200, body: { data: { ciphertext } } }))
    expect(await codeOf(once(driver, 'wrap'))).toBe('KMS_UNAVAILABLE')
  })

  it.each<[string, (text: string) => string]>([
    ['of another form', () => 'x'],
    ['with a path in it', () => '../../sys/seal'],
    ['with set bits behind its end', (text) => `${text.slice(0, -1)}`.replace(/.$/, 'B=')],
    ['in base64url', (text) => `${text.slice(0, -2)}-_`],
  ])('sends no blob %s', async (_, change) => {
    const blob = Buffer.from(await driver.wrap(KEY, CONTEXT)).toString()
    vault.calls.length = 0
    expect(await codeOf(once(driver, 'unwrap', Buffer.from(change(blob))))).toBe('MALFORMED')
    expect(vault.calls).toEqual([])
  })
})

describe('over fetch', () => {
  let vault: VaultImitation
  let token: string
  const make = (more: Partial<VaultByFetch> = {}): KmsDriver =>
    vaultTransit({ address: vault.url, token, key: 'crm', ...more })

  beforeAll(async () => {
    vault = await VaultImitation.start()
    vault.create('transit/keys/crm')
    token = vault.token()
  })
  afterAll(() => vault.close())
  beforeEach(() => {
    vault.faults.length = 0
    vault.calls.length = 0
  })

  it('asks for the token before every request', async () => {
    let asked = 0
    const renewed = vault.token()
    const tokens = ['hvs.expired', renewed, renewed, renewed]
    const driver = make({ token: async () => tokens[asked++]! })
    expect(await codeOf(once(driver, 'wrap'), 'hvs.expired')).toBe('KMS_DENIED')
    await once(driver, 'wrap')
    expect(vault.calls.map(({ headers }) => headers['x-vault-token'])).toEqual(['hvs.expired', renewed, renewed])
    expect(driver.keyUri).toBe(make().keyUri)
  })

  it.each(['', 'two words', 'line\nend', 'x'.repeat(8193), undefined])('sends no token %j: CONFIG', async (wrong) => {
    expect(await codeOf(once(make({ token: () => wrong as string }), 'wrap'), 'two words')).toBe('CONFIG')
    expect(vault.calls).toEqual([])
  })

  it('a token that cannot be had is KMS_UNAVAILABLE', async () => {
    const driver = make({ token: () => Promise.reject(new Error('hvs.secret')) })
    expect(await codeOf(once(driver, 'wrap'), 'hvs.secret')).toBe('KMS_UNAVAILABLE')
  })

  it('names the namespace, and reaches its key', async () => {
    vault.mounts.add('team/a/transit')
    vault.create('team/a/transit/keys/crm')
    const driver = make({ namespace: 'team/a', token: vault.token('team/a/transit/keys/crm') })
    expect(Buffer.compare(await unwrapped(driver, await wrapped(driver)), KEY)).toBe(0)
    expect(driver.keyUri).toBe(`vault-transit:${vault.url}/v1/team/a/transit/keys/crm`)
    expect(vault.calls[0]!.headers['x-vault-namespace']).toBe('team/a')
  })

  it('follows no redirect, so that the token goes nowhere else', async () => {
    const other = await VaultImitation.start()
    vault.faults.push(() => ({ status: 307, body: '', headers: { Location: `${other.url}/v1/transit/encrypt/crm` } }))
    expect(await codeOf(once(make(), 'wrap'))).toBe('KMS_UNAVAILABLE')
    expect(other.calls).toEqual([])
    await other.close()
  })

  it.each([200, 400, 503])('reads no answer above 64 KiB, also of status %i', async (status) => {
    vault.faults.push(() => ({ status, body: ' '.repeat(65_537) }))
    expect(await codeOf(once(make(), 'wrap'))).toBe('KMS_UNAVAILABLE')
    vault.faults.push((reply) => ({ ...reply, body: JSON.stringify(reply.body).padEnd(65_536) }))
    expect(await once(make(), 'wrap')).toBeInstanceOf(Uint8Array)
  })

  it('an address where nobody listens is KMS_UNAVAILABLE', async () => {
    const gone = await VaultImitation.start()
    await gone.close()
    expect(await codeOf(once(make({ address: gone.url }), 'wrap'), token)).toBe('KMS_UNAVAILABLE')
  })
})

describe('vaultTransit', () => {
  const fetched = (more: Partial<VaultByFetch>): KmsDriver =>
    vaultTransit({ address: 'https://vault.example.com:8200', token: 'hvs.secret', key: 'crm', ...more })

  it.each<[Partial<VaultByFetch>, string]>([
    [{}, 'https://vault.example.com:8200/v1/transit/keys/crm'],
    [{ address: 'https://Vault.Example.com:443/' }, 'https://vault.example.com/v1/transit/keys/crm'],
    [{ address: 'https://example.com/vault/' }, 'https://example.com/vault/v1/transit/keys/crm'],
    [{ mount: 'eu/transit', namespace: 'a/b' }, 'https://vault.example.com:8200/v1/a/b/eu/transit/keys/crm'],
    [{ cluster: 'prod-eu' }, 'prod-eu/v1/transit/keys/crm'],
    [{ address: 'http://localhost:8200' }, 'http://localhost:8200/v1/transit/keys/crm'],
    [{ address: 'http://[::1]:8200' }, 'http://[::1]:8200/v1/transit/keys/crm'],
    [{ address: 'http://vault:8200', allowInsecure: true }, 'http://vault:8200/v1/transit/keys/crm'],
  ])('%j is the root key %s', (more, uri) => {
    expect(fetched(more).keyUri).toBe(`vault-transit:${uri}`)
  })

  it.each<[Record<string, unknown>, string]>([
    [{ key: '' }, 'key'],
    [{ key: 'a/b' }, 'key'],
    [{ key: '..' }, 'key'],
    [{ key: 'a\n' }, 'key'],
    [{ key: 'a'.repeat(129) }, 'key'],
    [{ key: undefined }, 'key'],
    [{ mount: '' }, 'mount'],
    [{ mount: '/transit' }, 'mount'],
    [{ mount: 'a/../b' }, 'mount'],
    [{ mount: 'a?b' }, 'mount'],
    [{ namespace: 'a/' }, 'namespace'],
    [{ namespace: 7 }, 'namespace'],
    [{ cluster: 'a b' }, 'cluster'],
    [{ cluster: '' }, 'cluster'],
    [{ address: 'vault.example.com' }, 'address'],
    [{ address: 'http://vault.example.com' }, 'address'],
    [{ address: 'http://localhost.example.com' }, 'address'],
    [{ address: 'http://127.0.0.1.example.com' }, 'address'],
    [{ address: 'ftp://vault.example.com', allowInsecure: true }, 'address'],
    [{ address: 'https://a:b@vault.example.com' }, 'address'],
    [{ address: 'https://vault.example.com?x=y' }, 'address'],
    [{ address: `https://vault.example.com/${'a'.repeat(1024)}` }, 'address'],
    [{ address: undefined }, 'address'],
    [{ token: undefined }, 'token'],
    [{ token: 7 }, 'token'],
  ])('refuses %j: CONFIG of %s', async (more, argument) => {
    expect(await codeOf(() => fetched(more), 'hvs.secret', 'a:b@')).toBe('CONFIG')
    expect(() => fetched(more)).toThrow(`"${argument}" expected`)
  })

  it('takes a client of node-vault, and records its endpoint', async () => {
    const client = nodeVault({ endpoint: 'https://vault.example.com:8200/', token: 'hvs.secret' })
    expect(vaultTransit({ client, key: 'crm' }).keyUri).toBe(fetched({}).keyUri)
    for (const wrong of [undefined, {}, { write: client.write }, { endpoint: 'x', write: client.write }]) {
      expect(await codeOf(() => vaultTransit({ client: wrong as VaultClient, key: 'crm' }))).toBe('CONFIG')
    }
  })

  it('tells nothing by an error that is none', () => {
    const { failureOf } = fetched({})
    for (const error of [undefined, null, 'x', {}, { response: null }, { response: { statusCode: 503 } }]) {
      expect(failureOf!(error)).toBeUndefined()
    }
    expect(failureOf!({ response: { statusCode: 400 } })).toBe('rejected')
  })
})
