import { KMS, KMSClient } from '@aws-sdk/client-kms'
import { type AwsKmsClient, awsKms } from 'waxseal/kms/aws'

/** Compiled by types.test.ts, never run: the client that applications have fits as it is. */
declare const kms: KMS

export const fits: AwsKmsClient = kms
export const driver = awsKms({ client: new KMS({ region: 'eu-central-1' }), keyId: '' })
// @ts-expect-error it has no method for each operation: KMS has
export const bare: AwsKmsClient = new KMSClient({})
// @ts-expect-error the key is part of every request
export const keyless = awsKms({ client: kms })
