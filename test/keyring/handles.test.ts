import { describe, expect, it } from 'vitest'
import { cell, type KeyEvent, text } from 'waxseal'
import { SOURCE } from '../../src/envelope/keys.ts'
import type { Secret } from '../../src/secret.ts'
import { activeOf, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, versionOf } from './support.ts'

const word = cell('words', 'word', { type: text(), bind: 'column' })

async function started() {
  const bench = setup()
  const keys = await bench.create()
  bench.events.length = 0
  return { ...bench, keys }
}

describe('a handle made by as()', () => {
  it('puts actor and purpose on every event, beside keyring and time', async () => {
    const { keys, events, clock } = await started()
    const mine = keys.as({ actor: 'ann', purpose: 'support call' })
    const row = notes.encrypt(mine, { ...NOTE })
    notes.decrypt(mine, row)
    notes.patch(mine, row, { tag: 'new' })
    notes.reencrypt(mine, row)
    word.decrypt(mine, word.encrypt(mine, 'w'))
    await refusal(() => notes.decrypt(mine, { ...row, id: 18 }))
    expect(new Set(events.map(({ type }) => type))).toEqual(
      new Set(['encrypt', 'decrypt', 'patch', 'reencrypt', 'failure']),
    )
    for (const event of events) {
      expect(event).toMatchObject({ actor: 'ann', purpose: 'support call', keyring: 'crm', time: clock.now })
    }
  })

  it('says what was done to which row, which fields and under which key', async () => {
    const { keys, events } = await started()
    const row = notes.encrypt(keys, { ...NOTE })
    notes.patch(keys, row, { tag: 'new' })
    const where = { table: 'notes', rowId: '17', keyId: activeOf(keys) }
    expect(events).toEqual([
      expect.objectContaining({ ...where, type: 'encrypt', fields: ['body', 'tag'] }),
      expect.objectContaining({ ...where, type: 'patch', fields: ['tag'] }),
    ])
  })

  it('leaves the handle that it was made from as it was', async () => {
    const { keys, events } = await started()
    notes.encrypt(keys.as({ actor: 'ann' }), { ...NOTE })
    notes.encrypt(keys, { ...NOTE })
    expect(events.map(({ actor }) => actor)).toEqual(['ann', undefined])
  })

  it('takes nothing but actor and purpose: a user object cannot rename the event or add to it', async () => {
    const { keys, events } = await started()
    const user = { actor: 'ann', purpose: 'support', type: 'admin', keyId: 'none', password: 'hunter2', time: 0 }
    notes.encrypt(keys.as(user), { ...NOTE })
    expect(events[0]).toMatchObject({ type: 'encrypt', keyId: activeOf(keys), actor: 'ann', purpose: 'support' })
    expect(JSON.stringify(events)).not.toContain('hunter2')
  })

  it('sees what the keyring learns later', async () => {
    const { keys } = await started()
    const mine = keys.as({ actor: 'ann' })
    const { fresh } = await rotated(keys)
    const row = notes.encrypt(mine, { ...NOTE })
    expect(notes.needsRotation(keys, row)).toBe(false)
    expect(mine[SOURCE].active().idText).toBe(fresh)
  })
})

describe('a listener', () => {
  it('that throws fails the operation with what it threw', async () => {
    const bench = setup()
    const keys = await bench.create()
    const row = notes.encrypt(keys, { ...NOTE })
    const full = new Error('audit log is full')
    const audited = await bench.open({
      onEvent() {
        throw full
      },
    })
    for (const work of [
      () => notes.encrypt(audited, { ...NOTE }),
      () => notes.decrypt(audited, row),
      () => notes.patch(audited, row, { tag: 'new' }),
      () => notes.reencrypt(audited, row),
      () => word.encrypt(audited, 'w'),
    ]) {
      expect(work).toThrow(full)
    }
  })

  it('that throws fails no work that runs in the background: the process lives on', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown) => void unhandled.push(reason)
    const others = process.listeners('unhandledRejection')
    process.removeAllListeners('unhandledRejection')
    process.on('unhandledRejection', note)
    try {
      const bench = setup()
      await bench.create()
      const audited = await bench.open({
        onEvent(event: KeyEvent) {
          if (event.type === 'keyring.failure') throw new Error('audit log is full')
        },
      })
      bench.store.broken = new Error('away')
      bench.clock.now += 10 * MINUTE
      notes.encrypt(audited, { ...NOTE }) // starts a refresh, which fails
      await quiet()
    } finally {
      process.off('unhandledRejection', note)
      for (const listener of others) process.on('unhandledRejection', listener)
    }
    expect(unhandled).toEqual([])
  })

  it('is told of every change of state, here and elsewhere, with the reason', async () => {
    const { keys, events, open, clock } = await started()
    const heard: KeyEvent[] = []
    const other = await open({ onEvent: (event: KeyEvent) => void heard.push(event) })
    const id = activeOf(keys)
    await keys.suspend(id, { reason: 'ticket 4711' })
    const told = { type: 'key.state', keyId: id, state: 'suspended', reason: 'ticket 4711' }
    expect(events).toEqual([expect.objectContaining(told)])
    clock.now += 6 * MINUTE
    await other.ready()
    expect(heard).toEqual([expect.objectContaining(told)])
  })
})

describe('closing', () => {
  it('makes every later use CONFIG, also through handles, and may be done twice', async () => {
    const { keys } = await started()
    const handle = keys.as({ actor: 'ann' })
    const row = notes.encrypt(keys, { ...NOTE })
    const id = activeOf(keys)
    await keys.close()
    await keys.close()
    for (const work of [
      () => notes.encrypt(keys, { ...NOTE }),
      () => notes.decrypt(keys, row),
      () => notes.patch(keys, row, { tag: 'x' }),
      () => notes.rewrap(keys, row),
      () => notes.decrypt(handle, row),
      () => notes.decrypt(keys.as({ actor: 'bob' }), row),
      () => keys.ready(),
      () => handle.ready(),
      () => keys.status(),
      () => keys.rotate(),
      () => keys.maintain(),
      () => keys.suspend(id),
      () => keys.markCompromised(id, {}),
      () => keys.retire(id, { references: 0 }),
    ]) {
      expect(await refusal(work)).toMatchObject({ code: 'CONFIG', argument: 'keys' })
    }
  })

  it('wipes the master keys', async () => {
    const { keys } = await started()
    const { secret } = keys[SOURCE].active() as unknown as { secret: Secret }
    const bytes = secret.use((key) => key)
    expect(bytes.every((byte) => byte === 0)).toBe(false)
    await keys.close()
    expect(secret.destroyed).toBe(true)
    expect(bytes.every((byte) => byte === 0)).toBe(true)
  })

  it('leaves no subkey that still wraps or unwraps', async () => {
    const { keys } = await started()
    const source = keys[SOURCE]
    const wrap = source.active().wrapFor(source.writeSuite)
    await keys.close()
    expect(() => wrap.wrap(new Uint8Array(32), new Uint8Array(53))).toThrow('destroyed')
  })

  it('happens at the end of an await using block', async () => {
    const { open } = await started()
    const outer = await (async () => {
      await using keys = await open()
      expect(activeOf(keys)).toBeDefined()
      return keys
    })()
    expect(await refusal(() => notes.encrypt(outer, { ...NOTE }))).toMatchObject({ code: 'CONFIG' })
  })

  it('in the middle of a refresh fails those who wait for it with CONFIG', async () => {
    const { keys, open, clock } = await started()
    const other = await open()
    await keys.rotate()
    clock.now += 10 * MINUTE
    const waiting = refusal(() => other.ready())
    await other.close()
    expect(await waiting).toMatchObject({ code: 'CONFIG', argument: 'keys' })
  })

  it('leaves other keyrings on the same store alone', async () => {
    const { keys, open } = await started()
    const other = await open()
    await keys.close()
    expect(notes.decrypt(other, notes.encrypt(other, { ...NOTE }))).toEqual(NOTE)
    expect(versionOf(other, activeOf(other)).state).toBe('active')
  })
})
