import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import type { VisionTowerConfig } from '../models/vision/index.ts';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/index.ts';
import { type JsonObject, readJsonObject } from '../storage/json.ts';
import { explainIssues } from '../storage/schema-errors.ts';

/** Where Hugging Face folders say how images are prepared. */
const processorFile = 'preprocessor_config.json';

/** What a training did with conversations and their images beyond what a processor says; whoever asks its checkpoint does the same. */
const trainedFormSchema = z.object({
  imageMode: z.enum(['pad', 'square', 'anyres']).optional(),
  template: z.string().optional(),
  system: z.string().optional(),
});
/** The keys of `data` that belong to a checkpoint. */
export type TrainedForm = z.output<typeof trainedFormSchema>;

/** The processor in a folder, or of a file, without the form of the training that stands in it; undefined where a folder has none, or none is named. @throws ERR_LIBMOE_FILE for no such file */
export function processorIn(place: string | undefined): JsonObject | undefined {
  const content = contentIn(place);
  if (content === undefined) return undefined;
  const { libmoe: _, ...processor } = content;
  return processor;
}

/** How the model of a checkpoint folder was trained to see and converse; nothing where no training of libmoe wrote it. @throws ERR_LIBMOE_CONFIG */
export function trainedFormIn(checkpoint: string): TrainedForm {
  const form = contentIn(checkpoint)?.libmoe ?? {};
  const parsed = trainedFormSchema.safeParse(form);
  if (parsed.success) return parsed.data;
  const why = explainIssues(trainedFormSchema, parsed.error.issues, form);
  return fail('ERR_LIBMOE_CONFIG', `${path.join(checkpoint, processorFile)}: libmoe: ${why}`);
}

/** Writes the processor of a checkpoint with the form of its training in a block that other programs leave alone. */
export function writeProcessor(
  folder: string,
  processor: JsonObject,
  { imageMode, template, system }: TrainedForm,
): void {
  const form = {
    ...(imageMode && { imageMode }),
    ...(template && { template }),
    ...(system !== undefined && { system }),
  };
  const content = { ...processor, libmoe: { version: 1, ...form } };
  writeFileAtomically(path.join(folder, processorFile), `${JSON.stringify(content, null, 2)}\n`);
}

function contentIn(place: string | undefined): JsonObject | undefined {
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
