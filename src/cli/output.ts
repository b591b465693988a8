import cliProgress from 'cli-progress'
import type { Progress } from '../rotation/index.ts'

/** What is said: for people on stdout, with a bar on stderr; for machines, a line of JSON on stdout. */
export interface Output {
  /** A result: `lines` for people, the rest for machines. */
  say(event: string, data: object, lines?: readonly string[]): void
  /** What is going on; people see it on stderr. */
  note(event: string, data: object, line: string): void
  progress(table: string, progress: Progress): void
  /** Takes the bar away. */
  stop(): void
}

const BAR_EVERY_MS = 200
const LINE_EVERY_MS = 1_000

export function output(isJson: boolean): Output {
  let bar: { readonly table: string; readonly bar: cliProgress.SingleBar } | undefined
  let saidAt = Number.NEGATIVE_INFINITY
  const line = (event: string, data: object): void => {
    process.stdout.write(`${JSON.stringify({ event, time: Date.now(), ...data }, replacer)}\n`)
  }
  const stop = (): void => {
    bar?.bar.stop()
    bar = undefined
  }
  return {
    stop,
    say(event, data, lines = []) {
      stop()
      if (isJson) line(event, data)
      else for (const text of lines) process.stdout.write(`${text}\n`)
    },
    note(event, data, text) {
      if (isJson) return line(event, data)
      stop()
      process.stderr.write(`${text}\n`)
    },
    progress(table, progress) {
      const { done, total, failed, rowsPerSecond, remainingMs } = progress
      if (isJson) {
        if (performance.now() - saidAt < LINE_EVERY_MS && done < total) return
        saidAt = performance.now()
        return line('progress', { table, ...progress })
      }
      if (!process.stderr.isTTY) return
      if (bar?.table !== table) {
        stop()
        const format =
          '{table} {bar} {percentage} % | {value} of {total} | {speed} rows/s | {left} left | {failed} failed'
        bar = { table, bar: new cliProgress.SingleBar({ format, fps: 1000 / BAR_EVERY_MS, hideCursor: true }) }
        bar.bar.start(total, done, { table, speed: 0, left: '…', failed })
      }
      bar.bar.setTotal(Math.max(total, done))
      const left = remainingMs === undefined ? '…' : duration(remainingMs)
      bar.bar.update(done, { table, speed: Math.round(rowsPerSecond), left, failed })
    },
  }
}

const replacer = (_: string, value: unknown): unknown => (value instanceof Map ? Object.fromEntries(value) : value)

export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 120) return `${seconds} s`
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`
}

/** Two digits that count, and never less than it is. */
export function percent(share: number): string {
  if (share === 0 || share === 1) return `${share * 100} %`
  const unit = 10 ** (Math.floor(Math.log10(share * 100)) - 1)
  return `${Number((Math.ceil((share * 100) / unit) * unit).toPrecision(2))} %`
}

export const clockTime = (ms: number | undefined): string => (ms === undefined ? '–' : new Date(ms).toISOString())
export const count = (n: number): string => n.toLocaleString('en-US')

/** Columns that stand below each other. */
export function grid(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? []
  return rows.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
}
