import { z } from 'zod';
import { fail } from '../../native/index.ts';

/** Some of the layers: all; every Nth (`every:2` = layers 1, 3, 5 … counted from 0); or a list of indices. */
export const layerSelectionSchema = z.union([
  z.literal('all'),
  z.string().regex(/^every:[1-9]\d*$/, 'must be "all", "every:N" or a list of layer indices'),
  z.array(z.number().int().nonnegative()).min(1),
]);
/** Which layers are meant: see {@link layerSelectionSchema}. */
export type LayerSelection = z.infer<typeof layerSelectionSchema>;

/**
 * The indices that a selection means in a model of `layers` layers, ascending.
 * @param of what the layers are those of, for the message
 * @throws ERR_LIBMOE_CONFIG for an index out of range, a repeated one, or a selection of nothing
 */
export function resolveLayers(selection: LayerSelection, layers: number, of = 'language model'): number[] {
  const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `${of}: ${message}`);
  const every = (n: number): number[] => [...Array(layers).keys()].filter((layer) => (layer + 1) % n === 0);
  let chosen: number[];
  if (selection === 'all') chosen = every(1);
  else if (typeof selection === 'string') chosen = every(Number(selection.slice('every:'.length)));
  else chosen = [...selection].sort((a, b) => a - b);
  if (chosen.length === 0) wrong(`"${String(selection)}" selects none of ${layers} layers`);
  const outside = chosen.find((layer) => !(layer >= 0 && layer < layers));
  if (outside !== undefined) wrong(`layer ${outside} does not exist: there are 0 to ${layers - 1}`);
  if (new Set(chosen).size !== chosen.length) wrong(`layers are named twice in [${chosen.join(', ')}]`);
  return chosen;
}
