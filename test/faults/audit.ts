import type { Query } from '../../src/postgres.ts'
import { JOB_TABLES } from '../../src/rotation/sources/postgres.ts'

/** The database counts by itself, in the same transactions, what workers change: the books of jobs are held against it. */
export async function install(query: Query): Promise<void> {
  for (const statement of JOB_TABLES) await query(statement)
  await query('create table moved (rows bigint not null)')
  await query(`create function count_moved() returns trigger language plpgsql as $$ begin
    if current_setting('application_name') = 'worker' then insert into moved select count(*) from changed; end if;
    return null; end $$`)
  await query(`create trigger moved after update on accounts referencing new table as changed
    for each statement execute function count_moved()`)
}

/** What in the books of the one job that was done does not add up, all its runs together; the books are empty afterwards. */
export async function discrepancies(query: Query): Promise<{ wrong: string[]; raced: number }> {
  const runs = await query<Record<'written' | 'seen' | 'raced' | 'failed', string> & { is_finished: boolean }>(
    'select written, seen, raced, failed, finished_at is not null as is_finished from waxseal_job',
  )
  const [{ rows } = { rows: '' }] = await query<{ rows: string }>('select coalesce(sum(rows), 0) as rows from moved')
  const [{ ranges } = { ranges: '' }] = await query<{ ranges: string }>(
    'select count(*) as ranges from waxseal_range where is_done = 0 or job not in (select job from waxseal_job)',
  )
  const wrong: string[] = []
  const written = runs.reduce((sum, run) => sum + Number(run.written), 0)
  if (runs.length === 0 || runs.length > 10) wrong.push(`${runs.length} runs in the books`)
  if (written !== Number(rows)) wrong.push(`the books say ${written} rows were written, the database says ${rows}`)
  if (Number(ranges) > 0) wrong.push(`${ranges} ranges are left`)
  for (const { is_finished, seen, raced, failed, written: own } of runs) {
    if (!is_finished) wrong.push('the job is not finished')
    if (Number(failed) > 0) wrong.push(`${failed} rows failed`)
    if (Number(own) + Number(raced) > Number(seen)) wrong.push(`${own} written and ${raced} raced of ${seen} seen`)
  }
  for (const table of ['moved', 'waxseal_job', 'waxseal_range', 'waxseal_failure']) await query(`delete from ${table}`)
  return { wrong, raced: runs.reduce((sum, run) => sum + Number(run.raced), 0) }
}
