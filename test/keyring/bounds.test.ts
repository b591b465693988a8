import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Keyring } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import { activeOf, NOTE, notes, refusal, rotated, START, setup, standing, versionOf } from './support.ts'

/** Whatever a management call is given, it writes nothing that a later openKeyring cannot read. */
let folder: string
let files = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waxseal-bounds-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function started(clock?: () => number) {
  const store = fileKeyStore(join(folder, `${files++}.json`))
  const bench = setup({ store, ...(clock && { clock }) })
  return { ...bench, keys: await bench.create() }
}

async function retired(keys: Keyring): Promise<string> {
  const { old } = await rotated(keys)
  await keys.retire(old, { references: 0 })
  return old
}

const far = new Date(8.64e15)

const CALLS: Record<string, (keys: Keyring) => Promise<unknown>> = {
  'suspending with an unknown policy': (keys) => keys.suspend(activeOf(keys), { decrypt: 'allow' as never }),
  'suspending with the policy null': (keys) => keys.suspend(activeOf(keys), { decrypt: null as never }),
  'compromising with an unknown policy': (keys) => keys.markCompromised(activeOf(keys), { decrypt: 'no' as never }),
  'a reason of two million characters': (keys) => keys.suspend(activeOf(keys), { reason: 'x'.repeat(2_000_000) }),
  'a reason that is no text': (keys) => keys.suspend(activeOf(keys), { reason: { toString: 5 } as never }),
  'a reason with a lone surrogate': (keys) => keys.suspend(activeOf(keys), { reason: 'a\ud800b' }),
  'a waiting time beyond all integers': async (keys) =>
    keys.destroy(await retired(keys), { backupsExpire: far, pendingMs: Number.MAX_SAFE_INTEGER }),
  'backups that expire at the end of time': async (keys) => keys.destroy(await retired(keys), { backupsExpire: far }),
  'backups that expired before 1970': async (keys) =>
    keys.destroy(await retired(keys), { backupsExpire: new Date(-1), pendingMs: 0 }),
}

describe('a keyring can still be opened after', () => {
  it.each(Object.entries(CALLS))('%s, whether it was refused or not', async (_, call) => {
    const { keys, open } = await started()
    const row = notes.encrypt(keys, { ...NOTE })
    const refused = await call(keys).then(
      () => undefined,
      (error) => error,
    )
    if (refused) expect(['CONFIG', 'LIMIT_EXCEEDED']).toContain(refused.code)
    const opened = await open()
    expect(standing(opened)).toEqual(standing(keys))
    const { state } = keys.status().versions[0]!
    if (state === 'suspended') return
    const { retired: isRetired, destroyAt } = keys.status().versions[0]!
    if (isRetired && destroyAt === undefined) {
      expect(await refusal(() => notes.decrypt(opened, row))).toMatchObject({ code: 'KEY_NOT_LOADED', retryable: true })
      await opened.ready()
    }
    expect(notes.decrypt(opened, row)).toEqual(NOTE)
  })

  it('it was changed by a clock with fractions of a ms', async () => {
    const { keys, open } = await started(() => START + 0.25)
    await keys.destroy(await retired(keys), { backupsExpire: new Date(0) })
    expect(standing(await open())).toEqual(standing(keys))
  })
})

describe('a policy for decrypting', () => {
  it.each(['allow', '', 'REPORT', null, 1])('%j is refused as CONFIG', async (decrypt) => {
    const { keys } = await started()
    const { epoch } = keys.status()
    for (const call of [keys.suspend, keys.markCompromised]) {
      const error = await refusal(() => call(activeOf(keys), { decrypt: decrypt as never }))
      expect(error).toMatchObject({ code: 'CONFIG', argument: 'decrypt' })
    }
    expect(keys.status().epoch).toBe(epoch)
  })
})

describe('a manifest that has grown to its limit', () => {
  it('is LIMIT_EXCEEDED for the change that would be too much, and is opened and used as before', async () => {
    const { create, open, store } = setup()
    const keys = await create()
    const id = activeOf(keys)
    const row = notes.encrypt(keys, { ...NOTE })
    const reason = '\u0001'.repeat(1000) // six characters each, in JSON
    const fill = async () => {
      for (;;) {
        await keys.suspend(id, { reason })
        await keys.reinstate(id, { reason })
      }
    }
    expect(await refusal(fill)).toMatchObject({ code: 'LIMIT_EXCEEDED' })
    expect(store.document!.manifest.length).toBeGreaterThan(1_000_000)
    const opened = await open()
    expect(standing(opened)).toEqual(standing(keys))
    if (versionOf(keys, id).state === 'suspended') await keys.reinstate(id)
    expect(notes.decrypt(await open(), row)).toEqual(NOTE)
  })
})
