import { deepStrictEqual as same } from 'node:assert/strict'
import { cell, int, text } from 'waxseal'
import { testKeyring } from 'waxseal/testing'
import type { Duel } from './harness.ts'
import * as limit from './limit.ts'
import { asStored, notes, overAll } from './payload.ts'

const note = cell('customers', 'note', { type: text(), bind: { id: int() } })
const plain = notes.map(({ text }) => text)

/** One self-contained value of 64 bytes under a fresh data key. */
export function cellDuels(): Duel[] {
  const keys = testKeyring({ suite: 1 })
  const kek = limit.newKek()
  const stored = asStored(notes.map(({ id, text }) => ({ id, sealed: note.encrypt(keys, text, { id }) })))
  const byHand = asStored(plain.map((text) => limit.encryptNote(kek, text)))
  const check = () => {
    const opened = stored.map(({ id, sealed }) => note.decrypt(keys, sealed, { id }))
    const openedByHand = byHand.map((sealed) => limit.decryptNote(kek, sealed))
    same([opened, openedByHand], [plain, plain])
  }
  return [
    {
      name: 'cell.encrypt',
      budget: 1.45,
      check,
      ours: overAll(notes, ({ id, text }) => note.encrypt(keys, text, { id })),
      limit: overAll(plain, (text) => limit.encryptNote(kek, text)),
    },
    {
      name: 'cell.decrypt',
      budget: 1.45,
      check,
      ours: overAll(stored, ({ id, sealed }) => note.decrypt(keys, sealed, { id })),
      limit: overAll(byHand, (sealed) => limit.decryptNote(kek, sealed)),
    },
    cachedDuel(),
  ]
}

/** A cell whose record key is in the bounded cache, against a data key that is at hand without any look-up. */
function cachedDuel(): Duel {
  const cache = { entries: 1000, maxUses: Number.MAX_SAFE_INTEGER, maxAgeMs: 86_400_000 }
  const keys = testKeyring({ suite: 1, cache })
  const kek = limit.newKek()
  const stored = asStored(notes.map(({ id, text }) => ({ id, sealed: note.encrypt(keys, text, { id }) })))
  const kept = asStored(plain.map((text) => limit.encryptNote(kek, text))).map((sealed) => ({
    sealed,
    key: limit.noteKey(kek, sealed),
  }))
  return {
    name: 'cell.decrypt.cached',
    budget: 1.35,
    check() {
      const open = () => stored.map(({ id, sealed }) => note.decrypt(keys, sealed, { id }))
      const first = open() // fills the cache
      const openedByHand = kept.map(({ key, sealed }) => limit.decryptNoteUnder(key, sealed))
      same([first, open(), openedByHand], [plain, plain, plain])
    },
    ours: overAll(stored, ({ id, sealed }) => note.decrypt(keys, sealed, { id })),
    limit: overAll(kept, ({ key, sealed }) => limit.decryptNoteUnder(key, sealed)),
  }
}
