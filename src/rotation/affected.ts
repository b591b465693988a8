import { runOf, TABLES } from './books.ts'
import { nameOf as jobNameOf } from './jobs.ts'
import { insertOnce } from './ledger.ts'
import type { Cursor, RotationSource } from './source.ts'

/** The list of the rows under one version, and the note in the books that it was complete. */

export interface Listed {
  readonly rows: number
  /** By this process's clock, in ms since the epoch. */
  readonly at: number
}

/**
 * Writes a line of JSON for every row under the version, in the order of the ids, and waits for each: one page is in
 * memory. Resolves to the number of rows; undefined when aborted.
 */
export async function listRows(
  table: RotationSource,
  keyId: string,
  write: (line: string) => unknown,
  options: { readonly pageSize: number; readonly signal: AbortSignal | undefined; onPage(rows: number): void },
): Promise<number | undefined> {
  const { pageSize, signal, onPage } = options
  let [rows, after]: [number, Cursor | null] = [0, null]
  while (!signal?.aborted) {
    const page = await table.page({ keys: [keyId] }, { after, upTo: null }, pageSize, 'envelope')
    for (const { row } of page) {
      const subject = table.subjectOf?.(row)
      await write(
        `${JSON.stringify({ table: table.name, rowId: table.rowId(row), ...(subject !== undefined && { subject }) })}\n`,
      )
    }
    rows += page.length
    onPage(rows)
    if (page.length < pageSize) return rows
    after = page.at(-1)!.cursor
  }
  return undefined
}

/** Without it at its end, a list is not whole: whoever made it was killed, or its disk was full. */
export function endLine(keyId: string, lists: Iterable<Listed>): string {
  const rows = [...lists].reduce((sum, list) => sum + list.rows, 0)
  return `${JSON.stringify({ complete: true, keyId, rows, at: new Date().toISOString() })}\n`
}

const nameOf = (table: RotationSource, keyId: string): Promise<string> => jobNameOf('affected', table, keyId)

/** When the table's list was complete, if it ever was: after that, rows have left the version, and a list lacks them. */
export async function listedBefore(table: RotationSource, keyId: string): Promise<Listed | undefined> {
  await table.books.prepare()
  const [row] = await table.books.query<{ seen: unknown; finished_at: unknown }>(
    `select seen, finished_at from ${TABLES.job} where job = ?`,
    [runOf(await nameOf(table, keyId), 1)],
  )
  return row && { rows: Number(row.seen), at: Number(row.finished_at) }
}

/** Forgets a note, of a version that was not marked when it was made. */
export async function dropListed(table: RotationSource, keyId: string): Promise<void> {
  await table.books.prepare()
  await table.books.run(`delete from ${TABLES.job} where job = ?`, [runOf(await nameOf(table, keyId), 1)])
}

/** Notes that the list is complete; whoever came first stays. */
export async function noteListed(table: RotationSource, keyId: string, { rows, at }: Listed): Promise<void> {
  const name = await nameOf(table, keyId)
  await insertOnce(
    table.books,
    `insert into ${TABLES.job} (job, name, run, total, passes, seen, written, raced, failed, started_at, finished_at)
      values (?, ?, 1, ?, 1, ?, 0, 0, 0, ?, ?)`,
    [runOf(name, 1), name, rows, rows, at, at],
  )
}
