import { resolveVisionTowerConfig, towerParameterReport, visionMoeLayersOf } from '../models/vision/index.ts';
import type { ImageTextRecipe } from './image-text-recipe.ts';
import { f32 } from './plan-blocks.ts';
import { vocabularyOf } from './plan-language.ts';
import { type Reckoning, settingsOf } from './plan-reckoning.ts';
import { type RouterOnProbe, routerOnProbe } from './plan-router.ts';
import { learnedWhole } from './plan-trained.ts';
import { towerMemory } from './plan-vision-language-memory.ts';

/** Steps that a router with a schedule is looked at where a recipe gives epochs. */
const assumedSteps = 1000;

/** What the pretraining of a tower on captions takes, wherever it runs. Captions are counted as long as the context. */
export function reckonImageText(recipe: ImageTextRecipe): Reckoning {
  const { data, training, precision, model } = recipe;
  const config = resolveVisionTowerConfig(model.vision);
  const { dModel, pool, resolution, heads, hidden } = config;
  const width = model.width ?? dModel;
  const vocabulary = vocabularyOf(recipe.tokenizer);
  const tower = towerParameterReport(config);
  const projections = (dModel + 1) * width + (width + 1) * width;
  const texts = projections + vocabulary * width + 2;
  const parameters = tower.total + texts;

  const count = data.batchSamples!;
  // One row of the context is the image's.
  const words = count * Math.max(1, data.context - 1);
  const pairs = 2 * count * words * width + 2 * count * count * width;
  const flopsPerStep = 3 * (count * (tower.flopsPerImage + 2 * projections) + pairs);
  const settings = settingsOf(recipe, { sequenceLength: data.context, batchSequences: count });
  const probes = new Map<string, RouterOnProbe>();
  const routerIn = (dtype: 'f32' | 'bf16'): RouterOnProbe | undefined => {
    if (!config.moe) return undefined;
    const layers = visionMoeLayersOf(config);
    const place = { dModel, layers: config.layers, moe: { ...config.moe, layers } };
    const found = probes.get(dtype) ?? routerOnProbe(place, dtype, training.steps ?? assumedSteps);
    probes.set(dtype, found);
    return found;
  };
  const steps = training.steps ?? null;
  return {
    name: recipe.name,
    device: recipe.device,
    precision,
    model: { kind: 'image-text', config },
    parameters,
    activeParameters: tower.active + texts,
    trainedParameters: parameters,
    tokensPerStep: count * data.context,
    flopsPerStep,
    flopsAgain: count * tower.flopsPerImage,
    steps,
    settings,
    memoryOf(change) {
      const {
        precision: dtype,
        activationCheckpointing: again,
        optimizerSlots,
        runtime,
      } = {
        ...settings,
        ...change,
      };
      const element = dtype === 'bf16' ? 2 : f32;
      const router = routerIn(dtype);
      const buffers = visionMoeLayersOf(config).length * (router?.buffers ?? 0);
      const planned = { config, report: tower, learned: learnedWhole(tower.total) };
      const images = towerMemory(planned, count, { element, again, router });
      // The last norm, and what SigLIP's head keeps: keys, values and their norm of all patches, a layer of one row per image.
      const rows = count * tower.tokensPerImage;
      const head =
        pool === 'attention' ? rows * (2 * dModel * element + heads * f32) + count * 2 * hidden * element : 0;
      const pooled = rows * (dModel * element + 2 * f32) + head + count * (dModel + width) * element;
      // Which word belongs to which text, once in f32 and once in the model's precision.
      const shares = count * words * (f32 + (dtype === 'bf16' ? element : 0));
      const captions = shares + words * f32 + 2 * count * width * element;
      // Vectors of the words, and in backward their gradients: not kept, as the shares take none.
      const vectors = words * width * element;
      // Cosines, their products with factor and signs, and what the tape keeps of them.
      const logits = 6 * count * count * f32 + 4 * count * width * f32;
      const gradients = parameters * f32;
      const kept = images.kept + pooled + captions;
      const pixels = count * 3 * resolution ** 2 * f32;
      const weights = parameters * element + buffers * f32;
      const masterWeights = dtype === 'bf16' ? parameters * f32 : 0;
      const optimizerState = parameters * f32 * optimizerSlots;
      const ofTexts = texts * f32;
      const most = Math.max(
        images.kept + images.inForward,
        kept + Math.max(logits, vectors),
        // Backward of the texts, then of the tower from its end to its beginning.
        images.kept + pooled + captions + vectors + ofTexts,
        ofTexts + images.kept + rows * dModel * element + images.inBackward,
        gradients + images.inBackward,
      );
      return {
        weights,
        masterWeights,
        gradients,
        optimizerState,
        activations: Math.max(images.kept + images.inForward, kept, images.kept + images.inBackward),
        logits,
        data: pixels,
        buckets: 0,
        runtime,
        total: weights + masterWeights + optimizerState + pixels + runtime + most,
      };
    },
    notes: [
      `every caption is counted as long as data.context, ${data.context} tokens with its image: real ones are shorter, and need less`,
      ...(steps === null
        ? ['the steps of an epoch are known when the data are read: nothing is said of the whole run']
        : []),
    ],
  };
}
