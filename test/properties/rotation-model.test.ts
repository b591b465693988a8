import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Keyring, KeyState } from 'waxseal'
import { type RotationSource, reencrypt, retire, rewrap, verify } from 'waxseal/rotation'
import { postgresTable } from 'waxseal/rotation/postgres'
import { testKeyring } from 'waxseal/testing'
import { type PostgresClient, pgliteClient } from '../rotation/clients.ts'
import { type AnyRecords, type AnyRow, createTable, insert, people, readStored } from '../rotation/tables.ts'

/** What should be: rows with the version each is under, and the state of each version. */
interface Model {
  readonly rows: Map<number, { plain: AnyRow; under: string }>
  readonly states: Map<string, KeyState>
}
interface Real {
  readonly client: PostgresClient
  readonly keys: Keyring
  readonly record: AnyRecords
  readonly table: RotationSource
}
type Do = (model: Model, real: Real) => Promise<void>

const RUNS = 40
const SMALL = { batchSize: 3, ranges: 2 }
const idOf = ({ states }: Model, ...wanted: KeyState[]): string | undefined =>
  [...states].find(([, state]) => wanted.includes(state))?.[0]
const at = <T>(items: readonly T[], n: number): T | undefined => items[n % Math.max(1, items.length)]
const refused = (work: Promise<unknown>) => expect(work).rejects.toMatchObject({ code: 'KEY_STATE' })

/** After every command: rows, versions and what can be opened are what the model says. */
async function check(model: Model, { client, keys, record, table }: Real): Promise<void> {
  const states = keys.status().versions.map(({ id, state }) => [id, state] as const)
  expect(new Map(states)).toEqual(model.states)
  expect(states.filter(([, state]) => state === 'active').length).toBeLessThanOrEqual(1)
  const stored = await readStored(client.query, record)
  expect(stored.map(({ id }) => id)).toEqual([...model.rows.keys()].sort((a, b) => a - b))
  for (const row of stored) {
    const { plain, under } = model.rows.get(row.id as number)!
    if (model.states.get(under) === 'suspended') expect(() => record.decrypt(keys, row as never)).toThrow('suspended')
    else expect(record.decrypt(keys, row as never)).toEqual(plain)
  }
  const counts = await table.countByKey([...model.states.keys()])
  for (const [id, count] of counts) expect(count).toBe([...model.rows.values()].filter((r) => r.under === id).length)
}

/** Rows of these states move to the active version; an aborted job moves some of them. */
const job =
  (work: typeof rewrap, from: readonly KeyState[], abortAfter: number | undefined): Do =>
  async (model, { keys, table, client, record }) => {
    const active = idOf(model, 'active')
    const stop = new AbortController()
    let batches = -1 // the first report comes before the first batch
    const onProgress = (): void => {
      if (++batches === abortAfter) stop.abort()
    }
    const run = work({ keys, table, ...SMALL, onProgress, signal: stop.signal })
    if (!active) return refused(run)
    const report = await run
    expect(report.failures).toEqual([])
    const moved = new Set<number>()
    for (const row of await readStored(client.query, record)) {
      if (!record.needsRotation(keys, row)) moved.add(row.id as number)
    }
    for (const [id, row] of model.rows) {
      const may = row.under === active || from.includes(model.states.get(row.under)!)
      if (!report.aborted) expect(moved.has(id)).toBe(may)
      if (!moved.has(id)) continue
      expect(may).toBe(true)
      row.under = active
    }
  }

const change =
  (call: (keys: Keyring, id: string) => Promise<unknown>, to: (model: Model, id: string) => void, ...of: KeyState[]) =>
  (n: number): Do =>
  async (model, { keys }) => {
    const [id, state] = at([...model.states], n)!
    if (!of.includes(state)) return refused(call(keys, id))
    await call(keys, id)
    to(model, id)
    for (const { id: other, state: now } of keys.status().versions)
      if (!model.states.has(other)) model.states.set(other, now)
  }
const activate = ({ states }: Model, id: string): void => {
  for (const [other, state] of states) if (state === 'active') states.set(other, 'deactivated')
  states.set(id, 'active')
}

const suspend = change(
  (k, id) => k.suspend(id),
  (m, id) => m.states.set(id, 'suspended'),
  'active',
)
const promote = change((k, id) => k.promote(id, { urgent: true }), activate, 'pre-active', 'suspended')
const reinstate = change(
  (k, id) => k.reinstate(id),
  (m, id) => m.states.set(id, idOf(m, 'active') ? 'deactivated' : 'active'),
  'suspended',
)
const compromise = change(
  (k, id) => k.markCompromised(id, {}),
  (m, id) => m.states.set(id, 'compromised'),
  'pre-active',
  'active',
  'suspended',
  'deactivated',
)
const rotate: Do = async (model, { keys }) => {
  const staged = idOf(model, 'pre-active')
  const id = await keys.rotate()
  if (staged) expect(id).toBe(staged)
  model.states.set(id, 'pre-active')
}
const maintain: Do = async (model, { keys }) => {
  const staged = idOf(model, 'pre-active')
  expect((await keys.maintain()).promoted).toEqual(staged ? [staged] : [])
  if (staged) activate(model, staged)
}
const put =
  (n: number, email: string, isNew: boolean): Do =>
  async (model, { client, keys, record }) => {
    const id = isNew ? Math.max(-1, ...model.rows.keys()) + 1 : at([...model.rows.keys()], n)
    const under = idOf(model, 'active')
    if (id === undefined || !under) return
    const plain = { id, email, note: null, city: 'Oslo' }
    await client.query(`delete from ${record.schema.table} where id = $1`, [id])
    await insert(client.query, record, keys, [plain])
    model.rows.set(id, { plain, under })
  }
const patch =
  (n: number, note: string): Do =>
  async (model, { client, keys, record }) => {
    const [id, row] = at([...model.rows], n) ?? []
    if (id === undefined || !row) return
    const stored = (await readStored(client.query, record)).find((each) => each.id === id)!
    const make = () => record.patch(keys, stored as never, { note })
    if (['suspended', 'compromised'].includes(model.states.get(row.under)!)) return void expect(make).toThrow()
    const { set, guard } = make()
    const sql = `update ${record.schema.table} set note = $3 where id = $1 and ${guard.expression} = $2 returning 1`
    expect(await client.query(sql, [id, guard.value, (set as AnyRow).note])).toHaveLength(1)
    row.plain = { ...row.plain, note }
  }
const remove =
  (n: number): Do =>
  async (model, { client, record }) => {
    const id = at([...model.rows.keys()], n)
    if (id === undefined) return
    await client.query(`delete from ${record.schema.table} where id = $1`, [id])
    model.rows.delete(id)
  }
const verified: Do = async (model, { keys, table }) => {
  if (!idOf(model, 'active')) return refused(verify({ keys, table }))
  const report = await verify({ keys, table, ...SMALL })
  const closed = [...model.rows.values()].filter(({ under }) => model.states.get(under) === 'suspended').length
  expect(report).toMatchObject({ seen: model.rows.size, failed: closed })
}
const retired =
  (n: number): Do =>
  async (model, { keys, table }) => {
    const [keyId, state] = at([...model.states], n)!
    const isUsed = [...model.rows.values()].some(({ under }) => under === keyId)
    const work = retire({ keys, keyId, tables: [table] })
    if (isUsed) return expect(work).rejects.toMatchObject({ code: 'CONFLICT' })
    if (state !== 'deactivated' && state !== 'compromised') return refused(work)
    await work
  }

const n = fc.nat(50)
const word = fc.stringMatching(/^[a-z]{1,8}$/)
const stop = fc.option(fc.nat(3), { nil: undefined })
const named = (name: string, make: fc.Arbitrary<Do>) => make.map((run) => ({ name, run }))
const command = fc.oneof(
  {
    weight: 5,
    arbitrary: named(
      'insert',
      fc.tuple(n, word).map(([i, text]) => put(i, text, true)),
    ),
  },
  named(
    'update',
    fc.tuple(n, word).map(([i, text]) => put(i, text, false)),
  ),
  named(
    'patch',
    fc.tuple(n, word).map(([i, text]) => patch(i, text)),
  ),
  named('delete', n.map(remove)),
  named('rotate', fc.constant(rotate)),
  named('maintain', fc.constant(maintain)),
  named('promote', n.map(promote)),
  named('suspend', n.map(suspend)),
  named('reinstate', n.map(reinstate)),
  named('compromise', n.map(compromise)),
  named(
    'rewrap',
    stop.map((after) => job(rewrap, ['deactivated'], after)),
  ),
  named(
    'reencrypt',
    stop.map((after) => job(reencrypt, ['deactivated', 'compromised'], after)),
  ),
  named('verify', fc.constant(verified)),
  named('retire', n.map(retired)),
)
const commands = fc.commands<Model, Real, true>(
  [
    command.map(({ name, run }) => ({
      check: async () => true,
      run: async (model: Model, real: Real) => {
        await run(model, real)
        await check(model, real)
      },
      toString: () => name,
    })),
  ],
  { maxCommands: 40, size: 'max' },
)

let client: PostgresClient
beforeAll(() => {
  client = pgliteClient()
})
afterAll(() => client.close())

it('keyring, table and rotation together do what a model in memory says', async () => {
  const property = fc.asyncProperty(commands, async (all) => {
    const keys = testKeyring()
    const record = people()
    await createTable(client.query, record)
    const real = { client, keys, record, table: postgresTable(client.db, record) }
    const model: Model = { rows: new Map(), states: new Map([[keys.status().active!, 'active']]) }
    for (let i = 0; i < 7; i++) await put(0, `first${i}`, true)(model, real)
    await fc.asyncModelRun(() => ({ model, real }), all)
    await keys.close()
  })
  await fc.assert(property, { numRuns: RUNS, interruptAfterTimeLimit: 40_000 })
})
