import type { Handle } from './tensors.ts';

/** native/binding/rotary.cpp. */
export interface RotaryNative {
  rotary(
    x: Handle,
    cosine: Handle,
    sine: Handle,
    positions: Handle,
    y: Handle,
    interleaved: boolean,
    inverse: boolean,
  ): void;
}
