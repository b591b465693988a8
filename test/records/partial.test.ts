import { PGlite } from '@electric-sql/pglite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { date, int, records, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import { code, refusal } from '../envelope/support.ts'

const id = { id: int() }
const fields = { email: text(), phone: text({ nullable: true }) }
const PLAIN = { id: 1, email: 'a@example.org', phone: '1' }
const keys = testKeyring()
const customers = records('customers', { id, fields })
const sealed = customers.encrypt(keys, { ...PLAIN, city: 'Oslo' })

describe('a partial read', () => {
  it.each([['email'], ['phone'], ['city']] as const)('of one column gives just that one: %s', (name) => {
    const row = { id: 1, envelope: sealed.envelope, [name]: sealed[name] }
    expect(customers.decrypt(keys, row)).toEqual({ id: 1, [name]: { ...PLAIN, city: 'Oslo' }[name] })
  })

  it('without the envelope is SCHEMA and says what to select', () => {
    const { envelope: _, ...row } = sealed
    const error = refusal(() => customers.decrypt(keys, row as never))
    expect(error).toMatchObject({ code: 'SCHEMA', message: expect.stringContaining('select the envelope'), rowId: '1' })
    expect(code(() => customers.patch(keys, row as never, { email: 'x' }))).toBe('SCHEMA')
  })

  it('of a left join that found nothing is null; an id without envelope is not', () => {
    expect(customers.decrypt(keys, { id: null, email: null, phone: null, envelope: null })).toBeNull()
    expect(customers.decrypt(keys, { id: null, envelope: null })).toBeNull()
    expect(code(() => customers.decrypt(keys, { id: 1, email: null, phone: null, envelope: null }))).toBe('MALFORMED')
    expect(code(() => customers.decrypt(keys, { ...sealed, id: null }))).toBe('SCHEMA')
  })

  it('of a left join is null only when all parts of a compound id are', () => {
    const pair = records('t', { id: { a: int(), b: int() }, fields })
    expect(pair.decrypt(keys, { a: null, b: null, envelope: null })).toBeNull()
    expect(code(() => pair.decrypt(keys, { a: 1, b: null, envelope: null }))).toBe('SCHEMA')
  })

  it.each([
    ['null', null],
    ['an array', []],
    ['text', 'row'],
    ['undefined', undefined],
  ])('of what is no row is CONFIG: %s', (_, row) => {
    for (const call of [
      () => customers.decrypt(keys, row as never),
      () => customers.encrypt(keys, row as never),
      () => customers.patch(keys, row as never, {}),
      () => customers.reencrypt(keys, row as never),
      () => customers.rewrap(keys, row as never),
      () => customers.needsRotation(keys, row as never),
    ])
      expect(['CONFIG', 'SCHEMA', 'MALFORMED']).toContain(code(call))
  })
})

describe('a patch', () => {
  it('writes only what it was given, under the same data key', () => {
    const { set, guard } = customers.patch(
      keys,
      { id: 1, envelope: sealed.envelope },
      { email: 'b@example.org', phone: undefined as never },
    )
    expect(Object.keys(set)).toEqual(['email'])
    expect(guard.value).toBe(sealed.envelope.slice(32, 72))
    expect(customers.decrypt(keys, { ...sealed, ...set })).toMatchObject({ email: 'b@example.org', phone: '1' })
  })

  it('of a moved field writes the column that it is moved to', () => {
    const people = records('people', { id, fields: { born: date({ into: 'born_sealed', column: 'born_col' }) } })
    const row = people.encrypt(keys, { id: 1, born: new Date(0) })
    const { set } = people.patch(keys, row, { born: new Date(9) })
    expect(Object.keys(set)).toEqual(['born_sealed'])
    expect(people.decrypt(keys, { ...row, ...set }).born).toEqual(new Date(9))
  })

  it.each(['columns', 'packed'] as const)('%s: of an unknown field, the id or the envelope is CONFIG', (shape) => {
    const one = records('customers', { id, shape, fields })
    const row = one.encrypt(keys, PLAIN)
    for (const name of ['mail', 'id', 'envelope', 'city', '__proto__x'])
      expect(refusal(() => one.patch(keys, row, { [name]: 'x' } as never))).toMatchObject({
        code: 'CONFIG',
        argument: `changes.${name}`,
      })
    expect(code(() => one.patch(keys, row, null as never))).toBe('CONFIG')
  })

  it('of a value that does not fit is SCHEMA, and null of a nullable field is a value', () => {
    expect(refusal(() => customers.patch(keys, sealed, { email: null as never }))).toMatchObject({
      code: 'SCHEMA',
      field: 'email',
    })
    const { set } = customers.patch(keys, sealed, { phone: null })
    expect(customers.decrypt(keys, { ...sealed, ...set }).phone).toBeNull()
  })

  it.each<[string, number | null | undefined]>([
    ['no row', 0],
    ['two rows', 2],
  ])('that updated %s is a retryable CONFLICT', (_, count) => {
    const { guard } = customers.patch(keys, sealed, { email: 'x' })
    expect(refusal(() => guard.assert(count))).toMatchObject({
      code: 'CONFLICT',
      retryable: true,
      table: 'customers',
      rowId: '1',
    })
    guard.assert(1)
  })

  it.each([null, undefined])('that is told %s in place of a number of rows is CONFIG, not a race to retry', (count) => {
    const { guard } = customers.patch(keys, sealed, { email: 'x' })
    expect(refusal(() => guard.assert(count))).toMatchObject({ code: 'CONFIG', argument: 'updatedRows' })
  })

  it('needs a wrapped key that opens: under a changed header it fails before it seals', () => {
    const forged = `${sealed.envelope.slice(0, -2)}${sealed.envelope.endsWith('AA') ? 'BA' : 'AA'}`
    expect(code(() => customers.patch(keys, { id: 1, envelope: forged }, { email: 'x' }))).toBe('DECRYPTION_FAILED')
    expect(code(() => customers.patch(keys, { id: 2, envelope: sealed.envelope }, { email: 'x' }))).toBe(
      'DECRYPTION_FAILED',
    )
  })
})

describe('on PostgreSQL', () => {
  let db: PGlite
  beforeAll(async () => {
    db = new PGlite()
    await db.waitReady
  })
  afterAll(() => db.close())

  const forms = (['columns', 'packed'] as const).flatMap((shape) =>
    (['text', 'bytes'] as const).map((encoding) => ({ shape, encoding })),
  )

  describe.each(forms)('$shape in $encoding', ({ shape, encoding }) => {
    const table = `people_${shape}_${encoding}`
    const people = records('people', { id, shape, encoding, table, envelopeColumn: 'sealed "header"', fields })
    const name = '"sealed ""header"""'
    const type = encoding === 'text' ? 'text' : 'bytea'
    const read = async () =>
      (
        await db.query<{ id: number; email: string; phone: string; envelope: string }>(
          `select id, email, phone, ${name} as envelope from ${table} where id = 1`,
        )
      ).rows[0]!
    const update = async (set: Record<string, unknown>, where = 'true', ...params: unknown[]) => {
      const names = Object.keys(set)
      const columns = names.map((column, i) => `${column === 'envelope' ? name : column} = $${i + 1}`).join(', ')
      const condition = where.replace('$guard', `$${names.length + 1}`)
      return (
        await db.query(`update ${table} set ${columns} where id = 1 and ${condition}`, [
          ...Object.values(set),
          ...params,
        ])
      ).affectedRows
    }

    beforeAll(async () => {
      await db.exec(
        `create table ${table} (id int primary key, email ${type}, phone ${type}, ${name} ${type}); ${people.sql.createIndex}`,
      )
    })

    it('a guarded patch wins alone, survives a rewrap of columns, and loses against a re-encrypt', async () => {
      const ring = testKeyring()
      const row = people.encrypt(ring, PLAIN) as Record<string, unknown>
      await db.query(`delete from ${table}`)
      await db.query(`insert into ${table} values (1, $1, $2, $3)`, [
        row.email ?? null,
        row.phone ?? null,
        row.envelope,
      ])
      const write = async (patch: { set: object; guard: { expression: string; value: unknown } }) =>
        update(patch.set as Record<string, unknown>, `${patch.guard.expression} = $guard`, patch.guard.value)

      const first = people.patch(ring, await read(), { email: 'one' })
      expect(await write(first)).toBe(1)
      expect(people.decrypt(ring, await read())).toEqual({ ...PLAIN, email: 'one' })

      const raced = people.patch(ring, await read(), { email: 'two' })
      await ring.rotate()
      await ring.maintain()
      const moved = people.rewrap(ring, await read())!
      await update({ envelope: moved.envelope })
      expect(await write(raced)).toBe(shape === 'columns' ? 1 : 0)
      expect(people.decrypt(ring, await read())).toEqual({ ...PLAIN, email: shape === 'columns' ? 'two' : 'one' })

      const late = people.patch(ring, await read(), { email: 'three' })
      const again = people.reencrypt(ring, await read()) as Record<string, unknown>
      await update(
        shape === 'columns'
          ? { email: again.email, phone: again.phone, envelope: again.envelope }
          : { envelope: again.envelope },
      )
      const updated = await write(late)
      expect(updated).toBe(0)
      expect(code(() => late.guard.assert(updated))).toBe('CONFLICT')
      expect(people.decrypt(ring, await read())).toMatchObject({ phone: '1' })
    })

    it('needsRotation() finds the rows under other versions, numbering its parameters as told, by the index', async () => {
      const ring = testKeyring()
      await db.query(`delete from ${table}`)
      for (let i = 1; i <= 3; i++) {
        const row = people.encrypt(ring, { ...PLAIN, id: i }) as Record<string, unknown>
        await db.query(`insert into ${table} (id, ${name}) values ($1, $2)`, [i, row.envelope])
        if (i === 1) expect(people.sql.needsRotation(ring)).toEqual({ text: 'false', values: [] })
        if (i === 2) {
          await ring.rotate()
          await ring.maintain()
        }
      }
      const { text: where, values } = people.sql.needsRotation(ring, 2)
      const found = await db.query<{ id: number }>(`select id from ${table} where id > $1 and ${where} order by id`, [
        0,
        ...values,
      ])
      expect(found.rows.map((row) => row.id)).toEqual([1, 2])
      await db.exec('set enable_seqscan = off')
      const bare = people.sql.needsRotation(ring)
      const literal =
        typeof bare.values[0] === 'string'
          ? `'${bare.values[0]}'`
          : `'\\x${Buffer.from(bare.values[0] as Uint8Array).toString('hex')}'::bytea`
      const plan = await db.query<{ 'QUERY PLAN': string }>(
        `explain select id from ${table} where ${bare.text.replace('$1', literal)}`,
      )
      expect(plan.rows.map((row) => row['QUERY PLAN']).join('\n')).toMatch(/Index (Only )?Scan|Bitmap Index Scan/)
      const { keyId } = people.sql
      const ids = await db.query<{ key: string | Uint8Array }>(`select ${keyId} as key from ${table} where id = 3`)
      const key = ids.rows[0]!.key
      expect(typeof key === 'string' ? key : Buffer.from(key).toString('base64url')).toBe(ring.status().active)
    })
  })
})
