import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import type { VisionTowerConfig } from '../models/vision/index.ts';
import { type JsonObject, readJsonObject } from '../storage/json.ts';

/** Where Hugging Face folders say how images are prepared. */
export const processorFile = 'preprocessor_config.json';

/** The processor in a folder, or of a file; undefined where a folder has none, or none is named. @throws ERR_LIBMOE_FILE for no such file */
export function processorIn(place: string | undefined): JsonObject | undefined {
  if (place === undefined) return undefined;
  const folder = existsSync(place) && statSync(place).isDirectory();
  const file = folder ? path.join(place, processorFile) : place;
  if (folder && !existsSync(file)) return undefined;
  return readJsonObject(file, 'ERR_LIBMOE_CONFIG');
}

/** How a kind of tower was given its images when it was published. */
export function defaultProcessor({ kind, resolution: side }: VisionTowerConfig): JsonObject {
  const common = {
    do_resize: true,
    resample: 3,
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
  };
  if (kind === 'siglip')
    return {
      image_processor_type: 'SiglipImageProcessor',
      ...common,
      size: { height: side, width: side },
      image_mean: [0.5, 0.5, 0.5],
      image_std: [0.5, 0.5, 0.5],
    };
  return {
    image_processor_type: 'CLIPImageProcessor',
    ...common,
    do_convert_rgb: true,
    do_center_crop: true,
    size: { shortest_edge: side },
    crop_size: { height: side, width: side },
    // Of the images that CLIP was trained on.
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
  };
}
