import path from 'node:path';
import { drawEmoji, type EmojiArtist, emojiFile, emojiThings } from '../data/emoji.ts';
import { decodeImage, imageProcessor } from '../data/images/index.ts';
import { loadVisionLanguageModel } from '../models/vision-language/index.ts';
import { ForwardContext } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { categoryRecords } from '../report/index.ts';
import { type Column, type ColumnArray, RecordWriter } from '../storage/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.ts';
import { emojiFolder } from './emoji-source.ts';
import { defaultProcessor, processorIn } from './image-processor.ts';
import { loadAnyRecipe } from './recipe.ts';
import type { RunResult } from './run.ts';

/** Drawings that go through the model together. */
const together = 32;

/**
 * Records where the routers of tower and projector of a run's last checkpoint send an artist's drawings of the things that the run learned of, by category:
 * `routing/categories.records` in the run folder (docs/routing-records.md), which a report draws. Written anew at each call.
 * @throws ERR_LIBMOE_ARGUMENT for a run that did not learn from emoji, and what loading a model throws
 */
export async function recordCategoryRouting(
  { out, checkpoint, training }: Pick<RunResult, 'out' | 'checkpoint' | 'training'>,
  artist: EmojiArtist,
): Promise<void> {
  const recipe = loadAnyRecipe(path.join(out, 'recipe.yaml'));
  if (recipe.kind !== 'vision-language' || !('dataset' in recipe.data.train) || checkpoint === undefined)
    return fail('ERR_LIBMOE_ARGUMENT', `${out} is no run of a vision-language model that learned from emoji`);
  const { categories, first, side } = recipe.data.train;
  const things = emojiThings(categories).slice(0, first);
  const folder = emojiFolder(path.resolve(recipe.data.cache ?? path.join(path.dirname(out), 'cache')), side);
  await drawEmoji(things, folder, { side, artists: [artist] });

  using model = await loadVisionLanguageModel(checkpoint);
  const processor = imageProcessor(processorIn(checkpoint) ?? defaultProcessor(model.vision.config), {
    mode: recipe.data.imageMode,
  });
  const writer = new RecordWriter(path.join(out, categoryRecords));
  try {
    writer.truncate(() => false);
    for (const category of new Set(things.map((thing) => thing.category))) {
      const own = things.filter((thing) => thing.category === category);
      for (let at = 0; at < own.length; at += together) {
        const files = own
          .slice(at, at + together)
          .map((thing) => path.join(folder, emojiFile(artist, thing)));
        const images = await Promise.all(
          files.map(async (file) => processor.process(await decodeImage(file))),
        );
        const pixels = Float32Array.from(images.flatMap((image) => Array.from(image.pixels)));
        using context = new ForwardContext({ trace: true });
        model.eval();
        noGrad(() =>
          scope(() => {
            const size = model.vision.imageSize;
            model.imageFeatures(tensor(pixels, [pixels.length / (3 * size * size), 3, size, size]), context);
          }),
        );
        for (const { layer, call, trace } of context.records) {
          if (!trace) continue;
          const columns = { experts: await column(trace.choices), weights: await column(trace.weights) };
          const outputs = trace.probabilities?.shape[1];
          writer.append(
            { step: training.step, layer, call, category, artist, ...(outputs && { outputs }) },
            columns,
          );
        }
      }
    }
    writer.sync();
  } finally {
    writer.close();
  }
}

async function column(values: Tensor): Promise<Column> {
  return { data: (await values.read()) as ColumnArray, width: values.shape[1]! };
}
