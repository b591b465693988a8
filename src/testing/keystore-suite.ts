import { WaxsealError } from '../errors.ts'
import type { KeyStore, StoredKeyring } from '../keystore/keystore.ts'
import type { SuiteFramework } from './framework.ts'

/** A store to be tested. */
export interface KeyStoreSuiteSubject {
  readonly name: string
  /**
   * Makes new, empty storage, and resolves to what opens a store on it. When that is called again it has to give another
   * store on the same storage, as another process would (a store in memory: the same one).
   */
  make(): (() => KeyStore) | Promise<() => KeyStore>
}

/** Names that a keyring may have, or that a careless store takes for something else. */
const NAMES = [
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'prototype',
  '0',
  'CRM',
  'Crm',
  'crm.eu-west_1',
  'a%',
  "o'hara",
  'a'.repeat(64),
]
/** Quotes, escapes, placeholders, what a character set may not have, what looks like another type. */
const TEXTS = {
  'quotes and escapes': `'"\`\\ \\' \\" \\\\ \\u0041 \\n %s ? $1 :name ; -- /* */ {{x}}`,
  'white space at both ends': ' \t\r\n\v\f manifest \u00a0\u2028\u2029\ufeff ',
  'control characters': `${Array.from({ length: 0x21 }, (_, i) => String.fromCharCode(i)).join('')}\u007f\u0080\u009f`,
  'every script': 'Zoë Þórður Łódź Ωμέγα Жук 漢字 かな 한글 עברית العربية 🗝️👩‍👩‍👧 𝔘𝔫𝔦 e\u0301 \u00e9 ß ẞ ı İ',
  'what is no Unicode': '\ud800 \udfff \ufffe \uffff',
  'JSON of its own': '{"epoch":9,"keys":{"integrity":[]}}',
  nothing: '',
}
const WRITERS = 10

/**
 * What every key store has to do, as tests: gives back what it was given, byte for byte and at every size; inserts only
 * where there is nothing and replaces only the epoch that was expected; lets one of many win; changes nothing when it says
 * CONFLICT; keeps names apart. About 250 calls of a store.
 *
 * @example
 * ```ts
 * // compile only
 * import { memoryKeyStore } from 'waxseal/keystore/memory'
 * import { keyStoreSuite } from 'waxseal/testing'
 * import { describe, expect, it } from 'vitest'
 *
 * const make = () => {
 *   const store = memoryKeyStore()
 *   return () => store
 * }
 * keyStoreSuite({ describe, it, expect }, { name: 'memoryKeyStore', make })
 * ```
 */
export function keyStoreSuite({ describe, it, expect }: SuiteFramework, subject: KeyStoreSuiteSubject): void {
  const { name } = subject
  const make = async (): Promise<KeyStore> => (await subject.make())()

  /** `saved`, the code of the refusal, or what else was thrown. */
  const outcome = (work: Promise<void>): Promise<string> =>
    work.then(
      () => 'saved',
      (error: unknown) => (WaxsealError.is(error) ? error.code : `not ours: ${String(error)}`),
    )

  /** Saves all at once; resolves to the index of the one that won, after looking at what the others got. */
  async function race(saves: readonly (() => Promise<void>)[]): Promise<number> {
    const outcomes = await Promise.all(saves.map((save) => outcome(save())))
    expect([...outcomes].sort()).toEqual([...Array(saves.length - 1).fill('CONFLICT'), 'saved'])
    return outcomes.indexOf('saved')
  }

  describe(`${name} as a key store`, () => {
    it('has nothing of a name that was never saved', async () => {
      const store = await make()
      expect(await store.load('crm')).toEqual(undefined)
    })

    it('gives back what was saved', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      expect(await store.load('crm')).toEqual(document(1))
      await store.save('crm', document(2), 1)
      expect(await store.load('crm')).toEqual(document(2))
    })

    it('inserts only where there is nothing', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      const error = await store.save('crm', document(2), null).catch((thrown: unknown) => thrown)
      expect(WaxsealError.is(error) && [error.code, error.retryable]).toEqual(['CONFLICT', true])
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('replaces only the epoch that was expected, and nothing after a CONFLICT', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      await store.save('crm', document(2), 1)
      for (const stale of [1, 3, 0, -1, Number.MAX_SAFE_INTEGER]) {
        expect([stale, await outcome(store.save('crm', document(9), stale))]).toEqual([stale, 'CONFLICT'])
        expect(await store.load('crm')).toEqual(document(2))
      }
    })

    it('replaces nothing where there is nothing', async () => {
      const store = await make()
      expect(await outcome(store.save('crm', document(2), 1))).toEqual('CONFLICT')
      expect(await store.load('crm')).toEqual(undefined)
    })

    it('replaces whole documents: keys that are gone are gone', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      const less = { ...document(2), keys: { integrity: [{ uri: 'local:x', wrapped: 'AAAA' }] } }
      await store.save('crm', less, 1)
      expect(await store.load('crm')).toEqual(less)
    })

    it('saves again what stands there: that is no conflict', async () => {
      const store = await make()
      await store.save('crm', document(1), null)
      expect(await outcome(store.save('crm', document(1), 1))).toEqual('saved')
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('keeps epochs up to 2^53 - 1 apart', async () => {
      const store = await make()
      const last = Number.MAX_SAFE_INTEGER
      await store.save('crm', document(last - 1), null)
      expect(await outcome(store.save('crm', document(last), last))).toEqual('CONFLICT')
      await store.save('crm', document(last), last - 1)
      expect(await store.load('crm')).toEqual(document(last))
    })

    it('keeps several keyrings apart', async () => {
      const store = await make()
      await store.save('crm', document(1, 'one'), null)
      await store.save('hr', document(1, 'two'), null)
      await store.save('crm', document(2, 'three'), 1)
      expect(await store.load('hr')).toEqual(document(1, 'two'))
      expect(await store.load('crm')).toEqual(document(2, 'three'))
    })

    it('tells the time in ms since the epoch, where it has a clock, within ten minutes of this machine', async () => {
      const store = await make()
      const time = await store.now?.()
      const isRight = Number.isSafeInteger(time) && Math.abs(time! - Date.now()) < 600_000
      expect(time === undefined || isRight).toEqual(true)
    })

    for (const keyring of NAMES) {
      it(`takes ${keyring} as a name like any other`, async () => {
        const store = await make()
        expect(await store.load(keyring)).toEqual(undefined)
        await store.save(keyring, document(1), null)
        await store.save('crm', document(1, 'another'), null)
        expect(await store.load(keyring)).toEqual(document(1))
        await store.save(keyring, document(2), 1)
        expect(await outcome(store.save(keyring, document(3), null))).toEqual('CONFLICT')
        expect(await store.load(keyring)).toEqual(document(2))
        expect(await store.load('crm')).toEqual(document(1, 'another'))
        expect(({} as { epoch?: number }).epoch).toEqual(undefined)
      })
    }

    for (const [what, text] of Object.entries(TEXTS)) {
      it(`gives texts back byte for byte: ${what}`, async () => {
        const store = await make()
        const saved = { ...document(1, text), keys: { integrity: [{ uri: text, wrapped: 'AA' }] } }
        await store.save('crm', saved, null)
        const loaded = await store.load('crm')
        expect([loaded?.manifest === text, loaded?.keys.integrity?.[0]?.uri === text]).toEqual([true, true])
        expect(Object.keys(loaded ?? {}).sort()).toEqual(['epoch', 'keys', 'mac', 'manifest'])
      })
    }

    it('takes a manifest of 1 MiB, 16 wraps of 16 KiB, URIs of 2 KiB, and hundreds of keys', async () => {
      const store = await make()
      const wraps = Array.from({ length: 16 }, (_, i) => ({
        uri: `${i}:`.padEnd(2048, 'u'),
        wrapped: 'A_-9'.repeat(5462),
      }))
      const versions = Array.from({ length: 300 }, (_, i) => [`key${i}`.padEnd(20, 'k'), [wraps[0]!]] as const)
      const manifest = '{"é":"x"}\n'.repeat(104_857).padEnd(1 << 20, ' ')
      const large = { ...document(1, manifest), keys: { ...Object.fromEntries(versions), integrity: wraps } }
      await store.save('crm', large, null)
      const loaded = await store.load('crm')
      expect([loaded?.manifest === manifest, Object.keys(loaded?.keys ?? {}).length]).toEqual([true, 301])
      expect(JSON.stringify(loaded?.keys.integrity) === JSON.stringify(wraps)).toEqual(true)
      await store.save('crm', document(2), 1)
      expect(await store.load('crm')).toEqual(document(2))
    })

    it('gives copies: changing what was saved or loaded changes nothing that is stored', async () => {
      const store = await make()
      const saved = structuredClone(document(1)) as Mutable
      await store.save('crm', saved, null)
      saved.manifest = 'changed'
      const loaded = (await store.load('crm')) as unknown as Mutable
      loaded.manifest = 'changed'
      loaded.keys.integrity![0]!.wrapped = 'changed'
      delete loaded.keys['k'.repeat(20)]
      expect(await store.load('crm')).toEqual(document(1))
    })

    it('shows a save to every other store on the same storage', async () => {
      const open = await subject.make()
      const [one, two] = [open(), open()]
      await one.save('crm', document(1), null)
      expect(await two.load('crm')).toEqual(document(1))
      await two.save('crm', document(2), 1)
      expect(await outcome(one.save('crm', document(2, 'late'), 1))).toEqual('CONFLICT')
      expect(await one.load('crm')).toEqual(document(2))
    })

    it('lets one of many who insert at once win', async () => {
      const open = await subject.make()
      const stores = Array.from({ length: WRITERS }, open)
      const won = await race(stores.map((store, i) => () => store.save('crm', document(1, `writer ${i}`), null)))
      expect(await open().load('crm')).toEqual(document(1, `writer ${won}`))
    })

    it('lets one of many who save the same epoch at once win, time after time', async () => {
      const open = await subject.make()
      const stores = Array.from({ length: WRITERS }, open)
      await stores[0]!.save('crm', document(1), null)
      for (let epoch = 2; epoch <= 5; epoch++) {
        const won = await race(
          stores.map((store, i) => () => store.save('crm', document(epoch, `writer ${i}`), epoch - 1)),
        )
        expect(await open().load('crm')).toEqual(document(epoch, `writer ${won}`))
      }
    })

    it('loses no update of writers that read, save and try again', async () => {
      const open = await subject.make()
      await open().save('crm', document(1, ''), null)
      const add = async (store: KeyStore, letter: string): Promise<void> => {
        for (let added = 0; added < 5; ) {
          const { epoch, manifest } = (await store.load('crm'))!
          const told = await outcome(store.save('crm', document(epoch + 1, manifest + letter), epoch))
          if (told === 'saved') added++
          else expect(told).toEqual('CONFLICT')
        }
      }
      await Promise.all(['a', 'b', 'c'].map((letter) => add(open(), letter)))
      const { epoch, manifest } = (await open().load('crm'))!
      expect([epoch, [...manifest].sort().join('')]).toEqual([16, 'aaaaabbbbbccccc'])
    })
  })
}

interface Mutable {
  epoch: number
  manifest: string
  mac: string
  keys: Record<string, { uri: string; wrapped: string }[]>
}

/** A stored keyring that is well-formed and no more: stores know nothing of what is in it. */
function document(epoch: number, manifest = `manifest of epoch ${epoch}`): StoredKeyring {
  const keys = {
    integrity: [{ uri: 'local:x', wrapped: 'AAAA' }],
    ['k'.repeat(20)]: [{ uri: 'local:x', wrapped: 'AQ' }],
  }
  return { epoch, manifest, mac: 'm'.repeat(43), keys }
}
