import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type AnyRecipeInput,
  loadAnyRecipe,
  merged,
  type PlannedMemory,
  planPipeline,
  planRecipe,
  type VisionLanguageRecipe,
} from '../../ts/experiment/index.ts';
import { withLora } from '../../ts/experiment/lora.ts';
import { plannedVisionLanguageModel } from '../../ts/experiment/plan-vision-language.ts';
import { matchNames } from '../../ts/models/language/index.ts';
import { readVisionTowerConfig, towerParameterReport } from '../../ts/models/vision/index.ts';
import { newVisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { peakOfStep } from './measured-step.ts';

leaveToCollector();
const folder = temporaryFolder();
const root = path.resolve(import.meta.dirname, '../..');

const small: AnyRecipeInput = {
  kind: 'vision-language',
  name: 'small',
  tokenizer: { train: { vocabularySize: 512 } },
  data: {
    train: { conversations: 'none.json' },
    template: 'plain',
    context: 128,
    batchSamples: 8,
  },
  model: {
    language: {
      dModel: 96,
      layers: 3,
      heads: 4,
      feedForward: { hidden: 192, activation: 'silu', gated: true },
      maxPositions: 128,
    },
    vision: {
      kind: 'siglip',
      imageSize: 32,
      patchSize: 8,
      dModel: 64,
      layers: 4,
      heads: 4,
      hidden: 160,
      selectLayer: -2,
      scales: [1, 3],
    },
  },
  training: { steps: 1 },
};
const recipeOf = (changes: object): VisionLanguageRecipe =>
  loadAnyRecipe(merged({ ...small }, { ...changes }) as AnyRecipeInput) as VisionLanguageRecipe;

/** Most bytes of tensors while a step of a recipe is trained, and parameters: all, and those that are trained. */
async function measured(recipe: VisionLanguageRecipe, config = plannedVisionLanguageModel(recipe)) {
  const { training, precision: dtype } = recipe;
  using model = newVisionLanguageModel(config, { seed: 1, dtype });
  const parameters = model.namedParameters();
  for (const name of matchNames([...parameters.keys()], training.trained).rest)
    parameters.get(name)!.requiresGrad = false;
  withLora(training.lora, model, {
    seed: 1,
    parts: ['vision.', 'projector.', 'language.'],
    log: () => {},
  });
  const bytes = await peakOfStep(model, recipe, { id: model.imageTokenId, count: model.tokensPerImage });
  const trained = model.parameters().filter(({ requiresGrad }) => requiresGrad);
  return {
    bytes,
    parameters: model.parameterCount(),
    trained: trained.reduce((sum, { size }) => sum + size, 0),
  };
}

const projector = { trained: ['projector.*'] };
const again = { activationCheckpointing: true };

/** The chunk of logits is memory of a call, which the engine does not count: it may be there at the peak, or not. */
function check({ total, runtime }: PlannedMemory, bytes: number, { data, training }: VisionLanguageRecipe) {
  const chunk = (data.batchSamples! / training.microBatches) * data.context * 512 * 4;
  const planned = total - runtime;
  expect(planned / bytes).toBeGreaterThan(0.95);
  expect(planned / (bytes + chunk)).toBeLessThan(1.05);
}

describe('memory of a vision-language step', () => {
  const cases: [string, object][] = [
    ['only the projector is trained', { training: projector }],
    ['only the projector, recomputed', { training: { ...projector, ...again } }],
    ['only the projector, bf16', { precision: 'bf16', training: { ...projector, ...again } }],
    ['tower and projector', { training: { trained: ['vision.*', 'projector.*'] } }],
    ['the language model', { training: { trained: ['language.*'] } }],
    ['everything', {}],
    ['everything, recomputed', { training: again }],
    ['everything, bf16', { precision: 'bf16' }],
    ['everything in micro-batches', { training: { microBatches: 4, ...again } }],
    [
      'a large tower that only runs forward',
      {
        data: { context: 32 },
        model: { vision: { dModel: 192, hidden: 768 } },
        training: { trained: ['language.*'], ...again },
      },
    ],
    [
      'a large tower that is trained, recomputed',
      { data: { context: 32 }, model: { vision: { dModel: 192, hidden: 768 } }, training: again },
    ],
    ['a tower of kind clip', { model: { vision: { kind: 'clip' } } }],
    ['layers of the tower', { training: { trained: ['vision.blocks.*.attention.*', 'projector.*'] } }],
    ['norms alone, of all parts', { training: { trained: ['*orm.*'] } }],
    ['adapters of the language model', { training: { ...projector, lora: { rank: 8 } } }],
    [
      'adapters of some matrices, everything else of the other parts, bf16',
      { precision: 'bf16', training: { lora: { rank: 16, targets: ['language.*.query', 'vision.*.up'] } } },
    ],
    ['three linear layers, pixel-shuffle', { model: { projector: { type: 'mlp3x_gelu', pixelShuffle: 2 } } }],
  ];
  for (const [name, changes] of cases)
    it(name, async () => {
      const recipe = recipeOf(changes);
      const plan = planRecipe(recipe);
      const { bytes, parameters, trained } = await measured(recipe);
      expect(plan.parameters).toBe(parameters);
      expect(plan.trainedParameters).toBe(trained);
      check(plan.memory, bytes, recipe);
    });

  it.each([
    ['both parts of images', {}],
    ['recomputed, with a shared expert', { training: again, router: 'shared-v3' }],
    ['every part', { parts: ['vision', 'projector', 'language'] }],
  ] as [string, { training?: object; router?: string; parts?: string[] }][])(
    'upcycled: %s',
    async (name, { training = {}, router = 'smoe', parts }) => {
      const checkpoint = path.join(folder, name.replaceAll(/\W/g, '-'));
      writeConfig(checkpoint, {
        architectures: ['LlavaForConditionalGeneration'],
        libmoe: { visionLanguage: plannedVisionLanguageModel(recipeOf({})) },
      });
      const upcycle = { experts: 4, topK: 2, router: { name: router }, ...(parts && { parts }) };
      const recipe = recipeOf({
        tokenizer: undefined,
        model: undefined,
        start: { checkpoint, upcycle },
        training,
      });
      const plan = planRecipe(recipe);
      const { bytes, parameters } = await measured(recipe);
      expect(plan.parameters).toBe(parameters);
      expect(plan.activeParameters).toBeLessThan(parameters);
      check(plan.memory, bytes, recipe);
    },
  );
});

describe('a plan of a vision-language recipe', () => {
  it('adds up its parts, and counts forward passes alone of what is frozen', () => {
    const all = planRecipe(recipeOf({}));
    const frozen = planRecipe(recipeOf({ training: projector }));
    const sum = (plan: typeof all, key: 'parameters' | 'trainedParameters' | 'flopsPerStep') =>
      Object.values(plan.parts!).reduce((total, part) => total + part[key], 0);
    expect(sum(all, 'parameters')).toBe(all.parameters);
    expect(sum(all, 'trainedParameters')).toBe(all.parameters);
    expect(sum(all, 'flopsPerStep')).toBeCloseTo(all.flopsPerToken * all.tokensPerStep, 3);
    expect(all.tokensPerStep).toBe(8 * 128);
    expect(frozen.trainedParameters).toBe(frozen.parts!.projector.parameters);
    expect(frozen.parts!.vision.flopsPerStep).toBe(all.parts!.vision.flopsPerStep / 3);
    expect(frozen.parts!.projector.flopsPerStep).toBe(all.parts!.projector.flopsPerStep);
    // The weights of the language model take two of the six products of a parameter and a token.
    const weights = frozen.parts!.language.parameters - 512 * 96;
    const spared = all.parts!.language.flopsPerStep - frozen.parts!.language.flopsPerStep;
    expect(spared / (2 * weights * 1024)).toBeCloseTo(1, 1);
    const images = 8 * towerParameterReport(plannedVisionLanguageModel(recipeOf({})).vision).flopsPerImage;
    expect(all.parts!.vision.flopsPerStep).toBe(3 * images);
  });

  it('knows batches by tokens, tiles, ranks and epochs', () => {
    const all = planRecipe(recipeOf({}));
    const byTokens = planRecipe(recipeOf({ data: { batchSamples: undefined, batchTokens: 1000 } }));
    expect([byTokens.tokensPerStep, byTokens.memory.activations]).toEqual([1000, all.memory.activations]);
    const tiles = planRecipe(recipeOf({ data: { imageMode: 'anyres' } }));
    // As many images of 16 rows as 128 tokens have room for.
    expect(tiles.parts!.vision.flopsPerStep).toBe(8 * all.parts!.vision.flopsPerStep);
    expect(tiles.memory.total).toBeGreaterThan(all.memory.total);
    expect(tiles.notes[0]).toMatch(/8 images \(tiles\)/);
    const two = planRecipe(recipeOf({ strategy: { data: 2 } }), {}, { gpuMemory: 80 });
    const one = planRecipe(recipeOf({}), {}, { gpuMemory: 80 });
    expect(two.memory.activations).toBe(one.memory.activations / 2);
    expect(two.memory.optimizerState).toBe(one.memory.optimizerState);
    expect(two.memory.buckets).toBeGreaterThan(one.memory.buckets);
    const epochs = planRecipe(recipeOf({ training: { steps: undefined, epochs: 2 } }));
    expect([epochs.tokens, epochs.flops, epochs.time.seconds]).toEqual([null, null, null]);
    expect(epochs.notes.join()).toMatch(/steps of an epoch are known when the data are read/);
    expect(all.tokens).toBe(all.tokensPerStep);
  });
});

/** A checkpoint of which there is the configuration alone. */
function writeConfig(place: string, json: object): void {
  mkdirSync(place, { recursive: true });
  writeFileSync(path.join(place, 'config.json'), JSON.stringify(json));
}

/** Phi-3.5-mini-instruct and SigLIP so400m-patch14-224 by their published sizes. */
function published(): { phi35: string; siglip: string } {
  const [phi35, siglip] = [path.join(folder, 'phi35'), path.join(folder, 'siglip')];
  writeConfig(phi35, {
    architectures: ['Phi3ForCausalLM'],
    model_type: 'phi3',
    hidden_size: 3072,
    intermediate_size: 8192,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    vocab_size: 32064,
    max_position_embeddings: 131072,
    original_max_position_embeddings: 4096,
    tie_word_embeddings: false,
  });
  writeConfig(siglip, {
    architectures: ['SiglipModel'],
    model_type: 'siglip',
    vision_config: {
      model_type: 'siglip_vision_model',
      hidden_size: 1152,
      intermediate_size: 4304,
      num_attention_heads: 16,
      num_hidden_layers: 27,
      patch_size: 14,
      image_size: 224,
    },
  });
  return { phi35, siglip };
}

describe('plans of the full-size recipes', () => {
  const file = path.join(root, 'recipes/vision-language/phi35-siglip/pipeline.yaml');
  const phi = 3_821_079_552;

  it('count what is published, and say what of the three stages fits on four GPUs of 80 GiB', async () => {
    const { phi35, siglip } = published();
    const whole = { ...readVisionTowerConfig(siglip), pool: 'attention', selectLayer: -1 } as const;
    const of384 = { ...whole, imageSize: 384, resolution: 384 };
    expect(towerParameterReport(of384).total).toBe(428_225_600); // what the model for 384 pixels has
    expect(towerParameterReport(whole).total).toBe(428_225_600 - (27 ** 2 - 16 ** 2) * 1152);
    const model = { language: { checkpoint: phi35 }, vision: { checkpoint: siglip } };
    const plan = await planPipeline(file, { pretrain: { model } }, { gpus: 4, gpuMemory: 80 });
    const [pretrain, prefinetune, instruct] = plan.stages;
    expect(plan.stages.map(({ stage, fits }) => [stage, fits])).toEqual([
      ['pretrain', true],
      ['prefinetune', true],
      ['instruct', false],
    ]);
    // 2304 → 3072 → 3072; of the tower 26 layers.
    const between = 2304 * 3072 + 3072 + 3072 * 3072 + 3072;
    const { parts, memory: m } = pretrain!;
    expect(parts!.language).toMatchObject({ parameters: phi, trainedParameters: 0 });
    expect(parts!.projector).toMatchObject({ parameters: between, trainedParameters: between });
    expect(pretrain!.parameters).toBe(phi + between + parts!.vision.parameters);
    expect([m.weights, m.masterWeights, m.gradients, m.optimizerState]).toEqual([
      2 * pretrain!.parameters,
      4 * between,
      4 * between,
      8 * between,
    ]);
    expect(prefinetune!.trainedParameters).toBe(pretrain!.parameters);
    // Of every layer of the tower and of the projector, five more copies and a router.
    const layer = 2 * 1152 * 4304 + 4304 + 1152;
    const more = 26 * (5 * layer + 6 * 1152) + 5 * between + 6 * 2304;
    expect(instruct!.parameters).toBe(pretrain!.parameters + more);
    expect(instruct!.wouldFit).toEqual([]);
    expect(instruct!.least!.total).toBeGreaterThan(instruct!.available);
    expect(instruct!.notes.at(-1)).toMatch(/alone are 94\.0 GiB on each rank.*spreading optimizer state/);
    const forward = 2 * 65_536 * phi;
    expect(instruct!.parts!.language.flopsPerStep / (3 * forward)).toBeGreaterThan(0.95);
    // Frozen, without gradients of its weights.
    const { flopsPerStep } = parts!.language;
    expect(flopsPerStep / (2 * 2 * 524_288 * phi)).toBeCloseTo(1.05, 1);
  });

  it('with more memory the last stage fits, and with fewer GPUs a change is named that helps', async () => {
    const { phi35, siglip } = published();
    const model = { language: { checkpoint: phi35 }, vision: { checkpoint: siglip } };
    const alone = { strategy: { data: 1 } };
    const changes = { pretrain: { model, ...alone }, prefinetune: alone, instruct: alone };
    const plan = await planPipeline(file, changes, { gpu: 'h200' });
    expect(plan.fits).toBe(false);
    const [pretrain] = plan.stages;
    const cut = pretrain!.wouldFit.find(({ set }) => set[0]!.startsWith('training.microBatches='))!;
    const microBatches = Number(cut.set[0]!.split('=')[1]);
    const then = await planPipeline(
      file,
      { ...changes, pretrain: { model, ...alone, training: { microBatches } } },
      { gpu: 'h200' },
    );
    expect(then.stages.map(({ fits }) => fits)).toEqual([true, true, true]);
    expect(then.stages[0]!.memory.total).toBe(cut.total);
    expect(then.stages[0]!.time.secondsPerStep).toBeGreaterThan(0);
    expect(then.stages[0]!.time.seconds).toBeNull();
  });

  it('refuse what cannot be planned', async () => {
    await expect(planPipeline(file, { instrukt: {} }, { gpu: 'h100' })).rejects.toThrow(
      /ERR_LIBMOE_RECIPE: .*did you mean "instruct"/,
    );
    const one = path.join(path.dirname(file), 'prefinetune.yaml');
    expect(() => planRecipe(one, {}, { gpu: 'h100' })).toThrow(
      /ERR_LIBMOE_FILE: no checkpoint at .*config\.json, no weights.*pipeline/,
    );
    expect(() => planRecipe(recipeOf({ training: { trained: ['tower.*'] } }))).toThrow(
      /ERR_LIBMOE_CONFIG: training.trained or training.lora: .*"tower.\*" matches no tensor/,
    );
  });
});
