import os from 'node:os';
import { fail } from '../native/index.ts';
import { cast } from '../tensor/elementwise.ts';
import { matmul } from '../tensor/gemm.ts';
import { noGrad, scope } from '../tensor/index.ts';
import { randn } from '../tensor/random.ts';

/** Where a plan would run. */
export interface PlanDevice {
  name: string;
  /** Bytes there are. */
  memory: number;
  /** Operations per second that a training run is expected to reach; undefined where nobody can say. */
  rate: number | undefined;
  /** Where the rate comes from, in words. */
  basis: string;
}

interface Card {
  /** GiB, and dense 10¹² operations per second in bf16 and f32, as the maker states them. */
  memory: number;
  bf16: number;
  f32: number;
}

/** Graphics cards by name, SXM forms. */
const cards: Readonly<Record<string, Card>> = {
  'a100-40': { memory: 40, bf16: 312, f32: 19.5 },
  'a100-80': { memory: 80, bf16: 312, f32: 19.5 },
  h100: { memory: 80, bf16: 989, f32: 67 },
  h200: { memory: 140, bf16: 989, f32: 67 },
};
const cardNames = Object.keys(cards);

/** Part of a card's stated peak that training is assumed to reach. */
const assumedUse = 0.35;
/** Part of the speed of matrix products that training reaches: the demo's models, 82 of 194 GFLOP/s (bench/results, 2026-11-22). */
const cpuUse = 0.42;

/** A graphics card by its name, or one of which only the memory is known. @throws ERR_LIBMOE_ARGUMENT for a name that is not known, or no memory */
export function graphicsCard(
  name: string | undefined,
  gigabytes: number | undefined,
  precision: 'f32' | 'bf16',
): PlanDevice {
  const card = name === undefined ? undefined : cards[name.toLowerCase()];
  if (name !== undefined && !card)
    fail('ERR_LIBMOE_ARGUMENT', `there is no card "${name}" in the list: ${cardNames.join(', ')}`);
  if (gigabytes !== undefined && !(gigabytes > 0))
    fail('ERR_LIBMOE_ARGUMENT', `the memory of a GPU must be more than 0 GiB, got ${gigabytes}`);
  const memory = gigabytes ?? card?.memory;
  if (memory === undefined)
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `of which memory are the GPUs? Give --gpu (${cardNames.join(', ')}) or --gpu-memory GB`,
    );
  const peak = card?.[precision];
  return {
    name: name ?? 'GPU',
    memory: memory * 2 ** 30,
    rate: peak === undefined ? undefined : peak * 1e12 * assumedUse,
    basis:
      peak === undefined
        ? 'no time: name the card with --gpu'
        : `assumed: ${Math.round(100 * assumedUse)} % of the stated ${peak} TFLOP/s in ${precision}`,
  };
}

/** This machine: its memory, and its speed measured with matrix products. */
export function thisMachine(precision: 'f32' | 'bf16'): PlanDevice {
  const rate = matmulRate(precision);
  return {
    name: 'CPU',
    memory: Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, os.totalmem()),
    rate: rate * cpuUse,
    basis: `${Math.round(100 * cpuUse)} % of ${(rate / 1e9).toFixed(0)} GFLOP/s measured now in ${precision} matrix products`,
  };
}

/** Operations per second of a matrix product of a size as training has it, the best of half a second. */
function matmulRate(precision: 'f32' | 'bf16'): number {
  const size = 1024;
  return noGrad(() =>
    scope(() => {
      const a = cast(randn([size, size], { seed: 1 }), precision);
      const b = cast(randn([size, size], { seed: 2 }), precision);
      let best = Number.POSITIVE_INFINITY;
      const end = performance.now() + 500;
      do {
        const started = performance.now();
        matmul(a, b).dispose();
        best = Math.min(best, performance.now() - started);
      } while (performance.now() < end);
      return (2 * size ** 3) / (best / 1000);
    }),
  );
}
