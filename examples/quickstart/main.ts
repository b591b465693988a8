import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import cliProgress from 'cli-progress'
import { createKeyring, type Keyring, WaxsealError } from 'waxseal'
import { fileKeyStore } from 'waxseal/keystore/file'
import { localKms } from 'waxseal/kms/local'
import { retire, rewrap } from 'waxseal/rotation'
import { postgresTable } from 'waxseal/rotation/postgres'
import { attacks, outcome } from './attacks.ts'
import { changeEmail, createTable, customers, findCustomer, insertCustomer, sampleCustomers } from './customers.ts'

const LUIS = 1
const LEONIE = 2

function check(ok: boolean, what: string): void {
  if (!ok) throw new Error(`quickstart: ${what}`)
}

const say = (line = ''): void => console.log(line)

/** Encrypt a real customer table, rotate its master key, read it all back; then attack it. */
async function quickstart(db: PGlite, folder: string): Promise<void> {
  say('1. A keyring: master keys wrapped by a root key, in a file')
  const file = join(folder, 'keys.json')
  const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
  // propagationMs 0: this is the only process, so a new key need not wait for others to learn it.
  await using keys = await createKeyring({ name: 'crm', store: fileKeyStore(file), kms, propagationMs: 0 })
  const oldKeyId = keys.status().active!
  say(`   ${file} · active key ${oldKeyId}`)

  say(`\n2. Encrypt ${sampleCustomers.length} customers: a data key each, six protected fields`)
  await createTable(db)
  for (const customer of sampleCustomers) await insertCustomer(db, keys, customer)
  const stored = await findCustomer(db, LUIS)
  const seen = customers.decrypt(keys, stored)
  const short = (value: unknown) => (String(value).length > 52 ? `${String(value).slice(0, 49)}...` : String(value))
  console.table(
    Object.fromEntries(
      Object.entries(stored).map(([column, value]) => [
        column,
        {
          'what the database holds': short(value),
          'what the application sees': (seen as Record<string, unknown>)[column] ?? '',
        },
      ]),
    ),
  )

  say('3. Change one field: the same data key, guarded against a concurrent re-encryption')
  await changeEmail(db, keys, LUIS, 'luis@example.org')
  check(customers.decrypt(keys, await findCustomer(db, LUIS)).email === 'luis@example.org', 'the patch is not there')
  say('   luisg@embraer.com.br → luis@example.org')

  await rotate(db, keys, oldKeyId)

  say('\n5. Read it all back')
  const { rows } = await db.query<typeof stored>('select * from customers order by customer_id')
  const back = await customers.decryptMany(keys, rows)
  for (const [i, customer] of sampleCustomers.entries()) {
    const expected = customer.customer_id === LUIS ? { ...customer, email: 'luis@example.org' } : customer
    for (const [name, value] of Object.entries(expected)) {
      check((back[i] as Record<string, unknown>)[name] === value, `customer ${customer.customer_id}: ${name} differs`)
    }
  }
  say(`   ${back.length} customers, every field as it went in`)

  say('\n6. Attack it, with write access to the database and to the key store')
  const luis = await findCustomer(db, LUIS)
  await reencryptLuis(db, keys)
  const rowsNow = {
    luis: await findCustomer(db, LUIS),
    leonie: await findCustomer(db, LEONIE),
    luisBefore: luis,
    oldKeyId,
  }
  const list = attacks(keys, rowsNow, { file, kms })
  for (const attack of list) {
    const code = await outcome(attack)
    check(code === attack.expected, `"${attack.what}" was answered by ${code ?? 'success'}, not ${attack.expected}`)
    say(`   ${attack.what.padEnd(56)} ${code}`)
  }

  say(
    `\nDone: ${back.length} customers encrypted, 1 patched, 1 key rotated and retired, ${list.length} attacks refused.`,
  )
}

async function rotate(db: PGlite, keys: Keyring, oldKeyId: string): Promise<void> {
  say('\n4. Rotate the master key and move every row under the new one')
  const table = postgresTable(db, customers)
  await keys.rotate()
  const { promoted } = await keys.maintain()
  check(promoted.length === 1 && keys.status().active === promoted[0], 'no new key is active')

  const tooEarly = await retire({ keys, keyId: oldKeyId, tables: [table] }).catch((error) => error)
  check(WaxsealError.is(tooEarly) && tooEarly.code === 'CONFLICT', 'the old key was retired while rows refer to it')
  say(`   retire now? ${(tooEarly as Error).message}`)

  const bar = new cliProgress.SingleBar(
    { format: '   rewrap [{bar}] {value}/{total} rows', noTTYOutput: true, notTTYSchedule: 100, hideCursor: true },
    cliProgress.Presets.shades_classic,
  )
  bar.start(sampleCustomers.length, 0)
  const report = await rewrap({ keys, table, batchSize: 10, onProgress: ({ done }) => bar.update(done) })
  bar.stop()
  check(report.written === sampleCustomers.length && report.remaining.size === 0, 'rows are left under the old key')

  await retire({ keys, keyId: oldKeyId, tables: [table], reason: 'quickstart' })
  say(`   no row refers to ${oldKeyId} any more: retired`)
}

/** A new data key for one row, so that its older header no longer fits. */
async function reencryptLuis(db: PGlite, keys: Keyring): Promise<void> {
  const { customer_id, ...row } = customers.reencrypt(keys, await findCustomer(db, LUIS))
  const names = Object.keys(row)
  await db.query(
    `update customers set ${names.map((name, i) => `${name} = $${i + 2}`).join(', ')} where customer_id = $1`,
    [customer_id, ...Object.values(row)],
  )
}

const folder = await mkdtemp(join(tmpdir(), 'waxseal-quickstart-'))
const db = new PGlite()
try {
  await quickstart(db, folder)
} finally {
  await db.close()
  await rm(folder, { recursive: true, force: true })
}
