import { describe, expect, it } from 'vitest'
import { type ErrorCode, WaxsealError } from 'waxseal'
import type { RowResult } from '../../src/records/many.ts'
import { applyAll } from '../../src/rotation/batch.ts'
import type { Change, ReadRow, RotationSource } from '../../src/rotation/source.ts'
import type { Work } from '../../src/rotation/work.ts'

/** What becomes of the rows of a batch, done at once or one by one. */
const reads: readonly ReadRow[] = [1, 2, 3, 4].map((id) => ({ row: { id }, cursor: [String(id)], was: {} }))
const source = { rowId: ({ id }: { id: number }) => String(id) } as unknown as RotationSource
const changeOf = ({ cursor }: ReadRow): Change => ({ cursor, set: {}, expect: {} })

/** A work whose row 2 fails with `code` until the keys are ready, and whose row 3 needs nothing. */
function workThat(code: ErrorCode, atOnce: boolean) {
  const told = { ready: 0, alone: [] as string[] }
  const apply = (read: ReadRow): Change | null => {
    if (read.cursor[0] === '3') return null
    if (read.cursor[0] === '2' && (told.ready === 0 || code !== 'KEY_NOT_LOADED')) throw new WaxsealError(code, 'no')
    return changeOf(read)
  }
  const settled = (read: ReadRow, index: number): RowResult<Change | null> => {
    try {
      return { ok: true, value: apply(read) }
    } catch (error) {
      return { ok: false, error: error as WaxsealError, index }
    }
  }
  const work: Work = {
    name: 'rewrap',
    filter: 'sealed',
    extent: 'envelope',
    isShrinking: true,
    apply(read) {
      told.alone.push(read.cursor[0]!)
      return apply(read)
    },
    ...(atOnce && { applyMany: async (rows: readonly ReadRow[]) => rows.map(settled) }),
    ready: async () => void told.ready++,
  }
  return { work, told }
}

describe.each([
  ['at once', true],
  ['one by one', false],
])('rows that are done %s', (_, atOnce) => {
  it('are changes, or nothing, in their order', async () => {
    const { work, told } = workThat('KEY_NOT_LOADED', atOnce)
    const outcomes = await applyAll(source, work, reads)
    expect(outcomes.map(({ change }) => change?.cursor[0])).toEqual(['1', '2', undefined, '4'])
    expect(outcomes.some(({ failure }) => failure)).toBe(false)
    expect(told).toEqual({ ready: 1, alone: atOnce ? ['2'] : ['1', '2', '2', '3', '4'] })
  })

  it('are a failure each where they are broken', async () => {
    const { work, told } = workThat('DECRYPTION_FAILED', atOnce)
    const outcomes = await applyAll(source, work, reads)
    expect(outcomes.map(({ failure }) => failure)).toEqual([
      undefined,
      { rowId: '2', code: 'DECRYPTION_FAILED' },
      undefined,
      undefined,
    ])
    expect(told.ready).toBe(0)
  })

  it('end the job where a configuration is wrong', async () => {
    await expect(applyAll(source, workThat('CONFIG', atOnce).work, reads)).rejects.toMatchObject({ code: 'CONFIG' })
  })
})
