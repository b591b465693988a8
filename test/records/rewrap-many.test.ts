import { describe, expect, it } from 'vitest'
import { int, type KeyEvent, type Keyring, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { SOURCE } from '../../src/envelope/keys.ts'
import { asText, ENGINES, flip, listening, unwrapText } from '../envelope/support.ts'

/** Many rows rewrapped at once: the results, errors and events of as many single calls, in the same order. */
const id = { id: int() }
const fields = { email: text() }
const people = records('people', { id, fields })
const SHAPES = {
  columns: people,
  packed: records('people', { id, fields, shape: 'packed' }),
  bytes: records('people', { id, fields, encoding: 'bytes' }),
  'packed bytes': records('people', { id, fields, shape: 'packed', encoding: 'bytes' }),
} as const

type Row = Record<string, unknown>

const rotate = async (keys: Keyring): Promise<void> => {
  await keys.rotate()
  await keys.maintain()
}

const sealed = (keys: Keyring, record: (typeof SHAPES)[keyof typeof SHAPES], count: number, from = 0): Row[] =>
  Array.from({ length: count }, (_, i) => record.encrypt(keys, { id: from + i, email: `${i}@example.org` }) as Row)

/** What happened, without what is drawn or told by a clock. */
const story = (events: readonly KeyEvent[]) => events.map(({ time: _, ...event }) => event)

/** One by one: what the calls for many are held against. */
function oneByOne(keys: Keyring, record: { rewrap: typeof people.rewrap }, rows: readonly unknown[]) {
  return rows.map((row, index) => {
    try {
      return { ok: true, value: record.rewrap(keys, row as Row) }
    } catch (error) {
      return { ok: false, error, index }
    }
  })
}

describe.each(ENGINES)('rewrapMany on the $engineName engine', ({ engine }) => {
  describe.each(Object.entries(SHAPES))('%s', (_, record) => {
    it.each([0, 1, 2, 7, 8, 9, 63, 501])('gives for %i rows what rewrap gives, byte for byte', async (count) => {
      const keys = testKeyring({ suite: 1, engine })
      const rows = sealed(keys, record, count)
      await rotate(keys)
      const moved = await record.rewrapMany(keys, rows)
      expect(moved).toEqual(rows.map((row) => record.rewrap(keys, row)))
      for (const [i, row] of rows.entries()) {
        const next = { ...row, envelope: moved[i]!.envelope }
        expect(record.decrypt(keys, next as never)).toEqual({ id: i, email: `${i}@example.org` })
        expect(record.rewrap(keys, next)).toBeNull()
      }
    })
  })

  it('moves rows of suite 2 as well', async () => {
    const keys = testKeyring({ suite: 2, engine })
    const rows = sealed(keys, people, 20)
    await rotate(keys)
    for (const [i, moved] of (await people.rewrapMany(keys, rows)).entries()) {
      expect(people.decrypt(keys, { ...rows[i], envelope: moved!.envelope } as never)).toMatchObject({ id: i })
      expect(moved!.was).toBe(rows[i]!.envelope)
    }
  })

  /** Rows of every fate, in an order that mixes them. */
  async function mixed() {
    const { keys, events } = listening({ suite: 1, engine })
    const rows: unknown[] = sealed(keys, people, 12)
    await rotate(keys)
    rows.push(...sealed(keys, people, 15, 100))
    await rotate(keys)
    rows.push(...sealed(keys, people, 10, 200))
    const leaked = keys.status().active!
    await keys.markCompromised(leaked, { reason: 'test', decrypt: 'report' })
    await rotate(keys)
    rows.push(...sealed(keys, people, 10, 300))
    const broken = (i: number, bit: number) => {
      const row = rows[i] as Row
      const bytes = flip(unwrapText(row.envelope as string), bit)
      return { ...row, envelope: asText('wxh:', bytes) }
    }
    rows[3] = broken(3, 8 * 53)
    rows[14] = broken(14, 8 * 92 + 7)
    rows[16] = broken(16, 8 * 6) // a key that nobody knows
    rows[18] = broken(18, 8 * 4) // flags
    rows[20] = { id: 20 }
    rows[21] = null
    rows[22] = { id: 22, envelope: null }
    rows[23] = { id: 23, envelope: 'plaintext' }
    events.length = 0
    const order = rows.map((row, i) => ({ row, at: (i * 7919) % 1009 })).sort((a, b) => a.at - b.at)
    return { keys, events, rows: order.map(({ row }) => row) }
  }

  it('tells of every row what rewrap tells, errors and events included, in the same order', async () => {
    const { keys, events, rows } = await mixed()
    const single = oneByOne(keys, people, rows)
    const before = story(events)
    events.length = 0
    const together = await people.settled.rewrapMany(keys, rows as Row[])
    const told = (results: readonly { ok: boolean }[]) => JSON.parse(JSON.stringify(results))
    expect(told(together)).toEqual(told(single))
    expect(together.map((result) => (result.ok ? result.value === null : result.error.code))).toEqual(
      single.map((result) => (result.ok ? result.value === null : (result.error as { code: string }).code)),
    )
    expect(story(events)).toEqual(before)
    expect(new Set(together.flatMap((result) => (result.ok ? [] : [result.error.code])))).toEqual(
      new Set(['DECRYPTION_FAILED', 'KEY_NOT_LOADED', 'KEY_STATE', 'MALFORMED', 'CONFIG']),
    )
    expect(together.filter((result) => result.ok && result.value).length).toBe(12 + 15 - 8)
  })

  it('ends with the first failure, or gives a result each', async () => {
    const { keys, rows } = await mixed()
    const first = oneByOne(keys, people, rows).find((result) => !result.ok)!.error
    await expect(people.rewrapMany(keys, rows as Row[])).rejects.toMatchObject({ ...(first as object) })
  })
})

describe('rewrapMany', () => {
  it('refuses a wrap with any one bit flipped, and moves the rows around it', async () => {
    const keys = testKeyring({ suite: 1 })
    const rows = sealed(keys, people, 9)
    await rotate(keys)
    const expected = await people.rewrapMany(keys, rows)
    const header = unwrapText(rows[4]!.envelope as string)
    for (let bit = 8 * 53; bit < 8 * 93; bit++) {
      const damaged = rows.map((row, i) => (i === 4 ? { ...row, envelope: asText('wxh:', flip(header, bit)) } : row))
      const results = await people.settled.rewrapMany(keys, damaged)
      expect(results[4]).toMatchObject({ ok: false, index: 4, error: { code: 'DECRYPTION_FAILED', rowId: '4' } })
      expect(results.map((result) => result.ok && result.value)).toEqual(expected.map((moved, i) => i !== 4 && moved))
    }
  })

  it('changes nothing in the rows, and keeps the commitment and every other byte of the header', async () => {
    const keys = testKeyring({ suite: 1 })
    const rows = sealed(keys, SHAPES.bytes, 20)
    const before = structuredClone(rows)
    await rotate(keys)
    const moved = await SHAPES.bytes.rewrapMany(keys, rows)
    expect(rows).toEqual(before)
    for (const [i, { envelope }] of (moved as { envelope: Uint8Array }[]).entries()) {
      const old = rows[i]!.envelope as Uint8Array
      expect(envelope.subarray(0, 6)).toEqual(old.subarray(0, 6))
      expect(envelope.subarray(21, 53)).toEqual(old.subarray(21, 53))
    }
  })

  it('lets other work run in between, and ends when a listener throws', async () => {
    const strict = testKeyring({
      suite: 1,
      onEvent: ({ type }) => {
        if (type === 'rewrap') throw new Error('the log is full')
      },
    })
    const rows = sealed(strict, people, 1_200)
    await rotate(strict)
    await expect(people.settled.rewrapMany(strict, rows)).rejects.toThrow('the log is full')
    const keys = testKeyring({ suite: 1 })
    const quiet = sealed(keys, people, 1_200)
    await rotate(keys)
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    await people.rewrapMany(keys, quiet)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(0)
  })

  it('rejects with CONFIG where there are no keys', async () => {
    await expect(people.rewrapMany(undefined as never, [])).rejects.toMatchObject({ code: 'CONFIG' })
    await expect(people.settled.rewrapMany(undefined as never, [])).rejects.toMatchObject({ code: 'CONFIG' })
  })

  it('leaves no data key behind: what the wraps were opened into is wiped', async () => {
    const keys = testKeyring({ suite: 1 })
    const rows = sealed(keys, people, 40)
    await rotate(keys)
    const source = keys[SOURCE]
    const { suite, keyId } = { suite: source.writeSuite, keyId: source.inactive()[0]! }
    const wrap = source.find(keyId, 'rewrap').wrapFor(suite)
    const opened: Uint8Array[] = []
    const { unwrapMany } = wrap
    wrap.unwrapMany = (wrapped) => {
      const result = unwrapMany!(wrapped)
      expect(result.keys.some((byte) => byte !== 0)).toBe(true)
      opened.push(result.keys)
      return result
    }
    await people.rewrapMany(keys, rows)
    expect(opened.length).toBe(1)
    expect(opened[0]!.every((byte) => byte === 0)).toBe(true)
  })
})
