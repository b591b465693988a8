import { nodeCrypto } from '#engine/node'

/** scrypt (RFC 7914) with r = 8, p = 1: 32 bytes, in 2^log2N · 1 KiB of memory. The platform's where there is one. */
export async function scrypt(passphrase: Uint8Array, salt: Uint8Array, log2N: number): Promise<Uint8Array> {
  const cost = 2 ** log2N
  const crypto = nodeCrypto()
  if (crypto) {
    return new Promise((resolve, reject) => {
      const options = { N: cost, r: 8, p: 1, maxmem: cost * 1024 + (1 << 20) }
      crypto.scrypt(passphrase, salt, 32, options, (error, key) => (error ? reject(error) : resolve(key)))
    })
  }
  const { scryptAsync } = await import('@noble/hashes/scrypt.js')
  return scryptAsync(passphrase, salt, { N: cost, r: 8, p: 1, dkLen: 32, maxmem: cost * 1024 + (1 << 20) })
}
