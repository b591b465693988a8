import {
  addJobAdhoc,
  type Job,
  type JobHelpers,
  quickAddJob,
  type Runner,
  run,
  type TaskList,
  type WorkerUtils,
} from 'graphile-worker'
import type { Keyring } from 'waxseal'
import type { RotationSource } from 'waxseal/rotation'
import { type AddJob, type RotationQueue, rotationQueue } from 'waxseal/rotation/queue'

/** Compiled by types.test.ts, never run: what graphile-worker has fits as it is. */
declare const keys: Keyring
declare const table: RotationSource
declare const utils: WorkerUtils
declare const runner: Runner
declare const helpers: JobHelpers
declare const job: Job

const rotation: RotationQueue = rotationQueue({ keys, tables: { customers: table }, jobs: ['rewrap'] })

export const tasks: TaskList = { ...rotation.tasks, mine: async () => undefined }
export const running = run({ taskList: { ...rotation.tasks } })
export const asked = [
  rotation.enqueue(utils, 'rewrap', 'customers'),
  rotation.enqueue(utils.addJob, 'rewrap', 'customers'),
  rotation.enqueue(runner, 'rewrap', 'customers'),
  rotation.enqueue(helpers, 'rewrap', 'customers'),
  rotation.enqueue((task, payload, spec) => quickAddJob({}, task, payload, spec), 'rewrap', 'customers'),
  rotation.enqueue((task, payload, spec) => addJobAdhoc({}, task, payload, spec), 'rewrap', 'customers'),
]
export const known: AddJob = utils.addJob
export const attempts: Parameters<RotationQueue['tasks'][string]>[1]['job'] = job

// @ts-expect-error no such job
rotation.enqueue(utils, 'retire', 'customers')
// @ts-expect-error the jobs that may be queued are named
rotationQueue({ keys, tables: { customers: table } })
