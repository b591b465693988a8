import { describe, expect, it } from 'vitest'
import type { KeyEvent } from 'waxseal'
import { keyIn, type Region, region } from './roots.ts'
import { activeOf, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, versionOf } from './support.ts'

/** Every version keeps a check value of its key, so that a KMS cannot answer with another 32 bytes unnoticed. */
const OTHER = new Uint8Array(32).fill(9)

/** From here on the KMS answers with another key for the version; the buffers that it handed out are kept. */
function lieFor(kms: Region, id: () => string | undefined): void {
  kms.lie = (context, truth) => (keyIn(context) === id() ? Uint8Array.from(OTHER) : truth)
}

async function started() {
  const kms = region(1)
  const bench = setup({ kms })
  const other = await bench.create()
  const events: KeyEvent[] = []
  const keys = await bench.open({ onEvent: (event: KeyEvent) => void events.push(event) })
  const row = notes.encrypt(keys, { ...NOTE })
  events.length = 0
  return { ...bench, kms, keys, other, row, events }
}

const failures = (events: readonly KeyEvent[]) =>
  events.flatMap((event) => (event.type === 'keyring.failure' ? [[event.operation, event.code]] : []))

describe('a KMS that answers with another key of 32 bytes', () => {
  it('for the active version is refused at opening, and the wrong key is wiped', async () => {
    const { open, kms, keys } = await started()
    kms.handed.length = 0
    lieFor(kms, () => activeOf(keys))
    expect(await refusal(() => open())).toMatchObject({ code: 'DECRYPTION_FAILED', retryable: false })
    expect(kms.handed).toHaveLength(2)
    expect(kms.handed.flatMap((key) => [...key]).every((byte) => byte === 0)).toBe(true)
  })

  it('for an old version is refused at opening too: nothing opens by halves', async () => {
    const { open, kms, other } = await started()
    const { old } = await rotated(other)
    kms.handed.length = 0
    lieFor(kms, () => old)
    expect((await refusal(() => open())).code).toBe('DECRYPTION_FAILED')
    expect(kms.handed).toHaveLength(3)
    expect(kms.handed.flatMap((key) => [...key]).every((byte) => byte === 0)).toBe(true)
  })

  it('for the integrity key is refused at opening, and no version is asked for', async () => {
    const { open, kms } = await started()
    kms.unwraps = 0
    lieFor(kms, () => 'integrity')
    expect((await refusal(() => open())).code).toBe('DECRYPTION_FAILED')
    expect(kms.unwraps).toBe(1)
  })

  it('that is the key of another version is refused: what is checked is which key it is', async () => {
    const { open, kms, other } = await started()
    const { old, fresh } = await rotated(other)
    const known = new Map<string, Uint8Array>()
    kms.lie = (context, truth) => {
      known.set(keyIn(context), Uint8Array.from(truth))
      return truth
    }
    await open()
    kms.lie = (context, truth) => Uint8Array.from(keyIn(context) === old ? known.get(fresh)! : truth)
    expect((await refusal(() => open())).code).toBe('DECRYPTION_FAILED')
    kms.lie = (context) => Uint8Array.from(known.get(keyIn(context))!)
    await open()
  })

  it('at a refresh leaves that version out, and the others go on', async () => {
    const { keys, other, kms, row, clock, events } = await started()
    const staged = await other.rotate()
    lieFor(kms, () => staged)
    clock.now += 6 * MINUTE
    await keys.ready()
    expect(versionOf(keys, staged)).toMatchObject({ state: 'pre-active', loaded: false })
    expect(failures(events)).toEqual([['unwrap', 'DECRYPTION_FAILED']])
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    notes.encrypt(keys, { ...NOTE })
  })

  it('at a refresh for the version that became active: KEY_NOT_LOADED to write, and reading the others goes on', async () => {
    const { keys, other, kms, row, clock } = await started()
    lieFor(kms, () => activeOf(other))
    await rotated(other)
    clock.now += 6 * MINUTE
    expect((await refusal(() => keys.ready())).code).toBe('DECRYPTION_FAILED')
    expect(await refusal(() => notes.encrypt(keys, { ...NOTE }))).toMatchObject({ code: 'KEY_NOT_LOADED' })
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
    kms.lie = undefined
    await keys.ready()
    expect(notes.decrypt(other, notes.encrypt(keys, { ...NOTE }))).toEqual(NOTE)
  })

  it.each(['a version', 'the integrity key'])(
    'at the hourly confirmation, for %s, is told, and does not count as one',
    async (what) => {
      const { keys, kms, row, clock, events } = await started()
      lieFor(kms, () => (what === 'a version' ? activeOf(keys) : 'integrity'))
      clock.now += 61 * MINUTE
      await keys.ready()
      await quiet()
      expect(failures(events)).toEqual([['confirm', 'DECRYPTION_FAILED']])
      expect(notes.decrypt(keys, row)).toEqual(NOTE)
      clock.now += 180 * MINUTE
      expect((await refusal(() => keys.ready())).code).toBe('DECRYPTION_FAILED')
      expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_NOT_LOADED' })
      kms.lie = undefined
      await keys.ready()
      expect(notes.decrypt(keys, row)).toEqual(NOTE)
    },
  )

  it('says nothing about the key: two keyrings that hold one key have different check values', async () => {
    const [one, two] = [setup(), setup()]
    const engine = (await import('waxseal/engine')).nodeEngine()!
    const fixed = { ...engine, randomKey: (length: number) => new Uint8Array(length).fill(length === 32 ? 7 : length) }
    await one.create({ engine: fixed })
    await two.create({
      engine: { ...fixed, randomKey: (length: number) => new Uint8Array(length).fill(length === 32 ? 7 : 99) },
    })
    const [a, b] = [one, two].map(({ store }) => JSON.parse(store.document!.manifest).versions[0])
    expect(a.id).not.toBe(b.id)
    expect(a.check).toHaveLength(22)
    expect(a.check).not.toBe(b.check)
  })
})
