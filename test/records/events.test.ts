import { describe, expect, it } from 'vitest'
import { cell, int, isUnauthenticated, type KeyEvent, records, text, WaxsealError } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { SOURCE } from '../../src/envelope/keys.ts'
import { code, listening } from '../envelope/support.ts'

const id = { id: int() }
const SECRET = 'confidential'
const PLAIN = { id: 7, email: SECRET, tel: SECRET }
const fields = { email: text(), tel: text({ label: 'phone' }) }
const people = records('people', { id, fields })
const packed = records('people', { id, fields, shape: 'packed' })
const note = cell('people', 'note', { type: text(), bind: id })

/** The last event, without what every event has. */
const last = (events: readonly KeyEvent[]) => {
  const { keyring: _, time: __, ...event } = events.at(-1)!
  return event
}

describe('an event', () => {
  const { keys, events } = listening()
  const who = keys.as({ actor: 'ann', purpose: 'support' })
  const keyId = keys.status().active!
  const row = people.encrypt(who, PLAIN)
  const blob = packed.encrypt(who, PLAIN)
  const whole = { table: 'people', rowId: '7', keyId, actor: 'ann', purpose: 'support' }
  const moved = () => {
    const ring = listening()
    const handle = ring.keys.as({ actor: 'ann', purpose: 'support' })
    const sealed = people.encrypt(handle, PLAIN)
    return ring.keys
      .rotate()
      .then(() => ring.keys.maintain())
      .then(() => ({ ...ring, handle, sealed }))
  }

  it.each<[string, () => unknown, object]>([
    ['encrypt', () => people.encrypt(who, PLAIN), { ...whole, type: 'encrypt', fields: ['email', 'phone'] }],
    [
      'encrypt of some fields',
      () => people.encrypt(who, { ...PLAIN, tel: undefined }),
      { ...whole, type: 'encrypt', fields: ['email'] },
    ],
    ['encrypt, packed', () => packed.encrypt(who, PLAIN), { ...whole, type: 'encrypt', fields: ['email', 'phone'] }],
    ['decrypt', () => people.decrypt(who, row), { ...whole, type: 'decrypt', fields: ['email', 'phone'] }],
    [
      'decrypt of some columns',
      () => people.decrypt(who, { id: 7, tel: row.tel, envelope: row.envelope }),
      { ...whole, type: 'decrypt', fields: ['phone'] },
    ],
    ['decrypt, packed', () => packed.decrypt(who, blob), { ...whole, type: 'decrypt', fields: ['email', 'phone'] }],
    ['patch', () => people.patch(who, row, { tel: 'x' }), { ...whole, type: 'patch', fields: ['phone'] }],
    ['patch, packed', () => packed.patch(who, blob, { tel: 'x' }), { ...whole, type: 'patch', fields: ['phone'] }],
    ['encrypt of a cell', () => note.encrypt(who, SECRET, { id: 7 }), { ...whole, type: 'encrypt', fields: ['note'] }],
  ])('of %s says table, row, labels of fields, key, actor and purpose', (_, run, expected) => {
    run()
    expect(last(events)).toEqual(expected)
    expect(events.at(-1)).toMatchObject({ keyring: 'test', time: expect.any(Number) })
  })

  it('of re-encrypt says the old key, then encrypt the new one', async () => {
    const { handle, events: told, sealed, keys: ring } = await moved()
    const before = ring.status().versions.find((version) => version.state === 'deactivated')!.id
    told.length = 0
    people.reencrypt(handle, sealed)
    expect(told.map((event) => [event.type, 'keyId' in event && event.keyId])).toEqual([
      ['reencrypt', before],
      ['encrypt', ring.status().active],
    ])
  })

  it('of rewrap says table, row, key and actor as well', async () => {
    const { handle, events: told, sealed, keys: ring } = await moved()
    people.rewrap(handle, sealed)
    expect(last(told)).toEqual({ ...whole, type: 'rewrap', keyId: ring.status().active })
  })

  it('of a rewrap that fails is a failure', async () => {
    const { handle, events: told, sealed } = await moved()
    const forged = `${sealed.envelope.slice(0, -8)}AAAAAAAA`
    expect(code(() => people.rewrap(handle, { ...sealed, envelope: forged }))).toBe('DECRYPTION_FAILED')
    expect(last(told)).toMatchObject({
      type: 'failure',
      operation: 'rewrap',
      code: 'DECRYPTION_FAILED',
      table: 'people',
      rowId: '7',
    })
  })

  it.each<[string, () => unknown, object]>([
    [
      'decrypt',
      () => people.decrypt(who, { ...row, id: 8 }),
      { operation: 'decrypt', code: 'DECRYPTION_FAILED', rowId: '8', keyId },
    ],
    [
      'decrypt, with its field',
      () => people.decrypt(who, { ...row, email: row.tel }),
      { operation: 'decrypt', code: 'DECRYPTION_FAILED', field: 'email', keyId },
    ],
    [
      'encrypt',
      () => people.encrypt(who, { ...PLAIN, email: 5 as never }),
      { operation: 'encrypt', code: 'SCHEMA', field: 'email', rowId: '7' },
    ],
    [
      'patch',
      () => people.patch(who, row, { email: 5 as never }),
      { operation: 'patch', code: 'SCHEMA', field: 'email' },
    ],
    [
      'reencrypt',
      () => people.reencrypt(who, { ...row, id: 8 }),
      { operation: 'reencrypt', code: 'DECRYPTION_FAILED' },
    ],
    [
      'reencrypt of a row that lacks a column',
      () => people.reencrypt(who, { id: 7, envelope: row.envelope }),
      { operation: 'reencrypt', code: 'SCHEMA' },
    ],
    [
      'decrypt of a cell',
      () => note.decrypt(who, note.encrypt(who, SECRET, { id: 7 }), { id: 8 }),
      { operation: 'decrypt', code: 'DECRYPTION_FAILED', field: 'note', rowId: '8' },
    ],
  ])('of a failure says what failed, where and why: %s', (_, run, expected) => {
    expect(code(run)).toBe((expected as { code: string }).code)
    expect(last(events)).toMatchObject({
      type: 'failure',
      table: 'people',
      actor: 'ann',
      purpose: 'support',
      ...expected,
    })
  })

  it('never holds a value, a ciphertext or a key', () => {
    const told = JSON.stringify(events)
    expect(events.length).toBeGreaterThan(10)
    expect(told).not.toContain(SECRET)
    expect(told).not.toMatch(/wx[fhpc]:/)
    expect(told).not.toContain(row.envelope.slice(40, 60))
  })
})

describe('a listener', () => {
  it('that throws stops what is done, and gets its own error', () => {
    let full = false
    const keys = testKeyring({
      onEvent: () => {
        if (full) throw new RangeError('the log is full')
      },
    })
    const row = people.encrypt(keys, PLAIN)
    full = true
    for (const run of [
      () => people.encrypt(keys, PLAIN),
      () => people.decrypt(keys, row),
      () => people.patch(keys, row, { email: 'x' }),
    ])
      expect(run).toThrow(RangeError)
  })

  it('that is not there costs nothing: no event is built', () => {
    const keys = testKeyring()
    const source = keys[SOURCE]
    expect(source.listening).toBe(false)
    const row = people.encrypt(keys, PLAIN)
    const emit = source.emit
    Object.defineProperty(source, 'emit', { value: () => expect.unreachable('an event was built'), configurable: true })
    people.decrypt(keys, row)
    people.patch(keys, row, { email: 'x' })
    packed.decrypt(keys, packed.encrypt(keys, PLAIN))
    note.decrypt(keys, note.encrypt(keys, 'x', { id: 7 }), { id: 7 })
    Object.defineProperty(source, 'emit', { value: emit })
  })

  it('is told the actor of each handle, not of the keyring', () => {
    const { keys, events } = listening()
    people.encrypt(keys.as({ actor: 'ann' }), PLAIN)
    people.encrypt(keys.as({ actor: 'bob', purpose: 'export' }), PLAIN)
    people.encrypt(keys, PLAIN)
    expect(events.map(({ actor, purpose }) => [actor, purpose])).toEqual([
      ['ann', undefined],
      ['bob', 'export'],
      [undefined, undefined],
    ])
  })
})

describe('a row under a compromised key', () => {
  it('is reported at every use, flagged, and can be re-encrypted but neither patched nor rewrapped', async () => {
    const { keys, events } = listening()
    const row = people.encrypt(keys, PLAIN)
    const old = keys.status().active!
    await keys.markCompromised(old, { reason: 'found in a log' })
    events.length = 0
    const opened = people.decrypt(keys, row)
    expect(isUnauthenticated(opened)).toBe(true)
    expect(events.map((event) => event.type)).toEqual(['key.use', 'decrypt'])
    for (const run of [() => people.patch(keys, row, { email: 'x' }), () => people.rewrap(keys, row)])
      expect(code(run)).toBe('KEY_STATE')
    const again = people.reencrypt(keys, row)
    expect(isUnauthenticated(people.decrypt(keys, again))).toBe(false)
    expect(WaxsealError.is(opened)).toBe(false)
  })
})
