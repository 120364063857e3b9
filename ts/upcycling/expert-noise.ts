import { z } from 'zod';
import type { Experts } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { type RandomSource, streamOf } from '../nn/initialisers.ts';
import { noGrad, type Tensor, view } from '../tensor/index.ts';
import { randn, randomPermutation } from '../tensor/random.ts';

/** How copies of one dense layer are made to differ; one of the first two, or both. */
export const expertNoiseSchema = z.strictObject({
  /** Share of the hidden units of every expert whose weights are drawn anew (Drop-Upcycling, arXiv 2502.19261; 0.5 there). */
  reinitialise: z.number().positive().max(1).optional(),
  /** N(0, (perturb · std of the dense tensor)²) is added to every weight. */
  perturb: z.number().positive().optional(),
  /** Expert 0 stays the dense layer. */
  keepFirst: z.boolean().default(false),
});
/** {@link expertNoiseSchema} with every default written out. */
export type ExpertNoise = z.output<typeof expertNoiseSchema>;

/** What {@link addExpertNoise} did in each layer. */
export interface NoiseReport {
  /** Experts that were changed, of how many. */
  changed: number;
  experts: number;
  /** Hidden units of each that were drawn anew, of how many. */
  units: number;
  hidden: number;
}

/**
 * Makes the experts of a layer, all copies of one dense layer, differ.
 *
 * `reinitialise`: in every expert round(share · hidden) hidden units of its own choice lose their rows of `up` (gate and up alike) and their
 * column of `down` to new numbers N(μ, σ²), μ and σ those of the dense gate, up and down matrix (Nakamura et al., "Drop-Upcycling", arXiv
 * 2502.19261). `perturb` adds normal noise to all weights first. Biases stay. Each expert draws from the seed, its layer and its index.
 * @throws ERR_LIBMOE_CONFIG when neither is asked for, or nothing would change
 */
export function addExpertNoise(
  experts: Experts,
  noise: ExpertNoise,
  { seed, name }: RandomSource,
): NoiseReport {
  const { reinitialise, perturb, keepFirst } = noise;
  if (reinitialise === undefined && perturb === undefined)
    fail('ERR_LIBMOE_CONFIG', 'expertNoise: set reinitialise (a share of hidden units), perturb, or both');
  const { count, hidden } = experts;
  const units = reinitialise === undefined ? 0 : Math.round(reinitialise * hidden);
  if (reinitialise !== undefined && units === 0)
    fail(
      'ERR_LIBMOE_CONFIG',
      `expertNoise: reinitialise ${reinitialise} of ${hidden} hidden units is less than half a unit, and none would be drawn anew: set at least ${leastShare(hidden)}`,
    );
  if (keepFirst && count === 1)
    fail(
      'ERR_LIBMOE_CONFIG',
      'expertNoise: keepFirst leaves the only expert as it is: set experts to 2 or more',
    );
  const matrices = parts(experts);
  const statistics = matrices.map(({ tensor, width, at }) => {
    using first = view(tensor, tensor.shape.slice(1), 0);
    const places = Array.from({ length: hidden * width }, (_, p) => at(Math.floor(p / width), p % width));
    return moments(first.toArray(), places);
  });
  for (let e = keepFirst ? 1 : 0; e < count; e += 1) {
    const stream = (what: string) => ({
      seed,
      stream: streamOf(`${name}.${e}.${what}`),
      device: 'cpu' as const,
    });
    using order = randomPermutation(hidden, stream('units'));
    const chosen = order.toArray().slice(0, units);
    matrices.forEach(({ tensor, part, width, at }, m) => {
      const { mean, std } = statistics[m]!;
      using target = view(tensor, tensor.shape.slice(1), e * (tensor.size / count));
      const values = target.toArray();
      const draw = (what: string, count: number): number[] => {
        using numbers = randn([count], stream(`${part}.${what}`));
        return numbers.toArray();
      };
      if (perturb !== undefined) {
        const added = draw('noise', hidden * width);
        for (let u = 0; u < hidden; u += 1)
          for (let i = 0; i < width; i += 1) values[at(u, i)]! += perturb * std * added[u * width + i]!;
      }
      const fresh = units > 0 ? draw('units', units * width) : [];
      chosen.forEach((u, row) => {
        for (let i = 0; i < width; i += 1) values[at(u, i)] = mean + std * fresh[row * width + i]!;
      });
      noGrad(() => target.write(values));
    });
  }
  return { changed: keepFirst ? count - 1 : count, experts: count, units, hidden };
}

/** A share of the hidden units that is one of them, in few digits. */
const leastShare = (hidden: number): number => Number((1 / hidden).toPrecision(2));

/** A matrix of one expert: where it lies, and the place of the weight of a hidden unit and a channel within the expert. */
interface Part {
  tensor: Tensor;
  part: string;
  /** Weights of one hidden unit in it. */
  width: number;
  at: (unit: number, channel: number) => number;
}

function parts({ up, down, gated, hidden, width, outputs }: Experts): Part[] {
  const rows = (tensor: Tensor, part: string, first: number): Part => {
    return { tensor, part, width, at: (u, i) => (first + u) * width + i };
  };
  const first = gated ? [rows(up, 'gate', 0), rows(up, 'up', hidden)] : [rows(up, 'up', 0)];
  return [...first, { tensor: down, part: 'down', width: outputs, at: (u, i) => i * hidden + u }];
}

/** Mean and standard deviation of the weights at these places. */
function moments(values: readonly number[], places: readonly number[]): { mean: number; std: number } {
  const mean = places.reduce((sum, at) => sum + values[at]!, 0) / places.length;
  const squares = places.reduce((sum, at) => sum + (values[at]! - mean) ** 2, 0);
  return { mean, std: Math.sqrt(squares / places.length) };
}
