import { constants, generateKeyPairSync, privateDecrypt, publicEncrypt } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createKeyring, type Keyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { acceptRollback, exportKeyring, importKeyring } from 'waxseal/recovery'
import type { KmsDriver } from '../../src/kms/kms.ts'
import { activeOf, MINUTE, NOTE, notes, refusal, rotated, setup, type WatchedStore, watchedKms } from './support.ts'

/**
 * RSA-OAEP, as Azure Key Vault and PKCS#11 have it: whoever has the public key can wrap, so nothing in the store says
 * who made it. Only a pin does.
 */
const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' } as const

function rsaKms(): KmsDriver {
  return {
    keyUri: 'rsa:1',
    ignoresContext: true,
    wrapsPublicly: true,
    wrap: async (key) => Uint8Array.from(publicEncrypt({ key: pair.publicKey, ...oaep }, key)),
    unwrap: async (blob) => Uint8Array.from(privateDecrypt({ key: pair.privateKey, ...oaep }, blob)),
    failureOf: () => 'rejected',
  }
}

/** What somebody can do who has the public key and may write the store: make a keyring of their own in its place. */
async function attacked(store: WatchedStore): Promise<Keyring> {
  let asked: Uint8Array = new Uint8Array()
  const kms: KmsDriver = {
    ...rsaKms(),
    wrap: async (key) => {
      asked = Uint8Array.from(key)
      return rsaKms().wrap(key, {})
    },
    unwrap: async () => Uint8Array.from(asked), // the attacker cannot unwrap, and need not: it is the key just wrapped
  }
  const theirs = memoryKeyStore()
  const keys = await createKeyring({ name: 'crm', store: theirs, kms })
  store.document = await theirs.load('crm')
  return keys
}

async function started() {
  const bench = setup({ kms: rsaKms() })
  const keys = await bench.create()
  const pin = { id: keys.status().id }
  return { ...bench, keys, pin }
}

describe('a root key that anybody may wrap under', () => {
  it('asks for pin.id at opening, before the store or the KMS is asked', async () => {
    const { open, store } = await started()
    store.loads = 0
    for (const pin of [undefined, {}, { minEpoch: 1 }]) {
      expect(await refusal(() => open(pin ? { pin } : {}))).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    }
    expect(store.loads).toBe(0)
  })

  it('asks for it also when it is one of several', async () => {
    const { create, open } = setup({ kms: [watchedKms(), rsaKms()] })
    const { id } = (await create()).status()
    expect(await refusal(() => open())).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect((await open({ pin: { id } })).status().id).toBe(id)
  })

  it('works with the pin: rows, rotation and a second opening', async () => {
    const { keys, open, pin } = await started()
    const row = notes.encrypt(keys, { ...NOTE })
    const opened = await open({ pin })
    expect(notes.decrypt(opened, row)).toEqual(NOTE)
    await rotated(opened)
    expect(notes.decrypt(await open({ pin }), notes.encrypt(opened, { ...NOTE }))).toEqual(NOTE)
  })

  it('does not open with the pin of another keyring', async () => {
    const { open } = await started()
    const other = (await setup({ kms: rsaKms() }).create()).status()
    expect(await refusal(() => open({ pin: { id: other.id } }))).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
  })
})

describe('a store that was replaced whole by somebody with the public key', () => {
  it('would open, if nothing were pinned: the attack is real', async () => {
    const { store } = await started()
    const theirs = await attacked(store)
    const careless = { ...rsaKms(), wrapsPublicly: false }
    const misled = await openKeyring({ name: 'crm', store, kms: careless })
    expect(notes.decrypt(theirs, notes.encrypt(misled, { ...NOTE }))).toEqual(NOTE)
  })

  it('is refused by the pin', async () => {
    const { store, open, pin } = await started()
    const theirs = await attacked(store)
    const error = await refusal(() => open({ pin }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect(error.message).toContain(theirs.status().id)
  })

  it('is refused when it claims the pinned id: the id is a function of the integrity key', async () => {
    const { store, open, pin } = await started()
    const theirs = await attacked(store)
    const text = JSON.stringify(store.document).replaceAll(theirs.status().id, pin.id)
    store.document = JSON.parse(text)
    expect(await refusal(() => open({ pin }))).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })

  it('is refused by a process that has the keyring open, which goes on with its keys', async () => {
    const { store, keys, clock } = await started()
    const active = activeOf(keys)
    const theirs = await attacked(store)
    const planted = structuredClone(store.document)
    clock.now += 6 * MINUTE
    expect(await refusal(() => keys.ready())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    expect(await refusal(() => keys.rotate())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    const row = notes.encrypt(keys, { ...NOTE })
    expect(activeOf(keys)).toBe(active)
    expect(await refusal(() => notes.decrypt(theirs, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    expect(store.document).toEqual(planted)
  })
})

describe('recovery under a root key that anybody may wrap under', () => {
  it('imports nothing without the pin, and writes nothing', async () => {
    const { keys } = await started()
    const exported = await exportKeyring(keys)
    const { store } = setup()
    const options = { name: 'crm', store, kms: rsaKms() }
    expect(await refusal(() => importKeyring(options, exported))).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect([store.document, store.saves]).toEqual([undefined, 0])
    const back = await importKeyring({ ...options, pin: { id: keys.status().id } }, exported)
    expect(back.status().id).toBe(keys.status().id)
  })

  it('does not import what somebody with the public key made up', async () => {
    const { store, pin } = await started()
    const forged = await exportKeyring(await attacked(store))
    store.document = undefined
    const options = { name: 'crm', store, kms: rsaKms(), pin }
    expect(await refusal(() => importKeyring(options, forged))).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect(store.document).toBeUndefined()
  })

  it('accepts no rollback without the pin, and writes nothing', async () => {
    const { store, keys } = await started()
    const before = structuredClone(store.document)
    await rotated(keys)
    store.document = structuredClone(before)
    const options = { name: 'crm', store, kms: rsaKms(), seenEpoch: keys.status().epoch, reason: 'restored' }
    expect(await refusal(() => acceptRollback(options))).toMatchObject({ code: 'CONFIG', argument: 'pin.id' })
    expect(store.document).toEqual(before)
  })
})
