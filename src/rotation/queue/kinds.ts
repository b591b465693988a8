import type { Keyring } from '../../keyring/keyring.ts'
import { activeOf, expectEncrypting, expectPreparing, versionsThat } from '../jobs.ts'
import type { RotationSource } from '../source.ts'
import { decryptWork, encryptWork, reencryptWork, rewrapWork, verifyWork, type Work } from '../work.ts'

type Begin = (keys: Keyring, table: RotationSource) => Promise<Work>

/** What each kind of job does to the rows of a table, after the checks that it makes before it begins. */
const WORKS = {
  async rewrap(keys, table) {
    const active = await activeOf(keys, table)
    return rewrapWork(keys, table, versionsThat(keys, 'rewrap', active))
  },
  async reencrypt(keys, table) {
    const active = await activeOf(keys, table)
    return reencryptWork(keys, table, versionsThat(keys, 'reencrypt', active))
  },
  async encryptInPlace(keys, table) {
    await activeOf(keys, table)
    expectEncrypting(keys, table)
    return encryptWork(keys, table)
  },
  async decryptInPlace(keys, table) {
    await activeOf(keys, table)
    expectPreparing(keys, table)
    return decryptWork(keys, table)
  },
  async verify(keys, table) {
    await activeOf(keys, table)
    return verifyWork(keys, table)
  },
} satisfies Record<string, Begin>

/** The jobs of `waxseal/rotation` by their names. */
export type JobKind = keyof typeof WORKS

export const KINDS = Object.keys(WORKS) as readonly JobKind[]

/** Asked anew at every turn: another version may have become active, and then rows under the last one count as well. */
export const workOf = (kind: JobKind, ...args: Parameters<Begin>): Promise<Work> => WORKS[kind](...args)
