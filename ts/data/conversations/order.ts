import { permutation } from '../shuffle.ts';

/**
 * The order of an epoch: as stored, shuffled, or grouped so that a batch holds samples of like length, and of one kind where `modality` says so
 * (with images or without).
 */
export type SampleOrder = 'none' | 'shuffle' | 'length' | 'modality';

/** What the grouped orders are dealt out to. */
export interface Grouping {
  /** Samples of a batch over all devices and accumulation steps. */
  batchSamples: number;
  /** Parts of about equal length that a batch is dealt into, the original's devices × accumulation steps. */
  groups: number;
}

/** Random order of `count` things; `part` tells the draws of an epoch apart. */
export type Draw = (count: number, part: string) => Int32Array;

/** The samples of an epoch in their order, a function of (words, grouping, seed, epoch) alone. `words`: negative for samples without images. */
export function epochOrder(
  words: Int32Array,
  order: SampleOrder,
  grouping: Grouping,
  place: { seed: number; epoch: number },
): Int32Array {
  if (order === 'none') return Int32Array.from(words.keys());
  const draw: Draw = (count, part) => permutation(count, place.seed, place.epoch, part);
  if (order === 'shuffle') return draw(words.length, '');
  return order === 'length'
    ? lengthGrouped(words.map(Math.abs), grouping, draw, '')
    : modalityGrouped(words, grouping, draw);
}

/**
 * Megabatches of random samples, each sorted by length, longest first, and dealt into parts (spec/algorithms.md §5.3).
 */
export function lengthGrouped(
  words: Int32Array,
  { batchSamples, groups }: Grouping,
  draw: Draw,
  part: string,
): Int32Array {
  const shuffled = draw(words.length, part);
  const out = new Int32Array(words.length);
  let at = 0;
  for (let i = 0; i < shuffled.length; i += batchSamples) {
    const megabatch = Array.from(shuffled.subarray(i, i + batchSamples));
    megabatch.sort((a, b) => words[b]! - words[a]!);
    for (const group of dealt(megabatch, words, groups)) {
      out.set(group, at);
      at += group.length;
    }
  }
  return out;
}

/** Each sample to the group that is shortest so far and not full; every `groups`-th where they cannot be of one size. */
function dealt(samples: readonly number[], words: Int32Array, groups: number): number[][] {
  if (samples.length % groups !== 0)
    return Array.from({ length: groups }, (_, group) => samples.filter((_, i) => i % groups === group));
  const size = samples.length / groups;
  const out: number[][] = Array.from({ length: groups }, () => []);
  const lengths = new Array<number>(groups).fill(0);
  for (const sample of samples) {
    const shortest = lengths.indexOf(Math.min(...lengths));
    out[shortest]!.push(sample);
    lengths[shortest]! += words[sample]!;
    if (out[shortest]!.length === size) lengths[shortest] = Number.POSITIVE_INFINITY;
  }
  return out;
}

/**
 * Megabatches of samples with images and of samples without, each kind grouped by length, in random order; what is left over of both comes
 * last, in the order of the data.
 */
export function modalityGrouped(words: Int32Array, grouping: Grouping, draw: Draw): Int32Array {
  const kinds = [1, -1].map((sign) => {
    const samples: number[] = [];
    for (const [i, length] of words.entries()) if (Math.sign(length) === sign) samples.push(i);
    return samples;
  });
  if (kinds.some((samples) => samples.length === 0))
    return lengthGrouped(words.map(Math.abs), grouping, draw, '');
  const megabatches: Int32Array[] = [];
  const rest: number[] = [];
  for (const [kind, samples] of kinds.entries()) {
    const lengths = Int32Array.from(samples, (sample) => Math.abs(words[sample]!));
    const order = lengthGrouped(lengths, grouping, draw, kind === 0 ? 'images' : 'text').map(
      (i) => samples[i]!,
    );
    // The last megabatch of a kind is set aside even when it is full.
    const last = Math.floor((order.length - 1) / grouping.batchSamples) * grouping.batchSamples;
    for (let i = 0; i < last; i += grouping.batchSamples)
      megabatches.push(order.subarray(i, i + grouping.batchSamples));
    rest.push(...order.subarray(last));
  }
  const out = new Int32Array(words.length);
  let at = 0;
  for (const i of draw(megabatches.length, 'megabatches')) {
    out.set(megabatches[i]!, at);
    at += megabatches[i]!.length;
  }
  out.set(
    rest.sort((a, b) => a - b),
    at,
  );
  return out;
}
