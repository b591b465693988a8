import type { Manifest, Version } from './manifest.ts'

/** When a staged version may be promoted: ms since the epoch. */
export function readyAt(manifest: Manifest, version: Version): number {
  return (version.history[0]?.at ?? 0) + manifest.propagationMs
}
