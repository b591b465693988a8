import { describe, expect, it } from 'vitest'
import { int, records, text, WaxsealError } from 'waxseal'
import { testKeyring } from 'waxseal/testing'

const keys = testKeyring()
const people = records('people', { id: { id: int() }, fields: { email: text() } })
const tenants = records('people', { id: { id: int() }, context: { tenant: text() }, fields: { email: text() } })
const plain = (count: number) => Array.from({ length: count }, (_, i) => ({ id: i, email: `${i}@example.org`, n: i }))

/** How many turns of the event loop went by until `work` was done. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let turns = 0
  let running = true
  const turn = () => {
    turns++
    if (running) setImmediate(turn)
  }
  setImmediate(turn)
  await work
  running = false
  return turns
}

describe('many rows', () => {
  it.each([0, 1, 99, 100, 101, 1_000])('%i rows come back in their order', async (count) => {
    const rows = plain(count)
    const sealed = await people.encryptMany(keys, rows)
    expect(sealed.map((row) => row.id)).toEqual(rows.map((row) => row.id))
    expect(await people.decryptMany(keys, sealed)).toEqual(rows)
    expect(new Set(sealed.map((row) => row.envelope)).size).toBe(count)
  })

  it('let other work of the process run in between', async () => {
    const sealed = await people.encryptMany(keys, plain(1_000))
    expect(await turnsDuring(people.encryptMany(keys, plain(1_000)))).toBeGreaterThanOrEqual(5)
    expect(await turnsDuring(people.decryptMany(keys, sealed))).toBeGreaterThanOrEqual(5)
  })

  it('take a context as single rows do', async () => {
    const sealed = await tenants.encryptMany(keys, plain(3), { tenant: 'A' })
    expect(await tenants.decryptMany(keys, sealed, { tenant: 'A' })).toEqual(plain(3))
    await expect(tenants.decryptMany(keys, sealed, { tenant: 'B' })).rejects.toMatchObject({
      code: 'DECRYPTION_FAILED',
    })
  })

  it('give null for a left join that found nothing', async () => {
    const [sealed] = await people.encryptMany(keys, plain(1))
    const rows = [
      { ...sealed!, id: 0 as number | null, envelope: sealed!.envelope as string | null },
      { id: null, envelope: null },
    ]
    expect(await people.decryptMany(keys, rows as never)).toEqual([plain(1)[0], null])
  })

  it('are not read again after the call: what the caller changes later has no effect on rows that were done', async () => {
    const rows = plain(150)
    const working = people.encryptMany(keys, rows)
    rows[0]!.email = 'changed'
    expect(people.decrypt(keys, (await working)[0]!).email).toBe('0@example.org')
  })
})

describe('rows that fail', () => {
  const broken = async () => {
    const sealed = await people.encryptMany(keys, plain(250))
    return sealed.map((row, i) => (i === 7 || i === 240 ? { ...row, id: row.id + 1_000 } : row))
  }

  it('end the call with the first failure, which names the row', async () => {
    const error = await people.decryptMany(keys, await broken()).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(WaxsealError)
    expect(error).toMatchObject({ code: 'DECRYPTION_FAILED', table: 'people', rowId: '1007' })
  })

  it('settled: have a result each, in order, and hide no other', async () => {
    const results = await people.settled.decryptMany(keys, await broken())
    expect(results).toHaveLength(250)
    expect(
      results.flatMap((result) => (result.ok ? [] : [[result.index, result.error.code, result.error.rowId]])),
    ).toEqual([
      [7, 'DECRYPTION_FAILED', '1007'],
      [240, 'DECRYPTION_FAILED', '1240'],
    ])
    expect(results[8]).toEqual({ ok: true, value: plain(9)[8] })
  })

  it('settled: fail alone when encrypting too', async () => {
    const rows = [
      { id: 1, email: 'a' },
      { id: 2, email: 5 as never },
      { id: 3, email: 'c' },
    ]
    const results = await people.settled.encryptMany(keys, rows)
    expect(results.map((result) => result.ok)).toEqual([true, false, true])
    expect(results[1]).toMatchObject({ index: 1, error: { code: 'SCHEMA', field: 'email', rowId: '2' } })
  })

  it('end even a settled call when a listener throws: an access that cannot be recorded does not happen', async () => {
    const strict = testKeyring({
      onEvent: () => {
        throw new Error('the log is full')
      },
    })
    await expect(people.settled.encryptMany(strict, plain(2))).rejects.toThrow('the log is full')
  })

  it('reject with CONFIG where there are no keys', async () => {
    await expect(people.encryptMany(undefined as never, plain(1))).rejects.toMatchObject({ code: 'CONFIG' })
  })
})
