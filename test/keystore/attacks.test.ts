import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createKeyring, type Keyring, type KeyringOptions, openKeyring } from 'waxseal'
import { keyStoreSchema, postgresKeyStore } from 'waxseal/keystore/postgres'
import type { StoredKeyring } from '../../src/keystore/keystore.ts'
import { activeOf, notes, refusal, rotated, watchedKms } from '../keyring/support.ts'
import { type PostgresClient, pgliteClient } from '../rotation/clients.ts'

/** What somebody who may write to the table can do, with SQL; and somebody who has an older copy of it. */
describe('whoever writes to the table of a key store', () => {
  let client: PostgresClient
  let table: string
  let count = 0
  const kms = watchedKms()
  beforeAll(() => {
    client = pgliteClient()
  })
  afterAll(() => client.close())
  beforeEach(async () => {
    table = `keys_${count++}`
    await client.query(keyStoreSchema({ table }))
  })

  const optionsOf = (name: string): KeyringOptions => ({ name, kms, store: postgresKeyStore(client.db, { table }) })
  const create = (name = 'crm'): Promise<Keyring> => createKeyring({ ...optionsOf(name), propagationMs: 0 })
  const open = (name = 'crm', more: Partial<KeyringOptions> = {}) => openKeyring({ ...optionsOf(name), ...more })
  const refusedAs = async (more: Partial<KeyringOptions> = {}, name = 'crm') =>
    (await refusal(() => open(name, more))).code

  async function read(name = 'crm'): Promise<StoredKeyring> {
    const [row] = await client.query<{ document: string }>(`select document from ${table} where name = $1`, [name])
    return JSON.parse(row!.document) as StoredKeyring
  }
  /** A row, epoch and document in keeping. */
  async function write(document: StoredKeyring, name = 'crm'): Promise<void> {
    const values = [name, document.epoch, JSON.stringify(document)]
    await client.query(`update ${table} set epoch = $2, document = $3 where name = $1`, values)
  }

  it('cannot make a compromised, a suspended or a deactivated version active again', async () => {
    const keys = await create()
    const { old, fresh } = await rotated(keys)
    await keys.markCompromised(old, { reason: 'leaked' })
    await keys.suspend(fresh)
    for (const state of ['compromised', 'suspended']) {
      const stored = await read()
      await client.query(`update ${table} set document = replace(document, $1, $2)`, [
        `\\"state\\":\\"${state}\\"`,
        '\\"state\\":\\"active\\"',
      ])
      expect((await read()).manifest).not.toBe(stored.manifest)
      expect(await refusedAs()).toBe('DECRYPTION_FAILED')
      expect((await refusal(() => keys.rotate())).code).toBe('DECRYPTION_FAILED')
      await write(stored)
    }
    await (await open()).close()
  })

  it('cannot swap the rows of two keyrings, nor give one the name of the other', async () => {
    await create('crm')
    await create('hr')
    const [crm, hr] = [await read('crm'), await read('hr')]
    await write(hr, 'crm')
    await write(crm, 'hr')
    for (const name of ['crm', 'hr']) expect(['DECRYPTION_FAILED', 'MALFORMED']).toContain(await refusedAs({}, name))
    await client.query(`delete from ${table} where name = 'crm'`)
    await client.query(`update ${table} set name = 'crm' where name = 'hr'`)
    await (await open('crm')).close() // it is its own row again
    await client.query(`update ${table} set name = 'hr' where name = 'crm'`)
    expect(['DECRYPTION_FAILED', 'MALFORMED']).toContain(await refusedAs({}, 'hr'))
  })

  it('cannot mix parts of an older copy, or of another keyring, into a row', async () => {
    const keys = await create()
    const older = await read()
    await rotated(keys)
    await create('hr')
    const [newer, other] = [await read(), await read('hr')]
    for (const copy of [older, other]) {
      for (const part of ['manifest', 'mac', 'keys'] as const) {
        await write({ ...newer, [part]: copy[part] })
        expect({ part, code: await refusedAs() }).toMatchObject({
          code: expect.stringMatching(/DECRYPTION_FAILED|MALFORMED/),
        })
      }
      const integrity = copy.keys.integrity!
      await write({ ...newer, keys: { ...newer.keys, integrity } })
      if (copy === other) expect(await refusedAs()).toBe('DECRYPTION_FAILED')
    }
    await write({ ...older, epoch: newer.epoch })
    expect(await refusedAs()).toBe('MALFORMED')
    await write(newer)
    await (await open()).close()
  })

  it('cannot swap the wraps of two versions, nor drop or add one', async () => {
    const keys = await create()
    const { old, fresh } = await rotated(keys)
    const stored = await read()
    const { [old]: first, [fresh]: second, ...rest } = stored.keys
    const changed = [
      { ...rest, [old]: second!, [fresh]: first! },
      { ...rest, [fresh]: second! },
      { ...rest, [old]: [...first!, ...second!], [fresh]: second! },
    ]
    for (const wraps of changed) {
      await write({ ...stored, keys: wraps })
      expect(['DECRYPTION_FAILED', 'MALFORMED']).toContain(await refusedAs())
    }
  })

  it('cannot roll back a row under a process that saw a later one, nor against a pin', async () => {
    const keys = await create()
    const older = await read()
    const { old } = await rotated(keys)
    await keys.markCompromised(old, { reason: 'leaked' })
    const { id, epoch } = keys.status()
    await write(older)
    expect(await refusedAs({ pin: { id, minEpoch: epoch } })).toBe('KEY_STATE')
    expect((await refusal(() => keys.rotate())).code).toBe('KEY_STATE')
    expect(activeOf(keys)).not.toBe(old)
  })

  it('does roll it back for a new process without a pin: the threat model says so', async () => {
    const keys = await create()
    const older = await read()
    await rotated(keys)
    await write(older)
    await using fresh = await open()
    expect(fresh.status().epoch).toBe(older.epoch)
  })

  it('who sets the epoch alone stops changes, and no more: processes that run go on', async () => {
    const keys = await create()
    await client.query(`update ${table} set epoch = 1000`)
    expect(await refusedAs()).toBe('MALFORMED')
    expect((await refusal(() => keys.rotate())).code).toBe('MALFORMED')
    expect(notes.decrypt(keys, notes.encrypt(keys, { id: 1, body: 'x', tag: '' })).body).toBe('x')
  })

  it('who deletes the row gets no new keyring made in its place', async () => {
    const keys = await create()
    await client.query(`delete from ${table}`)
    expect(await refusedAs()).toBe('CONFIG')
    const error = await refusal(() => keys.rotate())
    expect(error.code).not.toBe('CONFLICT')
    expect(await client.query(`select name from ${table}`)).toEqual([])
  })

  it('learns no key: what is stored holds no bytes of one', async () => {
    await create()
    const opened: string[] = []
    const listening = {
      ...kms,
      unwrap: async (...given: Parameters<typeof kms.unwrap>) => {
        const key = await kms.unwrap(...given)
        opened.push(Buffer.from(key).toString('base64url'), Buffer.from(key).toString('hex'))
        return key
      },
    }
    await (await open('crm', { kms: listening })).close()
    expect(opened.length).toBeGreaterThan(2)
    const text = JSON.stringify(await read())
    for (const key of opened) expect(text).not.toContain(key)
  })
})
