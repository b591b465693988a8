import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { fromRoot } from '../support/sources.ts'

interface Locked {
  readonly optionalDependencies?: Record<string, string>
  readonly resolved?: string
}

it('the lockfile has an entry for every optional package, so that npm ci works on every platform', () => {
  const { packages } = JSON.parse(readFileSync(fromRoot('package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>
  }
  const places = Object.keys(packages)
  const missing = Object.values(packages)
    .flatMap(({ optionalDependencies = {} }) => Object.keys(optionalDependencies))
    .filter((name) => !places.some((place) => place.endsWith(`node_modules/${name}`)))
  expect(missing).toEqual([])
  expect(Object.values(packages).filter(({ resolved }) => resolved !== undefined)).toEqual([])
})
