/** native/binding/grouped_ffn.cpp. */
// biome-ignore lint/suspicious/noEmptyInterface: filled when the family is written
export interface GroupedFfnNative {}
