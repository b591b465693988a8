import { existsSync } from 'node:fs'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { missing } from '../support/missing.ts'
import { fromRoot } from '../support/sources.ts'

const folder = fromRoot('test/native')
const why = existsSync(`${folder}/node_modules/@types/better-sqlite3`)
  ? undefined
  : 'the types of the native clients are not installed: npm ci --prefix test/native'

describe.skipIf(missing('type proofs of native clients', why))('the compiler, with the types of native clients', () => {
  it('has nothing to say about test/native', () => {
    const { config } = ts.readConfigFile(`${folder}/tsconfig.json`, ts.sys.readFile)
    const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, folder)
    expect(fileNames.length).toBeGreaterThan(0)
    const told = ts.getPreEmitDiagnostics(ts.createProgram(fileNames, options)).map(({ file, start, messageText }) => {
      const line = file && start !== undefined ? file.getLineAndCharacterOfPosition(start).line + 1 : 0
      return `${file?.fileName} line ${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
    })
    expect(told).toEqual([])
  })
})
