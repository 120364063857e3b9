import { loadTokenizer } from '../data/index.ts';
import { readModelConfig } from '../models/language/checkpoint.ts';
import {
  type LanguageModelConfig,
  parameterReport,
  resolveLanguageModelConfig,
} from '../models/language/index.ts';
import { devices } from '../tensor/index.ts';
import { upcycledConfig } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import { graphicsCard, type PlanDevice, thisMachine } from './plan-devices.ts';
import { type MemorySettings, type PlannedMemory, plannedMemory } from './plan-memory.ts';
import { type RouterOnProbe, routerOnProbe } from './plan-router.ts';
import { loadRecipe, type Recipe, type RecipeInput } from './recipe.ts';

/** Which machine a plan is for; without any of these it is this one's CPU, or a single GPU if the recipe says `device: cuda:0`. */
export interface PlanOptions {
  /** A card by name: `a100-40`, `a100-80`, `h100`, `h200`. */
  gpu?: string;
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
  memory: PlannedMemory;
  /** The same when blocks are computed again during backward (`training.activationCheckpointing`), or not, whichever the recipe does not say. */
  otherwise: { activationCheckpointing: boolean; activations: number; total: number };
  device: string;
  /** Bytes that the device has. */
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
 * Only what this version can do is counted: one process on one device.
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
  const secondsPerStep =
    device.rate === undefined ? null : (again * report.flopsPerToken * tokensPerStep) / device.rate;
  const { steps } = recipe.training;
  const fits = memory.total <= device.memory;
  return {
    name: recipe.name,
    parameters: report.total,
    activeParameters: report.active,
    flopsPerToken: report.flopsPerToken,
    tokensPerStep,
    tokens: tokensPerStep * steps,
    flops: report.flopsPerToken * tokensPerStep * steps,
    memory,
    otherwise: { activationCheckpointing, activations, total },
    device: device.name,
    available: device.memory,
    fits,
    time: {
      secondsPerStep,
      seconds: secondsPerStep === null ? null : secondsPerStep * steps,
      basis: device.basis,
    },
    notes: notesOf(options, onGpu),
    wouldFit: fits ? [] : remedies(settings, memoryOf, device.memory),
  };
}

function settingsOf({ precision, data, training }: Recipe, runtime: number): MemorySettings {
  const { optimizer, microBatches, activationCheckpointing } = training;
  return {
    precision,
    optimizerSlots: optimizer.name === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0,
    sequenceLength: data.sequenceLength,
    batchSequences: data.batchSequences,
    microBatches,
    activationCheckpointing,
    runtime,
  };
}

function notesOf({ gpus = 1 }: PlanOptions, onGpu: boolean): string[] {
  const notes: string[] = [];
  if (gpus > 1)
    notes.push(
      `this version trains in one process on one device: of ${gpus} GPUs ${gpus - 1} would stand idle, and nothing of them is counted`,
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
): Plan['wouldFit'] {
  const { batchSequences, microBatches, activationCheckpointing, precision } = settings;
  const cuts = Array.from({ length: batchSequences }, (_, i) => i + 1).filter(
    (n) => n > microBatches && batchSequences % n === 0,
  );
  const found: Plan['wouldFit'] = [];
  const attempt = (change: Partial<MemorySettings>): boolean => {
    const { total } = memoryOf(change);
    if (total > available) return false;
    const set = Object.entries(change).map(([key, value]) =>
      key === 'precision' ? `${key}=${value}` : `training.${key}=${value}`,
    );
    found.push({ set, total });
    return true;
  };
  for (const low of precision === 'f32' ? [{}, { precision: 'bf16' as const }] : [{}]) {
    if (Object.keys(low).length > 0) attempt(low);
    cuts.some((n) => attempt({ ...low, microBatches: n }));
    if (activationCheckpointing) continue;
    if (!attempt({ ...low, activationCheckpointing: true }))
      cuts.some((n) => attempt({ ...low, activationCheckpointing: true, microBatches: n }));
  }
  return found;
}
