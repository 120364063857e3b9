import path from 'node:path';
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
import type { VisionLanguageBatch } from '../data/vision-batch.ts';
import { evaluate } from '../evaluation/index.ts';
import { visionLanguageAdapter } from '../evaluation/vision-language-adapter.ts';
import { matchNames } from '../models/language/index.ts';
import { readVisionLanguageWeights, writeVisionLanguageFiles } from '../models/vision-language/index.ts';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/index.ts';
import { visionLanguageBatches } from '../training/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import { emojiConversations } from './emoji-source.ts';
import { finished } from './evaluation.ts';
import { defaultProcessor, processorFile, processorIn } from './image-processor.ts';
import type { Job, JobSetting } from './job.ts';
import { copyTokenizer, prepareTokenizer } from './prepare-tokenizer.ts';
import { resolvedVisionLanguageRecipe } from './resolve.ts';
import { describeParts, makeVisionLanguageModel, type VisionLanguage } from './vision-language-model.ts';
import type { VisionLanguageRecipe } from './vision-language-recipe.ts';

/** A vision-language model with its conversations. */
export async function visionLanguageJob(
  recipe: VisionLanguageRecipe,
  setting: JobSetting,
): Promise<Job<VisionLanguageBatch>> {
  const { checkpoint, strategy, log } = setting;
  // All have looked at the folder; one fills it.
  await strategy.reduceCounts([0]);
  let opened: Opened | undefined;
  await strategy.onFirstRank(async () => {
    opened = await open(recipe, setting, false);
  });
  const { tokenizer, tokenizerFolder, conversations, imageFolder } =
    opened ?? (await open(recipe, setting, true));
  let model: VisionLanguage | undefined;
  let images: ImagePool | undefined;
  try {
    const made = await makeVisionLanguageModel(recipe, tokenizer, checkpoint, log);
    model = made;
    freeze(made, recipe.training.trained, log);
    const { data } = recipe;
    const processor =
      processorIn(data.processor ?? checkpoint ?? startOf(recipe)) ?? defaultProcessor(made.vision.config);
    const pool = new ImagePool({
      processor,
      mode: data.imageMode,
      ...(data.workers !== 'auto' && { workers: data.workers }),
    });
    images = pool;
    if (pool.side !== made.vision.imageSize)
      fail(
        'ERR_LIBMOE_RECIPE',
        `images are made ${pool.side} × ${pool.side} pixels large, and the tower takes ${made.vision.imageSize}: set data.processor, or the tower's resolution`,
      );
    const template = templateOf(recipe, tokenizer, tokenizerFolder);
    const loader = loaderOf(recipe, setting, {
      conversations,
      tokenizer,
      template,
      pool,
      model: made,
      imageFolder,
    });
    const steps = stepsOf(recipe, loader);
    const { checkpointEvery } = recipe.training;
    const parameters = made.parameterCount();
    return {
      model: made,
      loader,
      batches: visionLanguageBatches,
      steps,
      checkpointEvery:
        checkpointEvery < 1 ? Math.max(1, Math.ceil(checkpointEvery * steps)) : checkpointEvery,
      resolved: resolvedVisionLanguageRecipe(recipe, made.language.config.vocabularySize),
      facts: { ...describeParts(made), parameters },
      saveModel(folder) {
        writeVisionLanguageFiles(made, folder);
        copyTokenizer(tokenizerFolder, folder);
        writeFileAtomically(path.join(folder, processorFile), `${JSON.stringify(processor, null, 2)}\n`);
      },
      loadModel: (folder) => readVisionLanguageWeights(made, folder),
      tasks: async () => recipe.evaluation.tasks,
      async evaluate(folder, tasks, signal) {
        const { scorer, limit } = recipe.evaluation;
        const adapter = visionLanguageAdapter(made, {
          tokenizer,
          template,
          images: pool,
          preparation: [processor, data.imageMode],
          name: recipe.name,
        });
        const progress = evaluate(adapter, {
          tasks,
          out: folder,
          scorer,
          ...(limit && { limit }),
          ...(signal && { signal }),
        });
        return finished(progress, signal);
      },
      callbacks: async () => [],
      async dispose() {
        made.dispose();
        await pool.close();
        await conversations.close();
      },
    };
  } catch (error) {
    model?.dispose();
    await images?.close();
    await conversations.close();
    throw error;
  }
}

interface Opened {
  /** What paths of images are relative to. */
  imageFolder: string;
  tokenizer: Tokenizer;
  tokenizerFolder: string;
  conversations: Conversations;
}

/** The checkpoint that tokenizer and image processor come from where the recipe names none. */
function startOf({ start, model }: VisionLanguageRecipe): string | undefined {
  if (start) return resolveCheckpoint(start.checkpoint);
  const vision = model?.vision;
  return vision && 'checkpoint' in vision ? vision.checkpoint : undefined;
}

async function open(recipe: VisionLanguageRecipe, setting: JobSetting, ready: boolean): Promise<Opened> {
  const { out, log, signal, checkpoint } = setting;
  const { data, model, start } = recipe;
  const cache = path.resolve(data.cache ?? path.join(path.dirname(out), 'cache'));
  const { train } = data;
  const files = 'dataset' in train ? await emojiConversations(train, cache, { signal, log }) : train;
  const conversations = await openConversations(files.conversations, {
    compat: data.compat,
    onBad: data.onBad,
    cache,
    warn: log,
    ...(signal && { signal }),
  });
  try {
    const language = model && 'checkpoint' in model.language ? model.language.checkpoint : undefined;
    const tokenizerFolder = await prepareTokenizer(
      {
        wanted: recipe.tokenizer ?? resolveCheckpoint(start?.checkpoint ?? language ?? ''),
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

function templateOf(
  { data: { template, system } }: VisionLanguageRecipe,
  tokenizer: Tokenizer,
  tokenizerFolder: string,
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

function loaderOf(
  { data, seed, training, strategy: { data: ranks } }: VisionLanguageRecipe,
  { strategy, log }: JobSetting,
  parts: {
    conversations: Conversations;
    tokenizer: Tokenizer;
    template: ConversationTemplate;
    pool: ImagePool;
    model: VisionLanguage;
    imageFolder: string;
  },
): VisionLanguageLoader {
  const { conversations, tokenizer, template, pool, model, imageFolder } = parts;
  const { maxPositions } = model.language.config;
  if (data.context > maxPositions)
    fail(
      'ERR_LIBMOE_RECIPE',
      `data.context ${data.context} is more than the language model's maxPositions ${maxPositions}`,
    );
  return new VisionLanguageLoader(conversations, {
    tokenizer,
    template,
    images: pool,
    imageFolder,
    context: data.context,
    tokensPerImage: model.tokensPerImage,
    imageTokenId: model.imageTokenId,
    batching:
      data.batchSamples === undefined ? { tokens: data.batchTokens! } : { samples: data.batchSamples },
    order: data.order,
    groups: training.microBatches * ranks,
    seed,
    rank: strategy.rank,
    world: strategy.worldSize,
    onBad: data.onBad,
    onMissingImage: data.onMissingImage,
    warn: log,
  });
}

function stepsOf(
  { training: { steps, epochs = 1 } }: VisionLanguageRecipe,
  loader: VisionLanguageLoader,
): number {
  return steps ?? Math.max(1, Math.round(epochs * loader.batchesPerEpoch!));
}

/** Only what is trained takes gradients. */
function freeze(model: VisionLanguage, trained: readonly string[], log: (line: string) => void): void {
  const parameters = model.namedParameters();
  const { matched, rest } = matchNames([...parameters.keys()], trained);
  for (const name of rest) parameters.get(name)!.requiresGrad = false;
  if (rest.length === 0) return;
  const count = [...matched].reduce((sum, name) => sum + parameters.get(name)!.size, 0);
  log(
    `trained: ${count.toLocaleString('en')} parameters (${trained.join(', ')}); the others stay as they are`,
  );
}
