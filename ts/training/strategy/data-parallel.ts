import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { ProcessGroup } from '../../distributed/index.ts';
import { fail } from '../../native/index.ts';
import { crc32c } from '../../storage/crc32c.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import { cast } from '../../tensor/elementwise.ts';
import { isFloat, keep, noGrad, scope, type Tensor, view } from '../../tensor/index.ts';
import { globalNorm } from '../../tensor/optimizer.ts';
import { cat } from '../../tensor/shape.ts';
import { GradientBuckets } from './gradient-buckets.ts';
import type { Strategy } from './strategy.ts';

const optionsSchema = z.strictObject({
  bucketBytes: z
    .number()
    .int()
    .positive()
    .default(25 * 2 ** 20),
});

/** Options of {@link dataParallel}. */
export interface DataParallelOptions {
  /** Bytes of gradients (f32, f64 for f64) that travel together; default 25 MiB, as PyTorch's DistributedDataParallel. */
  bucketBytes?: number;
}

/** While rank 0 works alone it says so every so many seconds: less than any sensible time-out of a group. */
const beat = 20;

/**
 * Every rank has the whole model and trains on its part of each batch (Li et al., "PyTorch Distributed", arXiv 2006.15704): gradients are added up
 * over the ranks in buckets that leave while backward still runs. The caller owns the group.
 *
 * The ranks' data loaders must hand out parts of the same global batches: `rank` and `world` of the loaders in `data.*`.
 * @throws ERR_LIBMOE_ARGUMENT for options out of range
 */
export function dataParallel(group: ProcessGroup, options: DataParallelOptions = {}): Strategy {
  const parsed = optionsSchema.safeParse(options);
  if (!parsed.success)
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `dataParallel: ${explainIssues(optionsSchema, parsed.error.issues, options)}`,
    );
  const { bucketBytes } = parsed.data;
  const { rank, worldSize } = group;
  let buckets: GradientBuckets | undefined;
  const bucketsOf = (parameters: ReadonlyMap<string, Tensor>): GradientBuckets =>
    new GradientBuckets(group, [...parameters.values()], bucketBytes);
  return {
    name: 'data',
    rank,
    worldSize,
    share: (tensors) => shareTensors(group, tensors),
    watchGradients(parameters) {
      const own = bucketsOf(parameters);
      buckets = own;
      const before = [...parameters.values()].map((p) => [p, p.onGradReady] as const);
      for (const [parameter, other] of before)
        parameter.onGradReady = (leaf) => {
          other?.(leaf);
          own.ready(leaf);
        };
      return (completed) => {
        for (const [parameter, other] of before) parameter.onGradReady = other;
        if (completed) return;
        own.abandon();
        buckets = undefined;
      };
    },
    async reduceGradients(parameters) {
      const own = buckets ?? bucketsOf(parameters);
      buckets = undefined;
      await own.finish();
    },
    reduceCounts: (counts) => group.sumNumbers(counts),
    reduceStatistics: (tensors) => sumTensors(group, tensors),
    onFirstRank: (work) => onFirstRank(group, work),
  };
}

/** What every rank says of itself, by rank. */
async function fromEveryRank(group: ProcessGroup, value: number): Promise<readonly number[]> {
  return group.sumNumbers(Array.from({ length: group.worldSize }, (_, r) => (r === group.rank ? value : 0)));
}

async function shareTensors(group: ProcessGroup, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
  const names = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join('x')}`);
  const forms = await fromEveryRank(group, crc32c(new TextEncoder().encode(names.join('\n'))));
  const other = forms.findIndex((form) => form !== forms[0]);
  if (other > 0)
    fail(
      'ERR_LIBMOE_CONFIG',
      `data-parallel training needs the same model on every rank, but names, dtypes or shapes of the parameters of rank ${other} are ` +
        'not those of rank 0: give all ranks the same recipe or script',
    );
  for (const work of [...tensors.values()].map((t) => group.broadcast(t, 0))) await work.wait();
  const floats = [...tensors.values()].filter(({ dtype }) => isFloat(dtype) && dtype !== 'f16');
  const norms = await fromEveryRank(group, floats.length > 0 ? scope(() => globalNorm(floats).item()) : 0);
  const unlike = norms.findIndex((norm) => !Object.is(norm, norms[0]));
  if (unlike > 0 && Number.isFinite(norms[0]))
    fail(
      'ERR_LIBMOE_COLLECTIVE',
      `after rank 0 had sent its parameters their norm is ${norms[unlike]} on rank ${unlike} and ${norms[0]} on rank 0: ` +
        'the ranks run different builds or machines that cannot work together',
    );
}

async function sumTensors(group: ProcessGroup, tensors: readonly Tensor[]): Promise<readonly Tensor[]> {
  const dtype = tensors.some((t) => t.dtype === 'f64') ? 'f64' : 'f32';
  const flat = noGrad(() =>
    scope(() => {
      const wide = tensors.map((t) => (t.dtype === dtype ? t : cast(t, dtype)));
      return keep(cat(wide.map((t) => view(t, [t.size]))));
    }),
  );
  try {
    await group.allReduce(flat).wait();
    let at = 0;
    return tensors.map((t) => {
      const sum = noGrad(() =>
        scope(() => {
          const own = view(flat, t.shape, at);
          return keep(t.dtype === dtype ? own : cast(own, t.dtype));
        }),
      );
      at += t.size;
      return sum;
    });
  } finally {
    flat.dispose();
  }
}

async function onFirstRank(group: ProcessGroup, work: () => Promise<void>): Promise<void> {
  if (group.rank !== 0) {
    for (;;) {
      const [state = 0] = await group.sumNumbers([0]);
      if (state > 0) return;
      if (state < 0)
        fail('ERR_LIBMOE_COLLECTIVE', 'rank 0 failed between two steps: its own message says why');
    }
  }
  const done = new AbortController();
  // The others wait in one collective after the other, so that none of them takes longer than the group's time-out.
  const beats = (async () => {
    while (!done.signal.aborted) {
      await sleep(beat * 1000, undefined, { signal: done.signal }).catch(() => {});
      if (!done.signal.aborted) await group.sumNumbers([0]);
    }
  })();
  beats.catch(() => {}); // heard of below, when the work is done
  let failure: { error: unknown } | undefined;
  try {
    await work();
  } catch (error) {
    failure = { error };
  }
  done.abort();
  await beats;
  await group.sumNumbers([failure ? -1 : 1]);
  if (failure) throw failure.error;
}
