import { existsSync } from 'node:fs';
import { readModelConfig } from '../models/language/checkpoint.ts';
import { parameterReport, resolveLanguageModelConfig } from '../models/language/index.ts';
import {
  readVisionTowerConfig,
  resolveVisionTowerConfig,
  tokensPerImageOf,
  towerParameterReport,
  type VisionTowerConfig,
  visionMoeLayersOf,
} from '../models/vision/index.ts';
import {
  projectorMoeOf,
  projectorParameterReport,
  projectorWidth,
  readVisionLanguageConfig,
  resolveProjectorConfig,
  type VisionLanguageConfig,
} from '../models/vision-language/index.ts';
import { fail } from '../native/index.ts';
import { type UpcycledPart, upcycledParts, upcycledVisionLanguageConfig } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import { vocabularyOf } from './plan-language.ts';
import type { PlannedPart, Reckoning } from './plan-reckoning.ts';
import { settingsOf } from './plan-reckoning.ts';
import { type RouterOnProbe, routerOnProbe } from './plan-router.ts';
import { learnedOf } from './plan-trained.ts';
import { type PlannedParts, plannedVisionLanguageMemory } from './plan-vision-language-memory.ts';
import type { VisionLanguageRecipe } from './vision-language-recipe.ts';

/** What config.json in a checkpoint folder says; there need be no weights. @throws ERR_LIBMOE_FILE saying what will do where there is nothing */
function known<T>(checkpoint: string, read: (folder: string) => T): T {
  const folder = resolveCheckpoint(checkpoint);
  if (!existsSync(folder))
    fail(
      'ERR_LIBMOE_FILE',
      `no checkpoint at ${folder}: a plan needs a folder with its config.json, no weights; what a stage before this one is to write is known when the whole pipeline is planned (libmoe plan …/pipeline.yaml)`,
    );
  return read(folder);
}

/** Steps that a router with a schedule is looked at where a recipe gives epochs. */
const assumedSteps = 1000;

const featureWidthOf = ({ dModel, scales }: VisionTowerConfig): number => dModel * scales.length;

/**
 * The configuration of the model that a recipe trains; of checkpoints their config.json is read, and nothing else.
 * @param before what the recipe's checkpoint will hold, where a stage before it is to write that
 * @throws what reading a configuration or a tokenizer throws
 */
export function plannedVisionLanguageModel(
  { model, start, tokenizer }: VisionLanguageRecipe,
  before?: VisionLanguageConfig,
): VisionLanguageConfig {
  if (start) {
    const config = before ?? known(start.checkpoint, readVisionLanguageConfig).config;
    if (!start.upcycle) return config;
    const dense = { ...config, featureWidth: featureWidthOf(config.vision) };
    return upcycledVisionLanguageConfig(dense, start.upcycle).config;
  }
  const { language, vision, projector, compat } = model!;
  const llm =
    'checkpoint' in language
      ? known(language.checkpoint, readModelConfig)
      : resolveLanguageModelConfig({
          ...language,
          vocabularySize: language.vocabularySize ?? vocabularyOf(tokenizer!),
        });
  const tower = (): VisionTowerConfig => {
    if (!('checkpoint' in vision)) return resolveVisionTowerConfig(vision);
    const { checkpoint, ...changes } = vision;
    return known(checkpoint, (folder) => readVisionTowerConfig(folder, changes));
  };
  return {
    vision: tower(),
    projector: resolveProjectorConfig(projector),
    language: llm,
    imageTokenId: llm.vocabularySize,
    compat,
  };
}

/** What the training of a vision-language model takes, wherever it runs. */
export function reckonVisionLanguage(recipe: VisionLanguageRecipe, before?: VisionLanguageConfig): Reckoning {
  const config = plannedVisionLanguageModel(recipe, before);
  const { data, training, precision } = recipe;
  const { context, batchSamples, batchTokens } = data;
  const featureWidth = featureWidthOf(config.vision);
  const place = {
    featureWidth,
    tokensPerImage: tokensPerImageOf(config.vision),
    dModel: config.language.dModel,
  };
  const vision = towerParameterReport(config.vision);
  const projector = projectorParameterReport(place, config.projector);
  const language = parameterReport(config.language, context);
  const totals = { vision: vision.total, projector: projector.total, language: language.total };
  const learned = learnedOf(training, config, totals);
  const trained = {
    vision: learned.vision.trained,
    projector: learned.projector.trained,
    language: learned.language.trained,
  };
  const parts: PlannedParts = { config, vision, projector, language, trained, learned, featureWidth };

  const most = context / projector.tokensPerImage;
  // Tiles of an image are images of their own; how many there are the data say.
  const imagesPerSequence = data.imageMode === 'anyres' ? Math.floor(most) : Math.min(1, most);
  const groups = training.microBatches * recipe.strategy.data;
  const batchSequences = batchSamples ?? groups * Math.ceil(batchTokens! / context / groups);
  const tokensPerStep = batchTokens ?? batchSequences * context;
  const settings = settingsOf(recipe, { sequenceLength: context, batchSequences });

  const flops = flopsOf(parts, {
    tokens: tokensPerStep,
    images: batchSequences * imagesPerSequence,
  });
  const partOf = (part: UpcycledPart): PlannedPart => ({
    parameters: parts[part].total + learned[part].beside,
    activeParameters: parts[part].active + learned[part].beside,
    trainedParameters: trained[part],
    flopsPerStep: flops[part].step,
  });
  const sum = (value: (part: UpcycledPart) => number): number =>
    upcycledParts.reduce((all, part) => all + value(part), 0);
  const steps = training.steps ?? null;
  const probed = routersOf(parts, steps ?? assumedSteps);
  return {
    name: recipe.name,
    device: recipe.device,
    precision,
    model: { kind: 'vision-language', config },
    parameters: sum((part) => partOf(part).parameters),
    activeParameters: sum((part) => partOf(part).activeParameters),
    trainedParameters: sum((part) => trained[part]),
    parts: { vision: partOf('vision'), projector: partOf('projector'), language: partOf('language') },
    tokensPerStep,
    flopsPerStep: sum((part) => flops[part].step),
    flopsAgain: sum((part) => flops[part].again),
    steps,
    settings,
    memoryOf: (change) =>
      plannedVisionLanguageMemory(parts, probed(change.precision ?? precision), {
        ...settings,
        ...change,
        imagesPerSequence,
      }),
    notes: [
      `every conversation is counted as long as data.context, ${context} tokens with its images' rows (${projector.tokensPerImage} each), and with ` +
        `${data.imageMode === 'anyres' ? `${imagesPerSequence} images (tiles), as many as fit in it` : 'one image'}: real batches are shorter, and need less`,
      ...(steps === null
        ? ['the steps of an epoch are known when the data are read: nothing is said of the whole run']
        : []),
    ],
  };
}

/** Operations of a step, and of the forward passes that activation checkpointing does again, by part. */
function flopsOf(
  { vision, projector, language, trained, learned, config }: PlannedParts,
  { tokens, images }: { tokens: number; images: number },
): Record<UpcycledPart, { step: number; again: number }> {
  const learns = (part: UpcycledPart): number => (trained[part] > 0 ? 1 : 0);
  // Of a matrix that is not trained there is no gradient: of the third that goes into those.
  const share = (part: UpcycledPart, total: number): number => trained[part] / (total + learned[part].beside);
  const below = Math.max(learns('vision'), learns('projector'));
  const ofTower = images * vision.flopsPerImage;
  const ofProjector = images * projector.flopsPerImage;
  const ofLanguage = (language.flopsPerToken / 3) * tokens;
  // Attention has no weights: its backward pass is one to its inputs, twice the forward pass.
  const products = (parameterReport(config.language, 1).flopsPerToken / 3) * tokens;
  const toInputs = 3 * ofLanguage - ofLanguage - products;
  const walked = Math.max(below, learns('language'));
  return {
    vision: {
      step: ofTower * (1 + learns('vision') + share('vision', vision.total)),
      again: ofTower * learns('vision'),
    },
    projector: {
      step: ofProjector * (1 + share('projector', projector.total) + below),
      again: ofProjector * below,
    },
    language: {
      step: ofLanguage + walked * toInputs + share('language', language.total) * products,
      again: ofLanguage * walked,
    },
  };
}

/** The routers of the parts, looked at once for each precision. */
function routersOf(
  { config, featureWidth }: PlannedParts,
  steps: number,
): (precision: 'f32' | 'bf16') => Partial<Record<UpcycledPart, RouterOnProbe>> {
  const { vision, projector, language } = config;
  const moe = projectorMoeOf(projector, language.dModel);
  const known = new Map<string, Partial<Record<UpcycledPart, RouterOnProbe>>>();
  return (precision) => {
    const found = known.get(precision) ?? {
      ...(vision.moe && {
        vision: routerOnProbe(
          {
            dModel: vision.dModel,
            layers: vision.layers,
            moe: { ...vision.moe, layers: visionMoeLayersOf(vision) },
          },
          precision,
          steps,
        ),
      }),
      ...(moe && {
        projector: routerOnProbe(
          { dModel: projectorWidth({ featureWidth }, projector), layers: 1, moe },
          precision,
          steps,
        ),
      }),
      ...(language.moe && { language: routerOnProbe(language, precision, steps) }),
    };
    known.set(precision, found);
    return found;
  };
}
