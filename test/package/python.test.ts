import { describe, expect, it } from 'vitest'
import { missing } from '../support/missing.ts'
import { run } from '../support/run.ts'
import { fromRoot } from '../support/sources.ts'

/** The second implementation of the format, in Python, reads the vectors that ours made. */
async function findPython(): Promise<{ python?: string; reason?: string }> {
  for (const python of ['/usr/bin/python3', 'python3']) {
    const { code } = await run(python, ['-c', 'import cryptography']).catch(() => ({ code: null }))
    if (code === 0) return { python }
  }
  return {
    reason:
      'no python3 with "cryptography" (Debian: apt-get install python3-cryptography, or pip install cryptography)',
  }
}
const { python, reason } = await findPython()

describe.skipIf(missing('the second implementation', reason))('the second implementation', () => {
  it('agrees with every vector, and says how many', async () => {
    const { code, out, err } = await run(python!, [fromRoot('test/vectors/verify.py')])
    expect(err).toBe('')
    expect(out).toMatch(/\d/)
    expect(code).toBe(0)
  })
})
