import { spawnSync } from 'node:child_process'
import { inspect, isDeepStrictEqual } from 'node:util'
import { describe, expect, it } from 'vitest'
import { WaxsealError } from 'waxseal'
import { type KmsDriver, localKms } from 'waxseal/kms/local'
import { type KmsSuiteSubject, kmsSuite, memoryKms, type SuiteFramework } from 'waxseal/testing'
import { fromRoot } from '../support/sources.ts'

const PASSPHRASE = 'correct horse battery staple'
const root = (fill: number): Uint8Array => new Uint8Array(32).fill(fill)

kmsSuite(
  { describe, it, expect, inspect },
  {
    name: 'localKms of bytes',
    make: () => localKms(root(7)),
    other: () => localKms(root(8)),
    secrets: [Buffer.from(root(7)).toString('hex'), Buffer.from(root(7)).toString('base64url')],
  },
)
const stretched = localKms({ passphrase: PASSPHRASE, log2N: 14 })
kmsSuite(
  { describe, it, expect, inspect },
  {
    name: 'localKms of a passphrase',
    make: () => stretched,
    other: () => localKms({ passphrase: `${PASSPHRASE} again`, log2N: 14, label: 'other' }),
    secrets: [PASSPHRASE],
  },
)

/** Runs the suite as a framework of a dozen lines would: names of tests that fail. */
async function failures(subject: KmsSuiteSubject): Promise<string[]> {
  const tests: [string, () => Promise<void>][] = []
  const framework: SuiteFramework = {
    describe: (_, body) => body(),
    it: (name, body) => void tests.push([name, body]),
    expect: (value) => ({
      toEqual(expected) {
        if (!isDeepStrictEqual(value, expected)) throw new Error(`${inspect(value)} is not ${inspect(expected)}`)
      },
    }),
    inspect,
  }
  kmsSuite(framework, subject)
  const failed: string[] = []
  for (const [name, body] of tests) await body().catch(() => failed.push(name))
  return failed
}

/** Drivers with one mistake each, and a test of the suite that has to find it. */
const MISTAKES: Record<string, [(right: KmsDriver) => KmsDriver, RegExp]> = {
  'has a URI with white space': [(right) => ({ ...right, keyUri: 'memory:a b' }), /URI/],
  'has a URI that is new every time': [(right) => ({ ...right, keyUri: `memory:${Math.random()}` }), /URI/],
  'has no limit to its URI': [(right) => ({ ...right, keyUri: `memory:${'a'.repeat(3000)}` }), /URI/],
  'does not bind the context': [
    (right) => ({
      ...right,
      wrap: (key) => right.wrap(key, { fixed: 'x' }),
      unwrap: (blob) => right.unwrap(blob, { fixed: 'x' }),
    }),
    /context/,
  ],
  'minds the order of the pairs': [
    (right) => ({
      ...right,
      wrap: (key, context) => right.wrap(key, { fixed: JSON.stringify(context) }),
      unwrap: (blob, context) => right.unwrap(blob, { fixed: JSON.stringify(context) }),
    }),
    /order/,
  ],
  'wraps the buffer behind the bytes': [
    (right) => ({ ...right, wrap: (key, context) => right.wrap(new Uint8Array(key.buffer).slice(0, 32), context) }),
    /larger buffer/,
  ],
  'wipes the key it is given': [
    (right) => ({ ...right, wrap: (key, context) => right.wrap(key, context).finally(() => key.fill(0)) }),
    /changes nothing/,
  ],
  'hands out what it keeps': [
    (right) => {
      const kept = new Map<string, Promise<Uint8Array>>()
      const unwrap: KmsDriver['unwrap'] = (blob, context) => {
        const id = `${blob.join()} ${JSON.stringify(Object.entries(context).sort())}`
        if (!kept.has(id)) kept.set(id, right.unwrap(blob, context))
        return kept.get(id)!
      }
      return { ...right, unwrap }
    },
    /changes nothing/,
  ],
  'answers with zeros where it should refuse': [
    (right) => ({
      ...right,
      unwrap: (blob, context) => right.unwrap(blob, context).catch(() => new Uint8Array(32)),
    }),
    /bit flipped/,
  ],
  'reads only the first bytes of a blob': [
    (right) => ({ ...right, unwrap: (blob, context) => right.unwrap(blob.subarray(0, 72), context) }),
    /cut, longer/,
  ],
  'takes a refusal for an outage': [(right) => ({ ...right, failureOf: () => 'unavailable' }), /bit flipped/],
  'takes a refusal for a lack of rights': [(right) => ({ ...right, failureOf: () => 'denied' }), /bit flipped/],
  'tells its secret in errors of our own': [
    (right) => ({
      ...right,
      unwrap: (blob, context) =>
        right.unwrap(blob, context).catch(() => {
          throw new WaxsealError('DECRYPTION_FAILED', 'no key for 9876543210')
        }),
    }),
    /bit flipped/,
  ],
  'shows its secret': [(right) => ({ ...right, pin: '9876543210' }) as KmsDriver, /printed/],
  'mixes up callers': [
    (right) => {
      let last: Uint8Array
      const later = () => new Promise((done) => setTimeout(done, 5))
      const wrap: KmsDriver['wrap'] = async (key, context) => {
        last = Uint8Array.from(key)
        await later()
        return right.wrap(last, context)
      }
      return { ...right, wrap }
    },
    /16 callers/,
  ],
}

describe('the suite finds a driver that', () => {
  it.each(Object.entries(MISTAKES))('%s', async (_, [spoil, test]) => {
    const right = memoryKms({ name: 'right' })
    const driver = { ...right, toJSON: undefined, failureOf: right.failureOf! } as KmsDriver
    const make = () => spoil(driver)
    const failed = await failures({ name: 'spoilt', make, secrets: ['9876543210'] })
    expect(failed.join('\n')).toMatch(test)
  })

  it('has no mistake: in none of its tests', async () => {
    const kms = memoryKms()
    expect(await failures({ name: 'right', make: () => kms, other: () => memoryKms() })).toEqual([])
  })

  it('gives one blob for one key, unless it is said that it does', async () => {
    const blobs = new Map<string, Promise<Uint8Array>>()
    const kms = memoryKms()
    const wrap: KmsDriver['wrap'] = (key, context) => {
      const id = `${key.join()} ${JSON.stringify(context)}`
      if (!blobs.has(id)) blobs.set(id, kms.wrap(key, context))
      return blobs.get(id)!.then((blob) => Uint8Array.from(blob))
    }
    const make = () => ({ ...kms, failureOf: kms.failureOf!, wrap })
    expect(await failures({ name: 'the same', make })).toEqual(['gives another blob every time'])
    expect(await failures({ name: 'the same', make, randomises: false })).toEqual([])
  })

  it('opens the blobs of another root key', async () => {
    const kms = memoryKms()
    const other = () => ({ ...kms, failureOf: kms.failureOf!, keyUri: 'memory:other' })
    expect(await failures({ name: 'the same', make: () => kms, other })).toEqual([
      'refuses what another root key wrapped, and has another URI',
    ])
  })

  it('does not hear that it is aborted', async () => {
    const hanging = () => ({ ...memoryKms(), wrap: () => new Promise<never>(() => undefined) })
    expect(await failures({ name: 'deaf', make: () => localKms(root(7)), hanging })).toEqual([
      'gives up when it is aborted, and what it throws is KMS_UNAVAILABLE',
    ])
  })
})

it('runs under node:test', () => {
  const script = `
    import { deepStrictEqual } from 'node:assert'
    import { describe, it } from 'node:test'
    import { memoryKms } from './src/testing/kms.ts'
    import { kmsSuite } from './src/testing/kms-suite.ts'
    const kms = memoryKms()
    const expect = (value) => ({ toEqual: (expected) => deepStrictEqual(value, expected) })
    kmsSuite({ describe, it, expect }, { name: 'memoryKms', make: () => kms, other: () => memoryKms() })`
  const args = ['--import', 'tsx', '--test-reporter', 'tap', '--input-type=module', '-e', script]
  const { stdout, status } = spawnSync(process.execPath, args, { cwd: fromRoot(), encoding: 'utf8' })
  expect(stdout).toMatch(/^# pass 17$/m)
  expect(stdout).toMatch(/^# fail 0$/m)
  expect(status).toBe(0)
})
