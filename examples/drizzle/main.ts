import { PGlite } from '@electric-sql/pglite'
import { and, eq, sql } from 'drizzle-orm'
import { text as column, boolean as flag, integer, jsonb, pgTable } from 'drizzle-orm/pg-core'
import { drizzle } from 'drizzle-orm/pglite'
import { createKeyring, date, int, type Keyring, object, records, text } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'
import { reserveIds } from 'waxseal/postgres'
import { rewrap } from 'waxseal/rotation'
import { postgresTable } from 'waxseal/rotation/postgres'

/** The table as Drizzle knows it: ciphertext columns are text, and types say so. */
const people = pgTable('people', {
  id: integer('id').primaryKey().generatedAlwaysAsIdentity(),
  name: column('name').notNull(),
  email: column('email').notNull(),
  birthDate: column('birth_date').notNull(),
  contact: jsonb('contact').$type<{ phone: string; preferred: string }>().notNull(),
  active: flag('active').notNull(),
  envelope: column('envelope').notNull(),
})

const orders = pgTable('orders', { id: integer('id').primaryKey(), personId: integer('person_id') })

/** The same table as waxseal knows it: which columns identify a row, which are protected, and what they hold. */
const person = records('people', {
  id: { id: int() },
  fields: {
    name: text(),
    email: text(),
    birthDate: date({ column: 'birth_date' }),
    contact: object({ phone: text() }), // `preferred` stays readable in the JSONB column
  },
})

function check(ok: boolean, what: string): void {
  if (!ok) throw new Error(`example: ${what}`)
}

async function example(client: PGlite, keys: Keyring): Promise<void> {
  const db = drizzle(client)
  await client.exec(`
    create table people (
      id integer primary key generated always as identity,
      name text not null, email text not null, birth_date text not null, contact jsonb not null,
      active boolean not null, envelope text not null);
    create table orders (id integer primary key, person_id integer);
    insert into orders values (1, 1), (2, null);
    ${person.sql.createIndex}`)

  // The id is bound into the ciphertext, so it is drawn before the row is sealed.
  const [id] = await reserveIds(client, 'people_id_seq', 1)
  const plain = {
    id: Number(id),
    name: 'Bjørn Hansen',
    email: 'bjorn@example.org',
    birthDate: new Date('1970-05-17'),
    contact: { phone: '+47 22 44 22 22', preferred: 'phone' },
    active: true,
  }
  await db.insert(people).overridingSystemValue().values(person.encrypt(keys, plain))

  // A select of some columns decrypts to just those; a left join that finds nobody decrypts to null.
  const [found] = await db
    .select({ id: people.id, email: people.email, envelope: people.envelope })
    .from(people)
    .where(eq(people.id, plain.id))
  const partial: { id: number; email: string } = person.decrypt(keys, found!)
  check(partial.email === plain.email, 'the e-mail differs')

  const joined = await db.select().from(orders).leftJoin(people, eq(orders.personId, people.id)).orderBy(orders.id)
  const names = joined.map((row) => row.people && person.decrypt(keys, row.people).name)
  check(names[0] === plain.name && names[1] === null, 'the join differs')

  // A partial update: the guard is an SQL expression and its value.
  const { set, guard } = person.patch(keys, found!, { email: 'new@example.org' })
  const updated = await db
    .update(people)
    .set(set)
    .where(and(eq(people.id, plain.id), eq(sql.raw(guard.expression), guard.value)))
    .returning({ id: people.id })
  guard.assert(updated.length)

  await keys.rotate()
  await keys.maintain()
  const report = await rewrap({ keys, table: postgresTable(client, person) })
  check(report.written === 1 && report.remaining.size === 0, 'a row is left under the old key')

  const [row] = await db.select().from(people)
  const back = person.decrypt(keys, row!)
  check(back.email === 'new@example.org' && back.birthDate.getTime() === plain.birthDate.getTime(), 'the row differs')
  check(back.contact.phone === plain.contact.phone && back.contact.preferred === 'phone', 'the JSON differs')
  console.log(
    `${back.name}, ${back.email}, born ${back.birthDate.toISOString().slice(0, 10)}: read back after a rotation`,
  )
}

const client = new PGlite()
const kms = localKms(crypto.getRandomValues(new Uint8Array(32)))
await using keys = await createKeyring({ name: 'people', store: memoryKeyStore(), kms, propagationMs: 0 })
try {
  await example(client, keys)
} finally {
  await client.close()
}
