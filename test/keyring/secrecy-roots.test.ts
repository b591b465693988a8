import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import type { KeyEvent } from 'waxseal'
import { localKms } from 'waxseal/kms/local'
import { acceptRollback, exportKeyring, importKeyring } from 'waxseal/recovery'
import type { KmsDriver } from '../../src/kms/kms.ts'
import { mutePads } from '../kms/requests.ts'
import { found, printed, recordingEngine } from './leaks.ts'
import { activeOf, MINUTE, NOTE, notes, quiet, ROOT, refusal, rotated, setup, watchedStore } from './support.ts'

const PASSPHRASE = 'six words that nobody else has'
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

/** A client that fails with all it knows in its error, once it is told to. */
function loudKms(known: Uint8Array[]): KmsDriver & { failing: boolean } {
  const inner = localKms(new Uint8Array(32).fill(5))
  const loud = (bytes: Uint8Array): Error =>
    Object.assign(new Error(`bad request: {"Plaintext":"${base64(bytes)}"} ${hex(bytes)} ${bytes}`), {
      name: `Error ${hex(bytes)}`,
      code: base64(bytes),
      body: bytes,
      cause: new Error(hex(bytes)),
      response: { status: 500, data: base64(bytes) },
    })
  const kms: KmsDriver & { failing: boolean } = {
    keyUri: inner.keyUri,
    failing: false,
    async wrap(key, context) {
      known.push(Uint8Array.from(key))
      if (kms.failing) throw loud(key)
      return inner.wrap(key, context)
    },
    async unwrap(blob, context) {
      const key = await inner.unwrap(blob, context)
      known.push(Uint8Array.from(key))
      if (kms.failing) throw loud(key)
      return key
    },
  }
  return kms
}

/** A keyring under three root keys, with every key that was ever drawn, derived or unwrapped. */
async function started() {
  const known: Uint8Array[] = [ROOT, new Uint8Array(32).fill(5)]
  const loud = loudKms(known)
  const phrase = localKms({ passphrase: PASSPHRASE, log2N: 14 })
  const kms = [loud, mutePads('mute:1', 7), phrase] as const
  const engine = recordingEngine(known)
  const bench = setup({ kms, engine })
  const keys = await bench.create()
  await rotated(keys)
  return { ...bench, engine, known, loud, kms, keys }
}

const deep = (value: unknown) => inspect(value, { depth: 20, showHidden: true, maxArrayLength: null })

function everything(error: Error): string {
  const cause = error.cause as Error | undefined
  return [deep(error), JSON.stringify(error), deep(cause), JSON.stringify(cause), String(error), error.stack].join('\n')
}

describe('no key bytes', () => {
  it('are printed of a keyring under several root keys', async () => {
    const { keys, known, kms } = await started()
    expect(known.length).toBeGreaterThan(20)
    expect(found(printed(keys) + printed(keys.status()) + printed(keys.as({ actor: 'ann' })), known)).toEqual([])
    expect(printed(keys) + printed(kms[2])).not.toContain(PASSPHRASE)
  })

  it('are in the store, or in an export', async () => {
    const { keys, known, store } = await started()
    const exported = await exportKeyring(keys)
    const values = JSON.stringify(JSON.parse(exported).keyring.manifest) + JSON.stringify(store.document)
    expect(exported).toContain(activeOf(keys))
    // The MAC is derived by the engine as keys are, and shown on purpose.
    const secrets = known.filter((bytes) => Buffer.from(bytes).toString('base64url') !== store.document!.mac)
    expect(secrets.length).toBeGreaterThan(20)
    expect(found(exported + values, secrets)).toEqual([])
    expect(exported).not.toContain(PASSPHRASE)
  })

  it('come out of the errors of a KMS whose client quotes them: creating, rotating, opening, changing', async () => {
    const { keys, open, create, known, loud, kms } = await started()
    loud.failing = true
    const errors = [
      await refusal(() => keys.rotate()),
      await refusal(() => keys.changeRootKey()),
      await refusal(() => keys.markCompromised(activeOf(keys), { reason: 'leaked' })),
      await refusal(() => open({ kms: loud })),
      await refusal(() => create({ store: watchedStore(), kms })),
    ]
    for (const error of errors) {
      expect(error.code).toBe('KMS_UNAVAILABLE')
      expect(found(everything(error), known)).toEqual([])
    }
  })

  it('come out of the errors of recovery', async () => {
    const { keys, known, loud, store, kms, engine } = await started()
    const exported = await exportKeyring(keys)
    const options = { name: 'crm', store: watchedStore(), kms: [loud], engine, patience: { attempts: 1 } }
    loud.failing = true
    const errors = [
      await refusal(() => importKeyring(options, exported)),
      await refusal(() => importKeyring({ ...options, kms }, exported.replace(/"mac":"../, '"mac":"AA'))),
      await refusal(() => acceptRollback({ ...options, store, seenEpoch: 99, reason: 'restored' })),
    ]
    for (const error of errors) expect(found(everything(error), known)).toEqual([])
  })

  it('are in the events of a KMS that fails in the background', async () => {
    const { open, known, loud, clock, store } = await started()
    const events: KeyEvent[] = []
    const keys = await open({ kms: loud, onEvent: (event) => void events.push(event) })
    await rotated(await open())
    loud.failing = true
    clock.now += 61 * MINUTE
    notes.encrypt(keys, { ...NOTE }) // begins both the read and the confirmation
    await quiet()
    await refusal(() => keys.ready())
    await quiet()
    store.broken = new Error('away')
    clock.now += 6 * MINUTE
    await keys.ready().catch(() => undefined)
    await quiet()
    const operations = events.flatMap((event) => (event.type === 'keyring.failure' ? [event.operation] : []))
    expect(new Set(operations)).toEqual(new Set(['unwrap', 'confirm', 'refresh']))
    expect(found(deep(events) + JSON.stringify(events), known)).toEqual([])
  })

  it('stay with a driver: every buffer that it was lent is wiped', async () => {
    const lent: Uint8Array[] = []
    const inner = localKms(new Uint8Array(32).fill(6))
    const wrap: KmsDriver['wrap'] = (key, context) => {
      lent.push(key)
      return inner.wrap(key, context)
    }
    const { create } = setup({ kms: [{ ...inner, wrap }, mutePads()] })
    const keys = await create()
    await rotated(keys)
    await keys.changeRootKey()
    notes.encrypt(keys, { ...NOTE })
    expect(lent).toEqual(Array(6).fill(new Uint8Array(32)))
  })
})
