import { describe, expect, it } from 'vitest'
import { type Keyring, WaxsealError } from 'waxseal'
import { AWAY, DENIED, keyIn, region } from './roots.ts'
import { DAY, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, standing, versionOf } from './support.ts'

/** A keyring with an active, a retired, a destroyed and a deactivated version, and a row under each that is alive. */
async function started() {
  const [old, fresh] = [region(1), region(2)]
  const bench = setup({ kms: old })
  const keys = await bench.create()
  const rows = [notes.encrypt(keys, { ...NOTE })]
  const retired = (await rotated(keys)).old
  const destroyed = (await rotated(keys)).old
  rows.push(notes.encrypt(keys, { ...NOTE }))
  const deactivated = (await rotated(keys)).old
  rows.push(notes.encrypt(keys, { ...NOTE }))
  await keys.retire(destroyed, { references: 0 })
  await keys.destroy(destroyed, { backupsExpire: new Date(0), pendingMs: 0 })
  await keys.maintain()
  await keys.retire(retired, { references: 0 })
  return { ...bench, old, fresh, keys, rows, retired, destroyed, deactivated }
}

async function reads(keys: Keyring, rows: readonly ReturnType<typeof notes.encrypt>[]): Promise<void> {
  for (const row of rows) {
    await keys.ready()
    await refusal(() => notes.decrypt(keys, row)).catch(() => undefined) // a retired version loads when asked for
    await keys.ready()
    expect(notes.decrypt(keys, row)).toEqual(NOTE)
  }
}

const urisOf = (document: { keys: Readonly<Record<string, readonly { uri: string }[]>> }) => [
  ...new Set(Object.values(document.keys).flatMap((wraps) => wraps.map(({ uri }) => uri))),
]

describe('changing the root key', () => {
  it('wraps every living version and the integrity key anew, retired ones too, and leaves no old wrap', async () => {
    const { keys, store, fresh, destroyed } = await started()
    await keys.changeRootKey({ kms: fresh })
    expect(urisOf(store.document!)).toEqual([fresh.keyUri])
    const living = keys.status().versions.filter(({ id }) => id !== destroyed)
    expect(Object.keys(store.document!.keys).sort()).toEqual(['integrity', ...living.map(({ id }) => id)].sort())
    expect([fresh.wraps, fresh.unwraps]).toEqual([4, 4])
  })

  it('leaves every ciphertext as it is: the old KMS may be gone, and all rows are read', async () => {
    const { keys, open, old, fresh, rows } = await started()
    await keys.changeRootKey({ kms: fresh })
    old.down = DENIED
    const opened = await open({ kms: fresh })
    await reads(opened, rows)
    await reads(keys, rows)
    expect(standing(opened)).toEqual(standing(keys))
  })

  it('keeps id, versions and states, and takes effect here: what is made next is under the new one', async () => {
    const { keys, store, old, fresh } = await started()
    const { id, versions, epoch } = standing(keys)
    await keys.changeRootKey({ kms: fresh })
    const moved = versions.map((version) => ({ ...version, rootKeys: version.rootKeys.map(() => fresh.keyUri) }))
    expect(standing(keys)).toMatchObject({ id, versions: moved, epoch: epoch + 1 })
    old.down = DENIED
    await rotated(keys)
    expect(urisOf(store.document!)).toEqual([fresh.keyUri])
  })

  it('is recorded, with actor and reason, for good', async () => {
    const { keys, open, fresh, clock } = await started()
    clock.now += DAY
    await keys.changeRootKey({ kms: fresh, actor: 'ann', reason: 'account closed' })
    const { epoch, log } = (await open({ kms: fresh })).status()
    expect(log).toEqual([{ what: 'root key changed', epoch, at: clock.now, actor: 'ann', reason: 'account closed' }])
  })

  it('without `kms` applies the root keys that the keyring was opened with', async () => {
    const { open, store, old, fresh } = await started()
    const both = await open({ kms: [fresh, old] })
    await both.changeRootKey()
    expect(urisOf(store.document!).sort()).toEqual([old.keyUri, fresh.keyUri].sort())
    await open({ kms: fresh })
  })

  it('asks the new KMS again at every confirmation, and the old one never', async () => {
    const { keys, old, fresh, clock } = await started()
    await keys.changeRootKey({ kms: fresh })
    old.unwraps = fresh.unwraps = 0
    clock.now += 61 * MINUTE
    await keys.ready()
    await quiet()
    // The integrity key and the three versions that this instance has in memory.
    expect([old.unwraps, fresh.unwraps]).toEqual([0, 4])
  })

  it('does not leave retired versions in memory that were not there before', async () => {
    const { open, old, fresh, retired } = await started()
    const keys = await open({ kms: [old, fresh] })
    expect(versionOf(keys, retired).loaded).toBe(false)
    old.handed.length = 0
    await keys.changeRootKey({ kms: fresh })
    expect(versionOf(keys, retired).loaded).toBe(false)
    expect(old.handed).toEqual([new Uint8Array(32)])
  })

  it('refuses two drivers of one root key, and none, as CONFIG', async () => {
    const { keys, store, fresh } = await started()
    const before = structuredClone(store.document)
    for (const kms of [[fresh, fresh], [], [undefined as never]]) {
      expect((await refusal(() => keys.changeRootKey({ kms }))).code).toBe('CONFIG')
    }
    expect(store.document).toEqual(before)
  })
})

describe('other instances', () => {
  it('with both root keys follow within their refresh interval, and outlive the old one', async () => {
    const { keys, open, old, fresh, rows, clock } = await started()
    const other = await open({ kms: [old, fresh] })
    await keys.changeRootKey({ kms: fresh })
    old.down = DENIED
    clock.now += 6 * MINUTE
    await other.ready()
    clock.now += 61 * MINUTE
    await other.ready()
    clock.now += 4 * 60 * MINUTE // past the grace: only a confirmation by the new one lets it go on
    await reads(other, rows)
    await keys.ready()
    await rotated(keys)
    await reads(other, [...rows, notes.encrypt(keys, { ...NOTE })])
  })

  it('that stage a version meanwhile lose nothing: it is wrapped anew too', async () => {
    const { keys, open, store, old, fresh } = await started()
    const other = await open({ kms: [old, fresh] })
    let staged = ''
    fresh.slow = async () => {
      fresh.slow = undefined
      staged = await other.rotate()
    }
    await keys.changeRootKey({ kms: fresh })
    expect(staged).not.toBe('')
    expect(versionOf(keys, staged).state).toBe('pre-active')
    expect(urisOf(store.document!)).toEqual([fresh.keyUri])
    old.down = DENIED
    expect(standing(await open({ kms: fresh }))).toEqual(standing(keys))
  })

  it('that change the root key at once leave one whole set of wraps', async () => {
    const { keys, open, store, old, fresh, rows } = await started()
    const third = region(3)
    const other = await open({ kms: [old, fresh, third] })
    await Promise.all([keys.changeRootKey({ kms: fresh }), other.changeRootKey({ kms: third })])
    const [uri, ...more] = urisOf(store.document!)
    expect(more).toEqual([])
    await reads(await open({ kms: uri === fresh.keyUri ? fresh : third }), rows)
    expect((await open({ kms: [fresh, third] })).status().log).toHaveLength(2)
  })

  it('whose write came in between cause one more try', async () => {
    const { keys, open, store, old, fresh } = await started()
    const save = store.save
    let conflicts = 1
    store.save = async (...args) => {
      if (conflicts-- > 0) throw new WaxsealError('CONFLICT', 'epoch')
      return save(...args)
    }
    await keys.changeRootKey({ kms: fresh })
    old.down = DENIED
    expect(standing(await open({ kms: fresh }))).toEqual(standing(keys))
    expect(keys.status().log).toHaveLength(1)
  })
})

describe('a change of the root key that is interrupted', () => {
  const INTERRUPTIONS: Record<string, (scene: Awaited<ReturnType<typeof started>>) => void> = {
    'because the new KMS is down': ({ fresh }) => {
      fresh.down = AWAY
    },
    'because the new KMS fails midway': ({ fresh }) => {
      fresh.slow = async () => {
        if (fresh.wraps >= 3) fresh.down = AWAY
      }
    },
    'because the new KMS wraps what does not open': ({ fresh }) => {
      fresh.lie = (context, truth) => (keyIn(context) === 'integrity' ? truth : new Uint8Array(32))
    },
    'because the old KMS cannot unwrap a retired version': ({ old }) => {
      old.down = AWAY
    },
    'because the store fails': ({ store }) => {
      store.save = async () => {
        throw new Error('disk full')
      }
    },
    'because others write all the time': ({ store }) => {
      store.save = async () => {
        throw new WaxsealError('CONFLICT', 'epoch')
      }
    },
  }

  it.each(Object.entries(INTERRUPTIONS))('%s leaves everything as it was', async (_, interrupt) => {
    const scene = await started()
    const { store, open, old, fresh, rows, retired } = scene
    const keys = await open({ kms: [old] })
    const before = structuredClone(store.document)
    const status = keys.status()
    const { save } = store
    interrupt(scene)
    old.handed.length = 0
    const error = await refusal(() => keys.changeRootKey({ kms: fresh }))
    expect(['KMS_UNAVAILABLE', 'CONFLICT']).toContain(error.code)
    expect([store.document, keys.status()]).toEqual([before, status])
    expect(versionOf(keys, retired).loaded).toBe(false)
    expect(old.handed.every((key) => key.every((byte) => byte === 0))).toBe(true)
    // What was begun can be done again.
    Object.assign(store, { save })
    for (const kms of [old, fresh]) Object.assign(kms, { down: undefined, slow: undefined, lie: undefined })
    await reads(keys, rows)
    await keys.rotate()
    expect(urisOf(store.document!)).toEqual([old.keyUri])
    await keys.changeRootKey({ kms: fresh })
    old.down = DENIED
    await reads(await open({ kms: fresh }), rows)
  })
})

describe('closing while the root key is changed', () => {
  it.each([
    ['the store is read', 'load'],
    ['keys are unwrapped', 'unwrap'],
    ['keys are wrapped', 'wrap'],
    ['it is written', 'save'],
  ] as const)('while %s is CONFIG for the change, and the keyring opens as before', async (_, at) => {
    const { store, old, fresh, open, rows } = await started()
    const keys = await open() // the retired version is not in memory
    const original = { load: store.load, save: store.save, unwrap: old.unwrap, wrap: fresh.wrap }
    const closing =
      <A extends unknown[], R>(call: (...given: A) => Promise<R>) =>
      async (...given: A): Promise<R> => {
        await keys.close()
        return call(...given)
      }
    if (at === 'load') store.load = closing(original.load)
    if (at === 'save') store.save = closing(original.save)
    if (at === 'unwrap') old.unwrap = closing(original.unwrap)
    if (at === 'wrap') fresh.wrap = closing(original.wrap)
    expect(await refusal(() => keys.changeRootKey({ kms: fresh }))).toMatchObject({ code: 'CONFIG', argument: 'keys' })
    Object.assign(store, { load: original.load, save: original.save })
    old.unwrap = original.unwrap
    await reads(await open({ kms: [old, fresh] }), rows)
  })
})
