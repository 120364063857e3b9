import { fail } from '../native/index.ts';
import { devices } from '../tensor/index.ts';
import type { UpcycledPart } from '../upcycling/index.ts';
import { checkBestMetric } from './metric-names.ts';
import { graphicsCard, type PlanDevice, thisMachine } from './plan-devices.ts';
import { reckonImageText } from './plan-image-text.ts';
import { reckonLanguage } from './plan-language.ts';
import type { MemorySettings, PlannedMemory } from './plan-memory.ts';
import type { PlannedModel, PlannedPart, Reckoning } from './plan-reckoning.ts';
import { type Remedy, remedies } from './plan-remedies.ts';
import { reckonVisionLanguage } from './plan-vision-language.ts';
import { type AnyRecipe, type AnyRecipeInput, loadAnyRecipe } from './recipe.ts';

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
  /** Parameters that take gradients and have optimizer state. */
  trainedParameters: number;
  /** Of a vision-language model. */
  parts?: Record<UpcycledPart, PlannedPart>;
  /** Of a training step, forward and backward; of a vision-language model with what its images take. */
  flopsPerToken: number;
  /** Of a vision-language model at the most: every conversation as long as the context. */
  tokensPerStep: number;
  /** Of the whole run; null where the number of its steps is not known before the data are read. */
  tokens: number | null;
  flops: number | null;
  /** Ranks that train together; `memory` is that of each. */
  ranks: number;
  memory: PlannedMemory;
  /** The same when blocks are computed again during backward (`training.activationCheckpointing`), or not, whichever the recipe does not say. */
  otherwise: { activationCheckpointing: boolean; activations: number; total: number };
  device: string;
  /** Bytes that the device has for a rank. */
  available: number;
  fits: boolean;
  /** Seconds of a step and of the run; null where the speed of the device or the number of steps is not known. `basis` says where they come from. */
  time: { secondsPerStep: number | null; seconds: number | null; basis: string };
  /** What else one must know. */
  notes: string[];
  /** Changes to the recipe with which it fits, the least first; empty when it fits or nothing helps. */
  wouldFit: Remedy[];
  /** Of what was tried, what takes the least memory; null when the recipe fits as it is. */
  least: Remedy | null;
}

/** What a card's context and work spaces take: assumed. */
const contextBytes = 2 ** 30;
/** Part of a card's memory beyond which a plan says that little is left. */
const tight = 0.9;
/** What Node, the library and the loader take: measured on the demo before its model was made. */
const processBytes = 128 * 2 ** 20;

/**
 * Reckons what a recipe takes: parameters, operations, memory by kind, time. Nothing is trained or read but the sizes in config.json, and the
 * tokenizer's. Only what this version can do is counted: one process per device, each with the whole model.
 * @throws ERR_LIBMOE_RECIPE, ERR_LIBMOE_ARGUMENT, and what reading a configuration throws
 */
export function planRecipe(
  source: string | AnyRecipeInput,
  changes: Record<string, unknown> = {},
  options: PlanOptions = {},
): Plan {
  return planned(reckon(loadAnyRecipe(source, changes)), options);
}

/**
 * What a recipe takes wherever it runs.
 * @param before the model that the stage before it leaves, which need not be there yet
 */
export function reckon(recipe: AnyRecipe, before?: PlannedModel): Reckoning {
  checkBestMetric(recipe);
  if (recipe.kind === 'image-text') return reckonImageText(recipe);
  if (before && before.kind !== recipe.kind)
    return fail(
      'ERR_LIBMOE_RECIPE',
      `${recipe.name}: a recipe of kind ${recipe.kind} cannot go on from a ${before.kind} model`,
    );
  if (recipe.kind === 'language')
    return reckonLanguage(recipe, before?.kind === 'language' ? before.config : undefined);
  return reckonVisionLanguage(recipe, before?.kind === 'vision-language' ? before.config : undefined);
}

/** A plan for a machine. @throws ERR_LIBMOE_ARGUMENT */
export function planned(reckoning: Reckoning, options: PlanOptions): Plan {
  const { parts, tokensPerStep, flopsPerStep, steps, precision } = reckoning;
  const onGpu = Object.values(options).some((value) => value !== undefined) || reckoning.device !== 'cpu';
  const device: PlanDevice = onGpu
    ? graphicsCard(options.gpu, options.gpuMemory, precision)
    : thisMachine(precision);
  const runtime = onGpu ? contextBytes : processBytes;
  const settings: MemorySettings = { ...reckoning.settings, runtime };
  const { ranks } = settings;
  if (options.gpus !== undefined && options.gpus < ranks)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `the recipe trains on ${ranks} ranks (strategy.data), one GPU each, and --gpus says ${options.gpus}: --set strategy.data=${options.gpus}`,
    );
  // Ranks on the CPU share this machine.
  const available = onGpu ? device.memory : device.memory / ranks;
  const memoryOf = (change: Partial<MemorySettings>): PlannedMemory =>
    reckoning.memoryOf({ ...change, runtime });
  const memory = memoryOf({});
  const activationCheckpointing = !settings.activationCheckpointing;
  const { activations, total } = memoryOf({ activationCheckpointing });
  const rate = device.rate && device.rate * (onGpu ? ranks : 1);
  const done = flopsPerStep + (settings.activationCheckpointing ? reckoning.flopsAgain : 0);
  const secondsPerStep = rate === undefined ? null : done / rate;
  const fits = memory.total <= available;
  // On the CPU more ranks only take more of the same memory.
  const found = fits
    ? { wouldFit: [], least: null }
    : remedies(settings, memoryOf, available, onGpu ? (options.gpus ?? ranks) : ranks);
  return {
    name: reckoning.name,
    parameters: reckoning.parameters,
    activeParameters: reckoning.activeParameters,
    trainedParameters: reckoning.trainedParameters,
    ...(parts && { parts }),
    flopsPerToken: flopsPerStep / tokensPerStep,
    tokensPerStep,
    tokens: steps && tokensPerStep * steps,
    flops: steps && flopsPerStep * steps,
    ranks,
    memory,
    otherwise: { activationCheckpointing, activations, total },
    device: device.name,
    available,
    fits,
    time: {
      secondsPerStep,
      seconds: secondsPerStep === null || steps === null ? null : secondsPerStep * steps,
      basis: device.basis,
    },
    notes: [
      ...reckoning.notes,
      ...notesOf(options, onGpu, settings, memory),
      ...(onGpu && fits && memory.total > tight * available
        ? [
            `it fits with ${gibibytes(available - memory.total)} to spare; what the allocator loses between blocks is not counted`,
          ]
        : []),
      ...(fits || found.wouldFit.length > 0 ? [] : [whatIsMissing(memory, available)]),
    ],
    ...found,
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

const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** Why no setting helps. */
function whatIsMissing(memory: PlannedMemory, available: number): string {
  const { weights, masterWeights, gradients, optimizerState } = memory;
  const held = weights + masterWeights + gradients + optimizerState;
  const split =
    'spreading optimizer state, gradients or parameters over ranks, which this version does not do';
  return held > available
    ? `weights, master weights, gradients and optimizer state alone are ${gibibytes(held)} on each rank, and more ranks do not make that less: it takes ${split}`
    : `of ${gibibytes(available)} weights, master weights, gradients and optimizer state take ${gibibytes(held)} on each rank, and what is left is too little for one conversation or sequence at a time: it takes ${split}, or a shorter context`;
}
