/** True when two types are the same, not only assignable to one another. */
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles when the claim holds. */
export function holds<_Claim extends true>(): void {}

/** Compiles when the value has exactly the type. */
export const exactly = <Wanted>() => ({
  is: <Got>(_value: Got, ..._same: Equal<Wanted, Got> extends true ? [] : [never]): void => {},
})
