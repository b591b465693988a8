import { expect, it } from 'vitest'
import { int, records, text } from 'waxseal'

it('a misspelt option of a declaration is CONFIG', () => {
  const fields = { a: text() }
  const misspelt = { id: { id: int() }, fields, contxt: { tenant: text() } }
  expect(() => records('t', misspelt)).toThrow(
    expect.objectContaining({ code: 'CONFIG', argument: 'declaration.contxt' }),
  )
  const field = { a: text({ nullabel: true } as never) }
  expect(() => records('t', { id: { id: int() }, fields: field })).toThrow(expect.objectContaining({ code: 'CONFIG' }))
})
