import { expect, it } from 'vitest'
import { openKeyring } from 'waxseal'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { localKms } from 'waxseal/kms/local'

it('a pin that is no number, or no id, is CONFIG and not a pin that never holds', async () => {
  const kms = localKms(new Uint8Array(32).fill(1))
  for (const pin of [{ minEpoch: Number.NaN }, { minEpoch: '3' as never }, { minEpoch: 0 }, { id: '' }]) {
    await expect(openKeyring({ name: 'k', store: memoryKeyStore(), kms, pin })).rejects.toMatchObject({
      code: 'CONFIG',
      argument: expect.stringMatching(/^pin/),
    })
  }
})
