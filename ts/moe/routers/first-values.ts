import { z } from 'zod';
import { type Initialiser, kaimingUniform, normal } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import type { Tensor } from '../../tensor/index.ts';
import { libmoeStd } from '../experts.ts';
import type { RouterPlace } from '../registry.ts';

/** Of the initial values of a layer by itself: LibMoE's. */
const ownSeed = 42;

/** Option `init` of routers: standard deviation of the matrix that scores tokens, or 'linear' for PyTorch's default. */
export const initOption = z.union([z.literal('linear'), z.object({ std: z.number().positive() }).strict()]);
/** How the matrix of a router starts. */
export type MatrixInit = z.output<typeof initOption>;

/** What `init` means. */
export const initialiserOf = (init: MatrixInit): Initialiser =>
  init === 'linear' ? kaimingUniform() : normal(init.std);

/** Without the option: √(2/layers) · width^(−1/2) in LibMoE's language models, 0.02 in its vision-language layers. */
export function usualInit(flavour: 'language' | 'vision-language', place: RouterPlace): MatrixInit {
  if (flavour === 'vision-language') return { std: 0.02 };
  const { width, experts, layers } = place;
  return { std: libmoeStd({ width, hidden: 1, experts, layers }).router };
}

/**
 * A parameter with its first values, drawn from what the layer was given or from seed 42 and the layer's index. `field` tells the parameters of
 * one router apart.
 */
export function drawnParameter(
  shape: readonly number[],
  place: RouterPlace,
  field: string,
  initialiser: Initialiser,
): Tensor {
  const value = newParameter(shape, place);
  drawFirst(value, place, field, initialiser);
  return value;
}

/** Overwrites a tensor with first values, as {@link drawnParameter} does. */
export function drawFirst(target: Tensor, place: RouterPlace, field: string, initialiser: Initialiser): void {
  const { seed, name } = place.values ?? { seed: ownSeed, name: `router.${place.layer}` };
  initialiser(target, { seed, name: field === '' ? name : `${name}.${field}` });
}

/** The same values in every layer of a model: LibMoE seeds its vision-language layers alike. */
export const alike =
  (initialiser: Initialiser): Initialiser =>
  (target, { seed }) =>
    initialiser(target, { seed, name: 'router' });

/** {@link equaliseRows} of what `initialiser` draws. */
export function withEqualRows(initialiser: Initialiser, norm?: number): Initialiser {
  return (weight, source) => {
    initialiser(weight, source);
    equaliseRows(weight, norm);
  };
}

/** Every row rescaled to one norm, default such that the standard deviation of the whole stays (Csordás et al., arXiv 2310.10837). */
export function equaliseRows(weight: Tensor, norm?: number): void {
  const [rows = 0, width = 0] = weight.shape;
  const values = weight.toArray();
  const norms = Array.from({ length: rows }, (_, r) =>
    Math.hypot(...values.slice(r * width, (r + 1) * width)),
  );
  const target = norm ?? Math.sqrt(norms.reduce((a, n) => a + n * n, 0) / rows);
  weight.write(values.map((x, i) => (x * target) / (norms[Math.floor(i / width)] || 1)));
}
