import { loadTokenizer } from '../data/index.ts';
import { readModelConfig } from '../models/language/checkpoint.ts';
import {
  type LanguageModelConfig,
  parameterReport,
  resolveLanguageModelConfig,
} from '../models/language/index.ts';
import { fail } from '../native/index.ts';
import { devices } from '../tensor/index.ts';
import { upcycledConfig } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe, RecipeInput } from './language-recipe.ts';
import { graphicsCard, type PlanDevice, thisMachine } from './plan-devices.ts';
import { type MemorySettings, type PlannedMemory, plannedMemory } from './plan-memory.ts';
import { type RouterOnProbe, routerOnProbe } from './plan-router.ts';
import { loadRecipe } from './recipe.ts';

/** Which machine a plan is for; without any of these it is this one's CPU, or a single GPU if the recipe says `device: cuda:0`. */
export interface PlanOptions {
  /** A card by name: `a100-40`, `a100-80`, `h100`, `h200`. */
  gpu?: string;
  /** How many there are, for the ranks of the recipe (`strategy.data`): one each. */
  gpus?: number;
  /** GiB of each. */
  gpuMemory?: number;
}

/** What a recipe takes. */
export interface Plan {
  name: string;
  parameters: number;
  activeParameters: number;
  /** Of a training step, forward and backward. */
  flopsPerToken: number;
  tokensPerStep: number;
  /** Of the whole run. */
  tokens: number;
  flops: number;
  /** Ranks that train together; `memory` is that of each. */
  ranks: number;
  memory: PlannedMemory;
  /** The same when blocks are computed again during backward (`training.activationCheckpointing`), or not, whichever the recipe does not say. */
  otherwise: { activationCheckpointing: boolean; activations: number; total: number };
  device: string;
  /** Bytes that the device has for a rank. */
  available: number;
  fits: boolean;
  /** Seconds of a step and of the run; null where the speed of the device is not known. `basis` says where they come from. */
  time: { secondsPerStep: number | null; seconds: number | null; basis: string };
  /** What else one must know. */
  notes: string[];
  /** Changes to the recipe with which it fits, the least first; empty when it fits or nothing helps. */
  wouldFit: { set: string[]; total: number }[];
}

/** What a card's context and work spaces take: assumed. */
const contextBytes = 2 ** 30;
/** What Node, the library and the loader take: measured on the demo before its model was made. */
const processBytes = 128 * 2 ** 20;

/** The configuration of the model that a recipe trains. @throws ERR_LIBMOE_RECIPE and what reading the checkpoint or the tokenizer throws */
export function plannedModel(recipe: Recipe): LanguageModelConfig {
  if (recipe.start) {
    const config = readModelConfig(resolveCheckpoint(recipe.start.checkpoint));
    return recipe.start.upcycle ? upcycledConfig(config, recipe.start.upcycle) : config;
  }
  return resolveLanguageModelConfig({
    ...recipe.model,
    vocabularySize: recipe.model?.vocabularySize ?? vocabularyOf(recipe),
  });
}

function vocabularyOf({ tokenizer }: Recipe): number {
  if (typeof tokenizer === 'object') return tokenizer.train.vocabularySize;
  return loadTokenizer(tokenizer!).vocabularySize;
}

/**
 * Reckons what a recipe takes: parameters, operations, memory by kind, time. Nothing is trained or read but the checkpoint's or tokenizer's sizes.
 * Only what this version can do is counted: one process per device, each with the whole model.
 * @throws ERR_LIBMOE_RECIPE, ERR_LIBMOE_ARGUMENT
 */
export function planRecipe(
  source: string | RecipeInput,
  changes: Record<string, unknown> = {},
  options: PlanOptions = {},
): Plan {
  const recipe = loadRecipe(source, changes);
  const config = plannedModel(recipe);
  const report = parameterReport(config, recipe.data.sequenceLength);
  const onGpu = Object.values(options).some((value) => value !== undefined) || recipe.device !== 'cpu';
  const device: PlanDevice = onGpu
    ? graphicsCard(options.gpu, options.gpuMemory, recipe.precision)
    : thisMachine(recipe.precision);
  const settings = settingsOf(recipe, onGpu ? contextBytes : processBytes);
  const { ranks } = settings;
  if (options.gpus !== undefined && options.gpus < ranks)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `the recipe trains on ${ranks} ranks (strategy.data), one GPU each, and --gpus says ${options.gpus}: --set strategy.data=${options.gpus}`,
    );
  // Ranks on the CPU share this machine.
  const available = onGpu ? device.memory : device.memory / ranks;
  const probes = new Map<Recipe['precision'], RouterOnProbe>();
  const routerIn = (precision: Recipe['precision']): RouterOnProbe | undefined => {
    if (!config.moe) return undefined;
    const known = probes.get(precision) ?? routerOnProbe(config, precision, recipe.training.steps);
    probes.set(precision, known);
    return known;
  };
  const memoryOf = (change: Partial<MemorySettings> = {}): PlannedMemory =>
    plannedMemory(config, report, routerIn(change.precision ?? settings.precision), {
      ...settings,
      ...change,
    });
  const memory = memoryOf();
  const activationCheckpointing = !settings.activationCheckpointing;
  const { activations, total } = memoryOf({ activationCheckpointing });
  const tokensPerStep = recipe.data.batchSequences * recipe.data.sequenceLength;
  const again = settings.activationCheckpointing ? 4 / 3 : 1;
  const rate = device.rate && device.rate * (onGpu ? ranks : 1);
  const secondsPerStep = rate === undefined ? null : (again * report.flopsPerToken * tokensPerStep) / rate;
  const { steps } = recipe.training;
  const fits = memory.total <= available;
  return {
    name: recipe.name,
    parameters: report.total,
    activeParameters: report.active,
    flopsPerToken: report.flopsPerToken,
    tokensPerStep,
    tokens: tokensPerStep * steps,
    flops: report.flopsPerToken * tokensPerStep * steps,
    ranks,
    memory,
    otherwise: { activationCheckpointing, activations, total },
    device: device.name,
    available,
    fits,
    time: {
      secondsPerStep,
      seconds: secondsPerStep === null ? null : secondsPerStep * steps,
      basis: device.basis,
    },
    notes: notesOf(options, onGpu, settings, memory),
    // On the CPU more ranks only take more of the same memory.
    wouldFit: fits ? [] : remedies(settings, memoryOf, available, onGpu ? (options.gpus ?? ranks) : ranks),
  };
}

function settingsOf({ precision, data, training, strategy }: Recipe, runtime: number): MemorySettings {
  const { optimizer, microBatches, activationCheckpointing } = training;
  return {
    precision,
    optimizerSlots: optimizer.name === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0,
    sequenceLength: data.sequenceLength,
    batchSequences: data.batchSequences,
    ranks: strategy.data,
    bucketBytes: strategy.bucketMegabytes * 2 ** 20,
    microBatches,
    activationCheckpointing,
    runtime,
  };
}

function notesOf(
  { gpus }: PlanOptions,
  onGpu: boolean,
  { ranks }: MemorySettings,
  { gradients }: PlannedMemory,
): string[] {
  const notes: string[] = [];
  if (gpus !== undefined && gpus > ranks)
    notes.push(
      `the recipe trains on ${ranks} rank${ranks === 1 ? '' : 's'}: of ${gpus} GPUs ${gpus - ranks} would stand idle, and nothing of them is counted; ` +
        `use them with --set strategy.data=${gpus}`,
    );
  if (ranks > 1)
    notes.push(
      `memory is that of each of ${ranks} ranks${onGpu ? '' : ', which share the memory of this machine'}; the time does not count what the exchange of ` +
        `${(gradients / 2 ** 20).toFixed(0)} MiB of gradients a step takes beyond backward`,
    );
  if (onGpu && devices().every((name) => name === 'cpu'))
    notes.push('this build has no GPU backend: the figures are reckoned, nothing was measured on a GPU');
  return notes;
}

/** The least change of each kind that brings the memory below what there is. */
function remedies(
  settings: MemorySettings,
  memoryOf: (change: Partial<MemorySettings>) => PlannedMemory,
  available: number,
  devices: number,
): Plan['wouldFit'] {
  const { batchSequences, microBatches, activationCheckpointing, precision, ranks } = settings;
  const perRank = batchSequences / ranks;
  const cuts = Array.from({ length: perRank }, (_, i) => i + 1).filter(
    (n) => n > microBatches && perRank % n === 0,
  );
  const more = Array.from({ length: devices }, (_, i) => i + 1).filter(
    (n) => n > ranks && batchSequences % (n * microBatches) === 0,
  );
  const found: Plan['wouldFit'] = [];
  const attempt = (change: Partial<MemorySettings>): boolean => {
    const { total } = memoryOf(change);
    if (total > available) return false;
    const names: Record<string, string> = { precision: 'precision', ranks: 'strategy.data' };
    const set = Object.entries(change).map(([key, value]) => `${names[key] ?? `training.${key}`}=${value}`);
    found.push({ set, total });
    return true;
  };
  for (const low of precision === 'f32' ? [{}, { precision: 'bf16' as const }] : [{}]) {
    if (Object.keys(low).length > 0) attempt(low);
    more.some((n) => attempt({ ...low, ranks: n }));
    cuts.some((n) => attempt({ ...low, microBatches: n }));
    if (activationCheckpointing) continue;
    if (!attempt({ ...low, activationCheckpointing: true }))
      cuts.some((n) => attempt({ ...low, activationCheckpointing: true, microBatches: n }));
  }
  return found;
}
