import { describe, expect, it } from 'vitest'
import { createKeyring, type Keyring, openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { activeOf, MINUTE, NOTE, notes, ROOT, rotated, START } from './support.ts'

const PROPAGATION = 30 * MINUTE

describe('eight instances on one store', () => {
  async function eight(propagationMs = PROPAGATION) {
    const clock = { now: START }
    const shared = { name: 'crm', store: memoryKeyStore(), kms: localKms(ROOT), clock: () => clock.now }
    const first = await createKeyring({ ...shared, propagationMs })
    const others = await Promise.all(Array.from({ length: 7 }, () => openKeyring(shared)))
    return { clock, shared, instances: [first, ...others] as Keyring[] }
  }

  it('that all rotate() at once stage one version', async () => {
    const { instances, shared } = await eight()
    const ids = await Promise.all(instances.map((keys) => keys.rotate()))
    expect(new Set(ids).size).toBe(1)
    const { epoch, versions } = (await openKeyring(shared)).status()
    expect([epoch, versions.map(({ state }) => state)]).toEqual([2, ['active', 'pre-active']])
  })

  it('that all maintain() at once promote once', async () => {
    const { instances, shared, clock } = await eight()
    const staged = await instances[0]!.rotate()
    clock.now += PROPAGATION
    const done = await Promise.all(instances.map((keys) => keys.maintain()))
    expect(done.flatMap(({ promoted }) => promoted)).toEqual([staged])
    expect((await openKeyring(shared)).status()).toMatchObject({ epoch: 3, active: staged })
    expect(new Set(instances.map(activeOf))).toEqual(new Set([staged]))
  })

  it('that each change something else at once lose none of it', async () => {
    const { instances, shared, clock } = await eight(0)
    const old: string[] = []
    for (let i = 0; i < 8; i++) old.push((await rotated(instances[0]!)).old)
    clock.now += MINUTE
    await Promise.all(instances.map((keys, i) => keys.retire(old[i]!, { references: 0, reason: `by ${i}` })))
    const { versions } = (await openKeyring(shared)).status()
    expect(versions.filter(({ retired }) => retired).map(({ id }) => id)).toEqual(old)
  })

  it('that rotate and write in a muddle can all read what all wrote', async () => {
    const { instances } = await eight(0)
    const rows = []
    for (let round = 0; round < 4; round++) {
      await Promise.all(instances.map((keys, i) => (i % 2 ? keys.rotate() : keys.maintain())))
      rows.push(...instances.map((keys) => notes.encrypt(keys, { ...NOTE })))
    }
    for (const keys of instances) {
      await keys.rotate()
      for (const row of rows) expect(notes.decrypt(keys, row)).toEqual(NOTE)
    }
  })
})
