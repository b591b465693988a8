import { asciiJson } from '../bytes.ts'
import { config, WaxsealError } from '../errors.ts'
import { conflict, type KeyStore, MAX_DOCUMENT, malformed, parseStored, type StoredKeyring } from './keystore.ts'

/** Where the keyrings are kept; the same for the store and for the statement that makes the table. */
export interface TableOptions {
  /** `waxseal_keyring` by default: ASCII letters, digits, `_` and `$`, at most 63; quoted, so that case counts. */
  readonly table?: string
}

/** What an error of a client means; anything else may pass: KMS_UNAVAILABLE. */
export type TableFailure = 'conflict' | 'denied' | 'no table' | 'too large' | 'malformed'

/** What a database has to do for a key store. Each call is one statement, so that no lock outlives it. */
export interface TableAccess {
  /** Rows of that name: `epoch` as decimal text, `document` as text, or null when it is over MAX_DOCUMENT bytes. */
  select(name: string): Promise<readonly unknown[]>
  /** Where there is no row of that name. Resolves to whether it did. */
  insert(row: TableRow): Promise<boolean>
  /** Where the row has `expectedEpoch`. Resolves to whether it did. */
  update(row: TableRow, expectedEpoch: number): Promise<boolean>
  /** One row: `now`, the server's clock in whole ms since the epoch as decimal text. Absent: it is this machine's. */
  selectNow?(): Promise<readonly unknown[]>
  failureOf(error: unknown): TableFailure | undefined
}

export interface TableRow {
  readonly name: string
  readonly epoch: number
  readonly document: string
}

/** What the stores share that keep a keyring in a row: `name`, `epoch` for the compare-and-swap, `document`. */
export function tableKeyStore(access: TableAccess): KeyStore {
  const { selectNow } = access
  return {
    ...(selectNow && {
      now: () => asked('telling the time', async () => Number(errorProperty((await selectNow())[0], 'now')), access),
    }),
    load: (name) => asked('reading', async () => readRows(await access.select(name)), access),
    async save(name, next, expectedEpoch) {
      const row = { name, epoch: next.epoch, document: documentOf(next) }
      const lost = conflict(name, expectedEpoch)
      if (expectedEpoch !== null && !Number.isSafeInteger(expectedEpoch)) throw lost
      const isMine = await asked(
        'writing',
        () => (expectedEpoch === null ? access.insert(row) : access.update(row, expectedEpoch)),
        access,
        lost,
      )
      if (!isMine) throw lost
    },
  }
}

function documentOf(next: StoredKeyring): string {
  const text = asciiJson(next)
  if (text.length > MAX_DOCUMENT)
    throw new WaxsealError('LIMIT_EXCEEDED', 'key store: the keyring would be over 64 MiB')
  return text
}

function readRows(rows: readonly unknown[]): StoredKeyring | undefined {
  if (rows.length === 0) return undefined
  if (rows.length > 1) throw malformed('two rows have that name: the table was not made by keyStoreSchema()')
  const { epoch, document } = (rows[0] ?? {}) as { epoch?: unknown; document?: unknown }
  if (document === null) throw malformed('the document is NULL or over 64 MiB')
  if (typeof document !== 'string') throw malformed('the document is not text')
  const stored = parseStored(parseJson(document))
  if (epoch !== String(stored.epoch)) throw malformed('the epoch of the row is not that of its document')
  return stored
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw malformed('the document is torn or is not JSON; restore it from a backup')
  }
}

async function asked<T>(what: string, request: () => Promise<T>, access: TableAccess, lost?: WaxsealError): Promise<T> {
  try {
    return await request()
  } catch (cause) {
    if (WaxsealError.is(cause)) throw cause
    const failure = access.failureOf(cause)
    if (failure === 'conflict' && lost) throw lost
    if (failure === 'denied') {
      throw new WaxsealError('KMS_DENIED', `key store: the database refused ${what}: check the grants`, { cause })
    }
    if (failure === 'no table') {
      const message = 'key store: "table" expected a table that keyStoreSchema() made, got none'
      throw new WaxsealError('CONFIG', message, { argument: 'table', cause })
    }
    if (failure === 'too large') {
      throw new WaxsealError('LIMIT_EXCEEDED', 'key store: the keyring is larger than the database takes', { cause })
    }
    if (failure === 'malformed') throw new WaxsealError('MALFORMED', 'key store: the database is damaged', { cause })
    throw new WaxsealError('KMS_UNAVAILABLE', `key store: ${what} failed`, { cause })
  }
}

/** Checks a table's name and quotes it; `qualified` allows `schema.table`. */
export function quoteTable(options: TableOptions, quote: '"' | '`', qualified: boolean): string {
  const { table = 'waxseal_keyring', ...rest } = options
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw new WaxsealError('CONFIG', `"${unknown}" is no option`, { argument: unknown })
  const parts = typeof table === 'string' ? table.split('.') : []
  const isName = parts.every((part) => /^[A-Za-z_][A-Za-z0-9_$]{0,62}$/.test(part))
  if (!isName || parts.length < 1 || parts.length > (qualified ? 2 : 1)) {
    const form = `a table's name${qualified ? ', perhaps after its schema' : ''}: letters, digits, "_" and "$", at most 63`
    throw config('table', form, table)
  }
  return parts.map((part) => `${quote}${part}${quote}`).join('.')
}

/** A property of whatever a client threw. */
export const errorProperty = (error: unknown, name: string): unknown =>
  (error as Record<string, unknown> | null | undefined)?.[name]
