import type { ImagePool } from '../data/images/index.ts';
import type { VisionLanguageBatch } from '../data/vision-batch.ts';
import { visionLanguageAdapter } from '../evaluation/index.ts';
import { matchNames } from '../models/language/index.ts';
import { readVisionLanguageWeights, writeVisionLanguageFiles } from '../models/vision-language/index.ts';
import { fail } from '../native/index.ts';
import { visionLanguageBatches } from '../training/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import {
  checkpointSteps,
  conversationLoader,
  imagePool,
  openConversationData,
  stepsOf,
  templateOf,
} from './conversation-data.ts';
import { defaultProcessor, processorIn, writeProcessor } from './image-processor.ts';
import type { Job, JobSetting } from './job.ts';
import { withLora } from './lora.ts';
import { copyTokenizer } from './prepare-tokenizer.ts';
import { resolvedVisionLanguageRecipe } from './resolve.ts';
import { describeMixtures, makeVisionLanguageModel, type VisionLanguage } from './vision-language-model.ts';
import type { VisionLanguageRecipe } from './vision-language-recipe.ts';

/** A vision-language model with its conversations. */
export async function visionLanguageJob(
  recipe: VisionLanguageRecipe,
  setting: JobSetting,
): Promise<Job<VisionLanguageBatch>> {
  const { checkpoint, log } = setting;
  const { data, training, seed, strategy } = recipe;
  const opened = await openConversationData(data, tokenizerWanted(recipe), setting);
  const { tokenizer, tokenizerFolder, conversations } = opened;
  let model: VisionLanguage | undefined;
  let images: ImagePool | undefined;
  try {
    const made = await makeVisionLanguageModel(recipe, tokenizer, checkpoint, log);
    model = made;
    freeze(made, training.trained, log);
    const parts = ['vision.', 'projector.', 'language.'];
    const lora = withLora(training.lora, made, { seed, parts, log });
    const { imageTokenId, tokensPerImage } = made;
    const { maxPositions, vocabularySize } = made.language.config;
    const processor =
      processorIn(checkpoint ?? data.processor ?? startOf(recipe)) ?? defaultProcessor(made.vision.config);
    const pool = imagePool(data, processor, made.vision.imageSize);
    images = pool;
    if (data.context > maxPositions)
      fail(
        'ERR_LIBMOE_RECIPE',
        `data.context ${data.context} is more than the language model's maxPositions ${maxPositions}`,
      );
    const template = templateOf(data, opened);
    const groups = data.groups ?? training.microBatches * strategy.data;
    const loading = { template, pool, tokensPerImage, imageTokenId, seed, groups };
    const loader = conversationLoader(data, opened, setting, loading);
    const steps = stepsOf(training, loader);
    return {
      model: made,
      loader,
      batches: visionLanguageBatches,
      steps,
      checkpointEvery: checkpointSteps(training.checkpointEvery, steps),
      resolved: resolvedVisionLanguageRecipe(recipe, vocabularySize),
      facts: describeMixtures(made),
      saveModel(folder) {
        lora.save(folder, () => writeVisionLanguageFiles(made, folder));
        copyTokenizer(tokenizerFolder, folder);
        writeProcessor(folder, processor, data);
      },
      loadModel: (folder) => lora.load(folder, () => readVisionLanguageWeights(made, folder)),
      tasks: async () => recipe.evaluation.tasks,
      evaluated: (facts) =>
        visionLanguageAdapter(made, {
          tokenizer,
          template,
          images: pool,
          preparation: [processor, data.imageMode],
          name: recipe.name,
          facts,
        }),
      callbacks: async () => [],
      async dispose() {
        made.dispose();
        await loader.close();
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

/** The checkpoint that the image processor comes from where the recipe names none. */
function startOf({ start, model }: VisionLanguageRecipe): string | undefined {
  if (start) return resolveCheckpoint(start.checkpoint);
  const vision = model?.vision;
  return vision && 'checkpoint' in vision ? resolveCheckpoint(vision.checkpoint) : undefined;
}

/** The recipe's tokenizer, else that of the checkpoint that its language model comes from. */
function tokenizerWanted({ tokenizer, start, model }: VisionLanguageRecipe) {
  const language = model && 'checkpoint' in model.language ? model.language.checkpoint : undefined;
  return tokenizer ?? resolveCheckpoint(start?.checkpoint ?? language ?? '');
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
