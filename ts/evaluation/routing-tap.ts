import type { CachedSequences } from '../models/language/kv-cache.ts';
import { ForwardContext, MoeLayer } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Network, NetworkSequence } from './network.ts';

/** What a token of a request is. */
export const tokenKinds = ['image', 'prompt', 'answer'] as const;

/** Where one MoE layer sent the rows of one request. */
export interface RoutedRequest {
  /** As in `metrics.jsonl`: `3` of the language model, `vision.3`, `projector`. */
  layer: string;
  /** Of a layer that a pass calls several times (a tower that sees an image at several scales), which of the calls. */
  call: number;
  /** Per row: place of {@link tokenKinds}. */
  kinds: Uint8Array;
  /** Of the language model: position in prompt and answer. Of tower and projector: row of the image, a class token being the first. */
  positions: Int32Array;
  /** Ids, of the language model only. */
  tokens?: Int32Array;
  /** Which of the request's images, of tower and projector only. */
  images?: Int32Array;
  /** `[rows, topK]`, best first; −1: none. */
  experts: Int32Array;
  weights: Float32Array;
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

/** What a MoE layer did with all rows of a pass. */
interface PassLayer extends Pick<RoutedRequest, 'layer' | 'call' | 'topK'> {
  experts: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> };
  weights: PassLayer['experts'];
}

/** The part of a pass that is one request's. */
interface Piece {
  language: readonly PassLayer[];
  /** The first of its rows there, and their position and ids. */
  row: number;
  start: number;
  tokens: readonly number[];
  prompt: number;
  /** Tower and projector, with rows per image; the first of the request's images, and their number. */
  vision: readonly (PassLayer & { each: number })[];
  image: number;
  images: number;
}

/** Runs passes of a network and, where that is wanted, keeps the routing of every request until its answer is there. */
export class RoutingTap {
  private readonly kept = new Map<number, Piece[]>();
  private staged: (readonly [request: number, piece: Piece])[] = [];
  private readonly languageLayers: ReadonlySet<string>;
  private readonly traces: boolean;

  constructor(
    private readonly network: Network,
    private readonly emit: EmitRouting | undefined,
  ) {
    const mixtures = (of: Network['whole']): MoeLayer[] =>
      [...of.namedModules().values()].filter((module) => module instanceof MoeLayer);
    this.languageLayers = new Set(mixtures(network.language).map(({ name }) => name));
    this.traces = emit !== undefined && mixtures(network.whole).length > 0;
  }

  /** A pass whose routing counts once {@link commit} is called. */
  forward(
    sequences: readonly NetworkSequence[],
    places: () => readonly SequencePlace[],
    cached?: CachedSequences,
  ): Tensor {
    if (!this.traces) return this.network.forward(sequences, cached);
    using context = new ForwardContext({ trace: 'choices' });
    const hidden = this.network.forward(sequences, cached, context);
    this.stage(sequences, places(), context);
    return hidden;
  }

  /** The passes since the last call went well. */
  commit(): void {
    for (const [request, piece] of this.staged.splice(0)) {
      const pieces = this.kept.get(request);
      if (pieces === undefined) this.kept.set(request, [piece]);
      else pieces.push(piece);
    }
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
    const pieces = this.kept.get(request) ?? [];
    this.kept.delete(request);
    this.emit?.(request, [...visionOf(pieces), ...languageOf(pieces, this.network.imageToken)]);
  }

  private stage(
    sequences: readonly NetworkSequence[],
    places: readonly SequencePlace[],
    context: ForwardContext,
  ): void {
    const shown = sequences.reduce((sum, { images }) => sum + images.length, 0);
    const language: PassLayer[] = [];
    const vision: Piece['vision'][number][] = [];
    for (const { layer, call, trace } of context.records) {
      if (trace === undefined) continue;
      const [rows = 0, topK = 0] = trace.choices.shape;
      const experts = trace.choices.readSync() as Int32Array;
      const weights = trace.weights.readSync() as Float32Array;
      const seen = { layer, call, topK, experts, weights };
      if (this.languageLayers.has(layer)) language.push(seen);
      else if (rows % shown === 0) vision.push({ ...seen, each: rows / shown });
      else
        fail(
          'ERR_LIBMOE_STATE',
          `layer ${layer} routed ${rows} rows of ${shown} images: not as many of each`,
        );
    }
    let [row, image] = [0, 0];
    for (const [i, { tokens, images }] of sequences.entries()) {
      const { request, start, prompt, from = 0 } = places[i]!;
      const skipped = Math.min(tokens.length, Math.max(0, from - start));
      const piece = {
        language,
        row: row + skipped,
        start: start + skipped,
        tokens: skipped === 0 ? tokens : tokens.slice(skipped),
        prompt,
        vision,
        image,
        // A prompt that is run again has had its images seen.
        images: skipped === 0 ? images.length : 0,
      };
      this.staged.push([request, piece]);
      row += tokens.length;
      image += images.length;
    }
  }
}

/** The rows of a request in the language model, all its passes one after the other. */
function languageOf(pieces: readonly Piece[], imageToken: number | undefined): RoutedRequest[] {
  const rows = pieces.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const kinds = new Uint8Array(rows);
  const positions = new Int32Array(rows);
  const tokens = new Int32Array(rows);
  let at = 0;
  for (const { start, prompt, tokens: ids } of pieces)
    for (const [i, token] of ids.entries()) {
      kinds[at] = start + i >= prompt ? 2 : token === imageToken ? 0 : 1;
      positions[at] = start + i;
      tokens[at++] = token;
    }
  return (pieces[0]?.language ?? []).map(({ layer, call, topK }, place) => {
    const experts = new Int32Array(rows * topK);
    const weights = new Float32Array(rows * topK);
    let to = 0;
    for (const { language, row, tokens: ids } of pieces) {
      const [first, end] = [row * topK, (row + ids.length) * topK];
      experts.set(language[place]!.experts.subarray(first, end), to);
      weights.set(language[place]!.weights.subarray(first, end), to);
      to += end - first;
    }
    return { layer, call, kinds, positions, tokens, experts, weights, topK };
  });
}

/** The rows of a request's images in tower and projector. */
function visionOf(pieces: readonly Piece[]): RoutedRequest[] {
  return pieces.flatMap(({ vision, image, images: count }) =>
    (count === 0 ? [] : vision).map(({ layer, call, topK, each, experts, weights }) => {
      const rows = count * each;
      const [first, end] = [image * each * topK, (image * each + rows) * topK];
      return {
        layer,
        call,
        kinds: new Uint8Array(rows),
        positions: Int32Array.from({ length: rows }, (_, i) => i % each),
        images: Int32Array.from({ length: rows }, (_, i) => Math.floor(i / each)),
        experts: Int32Array.from(experts.subarray(first, end)),
        weights: Float32Array.from(weights.subarray(first, end)),
        topK,
      };
    }),
  );
}
