/** What a suite needs of a test framework: vitest and jest as they are, node:test with an `expect` of your choice. */
export interface SuiteFramework {
  describe(name: string, body: () => void): unknown
  it(name: string, body: () => Promise<void>): unknown
  /** Only `toEqual`, deep and with readable values, is asked of it. */
  expect(value: unknown): { toEqual(expected: unknown): unknown }
  /** node:util's, so that a suite sees what a log would show; JSON and String are looked at without it. */
  inspect?(value: unknown): string
}
