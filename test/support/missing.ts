/** In CI nothing is skipped: what a test needs and does not find is then an error. */
export const inCI = process.env.CI === 'true' || process.env.CI === '1'

/**
 * For `describe.skipIf(missing(…))`: true when the component is missing, after saying so and how to get it. Throws in
 * CI.
 */
export function missing(what: string, reason: string | undefined): boolean {
  if (reason === undefined) return false
  const line = `${what} is skipped: ${reason}`
  if (inCI) throw new Error(`${line} (CI=true: nothing may be skipped)`)
  process.stderr.write(`\n${line}\n`)
  return true
}
