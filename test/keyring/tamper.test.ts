import { describe, expect, it } from 'vitest'
import { localKms } from 'waxseal/kms/local'
import type { Manifest } from '../../src/keyring/manifest.ts'
import type { StoredKeyring } from '../../src/keystore/keystore.ts'
import { DAY, MINUTE, NOTE, notes, quiet, refusal, rotated, setup, standing, versionOf } from './support.ts'

/** A keyring with a compromised, a retired, an active and a staged version, and rows under the first two. */
async function started() {
  const bench = setup()
  const keys = await bench.create()
  const row = notes.encrypt(keys, { ...NOTE })
  const older = structuredClone(bench.store.document!)
  const { old: leaked, fresh } = await rotated(keys)
  const second = notes.encrypt(keys, { ...NOTE })
  await keys.markCompromised(leaked, { decrypt: 'refuse', reason: 'laptop stolen' })
  await rotated(keys)
  await keys.retire(fresh, { references: 0 })
  await keys.destroy(fresh, { backupsExpire: new Date(bench.clock.now + 30 * DAY) })
  await keys.rotate()
  return { ...bench, keys, row, second, leaked, older, good: structuredClone(bench.store.document!) }
}

type Draft<T> = T extends object ? { -readonly [K in keyof T]: Draft<T[K]> } : T
type Scene = Awaited<ReturnType<typeof started>>
type Tamper = (stored: Draft<StoredKeyring>, scene: Scene) => unknown

/** Edits the manifest's text and leaves the mac as it was. */
const manifest =
  (edit: (manifest: Draft<Manifest>) => unknown): Tamper =>
  (stored) => {
    const parsed = JSON.parse(stored.manifest)
    edit(parsed)
    stored.manifest = JSON.stringify(parsed)
  }

const flipLast = (text: string): string => text.slice(0, -2) + (text.at(-2) === 'A' ? 'B' : 'A') + text.at(-1)

/** What is edited, the edit, and the code that opening gives. */
const EDITS: readonly (readonly [string, Tamper, string])[] = [
  ['a compromised version made active', manifest((m) => swapStates(m, 'compromised', 'active')), 'DECRYPTION_FAILED'],
  ['a deactivated version made active', manifest((m) => swapStates(m, 'deactivated', 'active')), 'DECRYPTION_FAILED'],
  ['a staged version made active', manifest((m) => swapStates(m, 'pre-active', 'active')), 'DECRYPTION_FAILED'],
  [
    'a compromised version made deactivated',
    manifest((m) => (m.versions[0]!.state = 'deactivated')),
    'DECRYPTION_FAILED',
  ],
  ['a policy changed to report', manifest((m) => (m.versions[0]!.decrypt = 'report')), 'DECRYPTION_FAILED'],
  ['a policy taken away', manifest((m) => delete m.versions[0]!.decrypt), 'DECRYPTION_FAILED'],
  ['a destruction brought forward', manifest((m) => (m.versions[1]!.destroyAt = 0)), 'DECRYPTION_FAILED'],
  ['a destruction called off', manifest((m) => delete m.versions[1]!.destroyAt), 'DECRYPTION_FAILED'],
  ['a version marked retired', manifest((m) => (m.versions[0]!.retired = true)), 'DECRYPTION_FAILED'],
  ['a suite left out', manifest((m) => m.suites.pop()), 'DECRYPTION_FAILED'],
  ['a suite added', manifest((m) => m.suites.push(3)), 'DECRYPTION_FAILED'],
  ['the propagation time set to 0', manifest((m) => (m.propagationMs = 0)), 'DECRYPTION_FAILED'],
  ['the history of a version backdated', manifest((m) => (m.versions[3]!.history[0]!.at = 0)), 'DECRYPTION_FAILED'],
  ['a reason changed', manifest((m) => (m.versions[0]!.history.at(-1)!.reason = 'x')), 'DECRYPTION_FAILED'],
  ['a version left out', manifest((m) => m.versions.shift()), 'DECRYPTION_FAILED'],
  ['the versions reordered', manifest((m) => m.versions.reverse()), 'DECRYPTION_FAILED'],
  ['a version that is there twice', manifest((m) => m.versions.push(m.versions[0]!)), 'MALFORMED'],
  ['two active versions', manifest((m) => (m.versions[0]!.state = 'active')), 'MALFORMED'],
  ['a state that does not exist', manifest((m) => (m.versions[0]!.state = 'toString' as never)), 'MALFORMED'],
  ['a version id of another length', manifest((m) => (m.versions[0]!.id = 'AAAA')), 'MALFORMED'],
  ['the hash of a wrap changed', manifest((m) => (m.versions[0]!.wraps = m.versions[1]!.wraps!)), 'DECRYPTION_FAILED'],
  ['the hash of a wrap left out', manifest((m) => delete m.versions[0]!.wraps), 'MALFORMED'],
  ['the keyring id changed', manifest((m) => (m.id = 'AAAAAAAAAAAAAAAAAAAAAA')), 'DECRYPTION_FAILED'],
  ['the name changed', manifest((m) => (m.name = 'other')), 'DECRYPTION_FAILED'],
  ['the epoch raised', manifest((m) => m.epoch++), 'DECRYPTION_FAILED'],
  ['another format', manifest((m) => (m.format = 'waxseal manifest, draft 9' as never)), 'MALFORMED'],
  ['a property added', manifest((m) => ((m as { note?: string }).note = 'hello')), 'DECRYPTION_FAILED'],
  ['white space added', (stored) => (stored.manifest += ' '), 'DECRYPTION_FAILED'],
  ['no JSON', (stored) => (stored.manifest = stored.manifest.slice(1)), 'MALFORMED'],
  ['an empty manifest', (stored) => (stored.manifest = ''), 'MALFORMED'],
  ['the manifest null', (stored) => (stored.manifest = 'null'), 'MALFORMED'],
  ['the mac changed', (stored) => (stored.mac = flipLast(stored.mac)), 'DECRYPTION_FAILED'],
  ['the mac of zeros', (stored) => (stored.mac = 'A'.repeat(43)), 'DECRYPTION_FAILED'],
  ['the mac of an older manifest', (stored, { older }) => (stored.mac = older.mac), 'DECRYPTION_FAILED'],
  ['the copy of the epoch raised', (stored) => stored.epoch++, 'MALFORMED'],
  ['the copy of the epoch of an older one', (stored, { older }) => (stored.epoch = older.epoch), 'MALFORMED'],
  ['the wraps of two versions swapped', (stored) => swapWraps(stored, 0, 1), 'DECRYPTION_FAILED'],
  [
    'a wrap changed',
    (stored) => editWrap(stored, 0, (wrap) => (wrap.wrapped = flipLast(wrap.wrapped))),
    'DECRYPTION_FAILED',
  ],
  ['the URI of a wrap changed', (stored) => editWrap(stored, 0, (wrap) => (wrap.uri = 'local:x')), 'DECRYPTION_FAILED'],
  ['the wraps of a version left out', (stored) => delete stored.keys[versionIds(stored)[0]!], 'DECRYPTION_FAILED'],
  [
    'a second wrap added',
    (stored) => stored.keys[versionIds(stored)[0]!]!.push({ uri: 'x', wrapped: '' }),
    'DECRYPTION_FAILED',
  ],
  [
    'the wraps of an older copy',
    (stored, { older }) => (stored.keys = structuredClone(older.keys) as never),
    'DECRYPTION_FAILED',
  ],
  ['the integrity key left out', (stored) => delete stored.keys.integrity, 'MALFORMED'],
  [
    'a master key as integrity key',
    (stored) => (stored.keys.integrity = stored.keys[versionIds(stored)[0]!]!),
    'DECRYPTION_FAILED',
  ],
  [
    'the integrity wrap changed',
    (stored) => editWrap(stored, 'integrity', (w) => (w.wrapped = flipLast(w.wrapped))),
    'DECRYPTION_FAILED',
  ],
  [
    'an integrity wrap of no base64url',
    (stored) => editWrap(stored, 'integrity', (w) => (w.wrapped += '=')),
    'MALFORMED',
  ],
  [
    'an integrity wrap that is too short',
    (stored) => editWrap(stored, 'integrity', (w) => (w.wrapped = 'AQ')),
    'MALFORMED',
  ],
  [
    'an integrity wrap by another root key',
    (stored) => editWrap(stored, 'integrity', (w) => (w.uri = 'local:x')),
    'CONFIG',
  ],
]

function swapStates(m: Draft<Manifest>, a: string, b: string): void {
  for (const version of m.versions) {
    if (version.state === a) version.state = b as never
    else if (version.state === b) version.state = a as never
  }
}

const versionIds = (stored: Draft<StoredKeyring>): string[] =>
  (JSON.parse(stored.manifest) as Manifest).versions.map(({ id }) => id)

function swapWraps(stored: Draft<StoredKeyring>, a: number, b: number): void {
  const [first, second] = [versionIds(stored)[a]!, versionIds(stored)[b]!]
  const wraps = stored.keys[first]!
  stored.keys[first] = stored.keys[second]!
  stored.keys[second] = wraps
}

function editWrap(
  stored: Draft<StoredKeyring>,
  which: number | 'integrity',
  edit: (wrap: { uri: string; wrapped: string }) => unknown,
): void {
  edit(stored.keys[which === 'integrity' ? which : versionIds(stored)[which]!]![0]!)
}

describe('a key store in which somebody edited', () => {
  it.each(EDITS)('%s is not opened', async (_, edit, code) => {
    const scene = await started()
    const { store, open, good, keys } = scene
    const tampered = structuredClone(good) as Draft<StoredKeyring>
    edit(tampered, scene)
    expect(tampered).not.toEqual(good)
    store.document = tampered as StoredKeyring
    expect(await refusal(() => open())).toMatchObject({ code, retryable: false })
    expect(store.document).toEqual(tampered) // looked at, not touched

    store.document = good
    expect(standing(await open())).toEqual(standing(keys))
  })

  it.each(EDITS)('%s changes nothing in a process that has the keyring open', async (_, edit) => {
    const scene = await started()
    const { store, good, keys, second, row, clock, leaked } = scene
    const status = keys.status()
    const tampered = structuredClone(good) as Draft<StoredKeyring>
    edit(tampered, scene)
    store.document = tampered as StoredKeyring
    clock.now += 6 * MINUTE
    // An edit of nothing but wraps or the epoch's copy is not looked at again: the manifest is the known one.
    const same = tampered.manifest === good.manifest && tampered.mac === good.mac
    if (same) await keys.ready()
    else expect(await refusal(() => keys.ready())).toMatchObject({ code: 'DECRYPTION_FAILED', retryable: false })
    expect(keys.status()).toEqual(status)
    expect(versionOf(keys, leaked).state).toBe('compromised')
    expect(await refusal(() => notes.decrypt(keys, row))).toMatchObject({ code: 'KEY_STATE' })
    expect(notes.decrypt(keys, second)).toEqual(NOTE)
    await quiet()
    store.document = good
    await keys.ready()
  })
})

describe('another root key', () => {
  it('is CONFIG, and both URIs are named', async () => {
    const { open, kms } = await started()
    const wrong = localKms(new Uint8Array(32).fill(9))
    const error = await refusal(() => open({ kms: wrong }))
    expect(error).toMatchObject({ code: 'CONFIG', argument: 'kms' })
    expect(error.message).toContain(wrong.keyUri)
    expect(error.message).toContain(kms.keyUri)
  })
})
