import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createKeyring, int, openKeyring, records, text } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { azureKms } from 'waxseal/kms/azure'
import { googleKms } from 'waxseal/kms/google'
import type { KmsDriver } from 'waxseal/kms/local'
import { vaultTransit } from 'waxseal/kms/vault'
import { codeOf } from './imitations/asked.ts'
import { AzureImitation } from './imitations/azure.ts'
import { type Connected, GoogleImitation, overGrpc } from './imitations/google.ts'
import { VaultImitation } from './imitations/vault.ts'

vi.stubEnv('METADATA_SERVER_DETECTION', 'none')
const people = records('people', { id: { id: int() }, fields: { name: text() } })

/** A keyring under root keys of all three: what the guides say of it. */
describe('a keyring under root keys of Google, Azure and Vault', () => {
  const google = new GoogleImitation()
  let connected: Connected
  let azure: AzureImitation
  let vault: VaultImitation
  let kms: { google: KmsDriver; azure: KmsDriver; vault: KmsDriver }

  beforeAll(async () => {
    connected = await overGrpc(google)
    azure = await AzureImitation.start()
    vault = await VaultImitation.start()
    vault.create('transit/keys/crm')
    kms = {
      google: googleKms({
        client: connected.client,
        keyName: google.create('projects/shop/locations/europe-west1/keyRings/waxseal/cryptoKeys/crm'),
      }),
      azure: azureKms({ client: azure.client(azure.create('crm')), algorithm: 'RSA-OAEP-256' }),
      vault: vaultTransit({ address: vault.url, token: vault.token(), key: 'crm' }),
    }
  })
  afterAll(() => Promise.all([connected.close(), azure.close(), vault.close()]))
  beforeEach(() => {
    for (const { calls } of [google, azure, vault]) calls.length = 0
  })

  const counts = () => ({
    google: tally(google.calls.map(({ method }) => method)),
    azure: tally(azure.calls.map(({ operation, authorization }) => (authorization ? operation : 'challenge'))),
    vault: tally(vault.calls.map(({ path }) => path.split('/')[1]!)),
  })

  it('opens by any one of them, with as many calls as the guides say', async () => {
    const store = memoryKeyStore()
    const keys = await createKeyring({ name: 'crm', store, kms: Object.values(kms) })
    expect(counts()).toEqual({
      google: { encrypt: 2, decrypt: 2 },
      azure: { challenge: expect.any(Number), get: expect.any(Number), wrapKey: 2, unwrapKey: 2 },
      vault: { encrypt: 2, decrypt: expect.any(Number) },
    })
    // One or both of the first wraps prove that the context is bound.
    expect([3, 4]).toContain(counts().vault.decrypt)

    const row = people.encrypt(keys, { id: 1, name: 'Bjørn' })
    const pin = { id: keys.status().id }
    for (const [name, expected] of [
      ['google', { decrypt: 2 }],
      ['azure', { unwrapKey: 2 }],
      ['vault', { decrypt: 2 }],
    ] as const) {
      for (const { calls } of [google, azure, vault]) calls.length = 0
      const opened = await openKeyring({ name: 'crm', store, kms: kms[name], pin })
      expect(people.decrypt(opened, row).name).toBe('Bjørn')
      expect(counts()).toEqual({ google: {}, azure: {}, vault: {}, [name]: expected })
    }
  })

  it('of Azure’s RSA key has to be opened with its pin: whoever has the public key can wrap', async () => {
    const store = memoryKeyStore()
    const keys = await createKeyring({ name: 'crm', store, kms: kms.azure })
    expect(await codeOf(openKeyring({ name: 'crm', store, kms: kms.azure }))).toBe('CONFIG')
    await openKeyring({ name: 'crm', store, kms: kms.azure, pin: { id: keys.status().id } })
  })

  it('moves from one version of Azure’s key to the next, and from there to Google', async () => {
    const store = memoryKeyStore()
    const keys = await createKeyring({ name: 'crm', store, kms: kms.azure })
    const row = people.encrypt(keys, { id: 1, name: 'Bjørn' })
    const pin = { id: keys.status().id }
    const next = azureKms({ client: azure.client(azure.create('crm')), algorithm: 'RSA-OAEP-256' })

    const both = await openKeyring({ name: 'crm', store, kms: [next, kms.azure], pin })
    await both.changeRootKey({ kms: next })
    const moved = await openKeyring({ name: 'crm', store, kms: next, pin })
    expect(people.decrypt(moved, row).name).toBe('Bjørn')
    expect(await codeOf(openKeyring({ name: 'crm', store, kms: kms.azure, pin }))).toBe('CONFIG')

    await moved.changeRootKey({ kms: kms.google })
    expect(people.decrypt(await openKeyring({ name: 'crm', store, kms: kms.google, pin }), row).name).toBe('Bjørn')
  })
})

function tally(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
