import type { StoredKeyring } from '../../src/keystore/keystore.ts'

/** A stored keyring that is well-formed and no more: stores know nothing of what is in it. */
export function document(epoch: number, manifest = `manifest of epoch ${epoch}`): StoredKeyring {
  const keys = {
    integrity: [{ uri: 'local:x', wrapped: 'AAAA' }],
    ['k'.repeat(20)]: [{ uri: 'local:x', wrapped: 'AQ' }],
  }
  return { epoch, manifest, mac: 'm'.repeat(43), keys }
}
