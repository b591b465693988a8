import { readFileSync } from 'node:fs'
import { PGlite } from '@electric-sql/pglite'
import { describe, expect, it, vi } from 'vitest'
import { createKeyring, int, openKeyring, records, text, WaxsealError } from 'waxseal'
import { decryptText, encryptText } from 'waxseal/envelope'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { type RotationSource, rewrap } from 'waxseal/rotation'
import { postgresTable } from 'waxseal/rotation/postgres'
import { testKeyring } from 'waxseal/testing'
import type { KmsDriver } from '../../src/kms/kms.ts'
import { code, listening, unwrapText } from '../envelope/support.ts'

/** What other libraries got wrong, each as a test that would have caught it. */
const keys = testKeyring()
const id = { id: int() }
const people = records('people', { id, fields: { email: text(), phone: text() } })
const PLAIN = { id: 1, email: 'a@example.org', phone: '1' }
const row = people.encrypt(keys, PLAIN)
const failed = (fn: () => unknown) => expect(code(fn)).toBe('DECRYPTION_FAILED')

describe('wrapping and context', () => {
  it('Tink KmsEnvelopeAead, Asherah: wrapped keys without AAD. A wrapped master key moved to another keyring does not open', async () => {
    const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
    const wrapped = await kms.wrap(new Uint8Array(32), { 'waxseal:keyring': 'a', 'waxseal:key': 'k' })
    await expect(kms.unwrap(wrapped, { 'waxseal:keyring': 'b', 'waxseal:key': 'k' })).rejects.toBeInstanceOf(
      WaxsealError,
    )
    await expect(kms.unwrap(wrapped, { 'waxseal:keyring': 'a', 'waxseal:key': 'l' })).rejects.toBeInstanceOf(
      WaxsealError,
    )
  })

  it('Asherah _IK_%s_%s_%s: a context joined by a separator. Names and values that hold it stay apart', () => {
    const sealed = encryptText(keys, 'x', { a: 'b_c', d: 'e' })
    failed(() => decryptText(keys, sealed, { a: 'b', d: 'c_e' }))
    failed(() => decryptText(keys, sealed, { a: 'b', c_d: 'e' }))
    failed(() => decryptText(keys, sealed, { a_b: 'c', d: 'e' }))
  })

  it('ESDK-JS #428: names sorted by locale. Names sort by their bytes, whatever the locale’s collation says', () => {
    const names = ['a', 'B', 'ä', 'Z', 'z', '_', '𝒳', '\uffff']
    const context = Object.fromEntries(names.map((name) => [name, name]))
    const backwards = Object.fromEntries(names.toReversed().map((name) => [name, name]))
    const collate = vi.spyOn(String.prototype, 'localeCompare').mockReturnValue(0)
    try {
      expect(decryptText(keys, encryptText(keys, 'x', context), backwards)).toBe('x')
      expect(collate).not.toHaveBeenCalled()
    } finally {
      collate.mockRestore()
    }
  })

  it('@47ng/cloak: a header outside the authentication. Every byte of it matters (all bits: envelope/tamper)', () => {
    const header = unwrapText(row.envelope)
    for (let i = 0; i < header.length; i++) {
      expect(() => people.decrypt(keys, { ...row, envelope: header.with(i, header[i]! ^ 1) })).toThrow(WaxsealError)
    }
  })

  it('GHSA-h45p-w933-jxh3: any number of wrapped keys in a message. A header has exactly one; a byte more is MALFORMED', () => {
    const header = unwrapText(row.envelope)
    const again = Uint8Array.from([...header, ...header.subarray(53)])
    expect(code(() => people.decrypt(keys, { ...row, envelope: again }))).toBe('MALFORMED')
  })

  it('ESDK-JS: a cache keyed by per-row context, never hit, or by header alone, hit too often', () => {
    const cached = testKeyring({ cache: { entries: 10 } })
    const first = people.encrypt(cached, PLAIN)
    expect(people.decrypt(cached, first)).toEqual(PLAIN)
    expect(people.decrypt(cached, first)).toEqual(PLAIN)
    failed(() => people.decrypt(cached, { ...first, id: 2 }))
  })
})

describe('plaintext and ciphertext mistaken for one another', () => {
  it('prisma-field-encryption: what is not ciphertext passes through. A strict record refuses it', () => {
    expect(code(() => people.decrypt(keys, { ...row, email: PLAIN.email }))).toBe('MALFORMED')
    expect(code(() => people.decrypt(keys, { ...PLAIN, envelope: null }))).toBe('MALFORMED')
  })

  it('open-mercato #2720: a submitted string that looks encrypted is stored as it is. It is encrypted (records/schema-change)', () => {
    const submitted = people.encrypt(keys, { ...PLAIN, email: row.email })
    expect(submitted.email).not.toBe(row.email)
    expect(people.decrypt(keys, submitted).email).toBe(row.email)
  })

  it('ciphersweet-js: tampering mistaken for "needs rotation". A broken envelope is an error, never true or false', () => {
    expect(people.needsRotation(keys, row)).toBe(false)
    for (const envelope of [`${row.envelope}AA`, row.envelope.slice(0, -4), 'wxh:', row.email, '', null, undefined])
      expect(code(() => people.needsRotation(keys, { id: 1, envelope }))).toBe('MALFORMED')
  })

  it('prisma-field-encryption: clear text in debug logs. Nothing is logged, and events hold no value', () => {
    const spies = (['log', 'debug', 'info', 'warn', 'error', 'trace'] as const).map((name) =>
      vi.spyOn(console, name).mockImplementation(() => undefined),
    )
    const debug = process.env.DEBUG
    process.env.DEBUG = '*'
    const { keys: heard, events } = listening()
    try {
      const sealed = people.encrypt(heard, PLAIN)
      people.decrypt(heard, sealed)
      code(() => people.decrypt(heard, { ...sealed, id: 2 }))
      for (const spy of spies) expect(spy).not.toHaveBeenCalled()
      expect(JSON.stringify(events)).not.toContain(PLAIN.email)
    } finally {
      for (const spy of spies) spy.mockRestore()
      if (debug === undefined) delete process.env.DEBUG
      else process.env.DEBUG = debug
    }
  })
})

describe('who is acting, and who asks the KMS', () => {
  it('ciphersweet-js: an ambient tenant on a shared engine, then await. Two requests that interleave keep their own', async () => {
    const orders = records('orders', { id, context: { tenant: text() }, fields: { note: text() } })
    const { keys: shared, events } = listening()
    const request = async (tenant: string, turns: number) => {
      const who = shared.as({ actor: tenant })
      const sealed = orders.encrypt(who, { id: 1, note: tenant }, { tenant })
      for (let i = 0; i < turns; i++) await new Promise(setImmediate)
      expect(orders.decrypt(who, sealed, { tenant }).note).toBe(tenant)
    }
    await Promise.all([request('A', 3), request('B', 1), request('C', 2)])
    expect(events.map((event) => event.actor)).toEqual(['A', 'B', 'C', 'B', 'C', 'A'])
  })

  it('ESDK-JS PR #1664: 3,000 concurrent misses, 3,000 calls of the KMS. They are one refresh', async () => {
    const inner = localKms(crypto.getRandomValues(new Uint8Array(32)))
    let calls = 0
    const kms: KmsDriver = {
      ...inner,
      unwrap(...given) {
        calls++
        return inner.unwrap(...given)
      },
    }
    const store = memoryKeyStore()
    await using writer = await createKeyring({ name: 'k', store, kms, propagationMs: 0 })
    await using reader = await openKeyring({ name: 'k', store, kms })
    await writer.rotate()
    await writer.maintain()
    const sealed = people.encrypt(writer, PLAIN)
    expect(code(() => people.decrypt(reader, sealed))).toBe('KEY_NOT_LOADED')
    calls = 0
    await Promise.all(
      Array.from({ length: 3_000 }, async () => {
        code(() => people.decrypt(reader, { ...sealed, id: 2 }))
        await reader.ready()
      }),
    )
    expect(people.decrypt(reader, sealed)).toEqual(PLAIN)
    expect(calls).toBeLessThanOrEqual(2)
  })

  it('EDDI #709: a new key persisted after the rows. A keyring that cannot save its new version does not use it', async () => {
    const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
    const store = memoryKeyStore()
    let broken = false
    const flaky = {
      load: store.load,
      save: (...given: Parameters<typeof store.save>) =>
        broken ? Promise.reject(new Error('disk full')) : store.save(...given),
    }
    await using ring = await createKeyring({ name: 'k', store: flaky, kms, propagationMs: 0 })
    const before = ring.status().active
    broken = true
    await expect(ring.rotate()).rejects.toThrow()
    expect(ring.status().active).toBe(before)
    expect(ring.status().versions).toHaveLength(1)
    const sealed = people.encrypt(ring, PLAIN)
    await using again = await openKeyring({ name: 'k', store, kms })
    expect(people.decrypt(again, sealed)).toEqual(PLAIN)
  })
})

describe('rotation', () => {
  it('otari #1130: rotation overwrites a concurrent edit. The edit stays, and its row is rotated afterwards', async () => {
    const db = new PGlite()
    const ring = testKeyring()
    await db.exec('create table people (id int primary key, email text, phone text, envelope text)')
    const insert = ({ id: n, email, phone, envelope }: typeof row) =>
      db.query('insert into people values ($1, $2, $3, $4)', [n, email, phone, envelope])
    for (const n of [1, 2, 3]) await insert(people.encrypt(ring, { ...PLAIN, id: n }))
    const edited = people.encrypt(ring, { id: 2, email: 'edited', phone: '2' })
    await ring.rotate()
    await ring.maintain()
    const table = postgresTable(db, people)
    let edits = 1
    /** Somebody else edits a row between the page and the batch. */
    const busy: RotationSource = {
      ...table,
      async write(...given) {
        if (edits-- > 0) {
          await db.exec('delete from people where id = 2')
          await insert(edited)
        }
        return table.write(...given)
      },
    }
    const report = await rewrap({ keys: ring, table: busy })
    expect(report).toMatchObject({ written: 3, raced: 1, failures: [] })
    expect(report.remaining.size).toBe(0)
    const { rows } = await db.query<typeof row>('select * from people order by id')
    expect(rows.map((r) => people.decrypt(ring, r).email)).toEqual([PLAIN.email, 'edited', PLAIN.email])
    await db.close()
  })

  it('MONGOCRYPT-464: a rewrap that corrupts keys. Every suite, engine form and shape opens after two rewraps', async () => {
    for (const suite of [1, 2] as const) {
      const ring = testKeyring({ suite })
      const packed = records('people', { id, shape: 'packed', encoding: 'bytes', fields: { email: text() } })
      let one: { envelope: unknown } = people.encrypt(ring, PLAIN)
      let two: { envelope: unknown } = packed.encrypt(ring, { id: 1, email: 'x' })
      for (let i = 0; i < 2; i++) {
        await ring.rotate()
        await ring.maintain()
        one = { ...one, envelope: people.rewrap(ring, one)!.envelope }
        two = { ...two, envelope: packed.rewrap(ring, two)!.envelope }
      }
      expect(people.decrypt(ring, one as never)).toEqual(PLAIN)
      expect(packed.decrypt(ring, two as never)).toEqual({ id: 1, email: 'x' })
    }
  })

  it('prisma-field-encryption: unkeyed search hashes. No deterministic form of a value is stored anywhere', () => {
    const [a, b] = [people.encrypt(keys, PLAIN), people.encrypt(keys, PLAIN)]
    for (const name of ['email', 'phone'] as const) expect(a[name].slice(4, 20)).not.toBe(b[name].slice(4, 20))
    expect(a.envelope.slice(32)).not.toBe(b.envelope.slice(32))
  })

  it('the list in the design notes has no item without a test here', () => {
    const source = readFileSync(new URL(import.meta.url), 'utf8')
    for (const peer of [
      'Tink',
      'Asherah',
      '#428',
      '@47ng/cloak',
      'prisma-field-encryption',
      'ciphersweet-js',
      '#1664',
      'GHSA-h45p',
      '#709',
      '#1130',
      'MONGOCRYPT-464',
      '#2720',
    ])
      expect(source).toMatch(new RegExp(`it\\('[^']*${peer}`))
  })
})
