import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import type { PixelFilter } from '../../tensor/resize-pixels.ts';

const side = z.int().min(1).max(16384);
const rectangle = z.object({ height: side, width: side });
const colour = z.array(z.number()).length(3);

/** The fields of preprocessor_config.json that say what becomes of an image; others are left alone. */
const schema = z.object({
  image_processor_type: z.string().optional(),
  feature_extractor_type: z.string().optional(),
  do_resize: z.boolean().nullish(),
  size: z.union([side, rectangle, z.object({ shortest_edge: side })]).nullish(),
  resample: z.int().min(0).max(5).nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([side, rectangle]).nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: colour.nullish(),
  image_std: colour.nullish(),
  do_pad: z.boolean().nullish(),
  image_grid_pinpoints: z.array(z.tuple([side, side])).nullish(),
  /** Of checkpoints that libmoe trained: how images became square in the training. */
  libmoe: z.object({ imageMode: z.enum(['square', 'pad', 'anyres']).optional() }).optional(),
});

/** What a processor does, with every default filled in. */
export interface ImageProcessorSettings {
  /** Absent: the image keeps its size. */
  resize?: { height: number; width: number } | { shortestEdge: number };
  filter: PixelFilter;
  crop?: { height: number; width: number };
  /** Absent: colours stay 0 to 255. */
  rescale?: number;
  normalise?: { mean: readonly number[]; std: readonly number[] };
  /** The mean that is the background of padded images, whether or not it is subtracted. */
  mean: readonly number[];
  /** What the training of the checkpoint did, else what the class does, when no mode is given. */
  mode: 'square' | 'pad' | 'anyres';
  /** Sizes (height, width) that `anyres` chooses from. */
  gridPinpoints?: readonly (readonly [height: number, width: number])[];
}

const half = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] };
const clip = {
  size: { shortestEdge: 224 },
  crop: { height: 224, width: 224 },
  resample: 3,
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};
/** The defaults of the classes of transformers, by the beginning of their name. */
const classes: Record<
  string,
  Omit<typeof clip, 'size' | 'crop'> & { size: object; crop?: typeof clip.crop }
> = {
  Siglip: { size: { height: 224, width: 224 }, resample: 3, ...half },
  CLIP: clip,
  Llava: clip,
  LlavaNext: { ...clip, size: { shortestEdge: 336 }, crop: { height: 336, width: 336 } },
  ViT: { size: { height: 224, width: 224 }, resample: 2, ...half },
};
/** Pillow's numbers. */
const filters: readonly (PixelFilter | undefined)[] = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box'];
const square = (value: number) => ({ height: value, width: value });

/** preprocessor_config.json, a path of it or its content, with the defaults of its class. Throws ERR_LIBMOE_CONFIG. */
export function imageProcessorSettings(config: unknown): ImageProcessorSettings {
  const name = typeof config === 'string' ? config : 'preprocessor_config.json';
  const content = typeof config === 'string' ? contentOf(config) : config;
  const parsed = schema.safeParse(content);
  if (!parsed.success)
    return fail('ERR_LIBMOE_CONFIG', `${name}: ${explainIssues(schema, parsed.error.issues, content)}`);
  const c = parsed.data;
  const type = c.image_processor_type ?? c.feature_extractor_type ?? 'CLIPImageProcessor';
  const family = type.replace(/(ImageProcessor|FeatureExtractor)(Fast|Pil)?$/, '');
  const defaults = classes[family];
  if (!defaults)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `${name}: expected the image processor of ${Object.keys(classes).join(', ')}, got ${type}`,
    );
  const filter = filters[c.resample ?? defaults.resample];
  if (!filter)
    return fail('ERR_LIBMOE_CONFIG', `${name}: resample ${c.resample} (Hamming) is not known here`);
  const size = c.size ?? defaults.size;
  const crop = typeof c.crop_size === 'number' ? square(c.crop_size) : (c.crop_size ?? defaults.crop);
  const cropped = c.do_center_crop ?? defaults.crop !== undefined;
  const mean = c.image_mean ?? defaults.mean;
  const ofClass =
    family === 'LlavaNext' ? 'anyres' : family === 'Llava' && c.do_pad === true ? 'pad' : 'square';
  return {
    ...(c.do_resize !== false && { resize: resizeOf(size, 'crop' in defaults) }),
    filter,
    ...(cropped && crop && { crop }),
    ...(c.do_rescale !== false && { rescale: c.rescale_factor ?? 1 / 255 }),
    ...(c.do_normalize !== false && { normalise: { mean, std: c.image_std ?? defaults.std } }),
    mean,
    mode: c.libmoe?.imageMode ?? ofClass,
    ...(c.image_grid_pinpoints && { gridPinpoints: c.image_grid_pinpoints }),
    ...(family === 'LlavaNext' && !c.image_grid_pinpoints && { gridPinpoints: llavaGrid }),
  };
}

const llavaGrid = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
] as const;

/** A number is the shortest edge for the classes that crop, both sides for the others. */
function resizeOf(size: object | number, crops: boolean): NonNullable<ImageProcessorSettings['resize']> {
  if (typeof size === 'number') return crops ? { shortestEdge: size } : square(size);
  if ('shortest_edge' in size) return { shortestEdge: size.shortest_edge as number };
  return size as NonNullable<ImageProcessorSettings['resize']>;
}

function contentOf(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    return fail('ERR_LIBMOE_CONFIG', `${path} cannot be read as JSON (${(error as Error).message})`, error);
  }
}
