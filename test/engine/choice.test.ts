import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

/** Which engine a platform gets. The choice is made once, so each test loads the module anew. */
const load = () => import('../../src/engine/index.ts')
const hideNode = () => vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined as never)

beforeEach(() => void vi.resetModules())
afterEach(() => void vi.restoreAllMocks())

describe('the default engine', () => {
  it("is Node's OpenSSL where it can be reached, and prefers suite 1", async () => {
    const { defaultEngine } = await load()
    expect(defaultEngine()).toMatchObject({ name: 'node', preferredSuite: 1 })
  })

  it('is @noble elsewhere, and prefers suite 2', async () => {
    hideNode()
    const { defaultEngine, nodeEngine } = await load()
    expect(defaultEngine()).toMatchObject({ name: 'noble', preferredSuite: 2 })
    expect(nodeEngine()).toBeUndefined()
  })

  it('is chosen once', async () => {
    const { defaultEngine } = await load()
    const first = defaultEngine()
    hideNode()
    expect(defaultEngine()).toBe(first)
  })

  it.each(['hash', 'getCipherInfo'] as const)(
    'is @noble where the crypto module is an imitation whose %s lacks what is needed',
    async (part) => {
      const real = process.getBuiltinModule('crypto')
      const imitation = { ...real, [part]: part === 'hash' ? undefined : () => undefined }
      vi.spyOn(process, 'getBuiltinModule').mockReturnValue(imitation as never)
      const { defaultEngine } = await load()
      expect(defaultEngine().name).toBe('noble')
    },
  )
})
