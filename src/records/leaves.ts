import type { PathComponent } from '../envelope/format.ts'
import { fieldAad } from '../envelope/format.ts'
import { typeName, WaxsealError } from '../errors.ts'
import type { ArrayNode, Leaf, Node, ObjectNode } from './compile.ts'

/** Elements of a protected array: each is sealed on its own. More belong into json(). */
const MAX_ELEMENTS = 1_024

/** What is done to one protected value; `aad` names its place. */
export type LeafTransform = (leaf: Leaf, value: unknown, aad: Uint8Array) => unknown

/**
 * Applies `transform` to every protected value of a column and copies what is around them. What is undefined stays
 * out; a null where an object or array was declared stays null.
 */
export function mapLeaves(
  node: Node,
  value: unknown,
  path: readonly PathComponent[],
  transform: LeafTransform,
): unknown {
  if (node.type === 'leaf') return transform(node, value, node.aad ?? fieldAad('columns', path))
  if (value === null) return null
  return node.type === 'object' ? mapObject(node, value, path, transform) : mapArray(node, value, path, transform)
}

function mapObject(
  node: ObjectNode,
  value: unknown,
  path: readonly PathComponent[],
  transform: LeafTransform,
): unknown {
  const prototype = typeof value === 'object' && value !== null ? Object.getPrototypeOf(value) : undefined
  if (prototype !== Object.prototype && prototype !== null) {
    throw new WaxsealError('SCHEMA', `expected an object, got ${typeName(value)}`)
  }
  const out = { ...(value as Record<string, unknown>) }
  for (const { name, label, node: member } of node.members) {
    if (!Object.hasOwn(out, name) || out[name] === undefined) continue
    out[name] = mapLeaves(member, out[name], [...path, label], transform)
  }
  return out
}

function mapArray(node: ArrayNode, value: unknown, path: readonly PathComponent[], transform: LeafTransform): unknown {
  if (!Array.isArray(value)) throw new WaxsealError('SCHEMA', `expected an array, got ${typeName(value)}`)
  if (value.length > MAX_ELEMENTS) {
    throw new WaxsealError('LIMIT_EXCEEDED', `expected at most ${MAX_ELEMENTS} elements, got ${value.length}`)
  }
  return Array.from(value, (element, index) => {
    if (element === undefined) throw new WaxsealError('SCHEMA', 'expected no undefined in an array')
    return mapLeaves(node.item, element, [...path, { index, count: value.length }], transform)
  })
}
