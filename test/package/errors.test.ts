import { inspect } from 'node:util'
import ts from 'typescript'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { at, ERRORS, type ErrorCode, WaxsealError } from '../../src/errors.ts'
import { parse, read, sourceFiles, visit } from '../support/sources.ts'

const CODES = Object.keys(ERRORS) as ErrorCode[]
/** Codes that later parts will throw; docs/errors.md says so. */
const RESERVED = ['ERASED']
/** Codes of rows in reports of jobs, that no error has. */
const REPORTED = ['ROW_REFUSED']

/** Sections of docs/errors.md: heading → text. */
const sections = new Map(
  read('docs/errors.md')
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')).trim(), section.slice(section.indexOf('\n'))] as const),
)

/** String literals in the first argument of every `new WaxsealError(…)`. */
function thrownCodes(): Set<string> {
  const codes = new Set<string>()
  for (const file of sourceFiles()) {
    visit(parse(file), (node) => {
      if (!ts.isNewExpression(node) || node.expression.getText() !== 'WaxsealError' || !node.arguments?.[0]) return
      visit(node.arguments[0], (part) => void (ts.isStringLiteral(part) && codes.add(part.text)))
    })
  }
  return codes
}

describe('the closed list of error codes', () => {
  it('is the type, the table and docs/errors.md, in the same order', () => {
    expectTypeOf<ErrorCode>().toEqualTypeOf<keyof typeof ERRORS>()
    expect([...sections.keys()]).toEqual(CODES)
  })

  it.each(CODES)('%s: its section says whether it is retryable, as the table does', (code) => {
    const lines = sections.get(code)!.match(/^Retryable: .*$/gm)
    expect(lines).toEqual([`Retryable: ${ERRORS[code].retryable ? 'yes' : 'no'}`])
    expect(new WaxsealError(code, 'message').retryable).toBe(ERRORS[code].retryable)
  })

  it('is thrown from: every code but the reserved and the reported ones has a place', () => {
    const thrown = thrownCodes()
    expect(CODES.filter((code) => !thrown.has(code))).toEqual([...RESERVED, ...REPORTED])
    expect([...thrown].filter((code) => !CODES.includes(code as ErrorCode))).toEqual([])
  })

  it('is what src throws: never a bare Error', () => {
    expect(sourceFiles().filter((file) => /\bnew Error\(|\bthrow\s+['"`{]|\bError\(['"`]/.test(read(file)))).toEqual([])
  })

  it('is in no message of ours: messages tell what happened, the code is beside them', () => {
    const shouting = new RegExp(`'[^']*\\b(?:${CODES.join('|')})\\b[^']+'`)
    const files = sourceFiles().filter((file) => file !== 'src/errors.ts')
    const inMessages = files.filter((file) => {
      const code = read(file).replace(/\/\*[\s\S]*?\*\//g, '')
      return shouting.test(code.replace(/^\s*\/\/.*$/gm, '').replace(/'[A-Z_]+'/g, ''))
    })
    expect(inMessages).toEqual([])
  })
})

describe('a cause', () => {
  const secret = 'luis@example.org'
  const cause = Object.assign(new TypeError('duplicate key'), {
    code: '23505',
    detail: `Key (email)=(${secret}) exists`,
    parameters: [secret],
    query: `insert … ${secret}`,
    cause: new Error(secret),
    errors: [new Error(secret)],
  })

  it('is reduced to name, code and message', () => {
    const error = new WaxsealError('KMS_UNAVAILABLE', 'kms.wrap failed', { cause })
    expect(error.cause).toEqual({ name: 'TypeError', code: '23505', message: 'duplicate key' })
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(secret)
    expect(JSON.stringify(error)).not.toContain(secret)
  })

  it.each([secret, { secret }, [secret], Symbol(secret), () => secret, 7])(
    'that is no Error keeps only its type',
    (bad) => {
      const error = new WaxsealError('KMS_UNAVAILABLE', 'kms.wrap failed', { cause: bad })
      expect(error.cause).toEqual({ name: typeof bad, message: 'not an Error' })
      expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(secret)
    },
  )

  it('that is not there is not there', () => {
    for (const none of [undefined, null])
      expect('cause' in new WaxsealError('CONFIG', 'm', { cause: none })).toBe(false)
  })

  it('stays, and stays reduced, when the error is told where it happened', () => {
    const told = at(new WaxsealError('CONFLICT', 'm', { cause }), { table: 'people', rowId: '1' }) as WaxsealError
    expect(told).toMatchObject({ code: 'CONFLICT', table: 'people', rowId: '1' })
    expect(told.cause).toEqual({ name: 'TypeError', code: '23505', message: 'duplicate key' })
    expect(inspect(told, { depth: 9, showHidden: true })).not.toContain(secret)
  })
})
