import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bigint, boolean, bytes, date, int, json, number, object, text } from '../../src/index.ts'
import { decryptInPlace, encryptInPlace, reencrypt, verify } from '../../src/rotation/index.ts'
import { testKeyring } from '../../src/testing/index.ts'
import { type MysqlClient, mariadbClient, mysql2Client } from './clients.ts'
import { type AnyRow, declare, freshName, rotate } from './tables.ts'

const UNTIL = new Date(Date.now() + 1e9)
type Phase = 'prepare' | 'encrypt'

/** What stands in a table, digit by digit. */
function stored(client: MysqlClient, table: string, columns: readonly string[]) {
  const digits = (name: string): string => {
    if (name === 'photo') return 'hex(photo)'
    const value = name === 'single' ? 'cast(single as double)' : name === 'flag' ? 'flag + 0' : name
    return `hex(cast(${value} as char))`
  }
  return client.own(
    `select ${columns.map((name) => `${digits(name)} as ${name}`).join(', ')} from ${table} order by id`,
  )
}

/** From plaintext to ciphertext and back, for every type of column. */
export function mysqlInPlaceSuite(client: () => MysqlClient, url: () => string): void {
  describe.each(['columns', 'packed'] as const)('a table of plaintext in MySQL, %s', (shape) => {
    const at = (column: string) => (shape === 'columns' ? { into: `${column}_sealed` } : {})
    const names = [
      ...['email', 'born', 'moment', 'stamp', 'score', 'single', 'price', 'visits', 'big', 'huge', 'sum'],
      ...['active', 'flag', 'photo', 'contact', 'anything', 'kind', 'code'],
    ]
    const declared = (table: string, phase: Phase) =>
      declare(table, {
        id: { id: int() },
        shape,
        fields: {
          email: text({ nullable: true }),
          born: date({ ...at('born'), nullable: true }),
          moment: date(at('moment')),
          stamp: date({ ...at('stamp'), nullable: true }),
          score: number(at('score')),
          single: number(at('single')),
          price: number(at('price')),
          visits: int(at('visits')),
          big: bigint(at('big')),
          huge: bigint(at('huge')),
          sum: text(at('sum')),
          active: boolean(at('active')),
          flag: boolean(at('flag')),
          photo: bytes(at('photo')),
          contact: shape === 'columns' ? object({ phone: text() }) : json(),
          anything: json(at('anything')),
          kind: text(at('kind')),
          code: text(at('code')),
        },
        migrate: { phase, until: UNTIL },
      })

    it('is encrypted, read, and comes back with every digit', async () => {
      const { own } = client()
      const keys = testKeyring()
      const table = freshName('plain')
      const sealed = names.filter((name) => name !== 'email' && name !== 'contact').map((name) => `${name}_sealed text`)
      await own(`create table ${table} (id int primary key, email varchar(300), born date, moment datetime(3), stamp timestamp(3) null,
        score double, single float, price decimal(12, 4), visits bigint, big bigint unsigned, huge decimal(65, 0),
        sum decimal(65, 30), active tinyint(1), flag bit(1), photo longblob, contact json, anything json,
        kind enum('a', 'ключ'), code varchar(20) character set latin1, envelope text, ${sealed.join(', ')},
        updated_at timestamp default '2001-01-01' on update current_timestamp)`)
      const columns = names.join(', ')
      await own(`insert into ${table} (id, ${columns}) values
        (1, 'secret 雪😀', '2001-07-02', '2001-07-02 03:04:05.678', '2024-10-27 01:30:00.123', 0.1e0 + 0.2e0, 0.1, 19.9900,
          9007199254740991, 18446744073709551615, ${'9'.repeat(65)}, 0.1, 1, b'1', x'00ff', '{"phone":"1"}', '"secret"', 'ключ', 'é€'),
        (2, null, null, '1969-12-31 23:30:00.5', null, 1e300, 1e-30, -0.0001, -5, 0, -1, 12345678901234567890.5, 0, b'0', x'',
          '{"phone":"2"}', '[1,{"a":null}]', 'a', ''),
        (3, '', '9999-12-31', '2024-02-29 00:00:00', '2038-01-19 03:14:07', -1.7976931348623157e308, 3.4e38, 99999999.9999,
          0, 1, 0, 0, 1, b'1', x'01', '{"phone":"3"}', '12', 'a', ' x ')`)
      const all = [...names, 'updated_at']
      const before = await stored(client(), table, all)
      const source = client().table(declared(table, 'encrypt'))
      const report = await encryptInPlace({ keys, table: source, batchSize: 2 })
      expect(report).toMatchObject({ written: 3, plaintext: 0, failures: [] })
      const [left] = await own<{ n: unknown }>(
        `select count(*) as n from ${table} where coalesce(email, '') like '%secret%' or coalesce(anything, '') like '%secret%'
          or coalesce(born, moment, stamp, score, single, price, visits, big, huge, sum, active, flag, photo, kind, code) is not null`,
      )
      expect(Number(left!.n)).toBe(0)
      expect(await verify({ keys, table: source })).toMatchObject({ seen: 3, failed: 0 })
      await rotate(keys)
      expect(await reencrypt({ keys, table: source, batchSize: 2 })).toMatchObject({ written: 3, failures: [] })
      const [one] = await own<AnyRow>(`select * from ${table} where id = 1`)
      const plain = declared(table, 'encrypt').decrypt(keys, one as never) as AnyRow
      expect(plain).toMatchObject({
        email: 'secret 雪😀',
        score: 0.1 + 0.2,
        price: 19.99,
        big: 18446744073709551615n,
        sum: `0.1${'0'.repeat(29)}`,
        active: true,
        flag: true,
        kind: 'ключ',
        code: 'é€',
      })
      const back = client().table(declared(table, 'prepare'))
      const returned = await decryptInPlace({ keys, table: back, batchSize: 2 })
      expect(returned).toMatchObject({ written: 3, sealed: 0, failures: [] })
      expect(await stored(client(), table, all)).toEqual(before)
    })
  })

  it.each([
    ['datetime(6)', date({ into: 's' }), `'2001-01-01 00:00:00.000001'`],
    ['timestamp(6)', date({ into: 's' }), `'2001-01-01 00:00:00.123456'`],
    ['varchar(30)', date({ into: 's' }), `'yesterday'`],
    ['decimal(30, 10)', number({ into: 's' }), '12345678901234567.0123456789'],
    ['bigint', number({ into: 's' }), '9007199254740993'],
    ['bigint', int({ into: 's' }), '9007199254740993'],
    ['tinyint', boolean({ into: 's' }), '2'],
    ['varchar(30)', json({ into: 's' }), `'{'`],
  ])('%s: a value that would not come back as it was is a broken row, and stays', async (type, field, value) => {
    const { own } = client()
    const keys = testKeyring()
    const table = freshName('lossy')
    const record = declare(table, {
      id: { id: int() },
      fields: { v: field },
      migrate: { phase: 'encrypt', until: UNTIL },
    })
    await own(`create table ${table} (id int primary key, v ${type}, s text, envelope text)`)
    await own(`insert into ${table} (id, v) values (1, ${value})`)
    const before = await own(`select hex(v) as v from ${table}`)
    const report = await encryptInPlace({ keys, table: client().table(record) })
    expect(report).toMatchObject({ written: 0, plaintext: 1, failures: [{ rowId: '1', code: 'SCHEMA' }] })
    expect(await own(`select hex(v) as v from ${table}`)).toEqual(before)
  })

  it('what a column does not take back is a failure of its row, without its value', async () => {
    const { own } = client()
    const keys = testKeyring()
    const table = freshName('nan')
    const [prepare, strict] = [{ migrate: { phase: 'prepare', until: UNTIL } } as const, {}].map((more) =>
      declare(table, { id: { id: int() }, fields: { v: text({ into: 's' }) }, ...more }),
    )
    await own(`create table ${table} (id int primary key, v int, s text, envelope text)`)
    const { s, envelope } = strict!.encrypt(keys, { id: 1, v: 'the secret' } as never) as AnyRow
    await own(`insert into ${table} values (1, null, ?, ?)`, [s, envelope])
    const report = await decryptInPlace({ keys, table: client().table(prepare!) })
    expect(report).toMatchObject({ written: 0, failures: [{ rowId: '1', code: 'ROW_REFUSED' }] })
    expect(JSON.stringify(report, (_, value) => (value instanceof Map ? [...value] : value))).not.toMatch(
      /the secret|dGhlIHNlY3JldA/,
    )
    expect(await own(`select s, envelope from ${table}`)).toEqual([{ s, envelope }])
  })

  describe('dates, where the process is east of Greenwich', () => {
    const zone = process.env.TZ
    beforeAll(() => {
      process.env.TZ = 'Asia/Tokyo'
    })
    afterAll(() => {
      if (zone === undefined) delete process.env.TZ
      else process.env.TZ = zone
    })

    const settings = ['local', 'Z', '+02:00'].flatMap((timezone) =>
      ['date', 'datetime', 'datetime(3)', 'timestamp(3)'].map((type) => ({ timezone, type })),
    )
    it.each(settings)(
      '$type, read with timezone $timezone: sealed as the application reads them',
      async ({ timezone, type }) => {
        const isMysql2 = client().name === 'mysql2'
        const other = isMysql2 ? mysql2Client(url(), { timezone }) : mariadbClient(url(), { timezone })
        try {
          const { own } = client()
          const keys = testKeyring()
          const table = freshName('dates')
          const [prepare, encrypt] = (['prepare', 'encrypt'] as const).map((phase) =>
            declare(table, {
              id: { id: int() },
              fields: { born: date({ into: 's' }) },
              migrate: { phase, until: UNTIL },
            }),
          )
          await own(`create table ${table} (id int primary key, born ${type} null, s text, envelope text)`)
          await own(
            `insert into ${table} (id, born) values (1, '2001-07-02'), (2, '1989-12-31 23:30:00.5'), (3, '2024-02-29 08:00')`,
          )
          const pool = other.db as unknown as { query(sql: string): Promise<unknown[]> }
          const answer = await pool.query(`select born from ${table} order by id`)
          const read = (Array.isArray(answer[0]) ? answer[0] : answer) as { born: Date }[]
          const before = await stored(client(), table, ['born'])
          expect(await encryptInPlace({ keys, table: other.table(encrypt!) })).toMatchObject({
            written: 3,
            failures: [],
          })
          const opened = (await own<AnyRow>(`select * from ${table} order by id`)).map(
            (row) => (encrypt!.decrypt(keys, row as never) as AnyRow).born,
          )
          // A timestamp is an instant, whatever zones the client and the server think they are in.
          if (!type.startsWith('timestamp')) expect(opened).toEqual(read.map(({ born }) => born))
          expect(await decryptInPlace({ keys, table: other.table(prepare!) })).toMatchObject({
            written: 3,
            failures: [],
          })
          expect(await stored(client(), table, ['born'])).toEqual(before)
        } finally {
          await other.close()
        }
      },
    )
  })
}
