import { it } from 'vitest'
import { googleKms } from 'waxseal/kms/google'
import { GoogleImitation, overGrpc, overRest } from './imitations/google.ts'

it.each([overRest, overGrpc])('x', async (over) => {
  const kms = new GoogleImitation()
  const keyName = kms.create('projects/shop/locations/global/keyRings/r/cryptoKeys/k')
  const { client, close } = await over(kms)
  const d = googleKms({ client, keyName })
  const w = await d.wrap(new Uint8Array(32).fill(7), { b: '1', a: '2' })
  console.log(w.length, await d.unwrap(w, { a: '2', b: '1' }))
  await d.unwrap(w, { a: '3', b: '1' }).catch((e) => console.log(Object.keys(e), e.name, e.message, e.code, e.status, typeof e.cause, e.cause, e.response?.data, d.failureOf!(e)))
  await close()
})
