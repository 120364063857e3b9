import type { Handle } from './tensors.ts';

/** native/binding/image.cpp. */
export interface ImageNative {
  interpolate(x: Handle, y: Handle, mode: number): void;
  interpolateBackward(dy: Handle, dx: Handle, mode: number): void;
  resizePixels(
    pixels: Uint8Array,
    width: number,
    height: number,
    channels: number,
    to: Uint8Array,
    toWidth: number,
    toHeight: number,
    filter: number,
  ): void;
}
