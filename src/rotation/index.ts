export type { JobOptions, JobReport, Progress } from './job.ts'
export {
  decryptInPlace,
  encryptInPlace,
  type RotationReport,
  reencrypt,
  rewrap,
  type TableJob,
  type VerifyReport,
  verify,
} from './jobs.ts'
export { type JobControl, jobControl, type Pace } from './pace.ts'
export { retire } from './retire.ts'
export type {
  Books,
  Change,
  Cursor,
  Filter,
  ReadRow,
  RotationSource,
  RowFailure,
  SourceRow,
  Span,
  Step,
} from './source.ts'
