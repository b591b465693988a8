const INSPECT = Symbol.for('nodejs.util.inspect.custom')

/**
 * Key bytes that do not print. `use(fn)` lends them, `destroy()` overwrites them. JavaScript gives no guarantee that
 * no other copy exists: the engine and the garbage collector may have made some.
 */
export class Secret {
  #bytes: Uint8Array | undefined

  /** Takes over `bytes`: the caller must not keep or change them. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  /** Lends the bytes to `fn`, which must not keep them. Throws RangeError once destroyed. */
  use<T>(fn: (bytes: Uint8Array) => T): T {
    if (!this.#bytes) throw new RangeError('"secret" was destroyed')
    return fn(this.#bytes)
  }

  get destroyed(): boolean {
    return this.#bytes === undefined
  }

  destroy(): void {
    this.#bytes?.fill(0)
    this.#bytes = undefined
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [INSPECT](): string {
    return '[redacted]'
  }
}

/** Makes an object print as `label` in console.log, util.inspect and JSON, whatever its closures hold. */
export function printsAs<T extends object>(target: T, label: string): T {
  Object.defineProperty(target, INSPECT, { value: () => label })
  Object.defineProperty(target, 'toJSON', { value: () => label })
  return target
}
