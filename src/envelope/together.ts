import { wipe } from '../bytes.ts'
import { WaxsealError } from '../errors.ts'
import { findMaster, underKey } from './envelope.ts'
import { type Header, OFFSET } from './format.ts'
import type { KeySource } from './keys.ts'
import type { Suite } from './suites.ts'

/** With fewer headers under one key, wrapping them at once takes longer than one by one. */
const FEW = 8

/**
 * What is the same work for many headers, done for all of them at once: a header for each that can be rewrapped so, for
 * {@link rewrapHeader} in the same turn. All others are left to it, and with them whatever there is to refuse.
 */
export function rewrapTogether(
  keys: KeySource,
  headers: readonly (Header | undefined)[],
): readonly (Uint8Array | undefined)[] {
  const rewrapped: Uint8Array[] = []
  for (const places of groups(headers)) {
    if (places.length < FEW) continue
    try {
      rewrapGroup(keys, headers as readonly Header[], places, rewrapped)
    } catch (error) {
      if (!WaxsealError.is(error)) throw error
    }
  }
  return rewrapped
}

/** Places of the headers of one suite under one key. */
function groups(headers: readonly (Header | undefined)[]): Iterable<readonly number[]> {
  const found = new Map<string, Map<Suite, number[]>>()
  for (const [i, header] of headers.entries()) {
    if (!header) continue
    const { keyId, suite } = header
    const ofKey = found.get(keyId) ?? new Map<Suite, number[]>()
    found.set(keyId, ofKey)
    const places = ofKey.get(suite)
    if (places) places.push(i)
    else ofKey.set(suite, [i])
  }
  return [...found.values()].flatMap((ofKey) => [...ofKey.values()])
}

/** Headers of one suite under one key: their data keys are in memory at once, here alone. */
function rewrapGroup(
  keys: KeySource,
  headers: readonly Header[],
  places: readonly number[],
  rewrapped: Uint8Array[],
): void {
  const first = headers[places[0]!]!
  const { suite, keyId } = first
  const active = keys.active()
  if (keyId === active.idText) return
  const from = findMaster(keys, first, 'rewrap', keyId).wrapFor(suite)
  const to = active.wrapFor(suite)
  if (!from.unwrapMany || !to.wrapMany) return
  const size = suite.wrappedBytes
  const wrapped = new Uint8Array(places.length * size)
  for (let n = 0; n < places.length; n++) wrapped.set(headers[places[n]!]!.wrappedKey, n * size)
  const { keys: dataKeys, intact } = from.unwrapMany(wrapped)
  try {
    wrapped.set(to.wrapMany(dataKeys))
  } finally {
    wipe(dataKeys)
  }
  for (let n = 0; n < places.length; n++) {
    if (intact[n] !== 1) continue
    const i = places[n]!
    const moved = underKey(active, headers[i]!)
    moved.set(wrapped.subarray(n * size, (n + 1) * size), OFFSET.wrappedKey)
    rewrapped[i] = moved
  }
}
