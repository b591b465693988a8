import { config, WaxsealError } from '../../errors.ts'
import { sleep } from '../pace.ts'

/** One statement, with what makes clients answer alike however they were configured. */
export interface Statement {
  sql: string
  rowsAsArray: false
  // biome-ignore lint/suspicious/noExplicitAny: what a client makes of a value
  typeCast(field: unknown, next: () => any): any
}

/** The part of a connection of `mysql2/promise` or `mariadb` that is used. */
export interface MysqlConnection {
  /** A statement that is not prepared: those of transactions cannot be. */
  query(statement: Statement): Promise<unknown>
  /** Prepared on the server, so that no setting of the session has a say in the values. */
  // biome-ignore lint/suspicious/noExplicitAny: each client has types of its own for parameters
  execute(statement: Statement, values: any[]): Promise<unknown>
}

/** A pool of `mysql2/promise` or `mariadb`, or a connection that a job has to itself. */
export type Mysql =
  | { getConnection(): Promise<MysqlConnection & { release(): unknown; destroy(): unknown }> }
  | MysqlConnection

/** Asks on one connection. */
export interface Session {
  query<T>(sql: string, values?: readonly unknown[]): Promise<readonly T[]>
  /** The number of rows that were changed. */
  run(sql: string, values?: readonly unknown[]): Promise<number>
}

export interface Connection {
  /** One statement that reads. */
  query<T>(sql: string, values?: readonly unknown[]): Promise<readonly T[]>
  /** One statement outside a transaction, such as one that makes a table. */
  run(sql: string): Promise<void>
  /** All of `work`, or nothing. It is begun again when the server undid it for the sake of another transaction. */
  transaction<T>(work: (session: Session) => Promise<T>): Promise<T>
  /** One statement as the client answers it by its own settings. */
  asClient(sql: string): Promise<unknown>
}

const IN_TRANSACTION = 1568
/** Deadlock or refused by a cluster; a lock that was waited for too long; a row that changed since the snapshot. */
const UNDONE: readonly unknown[] = [1213, 1205, 1020]
const ATTEMPTS = 6
const PATIENCE_MS = 5_000
const POLL_MS = 20

/**
 * What a session is set to while it writes: nothing is cut to fit, times are UTC, and a lock that somebody keeps is not
 * waited for while the locks of a batch are held.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  sql_mode: `'STRICT_ALL_TABLES'`,
  time_zone: `'+00:00'`,
  innodb_lock_wait_timeout: '5',
  sql_safe_updates: '0',
}
const NAMES = Object.keys(SETTINGS)
/** Triggers can tell by `@waxseal_job` that a job is what changes a row. */
const SET = `set @waxseal_job = 1, ${[
  ...NAMES.map((name) => `@waxseal_${name} = @@session.${name}`),
  ...NAMES.map((name) => `session ${name} = ${SETTINGS[name]}`),
].join(', ')}`
const RESET = `set @waxseal_job = null, ${NAMES.map((name) => `session ${name} = @waxseal_${name}`).join(', ')}`
/** For the next transaction alone. Refused while one is open, which tells whether the application has begun one. */
const PROBE = 'set transaction isolation level read committed'

const statement = (sql: string): Statement => ({ sql, rowsAsArray: false, typeCast: (_, next) => next() })

/** Connections in use by us, one piece of work after the other: several sources may share one. */
const turns = new WeakMap<object, Promise<unknown>>()

/** Connections that may still be set as {@link SET} did, or be in a transaction: nobody else may have them. */
const lost = new WeakSet<object>()

export function connectionOf(db: Mysql): Connection {
  const isPool = typeof (db as { getConnection?: unknown } | null)?.getConnection === 'function'
  if ((!isPool && !isConnection(db)) || wantsCallbacks(db)) {
    throw config('db', 'a pool or a connection of mysql2/promise or mariadb', db)
  }

  function use<T>(work: (own: MysqlConnection) => Promise<T>): Promise<T> {
    return isPool ? lent(work) : alone(work)
  }

  async function lent<T>(work: (own: MysqlConnection) => Promise<T>): Promise<T> {
    const own = await (db as Extract<Mysql, { getConnection: unknown }>).getConnection()
    if (!isConnection(own)) throw config('db', 'a pool of mysql2/promise or mariadb', db)
    let isFine = false
    try {
      const result = await work(own)
      isFine = true
      return result
    } catch (error) {
      // What we or the server refused leaves the connection as it was; anything else may not.
      isFine = !lost.has(own) && (WaxsealError.is(error) || numberOf(error) !== undefined)
      throw error
    } finally {
      if (isFine) await own.release()
      else own.destroy()
    }
  }

  /** Calls take turns, and wait for up to 5 seconds for a transaction of the application to end. */
  function alone<T>(work: (own: MysqlConnection) => Promise<T>): Promise<T> {
    const own = db as MysqlConnection
    const turn = (turns.get(own) ?? Promise.resolve()).then(async () => {
      const started = performance.now()
      for (;;) {
        try {
          await ask(own.query(statement(PROBE)))
          break
        } catch (error) {
          if (numberOf(error) !== IN_TRANSACTION) throw error
          if (performance.now() - started > PATIENCE_MS) throw inTransaction(db)
        }
        await sleep(POLL_MS)
      }
      return work(own)
    })
    turns.set(
      own,
      turn.catch(() => undefined),
    )
    return turn
  }

  return {
    query: (sql, values) => use((own) => sessionOf(own).query(sql, values)),
    run: async (sql) => void (await use((own) => ask(own.query(statement(sql))))),
    async transaction(work) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await use((own) => transact(own, work))
        } catch (error) {
          if (numberOf(error) === IN_TRANSACTION) throw inTransaction(db)
          if (attempt === ATTEMPTS || !UNDONE.includes(numberOf(error))) throw error
        }
        await sleep(Math.random() * 20 * 2 ** attempt)
      }
    },
    asClient: (sql) => use((own) => ask(own.execute({ sql, rowsAsArray: false } as Statement, []))),
  }
}

async function transact<T>(own: MysqlConnection, work: (session: Session) => Promise<T>): Promise<T> {
  const tell = (sql: string): Promise<unknown> => ask(own.query(statement(sql)))
  await tell(PROBE)
  try {
    await tell(SET)
    await tell('start transaction')
    const result = await work(sessionOf(own))
    await tell('commit')
    await tell(RESET)
    return result
  } catch (error) {
    try {
      await tell('rollback')
      await tell(RESET)
    } catch {
      lost.add(own) // and the transaction with it; what went wrong first is on its way
    }
    throw error
  }
}

function sessionOf(own: MysqlConnection): Session {
  const send = async (sql: string, values: readonly unknown[] = []): Promise<unknown> =>
    resultOf(await ask(own.execute(statement(sql), values.map(parameter))))
  return {
    query: async <T>(sql: string, values?: readonly unknown[]) => (await send(sql, values)) as T[],
    run: async (sql, values) => Number(((await send(sql, values)) as { affectedRows?: unknown }).affectedRows),
  }
}

/** mysql2 answers a pair, of which the second part is about columns; mariadb answers what was asked for. */
function resultOf(answer: unknown): unknown {
  const isPair = Array.isArray(answer) && answer.length === 2 && (answer[1] === undefined || Array.isArray(answer[1]))
  return isPair ? answer[0] : answer
}

const parameter = (value: unknown): unknown => (typeof value === 'bigint' ? String(value) : (value ?? null))

const isConnection = (db: unknown): db is MysqlConnection =>
  typeof (db as MysqlConnection | null)?.execute === 'function' && typeof (db as MysqlConnection).query === 'function'

/** A client of mysql2 that answers through callbacks: asked for a connection without one, it would end the process. */
const wantsCallbacks = (db: unknown): boolean => typeof (db as { promise?: unknown }).promise === 'function'

const inTransaction = (db: unknown): WaxsealError =>
  config('db', 'a pool, or a connection with autocommit that is in no transaction', db)

/** The number of an error of the server, or of mariadb's client. */
const numberOf = (error: unknown): number | undefined => {
  const { errno, sqlState } = (error ?? {}) as { errno?: unknown; sqlState?: unknown }
  return typeof errno === 'number' && typeof sqlState === 'string' ? errno : undefined
}

async function ask<T>(answer: Promise<T>): Promise<T> {
  if (typeof answer?.then !== 'function') throw config('db', 'a client that answers with promises', answer)
  try {
    return await answer
  } catch (error) {
    throw withoutValues(error)
  }
}

/** Messages that quote a value: of duplicate keys, of what does not convert, and of what a trigger says. */
const QUOTING: readonly number[] = [1366, 1411, 1525, 1690]
const NOT_QUOTING: readonly number[] = [1048, 1264, 1406]

/** An error of the server without the statement, its parameters and the values of rows: plaintext may be among them. */
export function withoutValues(error: unknown): unknown {
  const errno = numberOf(error)
  if (errno === undefined || WaxsealError.is(error)) return error
  const { code, sqlState, sqlMessage } = error as { code?: string; sqlState: string; sqlMessage?: unknown }
  const isQuoting = QUOTING.includes(errno) || (/^(22|23|45)/.test(sqlState) && !NOT_QUOTING.includes(errno))
  const message = isQuoting || typeof sqlMessage !== 'string' ? 'the database refused a value' : sqlMessage
  return new ServerError(`${message} (${code ?? 'error'} ${errno})`, code, errno, sqlState)
}

/** What the client threw, under the names that it has there. */
class ServerError extends Error {
  override readonly name = 'ServerError'
  readonly code: string | undefined
  readonly errno: number
  readonly sqlState: string

  constructor(message: string, code: string | undefined, errno: number, sqlState: string) {
    super(message)
    this.code = code
    this.errno = errno
    this.sqlState = sqlState
  }
}
