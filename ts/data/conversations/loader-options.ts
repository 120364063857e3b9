import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import type { Tokenizer } from '../tokenizer.ts';
import type { Batching } from './batch-plan.ts';
import type { Conversations } from './conversations.ts';
import type { ImageSource } from './image-source.ts';
import type { SampleOrder } from './order.ts';
import type { ConversationTemplate } from './templates.ts';

/** Options of {@link VisionLanguageLoader}. */
export interface VisionLanguageLoaderOptions {
  tokenizer: Tokenizer;
  template: ConversationTemplate;
  /** Where images come from; may be left out for data without any. */
  images?: ImageSource;
  /** What paths of images are relative to. Default: the current folder. */
  imageFolder?: string;
  /** Most tokens of a sample, images included. */
  context: number;
  /** Rows that an image, or a tile of one, takes. */
  tokensPerImage: number;
  /**
   * The id that stands in these rows: one of the model's vocabulary, which may be larger than the tokenizer's, that text does not give. Records
   * whose text does give it are bad.
   */
  imageTokenId: number;
  /** What makes a batch, over all ranks. */
  batching: Batching;
  /** Default `shuffle`. The grouped orders need batches of `samples`. */
  order?: SampleOrder;
  /** Parts of about equal length that the grouped orders deal a batch into, the original's devices × accumulation steps. Default 1. */
  groups?: number;
  seed?: number;
  /** Epochs until the end; default without end. */
  epochs?: number;
  rank?: number;
  world?: number;
  /** Batches that are made ahead. Default 2. */
  prefetch?: number;
  /** A conversation that cannot be learned from: is left out and counted (default), or stops everything. */
  onBad?: 'skip' | 'stop';
  /** An image that is missing or broken: its sample is left out (default), the image is taken to be black, or everything stops. Always counted. */
  onMissingImage?: 'skip' | 'black' | 'stop';
  /** Hears of the first few samples that are left out or cut, by file and record. Default: a line on stderr. */
  warn?: (message: string) => void;
}

/** Options with every default filled in. */
export type ResolvedLoaderOptions = Required<Omit<VisionLanguageLoaderOptions, 'images'>> & {
  images?: ImageSource;
  side: number;
};

const count = z.number().int().min(1);
const schema = z.strictObject({
  imageFolder: z.string().default('.'),
  context: z.number().int().min(2),
  tokensPerImage: count,
  imageTokenId: z.number().int().nonnegative(),
  batching: z.union([
    z.strictObject({ samples: count }),
    z.strictObject({ tokens: count }),
    z.strictObject({ bins: count, window: count.optional() }),
  ]),
  order: z.enum(['none', 'shuffle', 'length', 'modality']).default('shuffle'),
  groups: count.default(1),
  seed: z.number().int().nonnegative().default(0),
  epochs: z.union([count, z.literal(Number.POSITIVE_INFINITY)]).default(Number.POSITIVE_INFINITY),
  rank: z.number().int().nonnegative().default(0),
  world: count.default(1),
  prefetch: z.number().int().min(0).max(64).default(2),
  onBad: z.enum(['skip', 'stop']).default('skip'),
  onMissingImage: z.enum(['skip', 'black', 'stop']).default('skip'),
});

/** Throws ERR_LIBMOE_ARGUMENT unless the options fit each other and the data. */
export function checkedLoaderOptions(
  data: Conversations,
  options: VisionLanguageLoaderOptions,
): ResolvedLoaderOptions {
  const {
    tokenizer,
    template,
    images,
    warn = (message: string) => console.error(message),
    ...plain
  } = options;
  const parsed = schema.safeParse(plain);
  const refuse = (why: string): never => fail('ERR_LIBMOE_ARGUMENT', `VisionLanguageLoader: ${why}`);
  if (!parsed.success) return refuse(explainIssues(schema, parsed.error.issues, plain));
  const { rank, world, batching, order, groups, context } = parsed.data;
  if (rank >= world) refuse(`rank must lie in 0…${world - 1}, got ${rank}`);
  const size =
    'samples' in batching
      ? batching.samples
      : 'bins' in batching
        ? batching.bins
        : Math.floor(batching.tokens / context);
  if (size < world)
    refuse(
      `a batch needs at least a sample (or bin, or ${context} tokens) for each of ${world} ranks, got ${JSON.stringify(batching)}`,
    );
  if ((order === 'length' || order === 'modality') && !('samples' in batching))
    refuse(`the order ${order} groups batches of { samples }, got ${JSON.stringify(batching)}`);
  if ('samples' in batching && batching.samples % groups !== 0)
    refuse(`batching.samples must be a multiple of the ${groups} groups, got ${batching.samples}`);
  if (data.compat === 'libmoe' && template.rounds === undefined && template.name !== 'plain')
    refuse(`how LibMoE masks labels is not known for the template ${template.name}: use compat "fixed"`);
  if (images === undefined && data.words.some((words) => words > 0))
    refuse('the conversations have images: give images, where to load them from');
  return { ...parsed.data, tokenizer, template, warn, side: images?.side ?? 0, ...(images && { images }) };
}
