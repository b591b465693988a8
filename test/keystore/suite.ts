import { describe, expect, it } from 'vitest'
import type { KeyStore, StoredKeyring } from 'waxseal/keystore/memory'
import { refusal } from '../keyring/support.ts'
import { document } from './document.ts'

/** What every key store has to do. `make` gives a new, empty store. */
export function keyStoreSuite(name: string, make: () => KeyStore | Promise<KeyStore>): void {
  describe(`${name} as a key store`, () => {
    it('has nothing of a name that was never saved', async () => {
      const store = await make()
      expect(await store.load('crm')).toBeUndefined()
    })

    it('gives back what was saved', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('inserts only where there is nothing', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      const error = await refusal(() => store.save('crm', document(2), null))
      expect(error).toMatchObject({ code: 'CONFLICT', retryable: true })
      expect(error.message).toContain('exists already')
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('replaces only the epoch that was expected', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      await store.save('crm', document(2), 1)
      for (const stale of [1, 3, 0, -1, Number.NaN]) {
        expect(await refusal(() => store.save('crm', document(9), stale))).toMatchObject({ code: 'CONFLICT' })
      }
      expect(await store.load('crm')).toEqual(document(2))
    })

    it('replaces nothing where there is nothing', async () => {
      const store = await make()
      expect(await refusal(() => store.save('crm', document(2), 1))).toMatchObject({ code: 'CONFLICT' })
      expect(await store.load('crm')).toBeUndefined()
    })

    it('replaces whole documents: keys that are gone are gone', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      const less = { ...document(2), keys: { integrity: [{ uri: 'local:x', wrapped: 'AAAA' }] } }
      await store.save('crm', less, 1)
      expect(await store.load('crm')).toEqual(less)
    })

    it('keeps several keyrings apart', async () => {
      const store = await make()
      await store.save('crm', document(1, 'one'), null)
      await store.save('hr', document(1, 'two'), null)
      await store.save('crm', document(2, 'three'), 1)
      expect((await store.load('hr'))?.manifest).toBe('two')
      expect((await store.load('crm'))?.manifest).toBe('three')
    })

    it.each([
      '__proto__',
      'constructor',
      'toString',
      'hasOwnProperty',
      'prototype',
      '0',
      'CRM',
      'crm.eu-west_1',
      'a'.repeat(64),
    ])('takes %s as a name like any other', async (keyring) => {
      const store = await make()
      expect(await store.load(keyring)).toBeUndefined()
      await store.save(keyring, document(1), null)
      await store.save('crm', document(1, 'another'), null)
      expect(await store.load(keyring)).toEqual(document(1))
      await store.save(keyring, document(2), 1)
      expect(await refusal(() => store.save(keyring, document(3), null))).toMatchObject({ code: 'CONFLICT' })
      expect(await store.load(keyring)).toEqual(document(2))
      expect(({} as { epoch?: number }).epoch).toBeUndefined()
    })

    it('gives copies: changing what was saved or loaded changes nothing that is stored', async () => {
      const store = await make()
      const saved = document(1) as { epoch: number; manifest: string; keys: StoredKeyring['keys'] }
      await store.save('crm', saved as StoredKeyring, null)
      saved.manifest = 'changed'
      const loaded = (await store.load('crm')) as unknown as {
        manifest: string
        keys: Record<string, { wrapped: string }[]>
      }
      loaded.manifest = 'changed'
      loaded.keys.integrity![0]!.wrapped = 'changed'
      delete loaded.keys['k'.repeat(20)]
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('lets one of many who save the same epoch win', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      const writers = Array.from({ length: 10 }, (_, i) => store.save('crm', document(2, `writer ${i}`), 1))
      const results = await Promise.allSettled(writers)
      const won = results.flatMap(({ status }, i) => (status === 'fulfilled' ? [i] : []))
      expect(won).toHaveLength(1)
      for (const result of results) {
        if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'CONFLICT' })
      }
      expect((await store.load('crm'))?.manifest).toBe(`writer ${won[0]}`)
    })
  })
}
