import { type LanguageModelConfig, type MoeConfig, moeLayersOf } from '../config.ts';
import type { LayerSelection } from '../layer-selection.ts';
import type { FileTensor } from './architecture.ts';
import { llamaTensors } from './llama.ts';
import type { FamilyNeed } from './needs.ts';

/** What a family calls the parts of a mixture-of-experts layer that keeps one tensor per expert and matrix. */
export interface ExpertNames {
  /** Of the layer within its block. */
  block: string;
  /** Of an expert's matrices. */
  gate: string;
  up: string;
  down: string;
  /** Of the block that sees every token. */
  shared?: string;
}

const usual = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' };
/** The names of OLMoE and of Qwen's families; shared experts as Qwen2-MoE calls them. */
export const mlpExperts: ExpertNames = { block: 'mlp', ...usual, shared: 'shared_expert' };

/** The file tensors of a model of Llama's form with experts. */
export function expertTensors(name: string, shape: readonly number[], names: ExpertNames): FileTensor[] {
  const [, layer, rest] = /^blocks\.(\d+)\.moe\.(.+)$/.exec(name) ?? [];
  const prefix = `model.layers.${layer}.${names.block}.`;
  const each = (matrices: readonly string[], of: readonly number[]): FileTensor[] =>
    Array.from({ length: shape[0]! }, (_, expert) =>
      matrices.map((matrix) => ({ name: `${prefix}experts.${expert}.${matrix}.weight`, shape: of })),
    ).flat();
  const shared = (matrices: readonly string[], of: readonly number[]): FileTensor[] =>
    matrices.map((matrix) => ({ name: `${prefix}${names.shared}.${matrix}.weight`, shape: of }));
  switch (rest) {
    case 'router.weight':
      return [{ name: `${prefix}gate.weight`, shape }];
    case 'experts.up':
      return each([names.gate, names.up], [shape[1]! / 2, shape[2]!]);
    case 'experts.down':
      return each([names.down], shape.slice(1));
    case 'shared.up':
      return shared([names.gate, names.up], [shape[0]! / 2, shape[1]!]);
    case 'shared.down':
      return shared([names.down], shape);
    case 'sharedGate.weight':
      return [{ name: `${prefix}${names.shared}_gate.weight`, shape }];
    default:
      return llamaTensors(name, shape);
  }
}

export const routedBy = ({ router }: MoeConfig, name: string): FamilyNeed => [
  router.name === name,
  `router "${router.name}"`,
];
export const noRouterBias = ({ router }: MoeConfig): FamilyNeed => [
  router.bias !== true,
  'a router with bias',
];
export const gatedExperts = ({ expert }: MoeConfig): FamilyNeed => [expert.gated, 'experts without gate'];
export const noExpertBias = ({ expert }: MoeConfig): FamilyNeed => [!expert.bias, 'experts with biases'];
export const weighsOutputs = ({ weighted }: MoeConfig): FamilyNeed => [
  weighted !== 'inputs',
  'weights of experts\' inputs (weighted: "inputs")',
];
export const unscaled = ({ routedScaling }: MoeConfig): FamilyNeed => [
  routedScaling === 1,
  `routedScaling ${routedScaling}`,
];
export const dropless = ({ capacityFactor }: MoeConfig): FamilyNeed => [
  capacityFactor === undefined,
  `capacityFactor ${capacityFactor}`,
];
export const noSharedExpert = ({ shared }: MoeConfig): FamilyNeed => [
  shared === undefined,
  'a shared expert',
];
export const withSharedExpert = ({ shared }: MoeConfig): FamilyNeed => [
  shared !== undefined,
  'no shared expert',
];
export const noSigmoidGate = ({ shared }: MoeConfig): FamilyNeed => [
  shared?.sigmoidGate !== true,
  'a shared expert with sigmoidGate',
];
export const sharedSum = ({ sharedMix }: MoeConfig): FamilyNeed => [
  sharedMix === 'sum',
  `sharedMix "${sharedMix}"`,
];
export const expertsEverywhere = (config: LanguageModelConfig): FamilyNeed => [
  moeLayersOf(config).length === config.layers,
  `experts in some layers alone (${moeLayersText(config)})`,
];
export const oneActivation = ({ moe, feedForward }: LanguageModelConfig): FamilyNeed => [
  moe?.expert.activation === feedForward.activation,
  `activation "${moe?.expert.activation}" of experts beside "${feedForward.activation}" of dense layers`,
];

/** The selection of the layers with experts, as a user writes it. */
export const moeLayersText = ({ moe }: LanguageModelConfig): string => `layers ${moe?.layers}`;

/** A softmax router of gated experts without biases that drop no token, and nothing else: shared experts are for the caller to look at. */
export const softmaxExperts = (moe: MoeConfig): FamilyNeed[] => [
  routedBy(moe, 'smoe'),
  noRouterBias(moe),
  gatedExperts(moe),
  noExpertBias(moe),
  weighsOutputs(moe),
  unscaled(moe),
  dropless(moe),
];

/** The chosen probabilities are divided by their sum. */
export const normalised = (moe: MoeConfig): FamilyNeed => [
  normalises(moe),
  'weights that are not divided by their sum',
];

/** Whether the chosen probabilities are divided by their sum. (A softmax over the chosen logits comes to the same.) */
export const normalises = (moe: MoeConfig): boolean => moe.router.normalise !== false;

/** A softmax router, as `norm_topk_prob` says what becomes of the chosen probabilities. */
export const softmaxRouter = (normalise: boolean): MoeConfig['router'] =>
  normalise ? { name: 'smoe' } : { name: 'smoe', normalise: false };

/** The indices of these layers as a selection, in the words of `every` Nth layer where those say it. @param chosen not empty */
export function selectionOf(chosen: readonly number[], layers: number, every = 1): LayerSelection {
  const regular = Array.from({ length: layers }, (_, layer) => layer).filter(
    (layer) => (layer + 1) % every === 0,
  );
  if (chosen.length !== regular.length || chosen.some((layer, i) => layer !== regular[i])) return [...chosen];
  return every === 1 ? 'all' : `every:${every}`;
}

/** The N of a selection of every Nth layer, 1 of any other. */
export const stepOf = (selection: LayerSelection | undefined): number =>
  Number(/^every:(\d+)$/.exec(String(selection))?.[1] ?? 1);
