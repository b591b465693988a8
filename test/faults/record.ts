import { int, records, text } from '../../src/index.ts'

export type Shape = 'columns' | 'packed'
export type Phase = 'prepare' | 'encrypt' | 'strict'

const UNTIL = new Date(Date.UTC(2100, 0, 1))

/** The record that all processes share. */
export const recordOf = (shape: Shape, phase: Phase = 'strict') =>
  records('accounts', {
    id: { id: int() },
    fields: { email: text(), note: text({ nullable: true }) },
    shape,
    ...(phase !== 'strict' && { migrate: { phase, until: UNTIL } }),
  })

export type AccountRecord = ReturnType<typeof recordOf>

/** A row as it is stored; without an envelope while it is plaintext. */
export type Stored = { readonly envelope: string | null }

export const otherShape = (shape: Shape): Shape => (shape === 'columns' ? 'packed' : 'columns')
/** As an application that reads two shapes tells them apart. */
export const shapeOf = ({ envelope }: Stored): Shape => (envelope?.startsWith('wxp:') ? 'packed' : 'columns')
