import { fileKeyStore } from '../../src/keystore/file.ts'
import { faults } from './counted-fs.ts'
import { document } from './document.ts'

/** `<file> <n>`: a process that saves epoch 2 over epoch 1 and is killed by SIGKILL before its n-th file operation. */
const [file, n] = process.argv.slice(2) as [string, string]
let count = 0
faults.instant = () => {
  if (++count === Number(n)) process.kill(process.pid, 'SIGKILL')
}
await fileKeyStore(file).save('crm', document(2, 'x'.repeat(100_000)), 1)
