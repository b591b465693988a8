#!/usr/bin/env node
import { constants } from 'node:os'
import { RUN } from './commands.ts'
import { loadConfig } from './config.ts'
import { exitOf, said } from './exit.ts'
import { type Given, helpText, JOBS, parse } from './options.ts'
import { output } from './output.ts'

async function main(args: readonly string[]): Promise<number> {
  const isJson = args.includes('--json')
  const out = output(isJson)
  const stop = new AbortController()
  let interrupted: 'SIGINT' | 'SIGTERM' | undefined
  let isJob = false
  const codeOf = (signal: 'SIGINT' | 'SIGTERM'): number => 128 + constants.signals[signal]
  // The first signal lets the running batch end; the second, or one where no job runs, ends the process.
  const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
    if (interrupted || !isJob) {
      out.stop()
      process.exit(codeOf(signal))
    }
    interrupted = signal
    out.note('interrupted', { signal }, `${signal}: ending after the batches that were sent`)
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  const fail = (error: unknown): number => {
    const { code, message } = said(error)
    if (isJson) out.say('error', { code, message })
    else out.note('error', {}, `waxseal: ${code === undefined ? '' : `${code}: `}${message}`)
    return exitOf(error)
  }
  // A client tells of a server that went away by an event, perhaps while nobody waits for an answer.
  process.on('uncaughtException', (error) => {
    out.stop()
    process.exitCode = fail(error)
    process.stdout.write('', () => process.exit())
  })
  let close: (() => unknown) | undefined
  try {
    const given: Given | undefined = parse(args)
    if (!given) {
      process.stdout.write(helpText())
      return 0
    }
    const config = await loadConfig(given.text('config'))
    close = config.close
    isJob = (JOBS as readonly string[]).includes(given.command)
    const hasFailed = await RUN[given.command]({ ...config, given, out, signal: stop.signal })
    if (interrupted) return codeOf(interrupted)
    return hasFailed ? 1 : 0
  } catch (error) {
    return fail(error)
  } finally {
    out.stop()
    await (async () => close?.())().catch(() => undefined) // the work is done, or its error is said
  }
}

process.stdout.on('error', () => process.exit(4)) // whoever read it has gone
const code = await main(process.argv.slice(2))
// A pool that the configuration left open must not hold the process; what was said is written first.
process.stdout.write('', () => process.exit(code))
