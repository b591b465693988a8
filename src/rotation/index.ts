export { retire } from './retire.ts'
export { type Progress, type RewrapOptions, type RewrapReport, type RowFailure, rewrap } from './rewrap.ts'
export type { Checkpoint, Cursor, RotationSource, SourceRow, Swap } from './source.ts'
