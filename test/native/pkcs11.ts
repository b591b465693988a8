import { PKCS11 } from 'pkcs11js'
import { type Pkcs11Module, pkcs11Kms } from 'waxseal/kms/pkcs11'
import type { TestModule } from '../support/softhsm.ts'

/** Compiled by test/types/native.test.ts, never run: the client that applications have fits as it is. */
declare const pkcs11: PKCS11

export const fits: Pkcs11Module = pkcs11
export const fitsTests: TestModule = pkcs11
export const driver = pkcs11Kms({ pkcs11: new PKCS11(), tokenLabel: 't', pin: async () => '', keyLabel: 'k' })
// @ts-expect-error a module that can wrap but not find keys is none
export const none: Pkcs11Module = { C_WrapKey: pkcs11.C_WrapKey }
