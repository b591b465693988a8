/** A row as an application sees it. */
export interface Plain {
  readonly id: number
  readonly email: string
  readonly note: string | null
  readonly city: string
}

/**
 * What was last written to each row and acknowledged. A write whose answer was lost leaves two values that are both
 * right (undefined: no row); nobody touches that row again.
 */
export interface Model {
  readonly rows: Map<number, Plain>
  readonly unsure: Map<number, readonly (Plain | undefined)[]>
}

/** Says where a table, as it was read, is not what the model allows; at most a few lines. */
export function differences({ rows, unsure }: Model, found: ReadonlyMap<number, Plain>): string[] {
  const wrong: string[] = []
  for (const id of new Set([...rows.keys(), ...unsure.keys(), ...found.keys()])) {
    const allowed = (unsure.get(id) ?? [rows.get(id)]).map(show)
    const got = show(found.get(id))
    if (!allowed.includes(got)) wrong.push(`row ${id}: expected ${allowed.join(' or ')}, got ${got}`)
  }
  return wrong.length > 5 ? [...wrong.slice(0, 5), `and ${wrong.length - 5} more rows`] : wrong
}

const show = (row: Plain | undefined): string =>
  row ? JSON.stringify([row.id, row.email, row.note, row.city]) : 'no row'
