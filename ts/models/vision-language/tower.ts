import type { ForwardContext } from '../../moe/index.ts';
import type { Module } from '../../nn/module.ts';
import type { Tensor } from '../../tensor/index.ts';

/** What turns images into features: a VisionTower, or any module that does as much. */
export interface ImageTower extends Module {
  /** Pixels along each side of an image. */
  readonly imageSize: number;
  /** Rows that an image gives. */
  readonly tokensPerImage: number;
  /** Width of a row. */
  readonly featureWidth: number;
  /** Recompute each layer during backward instead of keeping its intermediate results. */
  activationCheckpointing?: boolean;
  /**
   * @param pixels `[images, 3, imageSize, imageSize]`, f32 or the dtype of the tower
   * Losses of its layers are means over them: see ForwardContext.part().
   * @param options `counted`: of each image whether routers and losses are to count it; default: all
   * @returns `[images · tokensPerImage, featureWidth]`
   */
  forward(pixels: Tensor, context?: ForwardContext, options?: { counted?: readonly boolean[] }): Tensor;
}
