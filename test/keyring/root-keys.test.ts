import { afterEach, describe, expect, it, vi } from 'vitest'
import { localKms } from 'waxseal/kms/local'
import type { KmsDriver } from '../../src/kms/kms.ts'
import { AWAY, DENIED, region } from './roots.ts'
import { activeOf, NOTE, notes, quiet, refusal, rotated, setup, standing } from './support.ts'

afterEach(() => void vi.useRealTimers())

/** A keyring under two root keys, and a row. */
async function started() {
  const [near, far] = [region(1), region(2)]
  const bench = setup({ kms: [near, far] })
  const keys = await bench.create()
  const row = notes.encrypt(keys, { ...NOTE })
  near.unwraps = far.unwraps = near.wraps = far.wraps = 0
  return { ...bench, near, far, keys, row }
}

const urisOf = (document: { keys: Readonly<Record<string, readonly { uri: string }[]>> }) =>
  Object.values(document.keys).map((wraps) => wraps.map(({ uri }) => uri))

describe('a keyring under several root keys', () => {
  it('wraps every key under all of them, in the order of the configuration', async () => {
    const { store, near, far, keys } = await started()
    await rotated(keys)
    expect(urisOf(store.document!)).toEqual(Array(3).fill([near.keyUri, far.keyUri]))
  })

  it('is not created when one of them is down: nothing is stored, and it can be created later', async () => {
    for (const down of [0, 1]) {
      const kms = [region(1), region(2)]
      const { create, store } = setup({ kms })
      kms[down]!.down = AWAY
      expect(await refusal(() => create())).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
      expect([store.saves, store.document]).toEqual([0, undefined])
      kms[down]!.down = undefined
      await create()
    }
  })

  it.each([
    ['its integrity key', 1],
    ['its first version', 2],
  ])('is not created when the second goes down while it wraps %s', async (_, most) => {
    const [near, far] = [region(1), region(2)]
    const { create, store } = setup({ kms: [near, far] })
    far.slow = async () => {
      if (far.wraps >= most) far.down = DENIED
    }
    expect(await refusal(() => create())).toMatchObject({ code: 'KMS_DENIED' })
    expect([store.saves, far.wraps]).toEqual([0, most])
  })

  it('is not rotated when one of them is down, and then nothing has changed', async () => {
    const { store, far, keys, row, open } = await started()
    const before = structuredClone(store.document)
    const status = keys.status()
    far.down = AWAY
    const calls = [
      () => keys.rotate(),
      () => keys.markCompromised(activeOf(keys), { reason: 'leaked' }),
      () => keys.changeRootKey(),
    ]
    for (const call of calls) expect(await refusal(call)).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    expect([store.document, keys.status()]).toEqual([before, status])
    expect(notes.decrypt(await open(), row)).toEqual(NOTE)
    far.down = undefined
    await keys.rotate()
  })

  it('is opened by each of them alone', async () => {
    const { open, near, far, row } = await started()
    for (const kms of [near, far, [far, near], [near]]) expect(notes.decrypt(await open({ kms }), row)).toEqual(NOTE)
  })

  it('asks the second nothing while the first answers', async () => {
    const { open, near, far } = await started()
    await open()
    expect([near.unwraps, far.unwraps]).toEqual([2, 0])
    await open({ kms: [far, near] })
    expect([near.unwraps, far.unwraps]).toEqual([2, 2])
  })
})

describe('a root key that does not answer as it should', () => {
  const WAYS: Record<string, (near: ReturnType<typeof region>) => void> = {
    'is down': (near) => {
      near.down = AWAY
    },
    denies: (near) => {
      near.down = DENIED
    },
    'answers with another key': (near) => {
      near.lie = () => new Uint8Array(32).fill(9)
    },
    'answers with garbage': (near) => {
      near.lie = () => Uint8Array.of(1, 2, 3)
    },
    'answers with nothing': (near) => {
      near.lie = () => undefined
    },
  }

  it.each(Object.entries(WAYS))('because it %s is passed over for the next, without a pause', async (how, spoil) => {
    const { open, near, far, row } = await started()
    spoil(near)
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    const set = vi.spyOn(globalThis, 'setTimeout')
    const keys = await open({ patience: { attempts: 4, timeoutMs: 1234, backoffMs: 60_000 } })
    const isOut = near.unwraps === 1 // one that is down is asked last from then on; one that answers wrongly is not
    const asked = near.unwraps + far.unwraps
    const waits = set.mock.calls.map(([, ms]) => ms).filter((ms) => ms !== 30_000) // which is for the store
    expect(waits).toEqual(Array(asked).fill(1234)) // time-outs, and no pause
    set.mockRestore()
    expect([near.unwraps, far.unwraps]).toEqual([isOut ? 1 : 2, 2])
    expect(isOut).toBe(how === 'is down')
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('because it is silent costs one time-out, however many keys there are', async () => {
    const { open, near, row } = await started()
    near.slow = () => new Promise(() => undefined)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const opening = open({ patience: { attempts: 4, timeoutMs: 500, backoffMs: 60_000 } })
    await vi.advanceTimersByTimeAsync(500)
    await quiet()
    expect(notes.decrypt(await opening, row)).toEqual(NOTE)
    expect(near.unwraps).toBe(1)
  })

  it('together with all the others is KMS_UNAVAILABLE, and each was asked `attempts` times', async () => {
    const { open, near, far } = await started()
    near.down = far.down = AWAY
    const error = await refusal(() => open({ patience: { attempts: 3, backoffMs: 0 } }))
    expect(error).toMatchObject({ code: 'KMS_UNAVAILABLE', retryable: true })
    expect([near.unwraps, far.unwraps]).toEqual([3, 3])
  })

  it.each([
    ['first', 'second'],
    ['second', 'first'],
  ])('the %s being down counts more than that the %s denies, which is asked once', async (which) => {
    const { open, near, far } = await started()
    const [away, denied] = which === 'first' ? [near, far] : [far, near]
    away.down = AWAY
    denied.down = DENIED
    const error = await refusal(() => open({ patience: { attempts: 3, backoffMs: 0 } }))
    expect(error.code).toBe('KMS_UNAVAILABLE')
    expect([away.unwraps, denied.unwraps]).toEqual([3, 1])
  })

  it('when all deny is KMS_DENIED, after one request to each', async () => {
    const { open, near, far } = await started()
    near.down = far.down = DENIED
    const error = await refusal(() => open({ patience: { attempts: 3, backoffMs: 0 } }))
    expect(error).toMatchObject({ code: 'KMS_DENIED', retryable: false })
    expect([near.unwraps, far.unwraps]).toEqual([1, 1])
  })

  it('that comes back between two tries is used', async () => {
    const { open, near, far, row } = await started()
    near.down = DENIED
    far.down = AWAY
    far.slow = async () => {
      if (far.unwraps >= 2) far.down = undefined
    }
    expect(notes.decrypt(await open({ patience: { attempts: 3, backoffMs: 0 } }), row)).toEqual(NOTE)
    expect(near.unwraps).toBe(2) // once per key: what was denied is not asked again
  })
})

describe('which root keys are asked', () => {
  it('those that are stored: others that are configured are passed over', async () => {
    const { open, near, row } = await started()
    const [before, after] = [region(8), region(9)]
    const keys = await open({ kms: [before, near, after] })
    expect([before.unwraps, near.unwraps, after.unwraps]).toEqual([0, 2, 0])
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  })

  it('none, when none is stored: CONFIG, naming both sides', async () => {
    const { open, near, far } = await started()
    const others = [region(8), region(9)]
    const error = await refusal(() => open({ kms: others }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'kms', retryable: false })
    for (const { keyUri } of [near, far, ...others]) expect(error.message).toContain(keyUri)
    expect(others.map(({ unwraps }) => unwraps)).toEqual([0, 0])
  })

  it.each<[string, () => readonly KmsDriver[]]>([
    ['two drivers of one root key', () => [region(1), region(1)]],
    ['no driver at all', () => []],
    ['seventeen drivers', () => Array.from({ length: 17 }, (_, i) => region(i))],
    ['something that is no driver', () => [region(1), {} as KmsDriver]],
    ['nothing', () => [region(1), undefined as never]],
  ])('%s are CONFIG, for creating and opening', async (_, kms) => {
    const { create, open, store } = setup({ kms: kms() })
    for (const work of [create, open]) expect((await refusal(() => work())).code).toBe('CONFIG')
    expect([store.loads, store.saves]).toEqual([0, 0])
  })

  it('up to sixteen', async () => {
    const kms = Array.from({ length: 16 }, (_, i) => region(i))
    const { create, open, store } = setup({ kms })
    await create()
    expect(urisOf(store.document!)).toEqual(Array(2).fill(kms.map(({ keyUri }) => keyUri)))
    await open({ kms: kms[15]! })
  })

  it('those that were given: a list that is changed afterwards changes nothing', async () => {
    const kms = [region(1), region(2)]
    const { create, store } = setup({ kms })
    const keys = await create()
    kms.pop()
    await rotated(keys)
    expect(urisOf(store.document!).map((uris) => uris.length)).toEqual([2, 2, 2])
  })
})

describe('a passphrase for breaking the glass beside a KMS', () => {
  it('opens the keyring when the KMS is gone for good, and wraps what is made meanwhile', async () => {
    const cloud = region(1)
    const phrase = () => localKms({ passphrase: 'six words that nobody else has', log2N: 14, label: 'safe' })
    const { create, open, store } = setup({ kms: [cloud, phrase()] })
    const keys = await create()
    const row = notes.encrypt(keys, { ...NOTE })
    cloud.down = AWAY
    const rescued = await open({ kms: phrase() })
    expect(notes.decrypt(rescued, row)).toEqual(NOTE)
    const refused = await refusal(() => rescued.rotate())
    expect(refused).toMatchObject({ code: 'CONFIG', argument: 'kms' }) // who knows the KMS alone could not open it
    expect(refused.message).toContain(cloud.keyUri)
    await rescued.changeRootKey({ kms: phrase(), reason: 'the KMS is gone' })
    await rotated(rescued)
    const newer = notes.encrypt(rescued, { ...NOTE })
    expect(
      Object.values(store.document!.keys)
        .at(-1)!
        .map(({ uri }) => uri),
    ).toEqual(['local-passphrase:safe'])
    // The KMS comes back: the new version is not under it, until the root keys are applied anew.
    cloud.down = undefined
    const both = await open({ kms: [cloud, phrase()] })
    expect(notes.decrypt(both, newer)).toEqual(NOTE)
    expect((await refusal(() => open({ kms: cloud }))).code).toBe('CONFIG')
    await both.changeRootKey({ reason: 'the KMS is back' })
    expect(notes.decrypt(await open({ kms: cloud }), newer)).toEqual(NOTE)
  })

  it('does not open it by another passphrase', async () => {
    const phrase = (passphrase: string) => localKms({ passphrase, log2N: 14 })
    const { create, open } = setup({ kms: [region(1), phrase('six words that nobody else has')] })
    const keys = await create()
    const error = await refusal(() => open({ kms: phrase('six words that somebody else has') }))
    expect(error.code).toBe('DECRYPTION_FAILED')
    expect(standing(await open())).toEqual(standing(keys))
  })
})

describe('a KMS whose wraps do not open', () => {
  const LIES: Record<string, (kms: ReturnType<typeof region>) => void> = {
    'open as another key': (kms) => {
      kms.lie = (_, truth) => Uint8Array.from(truth, (byte) => byte ^ 1)
    },
    'open as 31 bytes': (kms) => {
      kms.lie = (_, truth) => truth.slice(1)
    },
    'are refused when they come back': (kms) => {
      const wrap = kms.wrap
      kms.wrap = async (key, context) =>
        Uint8Array.from(await wrap(key, context), (byte, i) => (i === 9 ? byte ^ 1 : byte))
    },
  }

  it.each(Object.entries(LIES))('since they %s, is found out before anything is encrypted', async (_, spoil) => {
    for (const which of [0, 1]) {
      const kms = [region(1), region(2)]
      const { create, store } = setup({ kms })
      spoil(kms[which]!)
      expect(['KMS_UNAVAILABLE', 'DECRYPTION_FAILED']).toContain((await refusal(() => create())).code)
      expect(store.document).toBeUndefined()
    }
  })

  it.each(Object.entries(LIES))('since they %s, makes no new version', async (_, spoil) => {
    const { keys, far, store } = await started()
    const before = structuredClone(store.document)
    spoil(far)
    await refusal(() => keys.rotate())
    expect([store.document, keys.status().versions.length]).toEqual([before, 1])
  })
})
