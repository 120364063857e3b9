/** native/binding/reduction.cpp. */
// biome-ignore lint/suspicious/noEmptyInterface: filled when the family is written
export interface ReductionNative {}
