import type { Node } from '../records/compile.ts'

/**
 * The plaintext of a number field: clients give int8 and numeric as text or bigint, so that no digit is lost. What
 * does not fit stays as it is, and the record refuses it.
 */
export function fromClient({ type, ...leaf }: Node, value: unknown): unknown {
  const kind = type === 'leaf' && 'kind' in leaf ? leaf.kind : undefined
  if (kind === 'bigint') {
    if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value)
    return typeof value === 'string' && /^-?\d+$/.test(value) ? BigInt(value) : value
  }
  if (kind !== 'int' && kind !== 'number') return value
  if (typeof value !== 'string' && typeof value !== 'bigint') return value
  const number = Number(value)
  const isExact = kind === 'number' ? value !== '' && !Number.isNaN(number) : Number.isSafeInteger(number)
  return isExact || value === 'NaN' ? number : value
}

export const hexBytes = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
