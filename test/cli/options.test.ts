import { describe, expect, it } from 'vitest'
import { parse } from '../../src/cli/options.ts'

describe('a key id that begins as options do', () => {
  const ids = ['-1q2w3e4r5t6y7u8i9o0', '--2w3e4r5t6y7u8i9o0p', '-h2w3e4r5t6y7u8i9o0p', '--------------------']

  it.each(ids)('%s is a key id wherever it stands', (id) => {
    const all = [
      ['incident', id, '--reason', 'stolen', '--yes'],
      ['incident', '--yes', id, '--reason', 'stolen'],
      ['incident', '--yes', '--reason', 'stolen', id],
      ['incident', '--yes', '--reason', 'stolen', '--', id],
      ['incident', '--yes', '--reason', 'stolen', id, '--'],
    ]
    for (const args of all) {
      const given = parse(args)!
      expect([given.keyId, given.text('reason'), given.flag('yes')], args.join(' ')).toEqual([id, 'stolen', true])
    }
  })

  it('is taken by --from, as often as it is given', () => {
    const args = ['reencrypt', '--from', ids[0]!, '--from', 'A'.repeat(20), '--from', ids[1]!, '--json']
    const given = parse(args)!
    expect(given.list('from')).toEqual([ids[0], 'A'.repeat(20), ids[1]])
    expect([given.keyId, given.flag('json')]).toEqual([undefined, true])
  })

  it.each([
    ['a command that takes none', ['status', ids[0]!]],
    ['a second one', ['retire', ids[0]!, ids[1]!]],
    ['in place of a reason', ['retire', 'A'.repeat(20), '--reason', ids[0]!]],
    ['in place of a reason, before the key id', ['retire', '--reason', ids[0]!, 'A'.repeat(20)]],
    ['in place of an actor', ['suspend', '--actor', ids[0]!, 'A'.repeat(20)]],
    ['in place of a file', ['incident', '--list', ids[0]!, 'A'.repeat(20), '--yes', '--reason', 'x']],
    ['in place of the configuration', ['suspend', '-c', ids[0]!, 'A'.repeat(20)]],
    ['one before and one behind --', ['retire', ids[0]!, '--', ids[1]!]],
    ['two that begin as short options do', ['retire', ids[0]!, ids[2]!]],
    ['a character too many', ['retire', `${ids[0]}x`]],
    ['a character too few', ['retire', ids[0]!.slice(0, -1)]],
  ])('%s: CONFIG', (_, args) => {
    expect(() => parse(args)).toThrow(expect.objectContaining({ code: 'CONFIG' }))
  })

  it('or not, an option without its value is told to be so', () => {
    expect(() => parse(['retire', 'A'.repeat(20), '--reason'])).toThrow(/'--reason <value>' argument missing/)
  })
})
