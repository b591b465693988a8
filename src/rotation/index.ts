export {
  type IncidentOptions,
  type IncidentProgress,
  type IncidentReport,
  type IncidentTable,
  incident,
} from './incident.ts'
export type { JobOptions, JobReport, Progress } from './job.ts'
export {
  decryptInPlace,
  encryptInPlace,
  type Reencryption,
  type RotationReport,
  reencrypt,
  rewrap,
  type TableJob,
  type VerifyReport,
  verify,
} from './jobs.ts'
export { type JobControl, jobControl, type Pace } from './pace.ts'
export { type Action, type Plan, type PlannedTable, type PlannedVersion, type PlanOptions, plan } from './plan.ts'
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
