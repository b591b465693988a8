import type { CryptographyClient } from '@azure/keyvault-keys'
import type { KeyManagementServiceClient } from '@google-cloud/kms'
import type nodeVault from 'node-vault'
import { type AzureCryptographyClient, azureKms } from 'waxseal/kms/azure'
import { type GoogleKmsClient, googleKms } from 'waxseal/kms/google'
import { type VaultClient, vaultTransit } from 'waxseal/kms/vault'

/** Compiled by types.test.ts, never run: the clients that applications have fit as they are. */
declare const google: KeyManagementServiceClient
declare const azure: CryptographyClient
declare const vault: nodeVault.client

export const clients: [GoogleKmsClient, AzureCryptographyClient, VaultClient] = [google, azure, vault]
export const drivers = [
  googleKms({ client: google, keyName: '' }),
  azureKms({ client: azure, algorithm: 'RSA-OAEP-256' }),
  vaultTransit({ client: vault, key: 'crm' }),
  vaultTransit({ address: 'https://vault.example.com', token: async () => '', key: 'crm', namespace: 'team' }),
]
// @ts-expect-error another service's client
export const mixed: GoogleKmsClient = azure
// @ts-expect-error the key is named
googleKms({ client: google })
// @ts-expect-error the algorithm is a choice with consequences
azureKms({ client: azure })
// @ts-expect-error SHA-1
azureKms({ client: azure, algorithm: 'RSA-OAEP' })
// @ts-expect-error an address without a token
vaultTransit({ address: 'https://vault.example.com', key: 'crm' })
// @ts-expect-error neither a client nor an address
vaultTransit({ key: 'crm' })
