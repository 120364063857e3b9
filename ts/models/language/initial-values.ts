import { fail } from '../../native/index.ts';
import {
  type Initialiser,
  initialise,
  kaimingUniform,
  normal,
  onesInitialiser,
  rescaledTruncatedNormal,
  zerosInitialiser,
} from '../../nn/initialisers.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { LanguageModelConfig } from './config.ts';
import type { LanguageModel } from './model.ts';

/** Draws every parameter of a model from (seed, path) as its configuration says. */
export function drawInitialValues(model: LanguageModel, seed: number): void {
  const { config } = model;
  initialise(
    model,
    seed,
    config.init === 'libmoe'
      ? (path, value) => libmoeRule(config, path, value)
      : (path, value) => gaussianRule((config.init as { std: number }).std, path, value),
  );
}

const isNorm = (path: string): boolean =>
  /(^|\.)(attentionNorm|feedForwardNorm|finalNorm)\.weight$/.test(path);
const isBias = (path: string): boolean => /(\.bias|Bias)$/.test(path);

/** Every matrix N(0, std²), biases 0, norms 1; what a router or an expert type adds of its own keeps its constructor's values. */
function gaussianRule(std: number, path: string, value: Tensor): Initialiser | undefined {
  if (isNorm(path)) return onesInitialiser;
  if (isBias(path)) return zerosInitialiser;
  return value.rank >= 2 ? normal(std) : undefined;
}

/**
 * LibMoE's initialisation (spec/algorithms.md §1.3, §4.1): embedding N(0, 1/d); the linear layers of a block from a truncated normal rescaled to the
 * exact std √(2/(L·fanIn)), biases 0; routed experts N with std √(2/L)·d^(−1/2) in and √(2/L)·(N·s)^(−1/2) out; shared experts with their own width in
 * place of N·s; router √(2/L)·d^(−1/2); the output projection as PyTorch's Linear. Query, key and value each get the exact std (LibMoE: key and
 * value as one matrix).
 */
function libmoeRule(config: LanguageModelConfig, path: string, value: Tensor): Initialiser | undefined {
  const { dModel } = config;
  const gain = Math.sqrt(2 / config.layers);
  if (isNorm(path)) return onesInitialiser;
  if (path === 'embedding.weight') return normal(dModel ** -0.5);
  if (path.startsWith('output.')) return kaimingUniform(dModel);
  if (isBias(path)) return zerosInitialiser;
  const moe = /^blocks\.\d+\.moe\.(.+)$/.exec(path)?.[1];
  const fanIn = value.shape.at(-1)!;
  if (moe === undefined) return rescaledTruncatedNormal(gain * fanIn ** -0.5);
  return libmoeExpertRule(config, moe, gain, value);
}

function libmoeExpertRule(
  config: LanguageModelConfig,
  name: string,
  gain: number,
  value: Tensor,
): Initialiser | undefined {
  const moe = config.moe ?? fail('ERR_LIBMOE_STATE', 'a dense model has no experts');
  const fanIn = value.shape.at(-1)!;
  if (name === 'experts.down') return normal(gain * (moe.experts * moe.expert.hidden) ** -0.5);
  return value.rank >= 2 ? normal(gain * fanIn ** -0.5) : undefined;
}
