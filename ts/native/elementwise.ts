import type { Handle } from './tensors.ts';

/** native/binding/elementwise.cpp; `f` is the position in the enum of native/ops/elementwise.h. */
export interface ElementwiseNative {
  unary(f: number, x: Handle, y: Handle): void;
  unaryBackward(f: number, x: Handle, dy: Handle, dx: Handle): void;
  /** `f` counts the activations of native/ops/grouped_ffn.h; z is twice as wide as y. */
  gated(f: number, z: Handle, y: Handle): void;
  gatedBackward(f: number, z: Handle, dy: Handle, dz: Handle): void;
  binary(f: number, a: Handle, b: Handle, y: Handle): void;
  affine(x: Handle, y: Handle, alpha: number, beta: number): void;
  accumulate(x: Handle, y: Handle, alpha: number): void;
  cast(x: Handle, y: Handle): void;
  /** blocks u8 [groups, 16], scales u8 [groups], y [groups, 32]. */
  dequantiseMxfp4(blocks: Handle, scales: Handle, y: Handle): void;
  fill(y: Handle, value: number): void;
  where(mask: Handle, a: Handle, b: Handle, y: Handle): void;
}
