import { detach, keep, type Tensor } from '../tensor/index.ts';
import type { Routing } from './routing.ts';

/** Numbers of one call of a MoE layer, read from the device. Means are over tokens; NaN where the router gave no statistics. */
export interface RoutingSummary {
  layer: string;
  call: number;
  tokens: number;
  /** Choices per router output, over all choices and over first choices. */
  counts: number[];
  firstCounts: number[];
  /** Mean probability per router output. */
  probabilities: number[];
  /** Entropy in nats: of the softmax over all outputs, and of the mixing weights rescaled to sum 1. */
  entropy: number;
  weightEntropy: number;
  /** Difference of the two largest rescaled mixing weights, and of the two largest probabilities. */
  margin: number;
  probabilityMargin: number;
  /** Choices beyond the capacity, of experts without computation too. */
  dropped: number;
}

/** Every token's routing: i32 [tokens, topK] choices of router outputs, their weights, dense probabilities if the router gave them. */
export interface RoutingTrace {
  choices: Tensor;
  weights: Tensor;
  probabilities: Tensor | undefined;
}

const copyOut = (t: Tensor): Tensor => keep(detach(t));
const columnSums = (values: readonly number[], columns: number): number[] =>
  Array.from({ length: columns }, (_, c) => values.reduce((a, v, i) => (i % columns === c ? a + v : a), 0));

/** What a MoE layer leaves behind per call. Holds small device tensors, so that nothing waits before {@link read}. */
export class RoutingRecord {
  readonly layer: string;
  /** 0 for the layer's first call in a pass. */
  readonly call: number;
  readonly trace: RoutingTrace | undefined;
  readonly #topK: number;
  readonly #tokens: number;
  readonly #counts: Tensor | undefined;
  readonly #firstCounts: Tensor | undefined;
  readonly #sums: Tensor | undefined;
  readonly #summary: Tensor | undefined;
  readonly #experts: Tensor | undefined;
  readonly #dropped: Tensor;
  readonly #ownDropped: Tensor | undefined;

  /** @param kept i32 `[experts + 1]` row offsets of the plan, used when the routing has no statistics of its own */
  constructor(
    place: { layer: string; call: number; trace: boolean },
    routing: Routing,
    kept: Tensor,
    dropped: Tensor,
  ) {
    const { statistics } = routing;
    this.layer = place.layer;
    this.call = place.call;
    this.#tokens = routing.experts.shape[0]!;
    this.#topK = routing.experts.shape[1]!;
    this.#counts = statistics && copyOut(statistics.counts);
    this.#firstCounts = statistics && copyOut(statistics.firstCounts);
    this.#sums = statistics && copyOut(statistics.probabilitySums);
    this.#summary = statistics && copyOut(statistics.summary);
    this.#experts = statistics ? undefined : copyOut(kept);
    this.#dropped = copyOut(dropped);
    this.#ownDropped = routing.dropped && copyOut(routing.dropped);
    this.trace = place.trace
      ? {
          choices: copyOut(routing.choices ?? routing.experts),
          weights: copyOut(routing.weights),
          probabilities: routing.probabilities && copyOut(routing.probabilities),
        }
      : undefined;
  }

  get topK(): number {
    return this.#topK;
  }

  /** Waits for the device. */
  async read(): Promise<RoutingSummary> {
    // Asked for together: the device is waited for once.
    const [dropped, own, offsets, summary, counted, firstCounts, probabilitySums] = (await Promise.all(
      [
        this.#dropped,
        this.#ownDropped,
        this.#experts,
        this.#summary,
        this.#counts,
        this.#firstCounts,
        this.#sums,
      ].map((t) => (t ? numbers(t) : [])),
    )) as [number[], number[], number[], number[], number[], number[], number[]];
    const total = [...dropped, ...own].reduce((a, b) => a + b, 0);
    const { layer, call } = this;
    if (!this.#summary || !this.#counts || !this.#firstCounts || !this.#sums) {
      const counts = dropped.map((lost, e) => offsets[e + 1]! - offsets[e]! + lost);
      const unknown = {
        entropy: Number.NaN,
        weightEntropy: Number.NaN,
        margin: Number.NaN,
        probabilityMargin: Number.NaN,
      };
      return {
        layer,
        call,
        tokens: this.#tokens,
        counts,
        firstCounts: [],
        probabilities: [],
        ...unknown,
        dropped: total,
      };
    }
    const outputs = this.#counts.shape[1]!;
    const [tokens, ...sums] = columnSums(summary, this.#summary.shape[1]!);
    const perToken = (x: number | undefined): number => (tokens! > 0 ? (x ?? 0) / tokens! : 0);
    return {
      layer,
      call,
      tokens: tokens!,
      counts: columnSums(counted, outputs),
      firstCounts: columnSums(firstCounts, outputs),
      probabilities: columnSums(probabilitySums, outputs).map(perToken),
      entropy: perToken(sums[0]),
      weightEntropy: perToken(sums[1]),
      margin: perToken(sums[2]),
      probabilityMargin: perToken(sums[3]),
      dropped: total,
    };
  }

  /** Frees the tensors of the record. */
  dispose(): void {
    const trace = this.trace ? [this.trace.choices, this.trace.weights, this.trace.probabilities] : [];
    const own = [this.#counts, this.#firstCounts, this.#sums, this.#summary, this.#experts, this.#dropped];
    for (const t of [...own, this.#ownDropped, ...trace]) t?.dispose();
  }
}

async function numbers(t: Tensor): Promise<number[]> {
  return Array.from((await t.read()) as ArrayLike<number>, Number);
}

/** Adds up summaries of the same layer (several calls, micro-batches): counts are summed, means weighted by tokens. */
export function mergeSummaries(summaries: readonly RoutingSummary[]): Map<string, RoutingSummary> {
  const merged = new Map<string, RoutingSummary>();
  const added = (a: readonly number[], b: readonly number[]) => a.map((x, i) => x + (b[i] ?? 0));
  for (const s of summaries) {
    const a = merged.get(s.layer);
    if (!a) {
      merged.set(s.layer, { ...s, call: 0 });
      continue;
    }
    const tokens = a.tokens + s.tokens;
    const mean = (x: number, y: number) => (tokens > 0 ? (x * a.tokens + y * s.tokens) / tokens : 0);
    merged.set(s.layer, {
      layer: s.layer,
      call: 0,
      tokens,
      counts: added(a.counts, s.counts),
      firstCounts: added(a.firstCounts, s.firstCounts),
      probabilities: a.probabilities.map((x, i) => mean(x, s.probabilities[i] ?? 0)),
      entropy: mean(a.entropy, s.entropy),
      weightEntropy: mean(a.weightEntropy, s.weightEntropy),
      margin: mean(a.margin, s.margin),
      probabilityMargin: mean(a.probabilityMargin, s.probabilityMargin),
      dropped: a.dropped + s.dropped,
    });
  }
  return merged;
}
