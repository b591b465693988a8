import type { Operation } from '../envelope/keys.ts'

/** Key states of NIST SP 800-57 part 1, section 7. */
export type KeyState = 'pre-active' | 'active' | 'suspended' | 'deactivated' | 'compromised' | 'destroyed'

/**
 * `policy`: refused, or allowed and reported, as was chosen when the key was suspended or marked compromised.
 * `report`: allowed, with an event at every use. `query`: to compute what to search for, never to store it.
 */
export type Rule = 'yes' | 'no' | 'policy' | 'report' | 'query'

/**
 * State × operation. A rewrap *from* the active key is `yes` because it is already where it should be; a patch reuses
 * an existing data key, so a deactivated key still allows it, and a compromised one must not.
 */
export const STATES: Readonly<Record<KeyState, Readonly<Record<Operation, Rule>>>> = {
  'pre-active': { encrypt: 'no', decrypt: 'yes', patch: 'yes', rewrap: 'no', reencrypt: 'no', index: 'query' },
  active: { encrypt: 'yes', decrypt: 'yes', patch: 'yes', rewrap: 'yes', reencrypt: 'yes', index: 'yes' },
  suspended: { encrypt: 'no', decrypt: 'policy', patch: 'no', rewrap: 'no', reencrypt: 'no', index: 'query' },
  deactivated: { encrypt: 'no', decrypt: 'yes', patch: 'yes', rewrap: 'yes', reencrypt: 'yes', index: 'query' },
  compromised: { encrypt: 'no', decrypt: 'policy', patch: 'no', rewrap: 'no', reencrypt: 'report', index: 'no' },
  destroyed: { encrypt: 'no', decrypt: 'no', patch: 'no', rewrap: 'no', reencrypt: 'no', index: 'no' },
}
