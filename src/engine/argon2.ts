import { nodeCrypto } from '#engine/node'

export interface Argon2Cost {
  readonly memoryKiB: number
  readonly passes: number
  readonly lanes: number
}

/** RFC 9106's optional inputs K and X. Nothing here uses them; its test vector does. */
interface Extra {
  readonly secret?: Uint8Array
  readonly associatedData?: Uint8Array
}

/** Node has it from 24.7 on; the types that we compile against are older. */
interface PlatformArgon2 {
  argon2?(
    algorithm: 'argon2id',
    parameters: Extra & {
      message: Uint8Array
      nonce: Uint8Array
      parallelism: number
      tagLength: number
      memory: number
      passes: number
    },
    done: (error: Error | null, key: Uint8Array) => void,
  ): void
}

/** Argon2id (RFC 9106, version 0x13): 32 bytes, in `memoryKiB` of memory. The platform's where there is one. */
export async function argon2id(
  passphrase: Uint8Array,
  salt: Uint8Array,
  { memoryKiB: memory, passes, lanes }: Argon2Cost,
  extra: Extra = {},
): Promise<Uint8Array> {
  const platform = nodeCrypto() as PlatformArgon2 | undefined
  if (platform?.argon2) {
    const parameters = { message: passphrase, nonce: salt, parallelism: lanes, tagLength: 32, memory, passes, ...extra }
    try {
      return await new Promise((resolve, reject) => {
        platform.argon2!('argon2id', parameters, (error, key) => (error ? reject(error) : resolve(key)))
      })
    } catch (error) {
      // Node has the call, but the OpenSSL that it was built against (below 3.2) has not.
      if ((error as { code?: unknown }).code !== 'ERR_CRYPTO_ARGON2_NOT_SUPPORTED') throw error
    }
  }
  const { argon2idAsync } = await import('@noble/hashes/argon2.js')
  const { secret: key, associatedData: personalization } = extra
  const options = { m: memory, t: passes, p: lanes, dkLen: 32, maxmem: memory * 1024 + (1 << 20) }
  return argon2idAsync(passphrase, salt, {
    ...options,
    ...(key && { key }),
    ...(personalization && { personalization }),
  })
}
