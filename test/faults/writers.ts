import type { Keyring } from '../../src/index.ts'
import { quoteColumn } from '../../src/records/sql.ts'
import { sleep } from '../../src/rotation/pace.ts'
import type { PostgresClient } from '../rotation/clients.ts'
import type { Model, Plain } from './model.ts'
import { type Choices, choices } from './random.ts'
import type { AccountRecord, Stored } from './record.ts'

export const WRITERS = 4
/** Patches are what races a new data key: they leave the header as it is. */
const KINDS = ['insert', 'update', 'patch', 'patch', 'patch', 'delete'] as const
/** What a row has besides in the other shape goes when it is written whole. */
const EMPTY: Readonly<Record<string, null>> = { email: null, note: null }
const PAUSE_MS = 2
/** How often a writer looks where the workers are, and how far ahead of them it writes: about a batch. */
const LOOK_EVERY = 25
const AHEAD = 220

export const COUNTED = ['insert', 'update', 'patch', 'delete', 'conflict', 'lost'] as const
export type Counts = Record<(typeof COUNTED)[number], number>

/** One application that goes on writing. It owns the ids that are `own` modulo WRITERS, so that their last writer is known. */
export async function write(
  { query }: PostgresClient,
  /** How it writes at this moment, or patches a row: a release may come in between. */
  recordNow: (row?: Stored) => AccountRecord,
  keys: Keyring,
  own: number,
  model: Model,
  seed: number,
  isOver: () => boolean,
): Promise<Counts> {
  const counts: Counts = { insert: 0, update: 0, patch: 0, delete: 0, conflict: 0, lost: 0 }
  const chosen = choices(seed)
  const ids = [...model.rows.keys()].filter((id) => id % WRITERS === own)
  let free = Math.max(own, ...ids) + WRITERS
  let cursors: readonly number[] = []

  async function change(id: number, set: object, guard = '', values: readonly unknown[] = []): Promise<number> {
    const entries = Object.entries(set).filter(([name]) => name !== 'id')
    const names = entries.map(([name], i) => `${quoteColumn(name)} = $${i + 2 + values.length}`).join(', ')
    const params = [id, ...values, ...entries.map(([, value]) => value)]
    return (await query(`update accounts set ${names} where id = $1 ${guard} returning 1`, params)).length
  }

  /** Sends a write of one row. True: acknowledged; false: it did not apply. When the answer is lost, both may be. */
  async function send(id: number, next: Plain | undefined, statement: () => Promise<number>): Promise<boolean> {
    try {
      if ((await statement()) !== 1) return false
    } catch {
      model.unsure.set(id, [model.rows.get(id), next])
      model.rows.delete(id)
      counts.lost++
      while (!(await query('select 1').catch(() => null))) await sleep(50)
      return false
    }
    if (next) model.rows.set(id, next)
    else model.rows.delete(id)
    return true
  }

  /** Every other time a row that a worker is about to read, or has just read. */
  async function choose(turn: number): Promise<{ id: number; drop(): void }> {
    if (turn % LOOK_EVERY === 0) {
      const rows = await query<{ at: string }>(
        `select at_cursor as at from waxseal_range where is_done = 0 and at_cursor is not null`,
      ).catch(() => [])
      cursors = rows.map(({ at }) => Number((JSON.parse(at) as string[])[0]))
    }
    const at = chosen.int(ids.length)
    const near = chosen.int(2) === 0 && cursors.length > 0 ? chosen.pick(cursors) + chosen.int(AHEAD) : undefined
    const hot = near === undefined ? undefined : near - (near % WRITERS) + own
    if (hot !== undefined && model.rows.has(hot)) return { id: hot, drop: () => undefined }
    const drop = (): void => {
      ids[at] = ids.at(-1)!
      ids.pop()
    }
    return { id: ids[at]!, drop }
  }

  for (let turn = 0; !isOver(); turn++) {
    const kind = chosen.pick(KINDS)
    const value = valuesOf(chosen, own, turn)
    const record = recordNow()
    if (kind === 'insert') {
      const next = { id: free, ...value }
      free += WRITERS
      const stored = Object.entries(record.encrypt(keys, next))
      const names = stored.map(([name]) => quoteColumn(name)).join(', ')
      const sql = `insert into accounts (${names}) values (${stored.map((_, i) => `$${i + 1}`).join(', ')}) returning 1`
      const params = stored.map(([, cell]) => cell)
      if (await send(next.id, next, async () => (await query(sql, params)).length)) {
        ids.push(next.id)
        counts.insert++
      }
    } else {
      const { id, drop } = await choose(turn)
      const before = model.rows.get(id)
      const update = async (next: Plain): Promise<void> => {
        const stored = record.encrypt(keys, next)
        if (await send(id, next, () => change(id, { ...EMPTY, ...stored }))) counts.update++
      }
      if (!before) drop()
      else if (kind === 'delete') {
        const sql = 'delete from accounts where id = $1 returning 1'
        if (await send(id, undefined, async () => (await query(sql, [id])).length)) counts.delete++
      } else if (kind === 'update') await update({ id, ...value })
      else {
        // Read and patch: what stands there may be rewrapped or re-encrypted in between.
        const read = await query('select * from accounts where id = $1', [id]).catch(() => [])
        if (read.length === 1) {
          const row = read[0] as Stored
          const record = recordNow(row)
          // A row that still is plaintext is written whole by whoever writes ciphertext.
          if (row.envelope === null && record.declaration.migrate?.phase !== 'prepare') {
            await update({ ...before, note: value.note })
            continue
          }
          await sleep(chosen.int(4))
          const { set, guard } = record.patch(keys, row as never, { note: value.note })
          const next = { ...before, note: value.note }
          const patched = () => change(id, set, `and ${guard.expression} = $2`, [guard.value])
          if (await send(id, next, patched)) counts.patch++
          else if (model.rows.has(id)) counts.conflict++
        } else await sleep(50)
      }
    }
    await sleep(PAUSE_MS)
  }
  return counts
}

function valuesOf(chosen: Choices, own: number, turn: number): Omit<Plain, 'id'> {
  const note = chosen.int(4) === 0 ? null : `note ${chosen.int(1_000)} of turn ${turn}`
  return { email: `writer${own}-${turn}@example.org`, note, city: chosen.pick(['Oslo', 'Lima']) }
}
