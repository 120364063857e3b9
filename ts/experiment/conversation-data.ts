import path from 'node:path';
import type { z } from 'zod';
import {
  type Conversations,
  type ConversationTemplate,
  conversationTemplate,
  jinjaTemplate,
  openConversations,
  VisionLanguageLoader,
} from '../data/conversations/index.ts';
import { ImagePool } from '../data/images/index.ts';
import { loadChatTemplate, loadTokenizer, type Tokenizer } from '../data/index.ts';
import { fail } from '../native/index.ts';
import type { conversationKeys } from './conversation-recipe.ts';
import { emojiConversations } from './emoji-source.ts';
import type { JobSetting } from './job.ts';
import { prepareTokenizer } from './prepare-tokenizer.ts';
import type { tokenizerSchema } from './recipe-parts.ts';

/** Conversations and their tokenizer. */
export interface ConversationData {
  tokenizer: Tokenizer;
  tokenizerFolder: string;
  conversations: Conversations;
  /** What paths of images are relative to. */
  imageFolder: string;
}

type DataKeys = z.output<z.ZodObject<typeof conversationKeys>>;

/** Opens the conversations of a recipe: rank 0 makes what is not there yet, then the others open it. */
export async function openConversationData(
  data: DataKeys & { compat?: 'fixed' | 'libmoe' },
  wanted: z.output<typeof tokenizerSchema>,
  setting: JobSetting,
): Promise<ConversationData> {
  const { strategy } = setting;
  // All have looked at the folder; one fills it.
  await strategy.reduceCounts([0]);
  let opened: ConversationData | undefined;
  await strategy.onFirstRank(async () => {
    opened = await open(data, wanted, setting, false);
  });
  return opened ?? open(data, wanted, setting, true);
}

async function open(
  { train, cache: given, compat, onBad }: DataKeys & { compat?: 'fixed' | 'libmoe' },
  wanted: z.output<typeof tokenizerSchema>,
  { out, log, signal, checkpoint }: JobSetting,
  ready: boolean,
): Promise<ConversationData> {
  const cache = path.resolve(given ?? path.join(path.dirname(out), 'cache'));
  const files = 'dataset' in train ? await emojiConversations(train, cache, { signal, log }) : train;
  const conversations = await openConversations(files.conversations, {
    onBad,
    cache,
    warn: log,
    ...(compat && { compat }),
    ...(signal && { signal }),
  });
  try {
    const tokenizerFolder = await prepareTokenizer(
      {
        wanted,
        texts: () => textsIn(conversations),
        stamp: () => ({ conversations: conversations.fingerprint }),
      },
      out,
      { log, signal, checkpoint, ready },
    );
    log(`conversations: ${conversations.length}, ${conversations.bad.count} left out`);
    const imageFolder = path.resolve(files.images);
    return { conversations, imageFolder, tokenizerFolder, tokenizer: loadTokenizer(tokenizerFolder) };
  } catch (error) {
    await conversations.close();
    throw error;
  }
}

async function* textsIn(conversations: Conversations): AsyncGenerator<string> {
  for (let i = 0; i < conversations.length; i++)
    for (const { text } of (await conversations.read(i)).turns) yield text;
}

/** How conversations are written. @throws ERR_LIBMOE_TOKENIZER for a checkpoint without a chat template */
export function templateOf(
  { template, system }: { template: string; system?: string | undefined },
  { tokenizer, tokenizerFolder }: ConversationData,
): ConversationTemplate {
  if (template === 'jinja') {
    if (system !== undefined)
      fail('ERR_LIBMOE_RECIPE', 'data.system is for the built-in templates: a chat template has its own');
    return jinjaTemplate(loadChatTemplate(tokenizerFolder));
  }
  const eos = tokenizer.eosId === undefined ? undefined : tokenizer.idToToken(tokenizer.eosId);
  return conversationTemplate(template, {
    ...(system !== undefined && { system }),
    ...(eos !== undefined && { eos }),
  });
}

/** The pool that prepares the images of a recipe for a tower of such a side. @throws ERR_LIBMOE_RECIPE for a processor of another */
export function imagePool(data: DataKeys, processor: unknown, side: number): ImagePool {
  const pool = new ImagePool({
    processor,
    mode: data.imageMode,
    ...(data.workers !== 'auto' && { workers: data.workers }),
  });
  if (pool.side === side) return pool;
  return fail(
    'ERR_LIBMOE_RECIPE',
    `images are made ${pool.side} × ${pool.side} pixels large, and the tower takes ${side}: set data.processor, or the tower's resolution`,
  );
}

/** What a loader of conversations needs beside their data. */
export interface LoaderParts {
  template: ConversationTemplate;
  pool: ImagePool;
  tokensPerImage: number;
  imageTokenId: number;
  seed: number;
  /** Parts that the grouped orders deal a batch into. */
  groups: number;
}

/** The loader of a rank. */
export function conversationLoader(
  data: DataKeys,
  { tokenizer, conversations, imageFolder }: ConversationData,
  { strategy, log }: JobSetting,
  { template, pool, ...rest }: LoaderParts,
): VisionLanguageLoader {
  return new VisionLanguageLoader(conversations, {
    ...rest,
    tokenizer,
    template,
    images: pool,
    imageFolder,
    context: data.context,
    batching:
      data.batchSamples === undefined ? { tokens: data.batchTokens! } : { samples: data.batchSamples },
    order: data.order,
    rank: strategy.rank,
    world: strategy.worldSize,
    onBad: data.onBad,
    onMissingImage: data.onMissingImage,
    warn: log,
  });
}

/** How many steps a training has that says steps, epochs, or neither (one epoch). */
export const stepsOf = (
  { steps, epochs = 1 }: { steps?: number | undefined; epochs?: number | undefined },
  loader: VisionLanguageLoader,
): number => steps ?? Math.max(1, Math.round(epochs * loader.batchesPerEpoch!));

/** Steps between checkpoints, given as such or as a share of all. */
export const checkpointSteps = (every: number, steps: number): number =>
  every < 1 ? Math.max(1, Math.ceil(every * steps)) : every;
