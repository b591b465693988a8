import { ascii } from '../bytes.ts'
import type { Engine } from './engine.ts'

/** The fixed input up to the context: counter 00000001 ‖ Label, 16 ASCII bytes ‖ 00. The digit is the format's draft. */
const label = (text: string): Uint8Array => Uint8Array.of(0, 0, 0, 1, ...ascii(text), 0)

/** One label for each use of the KDF. */
export const LABELS = {
  record: label('waxseal/record/0'),
  subkey: label('waxseal/subkey/0'),
  keyringId: label('waxseal/ringid/0'),
  manifestMac: label('waxseal/manmac/0'),
  keyCheck: label('waxseal/keychk/0'),
  localKms: label('waxseal/lockms/0'),
} as const

/** L: 512 bits. */
const LENGTH = Uint8Array.of(0, 0, 2, 0)

/**
 * KDF in counter mode (NIST SP 800-108r1, section 4.1) with HMAC-SHA-512, one block: 64 bytes.
 * Fixed input: counter 00000001 ‖ Label 16 ‖ 00 ‖ Context ‖ L = 512 bits as 00000200.
 */
export function kdf(engine: Engine, key: Uint8Array, label: Uint8Array, ...context: readonly Uint8Array[]): Uint8Array {
  return engine.hmacSha512(key, [label, ...context, LENGTH])
}
