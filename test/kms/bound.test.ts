import { describe, expect, it } from 'vitest'
import type { Wrap } from '../../src/kms/kms.ts'
import { unwrapKey, wrapKey } from '../../src/kms/wraps.ts'
import { NOTE, notes, refusal, rotated, setup } from '../keyring/support.ts'
import { CONTEXT, KEY, mutePads, rootsOf } from './requests.ts'

/** A service that takes no context gets the binding from us: the key is sealed under one that is wrapped. */

const bytesOf = ({ wrapped }: Wrap): Uint8Array => Uint8Array.from(Buffer.from(wrapped, 'base64url'))
const wrapOf = (bytes: Uint8Array): Wrap => ({
  uri: 'mute:1',
  wrapped: Buffer.from(bytes).toString('base64url'),
})

async function wrapped() {
  const kms = mutePads()
  const roots = rootsOf([kms])
  const [wrap] = await wrapKey(roots, KEY, CONTEXT)
  const open = (stored: Wrap, context = CONTEXT) => unwrapKey(roots, [stored], context, () => true)
  return { kms, roots, wrap: wrap!, open }
}

describe('a key under a root key that ignores context', () => {
  it('is 2 bytes of length, what the service wrapped, and 72 bytes of ours', async () => {
    const { wrap, open } = await wrapped()
    const bytes = bytesOf(wrap)
    expect(bytes.length).toBe(2 + 32 + 72)
    expect([bytes[0], bytes[1]]).toEqual([0, 32])
    expect(Uint8Array.from(await open(wrap))).toEqual(KEY)
  })

  it('is never handed to the service: what it wraps is another key, new for every wrap, wiped afterwards', async () => {
    const { kms, roots } = await wrapped()
    await wrapKey(roots, KEY, CONTEXT)
    const carriers = kms.asked
      .filter(({ operation }) => operation === 'wrap')
      .map(({ input, lent }) => ({ input, lent }))
    expect(carriers).toHaveLength(2)
    for (const { input, lent } of carriers) {
      expect(input).toHaveLength(32)
      expect(input).not.toEqual(KEY)
      expect(lent).toEqual(new Uint8Array(32))
    }
    expect(carriers[0]!.input).not.toEqual(carriers[1]!.input)
  })

  it.each<[string, Record<string, string>]>([
    ['another key id', { ...CONTEXT, 'waxseal:key': 'other' }],
    ['another keyring', { ...CONTEXT, 'waxseal:keyring': 'l' }],
    ['one pair less', { 'waxseal:keyring': 'k' }],
    ['one pair more', { ...CONTEXT, more: '1' }],
  ])('does not open under the context of %s', async (_, context) => {
    const { wrap, open } = await wrapped()
    const error = await refusal(() => open(wrap, context))
    expect(error).toMatchObject({ code: 'DECRYPTION_FAILED', retryable: false })
  })

  it('does not open when any one bit of any byte is another', async () => {
    const { wrap, open } = await wrapped()
    const bytes = bytesOf(wrap)
    for (let at = 0; at < bytes.length; at++) {
      const edited = Uint8Array.from(bytes)
      edited[at]! ^= 1 << (at % 8)
      expect([at, (await refusal(() => open(wrapOf(edited)))).code]).toEqual([
        at,
        at < 2 ? 'MALFORMED' : 'DECRYPTION_FAILED',
      ])
    }
  })

  it('does not open when cut off anywhere, and then the service is not asked', async () => {
    const { wrap, open, kms } = await wrapped()
    const bytes = bytesOf(wrap)
    kms.asked.length = 0
    for (let length = 0; length < bytes.length; length++) {
      expect([length, (await refusal(() => open(wrapOf(bytes.slice(0, length))))).code]).toEqual([length, 'MALFORMED'])
    }
    expect(kms.asked).toEqual([])
  })

  it('does not open when extended in front, between or behind', async () => {
    const { wrap, open } = await wrapped()
    const bytes = [...bytesOf(wrap)]
    for (const at of [0, 2, 34, bytes.length]) {
      const longer = Uint8Array.from([...bytes.slice(0, at), 0, ...bytes.slice(at)])
      expect([at, (await refusal(() => open(wrapOf(longer)))).code]).toEqual([at, 'MALFORMED'])
    }
  })

  it('does not open when its length is edited to fit what was cut off or added', async () => {
    const { wrap, open } = await wrapped()
    const bytes = [...bytesOf(wrap)]
    const shorter = Uint8Array.from([0, 31, ...bytes.slice(3)])
    const longer = Uint8Array.from([0, 33, 0, ...bytes.slice(2)])
    const empty = Uint8Array.from([0, 0, ...bytes.slice(34)])
    for (const edited of [shorter, longer]) {
      expect((await refusal(() => open(wrapOf(edited)))).code).toBe('DECRYPTION_FAILED')
    }
    expect((await refusal(() => open(wrapOf(empty)))).code).toBe('MALFORMED')
  })

  it('does not open by the halves of two blobs', async () => {
    const { wrap, roots, open } = await wrapped()
    const [other] = await wrapKey(roots, KEY, CONTEXT)
    const mixed = Uint8Array.from([...bytesOf(wrap).slice(0, 34), ...bytesOf(other!).slice(34)])
    expect((await refusal(() => open(wrapOf(mixed)))).code).toBe('DECRYPTION_FAILED')
  })
})

describe('a keyring under such a root key', () => {
  it('is created, rotated and opened like any other', async () => {
    const { create, open } = setup({ kms: mutePads() })
    const keys = await create()
    const row = notes.encrypt(keys, { ...NOTE })
    await rotated(keys)
    expect(notes.decrypt(await open(), row)).toEqual(NOTE)
  })

  it('does not open when two of its wraps have changed places', async () => {
    const { create, open, store } = setup({ kms: mutePads() })
    const { old, fresh } = await rotated(await create())
    const { keys, ...rest } = store.document!
    for (const [a, b] of [
      ['integrity', old],
      [old, fresh],
    ] as const) {
      store.document = { ...rest, keys: { ...keys, [a]: keys[b]!, [b]: keys[a]! } }
      expect(await refusal(() => open())).toMatchObject({ code: 'DECRYPTION_FAILED' })
    }
    store.document = { ...rest, keys }
    await open()
  })

  it('does not take the integrity key of another keyring under the same root key', async () => {
    const kms = mutePads()
    const mine = setup({ kms })
    const other = setup({ kms })
    await mine.create()
    await other.create()
    const { keys } = mine.store.document!
    mine.store.document = {
      ...mine.store.document!,
      keys: { ...keys, integrity: other.store.document!.keys.integrity! },
    }
    expect(await refusal(() => mine.open())).toMatchObject({ code: 'DECRYPTION_FAILED' })
  })
})
