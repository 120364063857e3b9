// A training step of a whole vision-language model, without its optimizer, and a forward pass: SigLIP tower, projector and Llama against
// LlavaForConditionalGeneration of transformers with the same weights, every part of it trained.
import { familyOf } from '../ts/models/language/architectures/index.ts';
import { parameterReport } from '../ts/models/language/index.ts';
import { towerParameterReport } from '../ts/models/vision/index.ts';
import { llavaLayout } from '../ts/models/vision-language/file-layout.ts';
import { llavaJson } from '../ts/models/vision-language/hugging-face.ts';
import {
  configOf,
  expandPlaceholders,
  newVisionLanguageModel,
  projectorParameterReport,
  resolveVisionLanguageConfig,
  type VisionLanguageOptions,
} from '../ts/models/vision-language/index.ts';
import { native } from '../ts/native/index.ts';
import { full, noGrad, scope, type Tensor } from '../ts/tensor/index.ts';
import type { BenchCase, Work } from './case.ts';
import { type InputSpec, input, mixed, sampled, toleranceOf } from './inputs.ts';
import { load } from './layer-inputs.ts';

interface Setting {
  name: string;
  config: VisionLanguageOptions;
  /** Conversations of a step, each with one image in front. */
  images: number;
  /** Text tokens of each; the first half is the question, which is not learnt. */
  text: number;
}

const imageTokenId = 0;

function setting(
  name: string,
  {
    side,
    patch,
    tower,
    language,
  }: Record<'tower' | 'language', [layers: number, dModel: number]> & {
    side: number;
    patch: number;
  },
  size: { images: number; text: number },
): Setting {
  const [layers, dModel] = tower;
  const [depth, width] = language;
  return {
    name,
    ...size,
    config: {
      // The last layer's output, so that both sides compute the same layers.
      vision: {
        ...{ kind: 'siglip', imageSize: side, patchSize: patch, layers, dModel, selectLayer: -1 },
        heads: dModel / 32,
        hidden: 4 * dModel,
      },
      projector: { type: 'mlp2x_gelu' },
      language: {
        ...{ vocabularySize: 4096, dModel: width, layers: depth, heads: width / 32 },
        feedForward: { hidden: 3 * width, activation: 'silu', gated: true },
        maxPositions: 1024,
      },
      imageTokenId,
    },
  };
}

/** What a parameter starts as, on both sides; undefined: ones, the scale of a norm. */
function startOf(name: string, { shape }: Tensor, index: number): InputSpec | undefined {
  return name.endsWith('orm.weight') ? undefined : { shape, seed: 100 + index, scale: 0.03 };
}

/** The conversations; `labels` are the tokens that are learnt, −1 elsewhere. */
function conversations({ images, text }: Setting, tokensPerImage: number) {
  const length = tokensPerImage + text;
  const written = Array.from({ length: images }, (_, sequence) => [
    imageTokenId,
    ...Array.from({ length: text }, (_, i) => 1 + (mixed(sequence * text + i, 7) % 4095)),
  ]).flat();
  const { ids, starts } = expandPlaceholders(written, images, { imageTokenId, tokensPerImage });
  const labels = ids.map((id, i) => (i % length >= tokensPerImage + text / 2 ? id : -1));
  return { ids, starts, labels, length };
}

const pixelsOf = ({ images, config }: Setting): InputSpec => {
  const side = config.vision.imageSize;
  return { shape: [images, 3, side, side], seed: 99 };
};

function passWork(s: Setting, train: boolean): Work {
  const model = newVisionLanguageModel(s.config, { seed: 'later', dtype: 'f32' });
  const parameters = [...model.namedParameters()];
  for (const [i, [name, t]] of parameters.entries()) {
    const spec = startOf(name, t, i);
    load(t, spec ? input(spec, 'f32') : full(t.shape, 1, { dtype: 'f32' }));
  }
  const { ids, starts, labels, length } = conversations(s, model.tokensPerImage);
  using drawn = input(pixelsOf(s), 'f32');
  const batch = {
    ids,
    targets: labels.map((_, i) => ((i + 1) % length === 0 ? -1 : labels[i + 1]!)),
    sequenceOffsets: Int32Array.from({ length: s.images + 1 }, (_, i) => i * length),
    images: {
      pixels: drawn.readSync() as Float32Array,
      count: s.images,
      side: s.config.vision.imageSize,
      starts,
    },
  };
  model.train(train);
  const forward = (): number => noGrad(() => scope(() => model.loss(batch).item()));
  const step = (): number =>
    scope(() => {
      const loss = model.loss(batch);
      loss.backward();
      return loss.item();
    });
  const clear = () => {
    for (const [, t] of parameters) {
      t.grad?.dispose();
      t.grad = undefined;
    }
  };
  return {
    run() {
      if (train) step();
      else forward();
      clear();
    },
    results() {
      const found: Record<string, readonly number[]> = { loss: [train ? step() : forward()] };
      // Softmax does not see a bias of the keys: what either side has for its gradient is rounding.
      if (train)
        for (const [name, { grad }] of parameters)
          if (!name.endsWith('key.bias')) found[`d ${name}`] = sampled(grad!);
      clear();
      return found;
    },
    dispose() {
      clear();
      model.dispose();
      native().trim();
    },
  };
}

/** The model as transformers has it, and where our parameters are in it. */
function requestOf(s: Setting, train: boolean) {
  using model = newVisionLanguageModel(s.config, { seed: 'later', dtype: 'f32' });
  const config = configOf(model);
  const { tokensPerImage } = model;
  const { architecture } = familyOf(config.language, { preferred: 'LlamaForCausalLM' });
  const layout = llavaLayout(config, architecture, { vision: 'model.vision_tower.', form: 'flat' });
  const parameters = [...model.namedParameters()].map(([name, t], i) => ({
    ...{ name, parts: layout.fileTensors(name, t.shape) },
    ...(startOf(name, t, i) ?? { shape: t.shape, ones: true }),
  }));
  const { ids, labels } = conversations(s, tokensPerImage);
  const json = llavaJson(config, { tokensPerImage, preferred: 'LlamaForCausalLM' });
  const tokens = { ids: [...ids], labels: [...labels] };
  return { config: json, images: s.images, pixels: pixelsOf(s), parameters, train, ...tokens };
}

function pass(s: Setting, kind: 'train' | 'forward'): BenchCase {
  const train = kind === 'train';
  const { vision, projector, language } = resolveVisionLanguageConfig(s.config);
  const tower = towerParameterReport(vision);
  const tokensPerImage = tower.tokensPerImage;
  const between = projectorParameterReport(
    { featureWidth: vision.dModel, tokensPerImage, dModel: language.dModel },
    projector,
  );
  const length = tokensPerImage + s.text;
  const text = parameterReport(language, length);
  // The output projection is of no use where nothing is to be predicted; the reports count it everywhere.
  const unused = (length - s.text / 2) * 2 * language.vocabularySize * language.dModel;
  const perSequence =
    tower.flopsPerImage + between.flopsPerImage + (text.flopsPerToken / 3) * length - unused;
  return {
    name: `vision_language/${s.name}/f32/${kind}`,
    flops: s.images * perSequence * (train ? 3 : 1),
    // Weights read, in training once more and their gradients written.
    bytes: (tower.total + between.total + text.total) * 4 * (train ? 3 : 1),
    tolerance: toleranceOf('f32'),
    memory: true,
    setup: () => passWork(s, train),
    peer: {
      script: 'vision_language_step.py',
      get request() {
        return requestOf(s, train);
      },
    },
  };
}

const settings: readonly Setting[] = [
  setting('small', { side: 64, patch: 8, tower: [6, 96], language: [4, 128] }, { images: 4, text: 64 }),
  setting('base', { side: 224, patch: 16, tower: [12, 192], language: [8, 256] }, { images: 4, text: 60 }),
];

export const cases: readonly BenchCase[] = settings.flatMap((s) => [pass(s, 'forward'), pass(s, 'train')]);
