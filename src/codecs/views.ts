/** Views of shared bytes, each made once and kept: one takes longer to make than a short value to read. */
export interface Views {
  /** The first `length` bytes. */
  beginning(length: number): Uint8Array
  /** The bytes from `from` to before `to` of what {@link beginning} gave; of any other bytes, a new view. */
  part(bytes: Uint8Array, from: number, to: number): Uint8Array
}

export function viewsOf(shared: Uint8Array): Views {
  const beginnings: Uint8Array[] = []
  const parts: Uint8Array[][] = []
  function keep(from: number, to: number): Uint8Array {
    const part = shared.subarray(from, to)
    parts[from] ??= []
    parts[from][to] = part
    return part
  }
  return {
    beginning: (length) => (beginnings[length] ??= shared.subarray(0, length)),
    part(bytes, from, to) {
      if (beginnings[bytes.length] !== bytes) return bytes.subarray(from, to)
      return parts[from]?.[to] ?? keep(from, to)
    },
  }
}
