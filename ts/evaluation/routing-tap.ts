import { moeLayersOf } from '../models/language/config.ts';
import type { CachedSequences } from '../models/language/kv-cache.ts';
import { ForwardContext, MoeLayer } from '../moe/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Network, NetworkSequence } from './network.ts';

/** What a token of a request is. */
export const tokenKinds = ['image', 'prompt', 'answer'] as const;

/** Where the MoE layers of the language model sent the tokens of one request. */
export interface RoutedRequest {
  layer: string;
  /** Per row: place of {@link tokenKinds}, position in prompt and answer, and id. */
  kinds: number[];
  positions: number[];
  tokens: number[];
  /** `[rows, topK]`, best first; −1: none. */
  experts: number[];
  weights: number[];
  topK: number;
}

/** Tells what happened to the tokens of a request, just before its answer is reported. */
export type EmitRouting = (request: number, layers: readonly RoutedRequest[]) => void;

/** Whose tokens a sequence of a pass are. */
export interface SequencePlace {
  request: number;
  /** Position of its first token in prompt and answer. */
  start: number;
  /** Tokens of the prompt. */
  prompt: number;
  /** Rows before this position have been seen in another pass of the request. */
  from?: number;
}

/** Runs passes of a network and, where that is wanted, keeps the routing of every request until its answer is there. */
export class RoutingTap {
  private readonly kept = new Map<number, Map<string, RoutedRequest>>();
  private staged: (() => void)[] = [];
  private readonly layers: ReadonlySet<string>;

  constructor(
    private readonly network: Network,
    private readonly emit: EmitRouting | undefined,
  ) {
    const blocks = [...network.language.namedModules().values()];
    this.layers = new Set(
      emit === undefined || moeLayersOf(network.language.config).length === 0
        ? []
        : blocks.filter((module) => module instanceof MoeLayer).map(({ name }) => name),
    );
  }

  /** A pass whose routing counts once {@link commit} is called. */
  forward(
    sequences: readonly NetworkSequence[],
    places: () => readonly SequencePlace[],
    cached?: CachedSequences,
  ): Tensor {
    if (this.emit === undefined) return this.network.forward(sequences, cached);
    using context = new ForwardContext({ trace: true });
    const hidden = this.network.forward(sequences, cached, context);
    const where = places();
    const rows = sequences.reduce((sum, { tokens }) => sum + tokens.length, 0);
    for (const { layer, trace } of context.records) {
      // Those of a tower or projector have rows of their own.
      if (trace === undefined || !this.layers.has(layer) || trace.choices.shape[0] !== rows) continue;
      const topK = trace.choices.shape[1]!;
      const experts = trace.choices.toArray();
      const weights = trace.weights.toArray();
      this.staged.push(() => this.keep(layer, topK, experts, weights, sequences, where));
    }
    return hidden;
  }

  /** The passes since the last call went well. */
  commit(): void {
    for (const keep of this.staged.splice(0)) keep();
  }

  /** The passes since the last call are done again. */
  abandon(): void {
    this.staged = [];
  }

  /** A request begins anew. */
  forget(request: number): void {
    this.kept.delete(request);
  }

  /** The answer of a request is there. */
  finish(request: number): void {
    const layers = this.kept.get(request);
    this.kept.delete(request);
    this.emit?.(request, layers ? [...layers.values()] : []);
  }

  private keep(
    layer: string,
    topK: number,
    experts: ArrayLike<number>,
    weights: ArrayLike<number>,
    sequences: readonly NetworkSequence[],
    places: readonly SequencePlace[],
  ): void {
    let row = 0;
    const { imageToken } = this.network;
    for (const [i, { tokens }] of sequences.entries()) {
      const { request, start, prompt, from = 0 } = places[i]!;
      const kept = this.rowsOf(request, layer, topK);
      for (const [at, token] of tokens.entries()) {
        const position = start + at;
        if (position >= from) {
          kept.kinds.push(position >= prompt ? 2 : token === imageToken ? 0 : 1);
          kept.positions.push(position);
          kept.tokens.push(token);
          for (let k = 0; k < topK; k++) {
            kept.experts.push(experts[row * topK + k]!);
            kept.weights.push(weights[row * topK + k]!);
          }
        }
        row += 1;
      }
    }
  }

  private rowsOf(request: number, layer: string, topK: number): RoutedRequest {
    const layers = this.kept.get(request) ?? new Map<string, RoutedRequest>();
    this.kept.set(request, layers);
    const known = layers.get(layer);
    if (known !== undefined) return known;
    const made = { layer, kinds: [], positions: [], tokens: [], experts: [], weights: [], topK };
    layers.set(layer, made);
    return made;
  }
}
