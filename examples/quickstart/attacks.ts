import { readFile, writeFile } from 'node:fs/promises'
import { type ErrorCode, type Keyring, openKeyring, WaxsealError } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import type { KmsDriver } from 'waxseal/kms/local'
import { customers, type StoredCustomer } from './customers.ts'

/** One thing that somebody who can write to the database or the key store might do, and the error that must answer it. */
export interface Attack {
  readonly what: string
  readonly expected: ErrorCode
  attempt(): unknown
}

function flipByte(sealed: string): string {
  const at = sealed.length - 10
  return sealed.slice(0, at) + (sealed[at] === 'A' ? 'B' : 'A') + sealed.slice(at + 1)
}

export function attacks(
  keys: Keyring,
  rows: { luis: StoredCustomer; leonie: StoredCustomer; luisBefore: StoredCustomer; oldKeyId: string },
  place: { file: string; kms: KmsDriver },
): Attack[] {
  const { luis, leonie, luisBefore, oldKeyId } = rows
  return [
    {
      what: 'flip one byte of a ciphertext',
      expected: 'DECRYPTION_FAILED',
      attempt: () => customers.decrypt(keys, { ...luis, email: flipByte(luis.email) }),
    },
    {
      what: "swap two rows' ciphertexts, headers included",
      expected: 'DECRYPTION_FAILED',
      attempt: () => customers.decrypt(keys, { ...leonie, customer_id: luis.customer_id }),
    },
    {
      what: 'swap two columns of one row',
      expected: 'DECRYPTION_FAILED',
      attempt: () => customers.decrypt(keys, { ...luis, phone: luis.fax, fax: luis.phone }),
    },
    {
      what: 'put the header of another row in place',
      expected: 'DECRYPTION_FAILED',
      attempt: () => customers.decrypt(keys, { ...luis, envelope: leonie.envelope }),
    },
    {
      what: 'restore an older header of the same row from a backup',
      expected: 'DECRYPTION_FAILED',
      attempt: () => customers.decrypt(keys, { ...luis, envelope: luisBefore.envelope }),
    },
    {
      what: 're-activate the old key by editing the key store',
      expected: 'DECRYPTION_FAILED',
      attempt: async () => {
        const edited = `${place.file}.edited`
        const text = await readFile(place.file, 'utf8')
        const state = `\\"id\\":\\"${oldKeyId}\\",\\"state\\":\\"`
        if (!text.includes(`${state}deactivated`)) throw new Error('the key store does not look as expected')
        await writeFile(edited, text.replace(`${state}deactivated`, `${state}pre-active`))
        await openKeyring({ name: keys.name, store: fileKeyStore(edited), kms: place.kms })
      },
    },
  ]
}

/** The code that the attack was answered with; undefined if it got through. */
export async function outcome(attack: Attack): Promise<ErrorCode | undefined> {
  try {
    await attack.attempt()
    return undefined
  } catch (error) {
    if (WaxsealError.is(error)) return error.code
    throw error
  }
}
