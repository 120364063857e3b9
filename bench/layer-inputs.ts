// What a MoE layer's benches start from; peers/moe_layer.py makes the same.
import { type Dtype, type Tensor, tensor } from '../ts/tensor/index.ts';
import { type InputSpec, mixed, repeated } from './inputs.ts';
import type { Shape } from './shapes.ts';

export type Routing = 'uniform' | 'zipf';
export const balanceCoefficient = 0.01;

/**
 * Tokens and router such that both sides choose the same experts, whatever the order in which they add: all are small multiples of powers of two,
 * so the logits are exact. The first two features of every token are 1 and carry what the router adds to each expert's logit: −log(rank) for
 * Zipf's law with exponent 1 (rounded), and a step too small to matter that parts ties.
 */
export function tokensAndRouter(
  { tokens, d, experts }: Shape,
  routing: Routing,
  dtype: Dtype,
  train: boolean,
): { x: Tensor; router: Tensor } {
  const x = repeated(new Float32Array(tokens * d), (i) => ((mixed(i, 1) % 219) - 109) / 64);
  for (let t = 0; t < tokens; t += 1) x.fill(1, t * d, t * d + 2);
  const router = repeated(new Float32Array(experts * d), (i) => ((mixed(i, 2) % 7) - 3) / 64);
  for (let e = 0; e < experts; e += 1) {
    router[e * d] = routing === 'zipf' ? Math.round(-Math.log(e + 1) * 32) / 32 : 0;
    router[e * d + 1] = e * 2 ** -20;
  }
  return {
    x: tensor(x, [tokens, d], { dtype, requiresGrad: train }),
    router: tensor(router, [experts, d], { dtype }),
  };
}

export function expertWeights({ d, f, experts, gated }: Shape): { up: InputSpec; down: InputSpec } {
  return {
    up: { shape: [experts, gated ? 2 * f : f, d], scale: 1 / Math.sqrt(d), seed: 3 },
    down: { shape: [experts, d, f], scale: 1 / Math.sqrt(f), seed: 4 },
  };
}

/** Puts the values into the parameter and frees them. */
export function load(parameter: Tensor, values: Tensor): void {
  parameter.write(values.readSync());
  values.dispose();
}
