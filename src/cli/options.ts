import { type ParseArgsConfig, parseArgs } from 'node:util'
import { WaxsealError } from '../index.ts'

type Shapes = NonNullable<ParseArgsConfig['options']>

/** The command line: what each command takes, and what is said about it. */

export const COMMANDS = {
  status: 'the versions of the keyring, and what maintain() would do now',
  plan: 'what a rotation would touch, and for how long; changes nothing',
  rotate: 'stage a new version; with --promote, make it active',
  maintain: 'what is due: promote a staged version, stage one by the calendar, destroy',
  rewrap: 'move rows under the active version; ciphertext stays',
  reencrypt: 'give rows under old versions new data keys',
  verify: 'open every row, or a random sample; changes nothing',
  encrypt: 'encrypt the plaintext rows of a table whose record is in its encrypt phase',
  decrypt: 'the way out: turn a table whose record is in its prepare phase into plaintext',
  suspend: 'encrypt nothing under a version from now on; needs no KMS: waxseal suspend <key id>',
  retire: 'retire a version, after a proof that no row refers to it: waxseal retire <key id>',
  destroy: 'destroy a retired version when its backups have expired: waxseal destroy <key id>',
  incident: 'a key may have leaked: mark, list, re-encrypt: waxseal incident <key id>',
} as const
export type Command = keyof typeof COMMANDS

interface Option {
  readonly type: 'string' | 'boolean'
  readonly multiple?: true
  readonly short?: string
  /** Of numbers: the least. */
  readonly least?: number
  readonly for: readonly Command[] | 'all'
  readonly help: string
}

export const JOBS = ['rewrap', 'reencrypt', 'verify', 'encrypt', 'decrypt', 'incident'] as const
const WITH_KEY: readonly Command[] = ['suspend', 'retire', 'destroy', 'incident']
const OPTIONS: Readonly<Record<string, Option>> = {
  config: {
    type: 'string',
    short: 'c',
    for: 'all',
    help: 'module with the keyring and tables; waxseal.config.(js|mjs)',
  },
  json: { type: 'boolean', for: 'all', help: 'a line of JSON for everything that is said, on stdout' },
  help: { type: 'boolean', short: 'h', for: 'all', help: 'this' },
  table: {
    type: 'string',
    multiple: true,
    for: ['plan', 'rewrap', 'reencrypt', 'verify', 'encrypt', 'decrypt'],
    help: 'this table alone; again for more',
  },
  'rows-per-second': {
    type: 'string',
    least: 1,
    for: ['plan', ...JOBS],
    help: 'plan: the pace to reckon with; jobs: go no faster',
  },
  sample: {
    type: 'string',
    least: 0,
    for: ['plan', 'verify'],
    help: 'plan: rows to measure the pace with, 200; verify: open about so many rows, drawn at random',
  },
  anew: { type: 'boolean', for: ['verify'], help: 'do not go on where another verify stopped' },
  'batch-size': { type: 'string', least: 1, for: JOBS, help: 'rows in a transaction; 1,000' },
  'max-batch-ms': { type: 'string', least: 1, for: JOBS, help: 'halve batches that take longer' },
  'max-failures': { type: 'string', least: 0, for: JOBS, help: 'stop after so many broken rows; 1000' },
  ranges: { type: 'string', least: 1, for: JOBS, help: 'cut the table for so many processes; 1' },
  'lease-ms': { type: 'string', least: 100, for: JOBS, help: 'until the work of a killed process is taken up; 30000' },
  from: { type: 'string', multiple: true, for: ['reencrypt'], help: 'this version alone; again for more' },
  promote: { type: 'boolean', for: ['rotate'], help: 'make the staged version active' },
  urgent: { type: 'boolean', for: ['rotate'], help: 'with --promote: before every instance can know it' },
  reason: {
    type: 'string',
    for: ['rotate', 'suspend', 'retire', 'destroy', 'incident'],
    help: 'kept in the history for good',
  },
  actor: { type: 'string', for: ['rotate', 'maintain', 'suspend', 'destroy', 'incident'], help: 'who does it' },
  list: { type: 'string', for: ['incident'], help: 'the file for the list of affected rows; appended to' },
  priority: { type: 'string', multiple: true, for: ['incident'], help: 'this table first; again for the next' },
  'settle-ms': { type: 'string', least: 0, for: ['incident'], help: 'the longest refreshMs of any instance; 300000' },
  'refuse-reads': { type: 'boolean', for: ['suspend', 'incident'], help: 'refuse to open what is under the version' },
  except: {
    type: 'string',
    multiple: true,
    for: ['retire'],
    help: 'do not ask this table that looks like one of the configuration; again for more',
  },
  'backups-expire': {
    type: 'string',
    for: ['destroy'],
    help: 'when the last backup with its rows expires: 2027-03-31',
  },
  cancel: { type: 'boolean', for: ['destroy'], help: 'call a pending destruction off' },
  yes: { type: 'boolean', for: ['incident'], help: 'do it; without, it says what would be done' },
}

export interface Given {
  readonly command: Command
  readonly keyId: string | undefined
  readonly flag: (name: string) => boolean
  readonly text: (name: string) => string | undefined
  readonly list: (name: string) => readonly string[]
  readonly number: (name: string) => number | undefined
}

export const usage = (argument: string, message: string): WaxsealError =>
  new WaxsealError('CONFIG', message, { argument })

/** Parses the arguments; undefined when help is asked for. CONFIG for what a command does not take. */
export function parse(args: readonly string[]): Given | undefined {
  const options: Shapes = Object.fromEntries(
    Object.entries(OPTIONS).map(([name, { type, multiple = false, short }]) => [
      name,
      { type, multiple, ...(short && { short }) },
    ]),
  )
  const { values, positionals } = parsed(withIdsApart(args), options)
  if (values.help) return undefined
  const [word, keyId, ...more] = positionals
  if (word === undefined || !Object.hasOwn(COMMANDS, word)) {
    throw usage('command', `expected one of ${Object.keys(COMMANDS).join(', ')}; see --help`)
  }
  const command = word as Command
  const takesKey = WITH_KEY.includes(command)
  if (takesKey !== (keyId !== undefined) || more.length > 0) {
    throw usage('command', takesKey ? `${command} takes one key id` : `${command} takes options only`)
  }
  for (const name of Object.keys(values)) {
    const { for: commands } = OPTIONS[name]!
    if (commands !== 'all' && !commands.includes(command)) throw usage(name, `${command} does not take --${name}`)
  }
  const number = (name: string): number | undefined => {
    const value = values[name]
    if (value === undefined) return undefined
    const least = OPTIONS[name]!.least ?? 0
    if (typeof value === 'string' && /^\d{1,12}$/.test(value) && Number(value) >= least) return Number(value)
    throw usage(name, `--${name} expected an integer of at least ${least}`)
  }
  return {
    command,
    keyId,
    flag: (name) => values[name] === true,
    text: (name) => values[name] as string | undefined,
    list: (name) => (values[name] as string[] | undefined) ?? [],
    number,
  }
}

/**
 * A key id may begin with "-", as options do. 20 characters of base64url that do are put where no options can stand, or
 * behind the "=" of --from; but not where an option waits for its value: what is meant there, nobody can tell.
 */
function withIdsApart(args: readonly string[]): readonly string[] {
  const isId = (word: string) => /^-[\w-]{19}$/.test(word)
  const takesValue = (word: string | undefined) =>
    word === '-c' || (word?.startsWith('--') === true && OPTIONS[word.slice(2)]?.type === 'string')
  const ids: string[] = []
  const others: string[] = []
  const end = args.includes('--') ? args.indexOf('--') : args.length
  for (const word of args.slice(0, end)) {
    if (!isId(word)) others.push(word)
    else if (others.at(-1) === '--from') others.splice(-1, 1, `--from=${word}`)
    else if (takesValue(others.at(-1))) others.push(word)
    else ids.push(word)
  }
  return ids.length === 0 ? [...others, ...args.slice(end)] : [...others, '--', ...ids, ...args.slice(end + 1)]
}

function parsed(args: readonly string[], options: Shapes) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true })
  } catch (error) {
    throw usage('arguments', error instanceof Error ? error.message : 'could not be read')
  }
}

export function helpText(): string {
  const wide = (text: string) => `  ${text.padEnd(28)} `
  const commands = Object.entries(COMMANDS).map(([name, help]) => wide(name) + help)
  const options = Object.entries(OPTIONS).map(([name, { type, short, help, for: commands }]) => {
    const flag = `${short ? `-${short}, ` : ''}--${name}${type === 'string' ? ' …' : ''}`
    return `${wide(flag)}${help}${commands === 'all' ? '' : ` [${commands.join(', ')}]`}`
  })
  return [
    'waxseal <command> [options]',
    '',
    ...commands,
    '',
    ...options,
    '',
    'Exit codes: 0 done, 1 failures were recorded, 2 wrong usage or configuration, 3 refused, 4 unavailable: try again,',
    '130 or 143 interrupted: run it again to go on.',
    '',
  ].join('\n')
}
