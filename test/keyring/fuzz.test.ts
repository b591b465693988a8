import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WaxsealError } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import type { KeyringStatus } from '../../src/keyring/keyring.ts'
import type { StoredKeyring } from '../../src/keystore/keystore.ts'
import { rotated, setup } from './support.ts'

type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

const RUNS = 250
const CODES = ['MALFORMED', 'DECRYPTION_FAILED', 'CONFIG', 'KEY_STATE']

const bench = setup()
let good: StoredKeyring
let status: KeyringStatus
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waxseal-fuzz-'))
  const keys = await bench.create()
  const { old } = await rotated(keys)
  await keys.markCompromised(old, { decrypt: 'refuse' })
  await keys.rotate()
  good = structuredClone(bench.store.document!)
  status = keys.status()
})
afterAll(() => rm(folder, { recursive: true }))

/** Opening gives the keyring as it was, or a WaxsealError of one of four codes. */
async function opensAsItWasOrNotAtAll(open: () => ReturnType<typeof bench.open>): Promise<void> {
  let opened: KeyringStatus
  try {
    opened = (await open()).status()
  } catch (error) {
    expect(error).toBeInstanceOf(WaxsealError)
    expect(CODES).toContain((error as WaxsealError).code)
    return
  }
  expect(opened).toEqual(status)
}

/** Every place in a JSON value, as a path. */
function paths(value: Json, at: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [at]
  return [at, ...Object.entries(value).flatMap(([name, member]) => paths(member, [...at, name]))]
}

/** The value with another put at a path; undefined takes away what was there. */
function put(value: Json, path: readonly string[], replacement: Json | undefined): Json {
  if (path.length === 0) return replacement ?? null
  const copy = structuredClone(value) as { [name: string]: Json }
  let place = copy
  for (const name of path.slice(0, -1)) place = place[name] as { [name: string]: Json }
  if (replacement === undefined) delete place[path.at(-1)!]
  else place[path.at(-1)!] = replacement
  return copy
}

const replacement = fc.oneof(
  fc.constant(undefined),
  fc.constantFrom<Json>(
    'active',
    'compromised',
    'refuse',
    'report',
    'integrity',
    '__proto__',
    0,
    1,
    -1,
    2 ** 53,
    [],
    {},
  ),
  fc.jsonValue() as fc.Arbitrary<Json>,
)

describe('whatever happens to the stored document, a keyring opens as it was or not at all', () => {
  it('when a part of the document is replaced or taken away', async () => {
    const file = join(folder, 'part.json')
    const document = { format: 'waxseal key store, draft 0', keyrings: { crm: good } } as unknown as Json
    const places = paths(document)
    await fc.assert(
      fc.asyncProperty(fc.nat(places.length - 1), replacement, async (place, value) => {
        await writeFile(file, JSON.stringify(put(document, places[place]!, value)))
        await opensAsItWasOrNotAtAll(() => bench.open({ store: fileKeyStore(file) }))
      }),
      { numRuns: RUNS },
    )
  })

  it('when a part of the manifest is replaced or taken away', async () => {
    const manifest = JSON.parse(good.manifest) as Json
    const places = paths(manifest)
    await fc.assert(
      fc.asyncProperty(fc.nat(places.length - 1), replacement, async (place, value) => {
        const edited = JSON.stringify(put(manifest, places[place]!, value))
        bench.store.document = { ...good, manifest: edited }
        await opensAsItWasOrNotAtAll(() => bench.open())
      }),
      { numRuns: RUNS },
    )
  })

  it('when bytes of the file change, go or come', async () => {
    const file = join(folder, 'bytes.json')
    const text = JSON.stringify({ format: 'waxseal key store, draft 0', keyrings: { crm: good } })
    const splice = fc.record({
      at: fc.nat(text.length),
      gone: fc.nat(3),
      come: fc.string({ unit: 'binary', maxLength: 3 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(splice, { minLength: 1, maxLength: 3 }), async (splices) => {
        let edited = text
        for (const { at, gone, come } of splices) edited = edited.slice(0, at) + come + edited.slice(at + gone)
        await writeFile(file, edited)
        await opensAsItWasOrNotAtAll(() => bench.open({ store: fileKeyStore(file) }))
      }),
      { numRuns: RUNS },
    )
  })

  it('when a store of another make answers with nonsense', async () => {
    const nonsense = fc.oneof(
      fc.anything().filter((value) => value !== undefined && value !== null),
      fc
        .constantFrom('epoch', 'manifest', 'mac', 'keys')
        .chain((part) => fc.anything().map((value) => ({ ...good, [part]: value }))),
      fc.anything().map((value) => ({ ...good, keys: { ...good.keys, integrity: value } })),
      fc.anything().map((value) => ({ ...good, keys: { ...good.keys, [status.active!]: [value] } })),
    )
    await fc.assert(
      fc.asyncProperty(nonsense, async (answer) => {
        const store = { load: async () => answer as StoredKeyring, save: async () => {} }
        await opensAsItWasOrNotAtAll(() => bench.open({ store }))
      }),
      { numRuns: RUNS },
    )
  })
})
