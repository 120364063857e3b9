import {
  initialiserOf,
  type MatrixInit,
  type MoeLayer,
  type Router,
  type RouterInit,
} from '../../moe/index.ts';
import {
  type Initialiser,
  initialise,
  kaimingUniform,
  normal,
  onesInitialiser,
  partOf,
  rescaledTruncatedNormal,
  zerosInitialiser,
} from '../../nn/initialisers.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { MoeConfig } from './config.ts';
import type { LanguageModel } from './model.ts';

/** Draws every parameter of a model from (seed, path) as its configuration says. */
export function drawInitialValues(model: LanguageModel, seed: number): void {
  const { config } = model;
  initialise(
    model,
    seed,
    config.init === 'libmoe'
      ? (path, value) => libmoeRule(model, path, value)
      : (path, value) => gaussianRule(model, (config.init as { std: number }).std, path, value),
  );
  for (const [name, buffer] of model.namedBuffers()) routerBufferRule(model, name)?.(buffer, { seed, name });
}

const isNorm = (path: string): boolean =>
  /(^|\.)(attentionNorm|feedForwardNorm|finalNorm|queryNorm|keyNorm|keyValueNorm)\.weight$/.test(path);
const isSinks = (path: string): boolean => path.endsWith('.attention.sinks');
const isBias = (path: string): boolean => /(\.bias|Bias)$/.test(path);

/** Every matrix N(0, std²), biases 0, norms 1; what a router has besides its weight keeps its constructor's values. */
function gaussianRule(
  model: LanguageModel,
  std: number,
  path: string,
  value: Tensor,
): Initialiser | undefined {
  if (isNorm(path)) return onesInitialiser;
  if (path.includes('.moe.router.')) return routerRule(model, path, { std });
  if (isBias(path)) return zerosInitialiser;
  return value.rank >= 2 || isSinks(path) ? normal(std) : undefined;
}

/** A model as its routers see it: their places and options. */
export interface RoutedModel {
  readonly config: { readonly layers: number; readonly moe?: Pick<MoeConfig, 'router'> | undefined };
  readonly blocks: readonly { readonly moe?: MoeLayer }[];
}

/** A router's parameter, as its own options say; what they leave open is as in `usual`. */
export function routerRule(model: RoutedModel, path: string, usual: MatrixInit): Initialiser | undefined {
  const init = model.config.moe!.router.init as RouterInit | undefined;
  const layer = Number(/^blocks\.(\d+)\./.exec(path)?.[1]);
  return routerStart(model, path, initialiserOf(init, usual, { layer, layers: model.config.layers }));
}

/** The router of `blocks.N.moe.router.…`, and the name in it. */
function routerAt(model: RoutedModel, path: string): { router: Router; name: string } | undefined {
  const [, block, name] = /^blocks\.(\d+)\.moe\.router\.(.+)$/.exec(path) ?? [];
  const router = block === undefined ? undefined : model.blocks[Number(block)]?.moe?.router;
  return router && name !== undefined ? { router, name } : undefined;
}

/** How a router's parameter starts when the model draws matrices by `rule`; undefined: as its constructor left it. */
function routerStart(model: RoutedModel, path: string, rule: Initialiser): Initialiser | undefined {
  const at = routerAt(model, path);
  if (at?.router.start) return at.router.start(rule, at.name);
  return at?.name === 'weight' ? rule : undefined;
}

/** How a router's buffer starts in a model; undefined: as its constructor left it. */
export function routerBufferRule(model: RoutedModel, path: string): Initialiser | undefined {
  const at = routerAt(model, path);
  return at?.router.startBuffer?.(at.name);
}

/**
 * LibMoE's initialisation, as its code has it: embedding N(0, 1/d); the linear layers of a block from a truncated normal rescaled to the
 * exact std √(2/(L·fanIn)), biases 0; routed experts N with std √(2/L)·d^(−1/2) in and √(2/L)·(N·s)^(−1/2) out; shared experts with their own width in
 * place of N·s; router √(2/L)·d^(−1/2); the output projection as PyTorch's Linear. Keys and values are drawn as the one matrix that they are in LibMoE.
 */
function libmoeRule(model: LanguageModel, path: string, value: Tensor): Initialiser | undefined {
  const { config } = model;
  const { dModel } = config;
  const gain = Math.sqrt(2 / config.layers);
  if (isNorm(path)) return onesInitialiser;
  if (path === 'embedding.weight' || path === 'positionEmbedding.weight') return normal(dModel ** -0.5);
  if (path.startsWith('output.')) return kaimingUniform(dModel);
  if (isSinks(path)) return zerosInitialiser;
  if (isBias(path) && !path.includes('.moe.router.')) return zerosInitialiser;
  const moe = /^blocks\.\d+\.moe\.(.+)$/.exec(path)?.[1];
  const fanIn = value.shape.at(-1)!;
  if (moe !== undefined) return libmoeExpertRule(model, path, moe, gain, value);
  const std = gain * fanIn ** -0.5;
  const [, attention, half] = /^(.+\.attention)\.(key|value)\.weight$/.exec(path) ?? [];
  if (attention === undefined || config.attention) return rescaledTruncatedNormal(std);
  return partOf(`${attention}.keyValue.weight`, half === 'key' ? 0 : 1, 2, rescaledTruncatedNormal(std));
}

function libmoeExpertRule(
  model: LanguageModel,
  path: string,
  name: string,
  gain: number,
  value: Tensor,
): Initialiser | undefined {
  const moe = model.config.moe!;
  const fanIn = value.shape.at(-1)!;
  if (name.startsWith('router.')) return routerRule(model, path, { std: gain * fanIn ** -0.5 });
  if (name === 'experts.down') return normal(gain * (moe.experts * moe.expert.hidden) ** -0.5);
  return value.rank >= 2 ? normal(gain * fanIn ** -0.5) : undefined;
}
