import { z } from 'zod';
import { emojiSourceSchema } from './emoji-source.ts';
import { count } from './recipe-parts.ts';

const oneOrMore = z.union([z.string(), z.array(z.string()).min(1)]);

/** What `data` holds in recipes that learn from conversations about images, or from captions. */
export const conversationKeys = {
  train: z.union([
    z.strictObject({
      /** Files in LLaVA's format, .json or .jsonl. */
      conversations: oneOrMore,
      /** The folder that their image paths are relative to. */
      images: z.string().default('.'),
    }),
    emojiSourceSchema,
  ]),
  /** Longest conversation in tokens, its images included; longer ones are cut. */
  context: count.default(2048),
  /** Conversations per optimizer step; or give `batchTokens`, as many as have so many tokens. */
  batchSamples: count.optional(),
  batchTokens: count.optional(),
  /** `length`, `modality`: conversations of like length (and all with or all without images) come together, as LibMoE deals them. */
  order: z.enum(['none', 'shuffle', 'length', 'modality']).default('shuffle'),
  /**
   * For the grouped orders: parts of like length that a batch is dealt into; default microBatches × ranks. A run that goes on with another number of
   * ranks needs that of its beginning.
   */
  groups: count.optional(),
  /** How an image becomes square: `pad` on a canvas, `square` as the processor has it, `anyres` in tiles. */
  imageMode: z.enum(['pad', 'square', 'anyres']).default('pad'),
  /** A preprocessor_config.json or its folder; default: that of the tower's checkpoint, else what its kind was trained with. */
  processor: z.string().optional(),
  /** Conversations with an image that is missing or broken: left out, with a black image, or the run stops. */
  onMissingImage: z.enum(['skip', 'black', 'stop']).default('skip'),
  /** Conversations that cannot be learned from: left out, or the run stops. */
  onBad: z.enum(['skip', 'stop']).default('skip'),
  /** Threads that read images. `auto`: one less than there are cores. */
  workers: z.union([z.literal('auto'), z.number().int().min(0).max(256)]).default('auto'),
  /** Where indices of the conversations are kept; default `cache/` in the run folder's parent. */
  cache: z.string().optional(),
};

/** Checks of these keys what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkConversationKeys(
  {
    data,
    training,
    strategy,
  }: {
    data: { batchSamples?: number | undefined; batchTokens?: number | undefined; order: string };
    training: { microBatches: number; steps?: number | undefined; epochs?: number | undefined };
    strategy: { data: number };
  },
  refuse: (message: string) => never,
): void {
  if ((data.batchSamples === undefined) === (data.batchTokens === undefined))
    refuse(
      'expected either data.batchSamples (conversations per step) or data.batchTokens (tokens per step)',
    );
  const parts = training.microBatches * strategy.data;
  if (data.batchSamples !== undefined && data.batchSamples % parts !== 0)
    refuse(
      `data.batchSamples ${data.batchSamples} is not a multiple of ${parts}, training.microBatches × strategy.data`,
    );
  if (training.steps !== undefined && training.epochs !== undefined)
    refuse('expected either training.steps or training.epochs, got both');
  if (data.batchTokens !== undefined && training.steps === undefined)
    refuse('with data.batchTokens nobody knows how many steps an epoch has: set training.steps');
  if (data.order !== 'none' && data.order !== 'shuffle' && data.batchSamples === undefined)
    refuse(`data.order ${data.order} needs data.batchSamples`);
}

/** How long such a training is, and when it leaves checkpoints. */
export const conversationTrainingKeys = {
  /** Give either steps or epochs. Default: one epoch. */
  steps: count.optional(),
  epochs: z.number().positive().optional(),
  /** A checkpoint after so many steps, or after such a share of all of them (0.1: ten checkpoints). */
  checkpointEvery: z.union([count, z.number().gt(0).lt(1)]).default(0.1),
};
