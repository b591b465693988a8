import postgres from 'postgres'
import { openKeyring } from '../../src/index.ts'
import { postgresKeyStore } from '../../src/keystore/postgres.ts'
import { localKms } from '../../src/kms/local.ts'

/**
 * A process of its own that changes the keyring `crm`: `rotate <url> <table> <root>` stages a version each time it is told
 * `go`, and sends what came of it; `endless …` rotates and promotes until it is killed, and prints a dot each time.
 */
const [mode, url, table, root] = process.argv.slice(2) as [string, string, string, string]
const sql = postgres(url, { max: 1, onnotice: () => {} })
const keys = await openKeyring({ name: 'crm', store: postgresKeyStore(sql, { table }), kms: localKms(root) })

if (mode === 'endless') {
  for (;;) {
    const id = await keys.rotate()
    // Another may have promoted the same version a moment before.
    await keys.promote(id, { urgent: true }).catch((error: { code?: unknown }) => {
      if (error.code !== 'KEY_STATE') throw error
    })
    process.stdout.write('.')
  }
}
process.on('message', async () => {
  const told = await keys.rotate().catch((error: { code?: unknown }) => `failed: ${String(error.code)}`)
  process.send!(told)
})
process.on('disconnect', () => process.exit(0))
process.send!('ready')
