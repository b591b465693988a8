import { nodeEngine as makeNodeEngine, nodeCrypto } from '#engine/node'
import type { Engine } from './engine.ts'
import { nobleEngine as makeNobleEngine } from './noble.ts'

export type { Aead, AeadName, Engine, KeyWrap } from './engine.ts'

let chosen: Engine | undefined

/** The fastest engine here: Node's OpenSSL where it can be reached, @noble elsewhere. Chosen once. */
export function defaultEngine(): Engine {
  chosen ??= nodeEngine() ?? nobleEngine()
  return chosen
}

/**
 * The engine on Node's OpenSSL, or undefined where Node's crypto module is not to be had.
 *
 * @example
 * ```ts
 * import { nobleEngine, nodeEngine } from 'waxseal/engine'
 *
 * const engine = nodeEngine() ?? nobleEngine()
 * console.log(engine.name)
 * ```
 */
export function nodeEngine(): Engine | undefined {
  const crypto = nodeCrypto()
  return crypto && makeNodeEngine(crypto)
}

/** The portable engine on @noble: pure JavaScript, byte-identical to the other. */
export function nobleEngine(): Engine {
  return makeNobleEngine()
}
