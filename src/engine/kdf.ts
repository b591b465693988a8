import { ascii, writeU32 } from '../bytes.ts'
import type { Engine } from './engine.ts'

/** Labels: 16 ASCII bytes each, one per use of the KDF. The digit is the draft of the format. */
export const LABELS = {
  record: ascii('waxseal/record/0'),
  subkey: ascii('waxseal/subkey/0'),
  keyringId: ascii('waxseal/ringid/0'),
  manifestMac: ascii('waxseal/manmac/0'),
  localKms: ascii('waxseal/lockms/0'),
} as const

const LABEL_BYTES = 16
const HEAD = 4 + LABEL_BYTES + 1

/**
 * KDF in counter mode (NIST SP 800-108r1, section 4.1) with HMAC-SHA-512, one block: 64 bytes.
 * Fixed input: counter 00000001 ‖ Label 16 ‖ 00 ‖ Context ‖ L = 512 bits as 00000200.
 */
export function kdf(engine: Engine, key: Uint8Array, label: Uint8Array, ...context: readonly Uint8Array[]): Uint8Array {
  let length = HEAD + 4
  for (const part of context) length += part.length
  const input = new Uint8Array(length)
  input[3] = 1
  input.set(label, 4)
  let at = HEAD
  for (const part of context) {
    input.set(part, at)
    at += part.length
  }
  writeU32(input, at, 512)
  return engine.hmacSha512(key, input)
}
