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
} from './jobs.ts'
export { type JobControl, jobControl, type Pace } from './pace.ts'
export { type Action, type Plan, type PlannedTable, type PlannedVersion, type PlanOptions, plan } from './plan.ts'
export { proveEncrypted } from './proof.ts'
export { type RetireOptions, type RetireReport, retire } from './retire.ts'
export type {
  Books,
  Census,
  Change,
  Cursor,
  Filter,
  Guard,
  ReadRow,
  RotationSource,
  RowFailure,
  SourceRow,
  Span,
  Step,
} from './source.ts'
export { type SampleReport, type VerifyJob, type VerifyReport, verify } from './verify.ts'
