/** Gives the first bytes of shared ones and keeps each view, by its length: a view takes longer to make than to read. */
export function beginningsOf(shared: Uint8Array): (length: number) => Uint8Array {
  const kept: Uint8Array[] = []
  return (length) => (kept[length] ??= shared.subarray(0, length))
}
