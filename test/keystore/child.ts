import { fileKeyStore } from '../../src/keystore/file.ts'
import { document } from './document.ts'

/** A process of its own that works on a key store: `increment <file> <name> <times>` or `save <file>`. */
const [mode, file, name, times] = process.argv.slice(2) as [string, string, string, string]
const store = fileKeyStore(file)

/** A compare-and-swap until it succeeds, as everybody has to do it. */
async function increment(): Promise<void> {
  for (;;) {
    const before = (await store.load('crm'))!
    try {
      await store.save('crm', document(before.epoch + 1, `${before.manifest}${name}`), before.epoch)
      return
    } catch (error) {
      if ((error as { code?: string }).code !== 'CONFLICT') throw error
    }
  }
}

if (mode === 'increment') {
  for (let i = 0; i < Number(times); i++) await increment()
} else {
  for (;;) {
    const { epoch } = (await store.load('crm'))!
    await store.save('crm', document(epoch + 1, `${epoch + 1} `.repeat(20_000)), epoch)
    process.stdout.write('.')
  }
}
