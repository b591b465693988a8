import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKeyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { type Pkcs11KmsOptions, type Pkcs11Module, pkcs11Kms } from 'waxseal/kms/pkcs11'
import { kmsSuite } from 'waxseal/testing'
import { checkPatience, request } from '../../src/kms/portable.ts'
import { NOTE, notes, refusal } from '../keyring/support.ts'
import { missing } from '../support/missing.ts'
import { PIN, type SoftHsm, softHsmMissing, startSoftHsm } from '../support/softhsm.ts'

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'A'.repeat(22), 'waxseal:key': 'integrity' }
const patience = checkPatience()
const nothing = { C_UnwrapKey: () => undefined } as unknown as Pkcs11Module
const given = { pkcs11: nothing, tokenLabel: 't1', pin: PIN, keyLabel: 'k1' }

describe('pkcs11Kms', () => {
  it.each<[Partial<Pkcs11KmsOptions>, string]>([
    [{}, 'pkcs11:token=t1;object=k1;type=secret-key'],
    [{ tokenLabel: 'My token; no. 1' }, 'pkcs11:token=My%20token%3B%20no.%201;object=k1;type=secret-key'],
    [{ tokenSerial: '0a/b' }, 'pkcs11:token=t1;serial=0a%2Fb;object=k1;type=secret-key'],
    [{ keyLabel: 'Schlüssel' }, 'pkcs11:token=t1;object=Schl%C3%BCssel;type=secret-key'],
    [{ keyId: Uint8Array.of(0, 10, 255) }, 'pkcs11:token=t1;object=k1;id=%00%0a%ff;type=secret-key'],
  ])('with %o is %s', (options, uri) => {
    expect(pkcs11Kms({ ...given, ...options }).keyUri).toBe(uri)
  })

  it('names a key by its id alone', () => {
    const { keyLabel: _, ...rest } = given
    expect(pkcs11Kms({ ...rest, keyId: Uint8Array.of(1) }).keyUri).toBe('pkcs11:token=t1;id=%01;type=secret-key')
  })

  it('has a URI within the limit for the longest names', () => {
    const longest = { tokenLabel: 'ü'.repeat(16), tokenSerial: ';'.repeat(16), keyLabel: 'ü'.repeat(64) }
    expect(pkcs11Kms({ ...given, ...longest, keyId: new Uint8Array(128) }).keyUri.length).toBeLessThan(2048)
  })

  it.each<[string, Record<string, unknown>]>([
    ['pkcs11', { pkcs11: undefined }],
    ['pkcs11', { pkcs11: {} }],
    ['tokenLabel', { tokenLabel: '' }],
    ['tokenLabel', { tokenLabel: undefined }],
    ['tokenLabel', { tokenLabel: 'ü'.repeat(17) }],
    ['tokenLabel', { tokenLabel: '\ud800' }],
    ['tokenSerial', { tokenSerial: 'x'.repeat(17) }],
    ['pin', { pin: '' }],
    ['pin', { pin: undefined }],
    ['pin', { pin: 71828182 }],
    ['keyLabel', { keyLabel: undefined }],
    ['keyLabel', { keyLabel: 'x'.repeat(129) }],
    ['keyId', { keyId: 'AQ' }],
    ['keyId', { keyId: new Uint8Array(0) }],
    ['keyId', { keyId: new Uint8Array(129) }],
  ])('refuses a wrong %s at once: %o', async (argument, wrong) => {
    const error = await refusal(() => pkcs11Kms({ ...given, ...wrong } as Pkcs11KmsOptions))
    expect(error).toMatchObject({ code: 'CONFIG', argument })
    expect(error.message).not.toContain(PIN.slice(1))
  })
})

describe.skipIf(missing('pkcs11Kms in SoftHSM', softHsmMissing()))(
  'pkcs11Kms in SoftHSM (a real token in software)',
  () => {
    let hsm: SoftHsm
    const driver = (options: Partial<Pkcs11KmsOptions> = {}) =>
      pkcs11Kms({ pkcs11: hsm.module, tokenLabel: 't1', pin: PIN, keyLabel: 'k1', ...options })
    const slotOf = (label: string) =>
      hsm.module.C_GetSlotList(true).find((slot) => hsm.module.C_GetTokenInfo(slot).label.trim() === label)!
    const wrapBy = (kms: ReturnType<typeof driver>) => request(kms, 'wrap', KEY, CONTEXT, patience)
    /** Logs the process out: PKCS #11 asks for the PIN again only then. */
    const logOut = (label = 't1') => hsm.module.C_CloseAllSessions(slotOf(label))
    /** The module, watched: names of the calls that came, and faults to throw instead. */
    function watched(faults: Record<string, () => unknown> = {}) {
      const calls: string[] = []
      const pkcs11 = new Proxy(hsm.module, {
        get(target, name: keyof SoftHsm['module']) {
          return (...args: never[]) => {
            calls.push(name)
            return faults[name] ? faults[name]() : (target[name] as (...args: never[]) => unknown)(...args)
          }
        },
      })
      return { pkcs11, calls, count: (name: string) => calls.filter((call) => call === name).length, faults }
    }
    const fails = (code: number) => () => {
      throw Object.assign(new Error('CKR_…'), { name: 'Pkcs11Error', code })
    }

    beforeAll(() => {
      hsm = startSoftHsm()
      hsm.token('t1')
      hsm.key('t1', 'k1', { id: Uint8Array.of(1, 2) })
      hsm.key('t1', 'k2')
      hsm.key('t1', 'twice', { id: Uint8Array.of(7) })
      hsm.key('t1', 'twice', { id: Uint8Array.of(8) })
      hsm.key('t1', 'leaky', { extractable: true })
      hsm.key('t1', 'short', { bytes: 16 })
      hsm.key('t1', 'idle', { may: false })
    })
    afterAll(() => hsm?.stop())

    kmsSuite(
      { describe, it, expect, inspect },
      {
        name: 'pkcs11Kms',
        make: () => driver(),
        other: () => driver({ keyLabel: 'k2' }),
        hanging: () => driver({ pin: () => new Promise<string>(() => undefined) }),
        randomises: false,
        secrets: [PIN],
      },
    )

    it('the key cannot be read, nor wrapped by another key', () => {
      const session = hsm.module.C_OpenSession(slotOf('t1'), 4)
      const find = (label: string) => {
        hsm.module.C_FindObjectsInit(session, [{ type: 3, value: label }])
        const [key] = hsm.module.C_FindObjects(session, 1)
        hsm.module.C_FindObjectsFinal(session)
        return key!
      }
      if (!find('k1')) hsm.module.C_Login(session, 1, PIN)
      const [root, other] = [find('k1'), find('k2')]
      expect(() => hsm.module.C_GetAttributeValue(session, root, [{ type: 0x11 }])).toThrow('CKR_ATTRIBUTE_SENSITIVE')
      const asked = [{ type: 0x162 }, { type: 0x164 }, { type: 0x103 }, { type: 0x165 }]
      const flags = hsm.module.C_GetAttributeValue(session, root, asked).map(({ value }) => value[0])
      expect(flags).toEqual([0, 1, 1, 1]) // extractable, never extractable, sensitive, always sensitive
      expect(() => hsm.module.C_WrapKey(session, { mechanism: 0x2109 }, other, root, new Uint8Array(64))).toThrow(
        'CKR_',
      )
      hsm.module.C_CloseSession(session)
    })

    it('is found by label, id or both, and by the serial of its token', async () => {
      const blob = await driver().wrap(KEY, CONTEXT)
      const { serialNumber } = hsm.module.C_GetTokenInfo(slotOf('t1'))
      const names: Partial<Pkcs11KmsOptions>[] = [
        { keyId: Uint8Array.of(1, 2) },
        { keyLabel: undefined as never, keyId: Uint8Array.of(1, 2) },
        { tokenSerial: serialNumber.trim() },
      ]
      for (const name of names) expect(await driver(name).unwrap(blob, CONTEXT)).toEqual(KEY)
    })

    it('leaves no temporary key behind', async () => {
      const { pkcs11, calls, count } = watched()
      const kms = driver({ pkcs11 })
      const blob = await kms.wrap(KEY, CONTEXT)
      await kms.unwrap(blob, CONTEXT)
      await refusal(() =>
        kms.unwrap(
          Uint8Array.from(blob, (byte) => byte ^ 1),
          CONTEXT,
        ),
      )
      expect(count('C_CreateObject') + count('C_UnwrapKey') - 1).toBe(count('C_DestroyObject'))
      expect(calls.filter((call) => call === 'C_OpenSession' || call === 'C_Login')).toEqual([
        'C_OpenSession',
        'C_Login',
      ])
      const session = pkcs11.C_OpenSession(slotOf('t1'), 4)
      pkcs11.C_FindObjectsInit(session, [{ type: 1, value: false }])
      expect(pkcs11.C_FindObjects(session, 100)).toEqual([])
      pkcs11.C_FindObjectsFinal(session)
      pkcs11.C_CloseSession(session)
    })

    it('opens one session and logs in once for many callers at once, asking for the PIN once', async () => {
      logOut()
      const { pkcs11, count } = watched()
      let asked = 0
      const pin = async () => {
        asked++
        await new Promise((done) => setTimeout(done, 10))
        return PIN
      }
      const kms = driver({ pkcs11, pin })
      await Promise.all(Array.from({ length: 10 }, () => kms.wrap(KEY, CONTEXT)))
      expect([asked, count('C_OpenSession'), count('C_Login'), count('C_WrapKey')]).toEqual([1, 1, 1, 10])
    })

    it('a wrong PIN is KMS_DENIED and is tried once, ever', async () => {
      logOut()
      const { pkcs11, count } = watched()
      const kms = driver({ pkcs11, pin: '0000000' })
      for (let i = 0; i < 5; i++) {
        const error = await refusal(() => wrapBy(kms))
        expect(error).toMatchObject({ code: 'KMS_DENIED', retryable: false })
        expect(inspect(error)).not.toContain('0000000')
      }
      expect(count('C_Login')).toBe(1)
      expect(count('C_CloseSession')).toBe(1)
    })

    it('a PIN that the token could not look at is tried again', async () => {
      logOut()
      const watch = watched({ C_Login: fails(0x102) }) // CKR_USER_PIN_NOT_INITIALIZED
      const kms = driver({ pkcs11: watch.pkcs11 })
      expect(await refusal(() => wrapBy(kms))).toMatchObject({ code: 'KMS_DENIED' })
      delete watch.faults.C_Login
      expect(await wrapBy(kms)).toHaveLength(40)
    })

    it('another PIN is tried after one that was wrong', async () => {
      logOut()
      const { pkcs11, count } = watched()
      let pin = '0000000'
      const kms = driver({ pkcs11, pin: () => pin })
      await refusal(() => wrapBy(kms))
      await refusal(() => wrapBy(kms))
      pin = PIN
      expect(await wrapBy(kms)).toHaveLength(40)
      expect(count('C_Login')).toBe(2)
    })

    it.each([0xa1, 0xa2, 0xa3, 0xa4])(
      'the return value %i to a PIN is KMS_DENIED, and the PIN is not tried again',
      async (code) => {
        const { pkcs11, count } = watched({ C_Login: fails(code) })
        const kms = driver({ pkcs11 })
        for (let i = 0; i < 3; i++) expect(await refusal(() => wrapBy(kms))).toMatchObject({ code: 'KMS_DENIED' })
        expect(count('C_Login')).toBe(1)
      },
    )

    it('a PIN that cannot be had is KMS_UNAVAILABLE, and is asked for again', async () => {
      logOut()
      let broken = true
      const pin = async () => {
        if (broken) throw new TypeError('the secret manager is away')
        return PIN
      }
      const kms = driver({ pin })
      expect(await refusal(() => wrapBy(kms))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
      broken = false
      expect(await wrapBy(kms)).toHaveLength(40)
    })

    it.each([undefined, '', 7])('a PIN that is %o is CONFIG', async (nonsense) => {
      const error = await refusal(() => wrapBy(driver({ pin: () => nonsense as string })))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'pin' })
    })

    it.each([
      ['is not there', 'k9', 'KMS_DENIED', /no AES key/],
      ['is there twice', 'twice', 'KMS_DENIED', /several/],
      ['can be extracted', 'leaky', 'CONFIG', /can be extracted/],
      ['has 16 bytes', 'short', 'CONFIG', /16 bytes/],
      ['may not wrap', 'idle', 'KMS_DENIED', /refused/],
    ])('a key that %s (%s) is %s', async (_, keyLabel, code, message) => {
      const error = await refusal(() => wrapBy(driver({ keyLabel })))
      expect(error).toMatchObject({ code, retryable: false })
      expect(error.message).toMatch(message)
    })

    it('one of two keys of one label is told by its id', async () => {
      const [seven, eight] = [7, 8].map((id) => driver({ keyLabel: 'twice', keyId: Uint8Array.of(id) }))
      const blob = await seven!.wrap(KEY, CONTEXT)
      expect(await seven!.unwrap(blob, CONTEXT)).toEqual(KEY)
      const error = await refusal(() => request(eight!, 'unwrap', blob, CONTEXT, patience))
      expect(error).toMatchObject({ code: 'DECRYPTION_FAILED', retryable: false })
    })

    it('a token that is not there is KMS_UNAVAILABLE, and is used when it comes', async () => {
      const kms = driver({ tokenLabel: 't2' })
      const error = await refusal(() => wrapBy(kms))
      expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect(error.message).toContain('"t2"')
      hsm.token('t2')
      hsm.key('t2', 'k1')
      const blob = await wrapBy(kms)
      expect(await kms.unwrap(blob, CONTEXT)).toEqual(KEY)
      hsm.remove('t2')
      expect(await refusal(() => request(kms, 'unwrap', blob, CONTEXT, patience))).toMatchObject({
        code: 'KMS_UNAVAILABLE',
      })
      expect(await refusal(() => wrapBy(kms))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    })

    it('two tokens of one label are not guessed between', async () => {
      hsm.token('twins')
      hsm.token('twins')
      const error = await refusal(() => wrapBy(driver({ tokenLabel: 'twins' })))
      expect(error).toMatchObject({ code: 'KMS_DENIED' })
      expect(error.message).toContain('several tokens')
    })

    it.each<[string, (kms: ReturnType<typeof driver>) => void]>([
      ['sessions were closed', () => hsm.module.C_CloseAllSessions(slotOf('t1'))],
      [
        'somebody logged out',
        () => {
          const session = hsm.module.C_OpenSession(slotOf('t1'), 4)
          hsm.module.C_Logout(session)
          hsm.module.C_CloseSession(session)
        },
      ],
      [
        'the module was restarted',
        () => {
          hsm.module.C_Finalize()
          hsm.module.C_Initialize()
        },
      ],
    ])('after %s, one request fails as KMS_UNAVAILABLE and the next one logs in anew', async (_, disturb) => {
      const kms = driver()
      const blob = await wrapBy(kms)
      disturb(kms)
      expect(await refusal(() => request(kms, 'unwrap', blob, CONTEXT, patience))).toMatchObject({
        code: 'KMS_UNAVAILABLE',
      })
      expect(await request(kms, 'unwrap', blob, CONTEXT, patience)).toEqual(KEY)
    })

    it('a module that is not initialised is CONFIG', async () => {
      const kms = driver()
      hsm.module.C_Finalize()
      expect(await refusal(() => wrapBy(kms))).toMatchObject({ code: 'CONFIG', argument: 'pkcs11' })
      hsm.module.C_Initialize()
      expect(await wrapBy(kms)).toHaveLength(40)
    })

    it.each([
      [0x110, 'DECRYPTION_FAILED'],
      [0x112, 'DECRYPTION_FAILED'],
      [0x40, 'DECRYPTION_FAILED'],
      [0x68, 'KMS_DENIED'],
      [0x70, 'KMS_DENIED'],
      [0xd1, 'KMS_DENIED'],
      [0x05, 'KMS_UNAVAILABLE'],
      [0x30, 'KMS_UNAVAILABLE'],
      [0x32, 'KMS_UNAVAILABLE'],
      [0xb3, 'KMS_UNAVAILABLE'],
      [0xe0, 'KMS_UNAVAILABLE'],
    ])('the return value %i of C_UnwrapKey is %s, though it worked before', async (code, expected) => {
      const watch = watched()
      const kms = driver({ pkcs11: watch.pkcs11 })
      const blob = await wrapBy(kms)
      watch.faults.C_UnwrapKey = fails(code)
      const error = await refusal(() => request(kms, 'unwrap', blob, CONTEXT, patience))
      expect(error.code).toBe(expected)
      delete watch.faults.C_UnwrapKey
      expect(await request(kms, 'unwrap', blob, CONTEXT, patience)).toEqual(KEY)
      expect(watch.count('C_OpenSession')).toBe(expected === 'DECRYPTION_FAILED' ? 1 : 2)
    })

    it('a blob that does not open costs no session', async () => {
      const { pkcs11, count } = watched()
      const kms = driver({ pkcs11 })
      const blob = await wrapBy(kms)
      blob[9]! ^= 1
      for (let i = 0; i < 3; i++) {
        expect(await refusal(() => request(kms, 'unwrap', blob, CONTEXT, patience))).toMatchObject({
          code: 'DECRYPTION_FAILED',
        })
      }
      expect(count('C_OpenSession')).toBe(1)
    })

    it('keeps a keyring, which opens after the token was away', async () => {
      const { pkcs11, count } = watched()
      const options = { name: 'crm', store: memoryKeyStore(), kms: driver({ pkcs11 }), patience: { backoffMs: 0 } }
      const keys = await createKeyring(options)
      expect([count('C_WrapKey'), count('C_UnwrapKey')]).toEqual([2, 2])
      const row = notes.encrypt(keys, { ...NOTE })
      logOut()
      await using again = await openKeyring(options)
      expect(notes.decrypt(again, row)).toEqual(NOTE)
      const other = { ...options, kms: driver({ keyLabel: 'k2' }) }
      expect(await refusal(() => openKeyring(other))).toMatchObject({ code: 'CONFIG', argument: 'kms' })
    })
  },
)
