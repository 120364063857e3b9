import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { type Initialiser, kaimingUniform } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { byScheme, initSchemes } from '../../nn/schemes.ts';
import type { Tensor } from '../../tensor/index.ts';
import { libmoeStd } from '../experts.ts';
import type { RouterPlace } from '../registry.ts';

/** Of the initial values of a layer by itself: LibMoE's. */
const ownSeed = 42;

const seed = z.number().int().nonnegative();

/** How the matrix of a router starts, in options: see {@link MatrixInit}. */
export const matrixInitSchema = z.strictObject({
  std: z.number().positive().optional(),
  scheme: z.enum(initSchemes).optional(),
  seeds: z.union([seed, z.array(seed).min(1)]).optional(),
});

/**
 * How the matrix of a router starts: standard deviation of its elements, the scheme that draws it (default normal), and seeds of its own: one
 * for each layer of the model, layers of equal seed starting alike, or the seed of layer 0, to which the others add their index. Without seeds
 * every layer draws from the model's seed and its own name.
 */
export type MatrixInit = z.output<typeof matrixInitSchema>;

/** Option `init` of routers: {@link MatrixInit}, or 'linear' for PyTorch's default. */
export const initOption = z.union([matrixInitSchema, z.literal('linear')]);
/** {@link MatrixInit}, or 'linear' for PyTorch's default. */
export type RouterInit = MatrixInit | 'linear';

/** What `init` means in a layer of a model; what it leaves open is as in `usual`. @throws ERR_LIBMOE_CONFIG for a list of seeds that is not one per layer */
export function initialiserOf(
  init: RouterInit | undefined,
  usual: RouterInit,
  { layer, layers }: Pick<RouterPlace, 'layer' | 'layers'>,
): Initialiser {
  if (init === undefined) return initialiserOf(usual, usual, { layer, layers });
  if (init === 'linear') return kaimingUniform();
  const { scheme = 'normal', seeds } = init;
  const known = usual === 'linear' || scheme === 'kaiming-uniform' ? undefined : usual.std;
  const drawn = byScheme(scheme, init.std ?? known);
  if (seeds === undefined) return drawn;
  if (Array.isArray(seeds) && seeds.length !== layers)
    fail(
      'ERR_LIBMOE_CONFIG',
      `init.seeds lists ${seeds.length} layers and the model has ${layers}: give one seed per layer of the model, or one number`,
    );
  const own = Array.isArray(seeds) ? seeds[layer]! : seeds + layer;
  // Without the number of the layer in the name the seed alone decides.
  return (target, { name }) => drawn(target, { seed: own, name: name.replace(/(^|\.)\d+(?=\.|$)/, '') });
}

/** Without the option: √(2/layers) · width^(−1/2) in LibMoE's language models, 0.02 in its vision-language layers. */
export function usualInit(flavour: 'language' | 'vision-language', place: RouterPlace): RouterInit {
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
