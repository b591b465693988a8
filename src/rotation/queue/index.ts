export type { AddJob, Named, QueueSpec, QueueTask, TaskHelpers } from './client.ts'
export type { JobKind } from './kinds.ts'
export { type RotationQueue, type RotationQueueOptions, type RunReport, rotationQueue } from './queue.ts'
export { RUN_TABLES, type RunState, type RunStatus } from './runs.ts'
