import { fail } from '../native/index.ts';
import { noGrad, type Tensor } from '../tensor/index.ts';
import { SelfAttention } from './attention.ts';
import { FeedForward } from './feed-forward.ts';
import { LatentAttention } from './latent-attention.ts';
import { Linear } from './linear.ts';
import { LowRank, type LowRankOptions } from './low-rank.ts';
import type { Module } from './module.ts';

/** A matrix beside which something can be learnt. */
interface Place {
  weight: Tensor;
  get(): LowRank | undefined;
  set(beside: LowRank | undefined): void;
}

/** Those of a module tree, by name: the matrices of attention and of dense feed-forward layers (shared experts too; routed ones have no place). */
function placesIn(model: Module): Map<string, Place> {
  const places = new Map<string, Place>();
  const at = <Key extends string>(
    owner: { [key in Key]?: LowRank | undefined },
    key: Key,
    name: string,
    weight: Tensor,
  ): void => {
    places.set(name, {
      weight,
      get: () => owner[key],
      set(beside) {
        (owner as { [key in Key]?: LowRank | undefined })[key] = beside;
      },
    });
  };
  for (const [path, module] of model.namedModules()) {
    const inside = (field: string): string => (path === '' ? field : `${path}.${field}`);
    if (module instanceof SelfAttention || module instanceof LatentAttention) {
      for (const [field, layer] of Object.entries(module))
        if (layer instanceof Linear) at(layer, 'beside', inside(field), layer.weight);
    } else if (module instanceof FeedForward) {
      at(module, 'besideUp', inside('up'), module.up);
      at(module, 'besideDown', inside('down'), module.down);
    }
  }
  return places;
}

/** All matrices of a model that {@link addLowRank} can be told, by name: `blocks.0.attention.query`, `blocks.0.feedForward.up`. */
export const lowRankPlaces = (model: Module): Map<string, Tensor> =>
  new Map([...placesIn(model)].map(([name, { weight }]) => [name, weight]));

/** What was added beside the matrices of a model. */
export interface Adapters {
  /** By the name of the matrix. */
  readonly all: ReadonlyMap<string, LowRank>;
  /** The matrices themselves. */
  readonly weights: ReadonlyMap<string, Tensor>;
  /** Their parameters, by their names in the model. */
  parameters(): Map<string, Tensor>;
  /** Runs `work` on the model as if nothing had been added: with what was learnt in its matrices (`merged`), or without it. Afterwards all is as before, bit for bit. */
  aside<T>(merged: boolean, work: () => T): T;
}

/**
 * Adds a {@link LowRank} beside each of these matrices, which take no gradients from then on. Each draws its values by its own name.
 * @throws ERR_LIBMOE_ARGUMENT for a name that is none of {@link lowRankPlaces}, or is told twice
 */
export function addLowRank(
  model: Module,
  names: Iterable<string>,
  options: LowRankOptions & { seed: number },
): Adapters {
  const places = placesIn(model);
  const chosen = new Map<string, Place>();
  const all = new Map<string, LowRank>();
  for (const name of names) {
    const place = places.get(name);
    if (!place)
      return fail(
        'ERR_LIBMOE_ARGUMENT',
        `nothing can be added beside "${name}": there are ${[...places.keys()].slice(0, 3).join(', ')}, …`,
      );
    if (place.get()) return fail('ERR_LIBMOE_ARGUMENT', `"${name}" has something added beside it already`);
    const beside = new LowRank(place.weight, options, { seed: options.seed, name: `beside.${name}` });
    place.weight.requiresGrad = false;
    place.set(beside);
    all.set(name, beside);
    chosen.set(name, place);
  }
  return {
    all,
    weights: new Map([...chosen].map(([name, { weight }]) => [name, weight])),
    parameters() {
      const own = new Set([...all.values()].flatMap(({ down, up }) => [down, up]));
      return new Map([...model.namedParameters()].filter(([, t]) => own.has(t)));
    },
    aside(merged, work) {
      // On the host: a device that is full of optimizer state has no room for the matrices once more.
      const kept = new Map<string, ReturnType<Tensor['readSync']>>();
      try {
        for (const [name, { weight, set }] of chosen) {
          set(undefined);
          if (!merged) continue;
          kept.set(name, weight.readSync());
          using sum = all.get(name)!.merged(weight);
          noGrad(() => weight.write(sum.readSync()));
        }
        return work();
      } finally {
        for (const [name, values] of kept) chosen.get(name)!.weight.write(values);
        for (const [name, { set }] of chosen) set(all.get(name));
      }
    },
  };
}
