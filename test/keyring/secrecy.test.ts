import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { cell, type KeyEvent, type Keyring, text } from 'waxseal'
import { localKms } from 'waxseal/kms/local'
import { testKeyring } from 'waxseal/testing'
import { SOURCE } from '../../src/envelope/keys.ts'
import { Secret } from '../../src/secret.ts'
import { FORMS, found, printed, recordingEngine } from './leaks.ts'
import { activeOf, DAY, NOTE, notes, quiet, ROOT, refusal, rotated, setup } from './support.ts'

const word = cell('words', 'word', { type: text(), bind: 'column' })
const PASSPHRASE = 'correct horse battery staple'

async function busy(known: Uint8Array[]) {
  const bench = setup({ engine: recordingEngine(known), cache: { entries: 10 } })
  const keys = await bench.create()
  return { ...bench, keys }
}

it('the search for bytes finds them in every form', () => {
  const forms = Object.keys(FORMS)
  for (const form of forms) expect(found(`…${FORMS[form]!(ROOT)}…`, [ROOT]).join()).toContain(form)
  expect(found(inspect(ROOT), [ROOT])).not.toEqual([])
  expect(found(inspect(Buffer.from(ROOT)), [ROOT])).not.toEqual([])
  expect(found(JSON.stringify(ROOT), [ROOT])).not.toEqual([])
})

describe('printing shows no key bytes', () => {
  const THINGS: Record<string, (keys: Keyring) => unknown> = {
    'a keyring': (keys) => keys,
    'a handle': (keys) => keys.as({ actor: 'ann' }),
    'the source of a keyring': (keys) => keys[SOURCE],
    'a master key': (keys) => keys[SOURCE].active(),
    'the secret of a master key': (keys) => (keys[SOURCE].active() as unknown as { secret: Secret }).secret,
    'a subkey that wraps': (keys) => keys[SOURCE].active().wrapFor(keys[SOURCE].writeSuite),
    'the status': (keys) => keys.status(),
    'the cache': (keys) => keys[SOURCE].recordKeys,
  }

  it.each(Object.entries(THINGS))('of %s', async (_, pick) => {
    const known: Uint8Array[] = [ROOT]
    const { keys } = await busy(known)
    const row = notes.encrypt(keys, { ...NOTE })
    notes.decrypt(keys, row)
    await rotated(keys)
    expect(known.length).toBeGreaterThan(8)
    expect(found(printed(pick(keys)), known)).toEqual([])
  })

  it('of a test keyring', () => {
    const known: Uint8Array[] = []
    const keys = testKeyring({ engine: recordingEngine(known) })
    notes.encrypt(keys, { ...NOTE })
    expect(found(printed(keys) + printed(keys[SOURCE]) + printed(keys.status()), known)).toEqual([])
  })

  it('of a local KMS, by root key or by passphrase', async () => {
    expect(found(printed(localKms(ROOT)), [ROOT])).toEqual([])
    const kms = localKms({ passphrase: PASSPHRASE, log2N: 14 })
    await kms.wrap(ROOT, { a: 'b' })
    expect(printed(kms)).not.toContain(PASSPHRASE)
    expect(found(printed(kms), [ROOT, Buffer.from(PASSPHRASE)])).toEqual([])
  })

  it('of a secret, before and after it is destroyed', () => {
    const secret = new Secret(Uint8Array.from(ROOT))
    expect(printed(secret)).toContain('[redacted]')
    expect(found(`${printed(secret)}${secret}`, [ROOT])).toEqual([])
    secret.destroy()
    expect(() => secret.use((key) => key)).toThrow(RangeError)
  })
})

describe('events', () => {
  /** Everything that raises an event. */
  async function everything() {
    const known: Uint8Array[] = [ROOT]
    const { keys, events, clock, store, open } = await busy(known)
    const row = notes.encrypt(keys.as({ actor: 'ann', purpose: 'test' }), { ...NOTE })
    const shown = [row.envelope, row.body, row.tag, word.encrypt(keys, 'cell plaintext')]
    notes.decrypt(keys, row)
    shown.push(notes.patch(keys, row, { tag: 'patched plaintext' }).set.tag)
    await refusal(() => notes.decrypt(keys, { ...row, id: 18 }))
    await refusal(() => notes.decrypt(keys, { ...row, body: row.tag }))
    const { old } = await rotated(keys)
    shown.push(notes.rewrap(keys, row)!.envelope as string)
    await keys.retire(old, { references: 0, reason: 'counted' })
    await keys.destroy(old, { backupsExpire: new Date(clock.now + DAY) })
    notes.decrypt(keys, row)
    await quiet()
    await keys.markCompromised(activeOf(keys), { reason: 'laptop stolen' })
    const again = notes.reencrypt(keys, row)
    shown.push(again.envelope, again.body)
    await keys.suspend(activeOf(keys), { decrypt: 'report' })
    notes.decrypt(keys, again)
    store.broken = new Error(`cannot load ${row.body}`)
    clock.now += 10 * 60_000
    const other = await refusal(() => open())
    notes.decrypt(keys, again)
    await quiet()
    return { events, known, shown, error: other }
  }

  it('never hold plaintext, ciphertext or key bytes', async () => {
    const { events, known, shown } = await everything()
    const types = new Set(events.map(({ type }: KeyEvent) => type))
    expect([...types].sort()).toEqual(
      [
        'decrypt',
        'encrypt',
        'failure',
        'key.state',
        'key.use',
        'keyring.failure',
        'patch',
        'reencrypt',
        'rewrap',
      ].sort(),
    )
    const text = JSON.stringify(events) + inspect(events, { depth: Number.POSITIVE_INFINITY, showHidden: true })
    expect(text).not.toContain('plaintext')
    // The first 40 characters of a ciphertext are prefix, suite and key id, which events do name.
    for (const sealed of shown) expect(text).not.toContain(sealed.slice(-30))
    expect(found(text, known)).toEqual([])
  })

  it('hold nothing but text, numbers, dates and lists of labels', async () => {
    const { events } = await everything()
    for (const event of events) {
      for (const value of Object.values(event)) {
        const labels = Array.isArray(value) && value.every((label) => ['body', 'tag', 'word'].includes(label))
        expect(labels || ['string', 'number', 'undefined'].includes(typeof value)).toBe(true)
      }
    }
  })
})
