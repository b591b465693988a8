import type { Query } from '../../src/postgres.ts'
import { JOB_TABLES } from '../../src/rotation/sources/postgres.ts'
import type { Report } from './worker.ts'

/**
 * The database watches by itself, in the same transactions, what workers do: the rows that they change, and each step that
 * the books say they made. The books of jobs are held against it.
 */
export async function install(query: Query): Promise<void> {
  for (const statement of [...JOB_TABLES, ...WATCH]) await query(statement)
}

/** Whoever enters a new owner of a range is that owner. A step of anybody else's is one without the lease. */
const WATCH: readonly string[] = [
  'create table moved (rows bigint not null)',
  `create function count_moved() returns trigger language plpgsql as $$ begin
    if current_setting('application_name') like 'worker-%' then insert into moved select count(*) from changed; end if;
    return null; end $$`,
  `create trigger moved after update on accounts referencing new table as changed
    for each statement execute function count_moved()`,

  'create table holder (owner text primary key, process text not null)',
  'create table breach (what text not null, at text not null)',
  `create function watch_range() returns trigger language plpgsql as $$ declare
    me text := current_setting('application_name');
    start int := (coalesce(old.at_cursor, old.lower_bound)::json ->> 0)::int;
    reached int := (new.at_cursor::json ->> 0)::int;
    place text := format('%s, range %s, from %s to %s', new.job, new.n, start, reached);
    moves boolean := (new.seen, new.at_cursor) is distinct from (old.seen, old.at_cursor);
  begin
    if new.owner is not null and new.owner is distinct from old.owner then
      insert into holder values (new.owner, me) on conflict do nothing;
    end if;
    if tg_op = 'INSERT' or not moves and new.is_done = old.is_done then return null; end if;

    if not exists (select from holder where owner = old.owner and process = me) then
      insert into breach values ('a step without the lease', place);
    end if;
    if moves and (reached <= start or reached > (old.upper_bound::json ->> 0)::int) then
      insert into breach values ('a step back, or beyond the range', place);
    end if;
    if new.seen - old.seen <> new.written - old.written + new.raced - old.raced then
      insert into breach values ('a step with rows that are neither written nor raced', place);
    end if;
    return null; end $$`,
  'create trigger watched after insert or update on waxseal_range for each row execute function watch_range()',
]
const TABLES = ['moved', 'holder', 'breach', 'waxseal_job', 'waxseal_range', 'waxseal_failure']

/** Range → the process that holds it. */
export async function holders(query: Query): Promise<ReadonlyMap<string, string>> {
  const rows = await query<{ range: string; process: string }>(
    `select r.job || ' ' || r.n as range, h.process from waxseal_range r join holder h on h.owner = r.owner
      where r.is_done = 0 order by r.n`,
  )
  return new Map(rows.map(({ range, process }) => [range, process]))
}

type Run = Omit<Report, 'left'> & { readonly isFinished: boolean }

/**
 * What in the books of the one job that was done does not add up, all its runs together, or is not what workers reported;
 * the books are empty afterwards.
 */
export async function discrepancies(
  query: Query,
  reports: readonly Report[],
): Promise<{ wrong: string[]; seen: number; raced: number }> {
  const runs = await runsOf(query)
  const sum = (of: 'seen' | 'written' | 'raced'): number => runs.reduce((all, run) => all + run[of], 0)
  const one = async (sql: string): Promise<number> => Number((await query<{ n: string }>(sql))[0]?.n)
  const rows = await one('select coalesce(sum(rows), 0) as n from moved')
  const ranges = await one(
    'select count(*) as n from waxseal_range where is_done = 0 or job not in (select job from waxseal_job)',
  )
  const wrong: string[] = []
  if (runs.length === 0 || runs.length > 10) wrong.push(`${runs.length} runs in the books`)
  if (sum('written') !== rows) {
    wrong.push(`the books say ${sum('written')} rows were written, the database says ${rows}`)
  }
  if (ranges > 0) wrong.push(`${ranges} ranges are left`)
  for (const { isFinished, seen, written, raced, failed } of runs) {
    if (!isFinished) wrong.push('the job is not finished')
    if (failed > 0) wrong.push(`${failed} rows failed`)
    if (written + raced !== seen) wrong.push(`${written} written and ${raced} raced of ${seen} seen`)
  }
  for (const report of reports) {
    const run = runs.find(({ startedAt }) => startedAt === report.startedAt)
    const isSame = (['seen', 'written', 'raced', 'failed'] as const).every((total) => run?.[total] === report[total])
    if (!isSame) wrong.push(`a worker reported ${JSON.stringify(report)}, the books say ${JSON.stringify(run)}`)
  }
  for (const { what, times, at } of await query<{ what: string; times: string; at: string }>(
    'select what, count(*) as times, min(at) as at from breach group by what order by what',
  )) {
    wrong.push(`${what}, ${times} times: ${at}`)
  }
  for (const table of TABLES) await query(`delete from ${table}`)
  return { wrong, seen: sum('seen'), raced: sum('raced') }
}

async function runsOf(query: Query): Promise<Run[]> {
  const runs = await query<
    Record<'started_at' | 'seen' | 'written' | 'raced' | 'failed' | 'finished_at', string | null>
  >('select started_at, seen, written, raced, failed, finished_at from waxseal_job')
  return runs.map(({ started_at, seen, written, raced, failed, finished_at }) => ({
    startedAt: Number(started_at),
    seen: Number(seen),
    written: Number(written),
    raced: Number(raced),
    failed: Number(failed),
    isFinished: finished_at !== null,
  }))
}
