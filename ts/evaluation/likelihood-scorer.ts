import type { KvCache } from '../models/language/kv-cache.ts';
import { codeOf } from '../native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.ts';
import { tokenLogProbabilities } from '../tensor/loss.ts';
import { gatherRows } from '../tensor/shape.ts';
import type { SharedUnit, Unit, WindowUnit } from './batching.ts';
import type { RequestImage, TokenRequest } from './model.ts';
import type { Network } from './network.ts';
import type { RoutingTap } from './routing-tap.ts';
import type { PartScore, TokenValues } from './score-collector.ts';

/** Scores batches of units in one forward pass, or two where contexts are shared. */
export class LikelihoodScorer {
  constructor(
    private readonly network: Network,
    private readonly requests: readonly TokenRequest[],
    private readonly cache: KvCache,
    private readonly tap: RoutingTap,
  ) {}

  /** Scores of a batch; undefined when it must be halved for lack of memory. */
  run(batch: readonly Unit[]): PartScore[] | undefined {
    const used: number[] = [];
    try {
      const scores = noGrad(() =>
        scope(() => [
          ...this.scoreWindows(batch.filter((unit) => unit.kind === 'window')),
          ...this.scoreShared(
            batch.filter((unit) => unit.kind === 'shared'),
            used,
          ),
        ]),
      );
      this.tap.commit();
      return scores;
    } catch (error) {
      this.tap.abandon();
      if (codeOf(error) !== 'ERR_LIBMOE_OUT_OF_MEMORY' || batch.length === 1) throw error;
      return undefined;
    } finally {
      for (const sequence of used) this.cache.free(sequence);
    }
  }

  imagesOf(unit: Unit): readonly RequestImage[] {
    return this.requests[unit.kind === 'shared' ? unit.requests[0]! : unit.request]!.images ?? [];
  }

  private scoreWindows(units: readonly WindowUnit[]): PartScore[] {
    if (units.length === 0) return [];
    const hidden = this.tap.forward(
      units.map((unit) => ({ tokens: unit.window.input, images: this.imagesOf(unit) })),
      () =>
        units.map(({ request, window: { start, seen } }) => {
          return { request, start, from: seen, prompt: this.requests[request]!.context.length };
        }),
    );
    const rows: number[] = [];
    const targets: number[] = [];
    let end = 0;
    for (const { window } of units) {
      end += window.input.length;
      for (const [k, target] of window.targets.entries()) {
        rows.push(end - window.targets.length + k);
        targets.push(target);
      }
    }
    const next = this.predictions(
      rows.length === end ? hidden : gatherRows(hidden, indices(rows, hidden)),
      targets,
    );
    return units.map(({ request, part, window }) => ({ request, part, score: next(window.targets.length) }));
  }

  private scoreShared(units: readonly SharedUnit[], used: number[]): PartScore[] {
    if (units.length === 0) return [];
    const { cache } = this;
    const contexts = units.map(() => cache.add());
    used.push(...contexts);
    const hidden = this.tap.forward(
      units.map((unit) => ({ tokens: unit.context, images: this.imagesOf(unit) })),
      // The context is run once: its tokens are those of the first of its requests.
      () =>
        units.map(({ requests, context }) => ({ request: requests[0]!, start: 0, prompt: context.length })),
      cache.at(contexts),
    );
    // The context's last position predicts the first token of every continuation.
    const choices = units.flatMap(({ requests, continuations }, unit) =>
      requests.map((request, i) => ({ request, unit, continuation: continuations[i]! })),
    );
    const last: number[] = [];
    for (const { context } of units) last.push((last.at(-1) ?? -1) + context.length);
    const firstRows = choices.map(({ unit }) => last[unit]!);
    const first = this.predictions(
      gatherRows(hidden, indices(firstRows, hidden)),
      choices.map(({ continuation }) => continuation[0]!),
    );
    const parts = choices.map(({ request }) => ({ request, part: 0, score: first(1) }));
    const longer = choices.flatMap(({ continuation, unit }, at) =>
      continuation.length > 1 ? [{ continuation, unit, at }] : [],
    );
    if (longer.length === 0) return parts;
    const forks = longer.map(({ unit }) => cache.fork(contexts[unit]!));
    used.push(...forks);
    const rest = this.predictions(
      this.tap.forward(
        longer.map(({ continuation }) => ({ tokens: continuation.slice(0, -1), images: [] })),
        () =>
          longer.map(({ unit, at }) => {
            const { length } = units[unit]!.context;
            return { request: choices[at]!.request, start: length, prompt: length };
          }),
        cache.at(forks),
      ),
      longer.flatMap(({ continuation }) => continuation.slice(1)),
    );
    for (const { at, continuation } of longer) {
      const head = parts[at]!.score;
      const tail = rest(continuation.length - 1);
      parts[at]!.score = {
        values: [...head.values, ...tail.values],
        firstChoices: [...head.firstChoices, ...tail.firstChoices],
        greedy: head.greedy && tail.greedy,
      };
    }
    return parts;
  }

  /** Log-probabilities of `targets` after the rows of `hidden`, handed out from the front. */
  private predictions(hidden: Tensor, targets: readonly number[]): (count: number) => TokenValues {
    const { logProbability, greedy } = tokenLogProbabilities(
      hidden,
      this.network.language.outputWeight,
      this.network.language.output?.bias,
      indices(targets, hidden),
    );
    const values = logProbability.readSync() as Float32Array | Float64Array;
    const picks = greedy.readSync() as Int32Array;
    let at = 0;
    return (count) => {
      const from = at;
      at += count;
      return {
        values: [...values.subarray(from, at)],
        firstChoices: [...picks.subarray(from, at)],
        greedy: targets.slice(from, at).every((target, i) => picks[from + i] === target),
      };
    };
  }
}

function indices(values: readonly number[], like: Tensor): Tensor {
  return tensor([...values], [values.length], { dtype: 'i32', device: like.device });
}
