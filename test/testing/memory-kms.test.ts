import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { nodeEngine } from 'waxseal/engine'
import { kmsSuite, memoryKms } from 'waxseal/testing'

import { checkPatience, request } from '../../src/kms/portable.ts'
import { unwrapKey, wrapKey } from '../../src/kms/wraps.ts'
import { refusal } from '../keyring/support.ts'

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const CONTEXT = { 'waxseal:keyring': 'A'.repeat(22), 'waxseal:key': 'integrity' }
const patience = { ...checkPatience(), timeoutMs: 200, attempts: 1 }
const roots = (kms: ReturnType<typeof memoryKms>, attempts = 1) => ({
  drivers: [kms],
  engine: nodeEngine()!,
  patience: { timeoutMs: 200, attempts, backoffMs: 0 },
})

const hanging = () => {
  const kms = memoryKms()
  kms.misbehave('hang')
  return kms
}
for (const ignoresContext of [false, true]) {
  const kms = memoryKms({ ignoresContext })
  const name = `memoryKms, ${ignoresContext ? 'blind to' : 'bound to'} the context`
  kmsSuite(
    { describe, it, expect, inspect },
    { name, make: () => kms, other: () => memoryKms({ ignoresContext }), hanging },
  )
}

describe('memoryKms', () => {
  it('counts requests, failed ones too, until it is reset', async () => {
    const kms = memoryKms()
    const blob = await kms.wrap(KEY, CONTEXT)
    await kms.unwrap(blob, CONTEXT)
    kms.misbehave('denied')
    await kms.unwrap(blob, CONTEXT).catch(() => undefined)
    expect([kms.wraps, kms.unwraps]).toEqual([1, 2])
    kms.reset()
    expect([kms.wraps, kms.unwraps]).toEqual([0, 0])
    expect(Buffer.from(await kms.unwrap(blob, CONTEXT))).toEqual(Buffer.from(KEY))
  })

  it.each([
    ['denied', 'KMS_DENIED'],
    ['rejected', 'DECRYPTION_FAILED'],
    ['unavailable', 'KMS_UNAVAILABLE'],
    ['hang', 'KMS_UNAVAILABLE'],
    [{ throws: new TypeError('socket hang up') }, 'KMS_UNAVAILABLE'],
    [{ throws: { status: 403 } }, 'KMS_DENIED'],
    [{ delayMs: 60_000 }, 'KMS_UNAVAILABLE'],
  ] as const)('told %o is %s through the portable layer', async (how, code) => {
    const kms = memoryKms()
    kms.misbehave(how)
    expect(await refusal(() => request(kms, 'wrap', KEY, CONTEXT, patience))).toMatchObject({ code })
  })

  it('misbehaves as often as it is told, and in one operation only', async () => {
    const kms = memoryKms()
    kms.misbehave('unavailable', { times: 2, operation: 'unwrap' })
    const wraps = await wrapKey(roots(kms, 3), KEY, CONTEXT)
    expect([kms.wraps, kms.unwraps]).toEqual([3, 3])
    expect(Buffer.from(await unwrapKey(roots(kms), wraps, CONTEXT, () => true))).toEqual(Buffer.from(KEY))
  })

  it.each(['corrupt', 'otherKey'] as const)('whose answer is %s is found out', async (how) => {
    const kms = memoryKms()
    const wraps = await wrapKey(roots(kms), KEY, CONTEXT)
    kms.misbehave(how, { operation: 'unwrap' })
    expect(Buffer.from(await unwrapKey(roots(kms), wraps, CONTEXT, () => true))).not.toEqual(Buffer.from(KEY))
    expect(await refusal(() => wrapKey(roots(kms), KEY, CONTEXT))).toMatchObject({ code: 'KMS_UNAVAILABLE' })
    kms.misbehave(how, { operation: 'wrap' })
    await refusal(() => wrapKey(roots(kms), KEY, CONTEXT))
  })

  it('answers late when it is told to', async () => {
    const kms = memoryKms()
    kms.misbehave({ delayMs: 30 }, { times: 1 })
    const before = performance.now()
    await request(kms, 'wrap', KEY, CONTEXT, patience)
    expect(performance.now() - before).toBeGreaterThan(25)
  })

  it.each<unknown>(['sulk', undefined, null, {}, { delayMs: 'soon' }])('does not know how to %o', async (how) => {
    expect(await refusal(() => memoryKms().misbehave(how as never))).toMatchObject({ code: 'CONFIG', argument: 'how' })
  })

  it('is another root key every time, and has the name it is given', () => {
    expect(memoryKms().keyUri).not.toBe(memoryKms().keyUri)
    expect(memoryKms({ name: 'a' }).keyUri).toBe('memory:a')
    expect(memoryKms({ wrapsPublicly: true }).wrapsPublicly).toBe(true)
  })
})
