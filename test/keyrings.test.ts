import { describe, expect, it } from 'vitest'
import { createKeyring, type Keyring, openKeyring, WaxsealError } from 'waxseal'
import { type KeyringsOptions, keyrings } from 'waxseal/keyrings'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { NOTE, notes, quiet, ROOT, refusal } from './keyring/support.ts'

const NAMES = ['a', 'b', 'c', 'd']
const store = memoryKeyStore()
const kms = localKms(ROOT)
for (const name of NAMES) await createKeyring({ name, store, kms })

/** A collection that tells what it opened and what it closed. */
function watched(max: number, before: KeyringsOptions['open'] | (() => Promise<void>) = async () => {}) {
  const opened: string[] = []
  const closed: string[] = []
  const tenants = keyrings({
    max,
    open: async (name) => {
      opened.push(name)
      await before(name)
      const keys = await openKeyring({ name, store, kms })
      const close = async (): Promise<void> => {
        closed.push(name)
        await keys.close()
      }
      return { ...keys, close } as Keyring
    },
  })
  return { tenants, opened, closed }
}

/** A promise, and what settles it. */
function latch() {
  let release = (): void => {}
  const wait = new Promise<void>((done) => {
    release = done
  })
  return { wait, release }
}

const touch = (keys: Keyring): string => notes.decrypt(keys, notes.encrypt(keys, { ...NOTE })).body

describe('a collection of keyrings', () => {
  it('opens each name once, however many callers come at once, and keeps it for later ones', async () => {
    const { tenants, opened } = watched(10)
    const all = await Promise.all([...NAMES, ...NAMES, ...NAMES].map((name) => tenants.use(name, ({ name }) => name)))
    expect(all).toEqual([...NAMES, ...NAMES, ...NAMES])
    expect(await tenants.use('a', touch)).toBe(NOTE.body)
    expect(opened).toEqual(NAMES)
    expect(tenants.size).toBe(4)
  })

  it('closes the one that was used longest ago, and opens it again when it is asked for', async () => {
    const { tenants, opened, closed } = watched(2)
    for (const name of ['a', 'b', 'a', 'c']) await tenants.use(name, touch)
    await quiet()
    expect([opened, closed, tenants.size]).toEqual([['a', 'b', 'c'], ['b'], 2])
    expect(await tenants.use('b', touch)).toBe(NOTE.body)
    await quiet()
    expect([opened, closed]).toEqual([
      ['a', 'b', 'c', 'b'],
      ['b', 'a'],
    ])
  })

  it('closes none that is in use, and is over its bound only for as long', async () => {
    const { tenants, closed } = watched(1)
    const { wait, release } = latch()
    const running = NAMES.map((name) =>
      tenants.use(name, async (keys) => {
        await wait
        return touch(keys)
      }),
    )
    await quiet()
    expect([tenants.size, closed]).toEqual([4, []])
    release()
    expect(await Promise.all(running)).toEqual(NAMES.map(() => NOTE.body))
    await quiet()
    expect([tenants.size, closed.length]).toEqual([1, 3])
  })

  it('closes none that is still opening for somebody', async () => {
    const { wait, release } = latch()
    const { tenants, closed } = watched(1, (name) => (name === 'a' ? wait : Promise.resolve()) as never)
    const slow = tenants.use('a', touch)
    for (const name of ['b', 'c', 'd']) await tenants.use(name, touch)
    release()
    expect(await slow).toBe(NOTE.body)
    await quiet()
    expect(closed.sort()).toEqual(['b', 'c', 'd'])
  })

  it('tells a failure to open to all who waited, and opens anew for the next', async () => {
    let isDown = true
    const { tenants, opened } = watched(2, async () => {
      if (isDown) throw new WaxsealError('KMS_UNAVAILABLE', 'away')
    })
    const failures = await Promise.all([1, 2, 3].map(() => refusal(() => tenants.use('a', touch))))
    expect(failures.map(({ code }) => code)).toEqual(Array(3).fill('KMS_UNAVAILABLE'))
    expect([opened, tenants.size]).toEqual([['a'], 0])
    isDown = false
    expect(await tenants.use('a', touch)).toBe(NOTE.body)
  })

  it('takes an `open` that throws for one that rejects', async () => {
    const tenants = keyrings({
      max: 1,
      open: () => {
        throw new WaxsealError('CONFIG', 'no such tenant')
      },
    })
    expect(await refusal(() => tenants.use('a', touch))).toMatchObject({ code: 'CONFIG' })
    expect(tenants.size).toBe(0)
  })

  it('passes on what the work throws, and keeps the keyring', async () => {
    const { tenants, opened, closed } = watched(2)
    const work = () => Promise.reject(new Error('of the application'))
    await expect(tenants.use('a', work)).rejects.toThrow('of the application')
    await tenants.use('a', touch)
    expect([opened, closed]).toEqual([['a'], []])
  })

  it('does not run the work when the keys are not ready', async () => {
    const open = async (name: string): Promise<Keyring> => {
      const keys = await openKeyring({ name, store, kms })
      const ready = () => Promise.reject(new WaxsealError('KEY_NOT_LOADED', 'too old'))
      return { ...keys, ready } as Keyring
    }
    let runs = 0
    const error = await refusal(() => keyrings({ max: 1, open }).use('a', () => runs++))
    expect([error.code, runs]).toEqual(['KEY_NOT_LOADED', 0])
  })

  it('may be used inside of a use, also over its bound and for the same name', async () => {
    const { tenants } = watched(1)
    const nested = tenants.use('a', () => tenants.use('b', () => tenants.use('a', touch)))
    expect(await nested).toBe(NOTE.body)
  })

  it('lets whoever uses a forgotten keyring finish, while others get a new one', async () => {
    const { tenants, opened, closed } = watched(3)
    const { wait, release } = latch()
    const running = tenants.use('a', async (keys) => {
      await wait
      return touch(keys)
    })
    await quiet()
    tenants.forget('a')
    tenants.forget('a')
    tenants.forget('unknown')
    expect(await tenants.use('a', touch)).toBe(NOTE.body)
    await quiet()
    expect([opened, closed]).toEqual([['a', 'a'], []])
    release()
    expect(await running).toBe(NOTE.body)
    await quiet()
    expect([closed, tenants.size]).toEqual([['a'], 1])
  })

  it('closes all of them when it is closed, those in use behind their users, and opens no more', async () => {
    const { tenants, closed } = watched(3)
    await tenants.use('b', touch)
    const { wait, release } = latch()
    const running = tenants.use('a', async (keys) => {
      await wait
      return touch(keys)
    })
    await tenants.close()
    await quiet()
    expect(closed).toEqual(['b'])
    expect(await refusal(() => tenants.use('c', touch))).toMatchObject({ code: 'CONFIG' })
    release()
    expect(await running).toBe(NOTE.body)
    await quiet()
    expect(closed).toEqual(['b', 'a'])
  })

  it('opens one anew that somebody closed while it was lent', async () => {
    const { tenants, opened } = watched(3)
    await tenants.use('a', (keys) => keys.close())
    expect(await Promise.all([1, 2, 3].map(() => tenants.use('a', touch)))).toEqual(Array(3).fill(NOTE.body))
    expect([opened, tenants.size]).toEqual([['a', 'a'], 1])
  })

  it('tries that once: a CONFIG that stays is told', async () => {
    let openings = 0
    const open = async (name: string): Promise<Keyring> => {
      openings++
      const keys = await openKeyring({ name, store, kms })
      await keys.close()
      return keys
    }
    const tenants = keyrings({ max: 3, open })
    expect(await refusal(() => tenants.use('a', touch))).toMatchObject({ code: 'CONFIG', argument: 'keys' })
    expect([openings, tenants.size]).toEqual([2, 0])
  })

  it('opens nothing again once the collection is closed', async () => {
    const { tenants, opened } = watched(3)
    await tenants.use('a', (keys) => keys.close())
    const waiting = refusal(() => tenants.use('a', touch))
    await tenants.close()
    expect(await waiting).toMatchObject({ code: 'CONFIG', argument: 'keyrings' })
    expect(opened).toEqual(['a'])
  })

  it.each([0, -1, 1.5, 1_000_001, Number.NaN, '10', undefined])('of at most %s is CONFIG', async (max) => {
    const open = (): Promise<Keyring> => Promise.reject(new Error('unused'))
    const error = await refusal(() => keyrings({ max: max as number, open }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'max' })
  })
})
