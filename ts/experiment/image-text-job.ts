import path from 'node:path';
import { conversationTemplate } from '../data/conversations/index.ts';
import type { ImagePool } from '../data/images/index.ts';
import type { VisionLanguageBatch } from '../data/vision-batch.ts';
import {
  ImageTextModel,
  newVisionTower,
  readTowerTensors,
  towerPrefixIn,
  writeVisionTowerFiles,
} from '../models/vision/index.ts';
import { fail } from '../native/index.ts';
import { openSafetensors, writeSafetensors } from '../storage/index.ts';
import { visionLanguageBatches } from '../training/index.ts';
import {
  checkpointSteps,
  conversationLoader,
  imagePool,
  openConversationData,
  stepsOf,
} from './conversation-data.ts';
import { defaultProcessor, processorIn, writeProcessor } from './image-processor.ts';
import type { ImageTextRecipe } from './image-text-recipe.ts';
import type { Job, JobSetting } from './job.ts';
import { copyTokenizer } from './prepare-tokenizer.ts';
import { resolvedImageTextRecipe } from './resolve.ts';
import { describeMixtures } from './vision-language-model.ts';

/** What a checkpoint holds beside the tower. */
const textFile = 'text.safetensors';

/** A tower that learns from captions. */
export async function imageTextJob(
  recipe: ImageTextRecipe,
  setting: JobSetting,
): Promise<Job<VisionLanguageBatch>> {
  const { data, model: wanted, seed, precision: dtype, training } = recipe;
  const opened = await openConversationData(data, recipe.tokenizer, setting);
  const { tokenizer, tokenizerFolder, conversations } = opened;
  let model: ImageTextModel | undefined;
  let images: ImagePool | undefined;
  try {
    const { vocabularySize } = tokenizer;
    const tower = newVisionTower(wanted.vision, { seed, dtype });
    const made = new ImageTextModel(tower, { ...wanted, vocabularySize }, { seed, dtype });
    model = made;
    const processor = processorIn(setting.checkpoint ?? data.processor) ?? defaultProcessor(tower.config);
    const pool = imagePool(data, processor, tower.imageSize);
    images = pool;
    const loader = conversationLoader(data, opened, setting, {
      template: conversationTemplate('plain'),
      pool,
      tokensPerImage: 1,
      imageTokenId: vocabularySize,
      seed,
      groups: data.groups ?? 1,
    });
    const steps = stepsOf(training, loader);
    const others = (): Map<string, (typeof made)['logitScale']> =>
      new Map([...made.stateDict()].filter(([name]) => !name.startsWith('vision.')));
    return {
      model: made,
      loader,
      batches: visionLanguageBatches,
      steps,
      checkpointEvery: checkpointSteps(training.checkpointEvery, steps),
      resolved: resolvedImageTextRecipe(recipe),
      facts: describeMixtures(made),
      saveModel(folder) {
        writeVisionTowerFiles(tower, folder);
        writeSafetensors(path.join(folder, textFile), others());
        copyTokenizer(tokenizerFolder, folder);
        writeProcessor(folder, processor, data);
      },
      loadModel(folder) {
        const files = openSafetensors(folder);
        readTowerTensors(tower, files, folder, tower.config.moe ? '' : towerPrefixIn(files, folder));
        const texts = openSafetensors(path.join(folder, textFile));
        for (const [name, target] of others()) {
          using value = texts.read(name, { device: 'cpu' });
          target.write(value.readSync());
        }
      },
      tasks: async () => [],
      evaluated: () =>
        fail(
          'ERR_LIBMOE_UNSUPPORTED',
          'a tower that learns from captions is evaluated in a vision-language model',
        ),
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
