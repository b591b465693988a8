import { cellDuels } from './cell.ts'
import type { Duel } from './harness.ts'
import { nobleDuels } from './noble.ts'
import { recordDuels } from './record.ts'
import { rewrapDuel } from './rewrap.ts'

/** In order: Node's engine before noble's, which makes the call sites they share polymorphic. */
export async function duels(): Promise<Duel[]> {
  return [...recordDuels(), ...cellDuels(), await rewrapDuel(), ...nobleDuels()]
}

export { concurrentOpen } from './keyring.ts'
