import { describe, expect, it } from 'vitest'
import { WaxsealError } from 'waxseal'
import { exitOf, said } from '../../src/cli/exit.ts'

describe('an error of a key store in a database', () => {
  const failed = (code: 'KMS_UNAVAILABLE' | 'KMS_DENIED', cause: object) =>
    new WaxsealError(code, 'key store: reading failed', { cause: Object.assign(new Error('secret words'), cause) })

  it.each([
    ['KMS_UNAVAILABLE', '3D000', 2, 'there is no such database'],
    ['KMS_UNAVAILABLE', 'ECONNREFUSED', 4, 'the database did not answer'],
    ['KMS_DENIED', '28000', 3, 'the database refused user or password'],
  ] as const)('%s with %s: exit %i, and what the database said', (code, behind, exit, words) => {
    const error = failed(code, { code: behind })
    expect(exitOf(error)).toBe(exit)
    expect(said(error)).toEqual({ code, message: `key store: reading failed (${behind}: ${words})` })
  })

  it('of a KMS is no trouble of the database', () => {
    const cause = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
    const error = new WaxsealError('KMS_UNAVAILABLE', 'KMS: wrap failed', { cause })
    expect([exitOf(error), said(error).message]).toEqual([4, 'KMS: wrap failed'])
  })

  it('without a code that is known stays as it is', () => {
    const error = failed('KMS_UNAVAILABLE', { code: 'UNHEARD' })
    expect([exitOf(error), said(error).message]).toEqual([4, 'key store: reading failed'])
  })
})
