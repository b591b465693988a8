import { describe, expect, it } from 'vitest'
import { memoryKeyStore } from 'waxseal/keystore/memory'
import { keyStoreSuite } from 'waxseal/testing'
import { document } from './document.ts'

keyStoreSuite(
  { describe, it, expect },
  {
    name: 'memory',
    make: () => {
      const store = memoryKeyStore()
      return () => store
    },
  },
)

it('a memory store begins with what it is given, and does not change that', async () => {
  const initial = { crm: document(1) }
  const store = memoryKeyStore(initial)
  expect(await store.load('crm')).toEqual(document(1))
  await store.save('crm', document(2), 1)
  await store.save('hr', document(1), null)
  expect(initial).toEqual({ crm: document(1) })
})

it('two memory stores have nothing in common', async () => {
  const store = memoryKeyStore()
  await store.save('crm', document(1), null)
  expect(await memoryKeyStore().load('crm')).toBeUndefined()
})
