import type { NewModelOptions } from '../../../ts/models/language/index.ts';
import {
  newVisionTower,
  type VisionTower,
  type VisionTowerOptions,
} from '../../../ts/models/vision/index.ts';
import { type Dtype, type Tensor, tensor } from '../../../ts/tensor/index.ts';

/** A SigLIP tower that runs in milliseconds: 3 × 3 patches. */
export const tinySiglip: VisionTowerOptions = {
  kind: 'siglip',
  imageSize: 12,
  patchSize: 4,
  dModel: 12,
  layers: 4,
  heads: 3,
  hidden: 20,
};
export const tinyClip: VisionTowerOptions = { ...tinySiglip, kind: 'clip' };
export const tinyExperts = { experts: 4, topK: 2 };

export const tinyTower = (
  config: VisionTowerOptions = tinySiglip,
  options: NewModelOptions = {},
): VisionTower => newVisionTower(config, { seed: 1, ...options });

/** Deterministic pixels without pattern, [images, 3, side, side]. */
export const somePixels = (images: number, side: number, dtype: Dtype = 'f32'): Tensor =>
  tensor(
    Float64Array.from(
      { length: images * 3 * side * side },
      (_, i) => Math.sin(12.9898 * (i + 1)) + 0.3 * Math.cos(4.7 * i),
    ),
    [images, 3, side, side],
    { dtype },
  );
