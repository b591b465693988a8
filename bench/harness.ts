/** One line of the table: `--json` prints an array of these. */
export interface Result {
  readonly name: string
  readonly unit: string
  /** Median over the rounds, in `unit`. */
  readonly value: number
  readonly limit: number | null
  /** value / limit; null where the budget is on the value. */
  readonly ratio: number | null
  /** Interquartile range of the rounds' own ratios over their median; null for what is not timed. */
  readonly spread: number | null
  /** Null where nothing was promised. */
  readonly budget: number | null
  readonly better: 'lower' | 'higher'
}

/** Our call and the hand-written one that does the same work. */
export interface Duel {
  readonly name: string
  /** Largest ratio that is accepted. */
  readonly budget: number
  readonly ours: () => unknown
  readonly limit: () => unknown
  /** Throws unless what is timed, on both sides, decrypts to what went in. Called once, before the rounds. */
  readonly check: () => void
}

export interface Effort {
  readonly rounds: number
  /** How long each side runs in a round, in ms. */
  readonly roundMs: number
  /** Processes started per program, for import_ms. */
  readonly processes: number
}

export const FULL: Effort = { rounds: 151, roundMs: 20, processes: 61 }
export const QUICK: Effort = { rounds: 61, roundMs: 8, processes: 21 }

/**
 * Times both sides in rounds that alternate who goes first, so that a machine that slows down slows both. In µs per
 * call.
 */
export function duel({ name, budget, ours, limit, check }: Duel, { rounds, roundMs }: Effort): Result {
  try {
    check()
  } catch (cause) {
    throw new Error(`${name}: what is timed does not decrypt to what went in`, { cause })
  }
  const best = warmUp(ours, limit)
  const times = { ours: [] as number[], limit: [] as number[] }
  const sides = { ours, limit }
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? (['ours', 'limit'] as const) : (['limit', 'ours'] as const)
    for (const side of order) {
      // Never a full collection: rounds right after one were seen to be two to four times slower, on both sides.
      globalThis.gc?.({ type: 'minor' })
      run(sides[side], LEAD_IN)
      times[side].push(run(sides[side], Math.ceil((roundMs * 1000) / Math.max(best[side], LEAST_US))))
    }
  }
  return compared({ name, unit: 'us', budget, better: 'lower' }, times.ours, times.limit)
}

/** Medians of both sides, their ratio, and how far the rounds' own ratios lie apart. */
export function compared(
  about: Pick<Result, 'name' | 'unit' | 'budget' | 'better'>,
  values: readonly number[],
  limits: readonly number[],
): Result {
  const [value, limit] = [median(values), median(limits)]
  const ratios = values.map((ours, round) => ours / limits[round]!)
  const spread = (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / median(ratios)
  return { ...about, value, limit, ratio: value / limit, spread }
}

export const isOver = ({ ratio, value, budget, better }: Result): boolean =>
  budget !== null && (better === 'lower' ? (ratio ?? value) > budget : (ratio ?? value) < budget)

export const median = (values: readonly number[]): number => quantile(values, 0.5)

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * q
  const below = sorted[Math.floor(place)]!
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1)
}

/** Calls that are not timed: the first ones after a collection take twice as long, on both sides. */
const LEAD_IN = 20
const WARM_UP_MS = 3000
/** A clock may stand still for as long as a thousand calls take. */
const LEAST_US = 0.5

/**
 * Both sides by turns until five turns in a row bring neither a gain over 1 %: then the optimising compiler is done, also
 * with what they share, which it compiles anew when the second side comes to it. The least time of each, in µs per call.
 */
function warmUp(ours: () => unknown, limit: () => unknown): { readonly ours: number; readonly limit: number } {
  const deadline = performance.now() + WARM_UP_MS
  const best = { ours: Number.POSITIVE_INFINITY, limit: Number.POSITIVE_INFINITY }
  for (let settled = 0; settled < 5 && performance.now() < deadline; settled++) {
    const turn = { ours: run(ours, 1000), limit: run(limit, 1000) }
    if (turn.ours < best.ours * 0.99 || turn.limit < best.limit * 0.99) settled = -1
    best.ours = Math.min(best.ours, turn.ours)
    best.limit = Math.min(best.limit, turn.limit)
  }
  return best
}

/** The last result is kept where the compiler cannot prove it unused. */
let sink: unknown

/**
 * µs per call, of processor time: what neighbours on a shared machine take is not counted, what the collector's threads do
 * meanwhile is.
 */
function run(call: () => unknown, calls: number): number {
  const start = process.cpuUsage()
  for (let i = 0; i < calls; i++) sink = call()
  const { user, system } = process.cpuUsage(start)
  return (user + system) / calls
}

export const lastResult = (): unknown => sink
