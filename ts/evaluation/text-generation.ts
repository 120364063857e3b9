import { createHash } from 'node:crypto';
import { sampleToken } from '../models/language/generate.ts';
import { KvCache } from '../models/language/kv-cache.ts';
import { codeOf, fail } from '../native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.ts';
import { tokenLogProbabilities } from '../tensor/loss.ts';
import { gatherRows } from '../tensor/shape.ts';
import { MersenneTwister } from './mersenne.ts';
import type {
  EmitText,
  EvalTokenizer,
  GeneratedText,
  GenerationRequest,
  RequestImage,
  ScoreOptions,
} from './model.ts';
import type { Network } from './network.ts';
import { type EmitRouting, RoutingTap } from './routing-tap.ts';

/** What bounds a generation; the texts do not depend on the first two. */
export interface GenerationLimits {
  /** Texts in the making at the same time. */
  rows: number;
  /** Prompt tokens that one forward pass takes in; a longer prompt alone. */
  tokenBudget: number;
  /** Positions of the model. */
  maxLength: number;
  /** Tokens that end a text. */
  endTokens: ReadonlySet<number>;
}

/** A text in the making. */
interface Row {
  index: number;
  prompt: readonly number[];
  made: number[];
  sequence: number;
  /** Tokens that the cache holds. */
  cached: number;
  most: number;
  random?: MersenneTwister;
}

/**
 * Generates the texts of many requests. A row joins the batch when there is room and leaves it when its text is finished, so no row waits
 * for the longest; prompts run whole, then token by token, through sequences packed without padding, which is why a text has
 * the same bits whatever stands beside it. Longest prompts first, so that memory peaks at once or never; when it runs out, half
 * of the rows go back to the queue and begin anew later.
 */
export class TextGenerator {
  private readonly cache: KvCache;
  private readonly active: Row[] = [];
  private readonly waiting: number[];
  private most: number;
  private readonly tap: RoutingTap;

  constructor(
    private readonly network: Network,
    private readonly tokenizer: EvalTokenizer,
    private readonly requests: readonly GenerationRequest[],
    private readonly limits: GenerationLimits,
    routing?: EmitRouting,
  ) {
    this.tap = new RoutingTap(network, routing);
    const { language } = network;
    this.most = limits.rows;
    this.waiting = requests
      .map((_, i) => i)
      .sort((a, b) => requests[a]!.context.length - requests[b]!.context.length || b - a);
    this.cache = new KvCache(language.config, { dtype: language.dtype, device: language.device });
  }

  async run(emit: EmitText, options: ScoreOptions): Promise<void> {
    try {
      while (this.waiting.length > 0 || this.active.length > 0) {
        options.signal?.throwIfAborted();
        this.admit();
        this.renew();
        const images = this.active.flatMap((row) => this.imagesOf(row));
        if (images.length > 0) await this.network.load?.(images);
        const next = this.step();
        if (next === undefined) {
          this.tap.abandon();
          this.shrink();
        } else {
          this.tap.commit();
          this.take(next, emit);
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      this.cache.dispose();
    }
  }

  /** Lets waiting requests in while there is room. */
  private admit(): void {
    let tokens = 0;
    while (this.waiting.length > 0 && this.active.length < this.most) {
      const index = this.waiting.at(-1)!;
      const request = this.requests[index]!;
      const prompt = this.cut(request);
      if (tokens > 0 && tokens + prompt.length > this.limits.tokenBudget) return;
      this.waiting.pop();
      tokens += prompt.length;
      const { generation } = request;
      this.active.push({
        index,
        prompt,
        made: [],
        sequence: this.cache.add(),
        cached: 0,
        most: Math.min(generation.maxTokens, this.limits.maxLength - prompt.length + 1),
        ...(generation.temperature > 0 && { random: new MersenneTwister(seedOf(request)) }),
      });
    }
  }

  /** A prompt that leaves room for the answer: cut on the left, unless it has images. */
  private cut({ context, generation, images = [] }: GenerationRequest): readonly number[] {
    const room = Math.max(1, this.limits.maxLength - generation.maxTokens);
    return images.length > 0 || context.length <= room ? context : context.slice(-room);
  }

  /** Rows whose past must be run anew once they grow (longrope). */
  private renew(): void {
    for (const row of this.active)
      if (this.network.language.outgrowsCache(row.cached, row.prompt.length + row.made.length)) {
        this.cache.truncate(row.sequence, 0);
        row.cached = 0;
      }
  }

  /** Images that the next pass of a row shows: only a prompt has any, and it runs whole. */
  private imagesOf({ index, cached }: Row): readonly RequestImage[] {
    return cached === 0 ? (this.requests[index]!.images ?? []) : [];
  }

  /** The next token of every active row; undefined when memory does not suffice. */
  private step(): (number | undefined)[] | undefined {
    const { active, cache } = this;
    const inputs = active.map(({ prompt, made, cached }) =>
      cached === 0 ? [...prompt, ...made] : made.slice(cached - prompt.length),
    );
    try {
      return noGrad(() =>
        scope(() => {
          const hidden = this.tap.forward(
            inputs.map((tokens, i) => ({ tokens, images: this.imagesOf(active[i]!) })),
            () =>
              active.map(({ index, prompt, cached, made }) => {
                const again = cached === 0 ? prompt.length + made.length - 1 : 0;
                return {
                  request: index,
                  start: cached,
                  prompt: prompt.length,
                  from: made.length > 0 ? again : 0,
                };
              }),
            cache.at(active.map(({ sequence }) => sequence)),
          );
          let end = -1;
          const last = inputs.map(({ length }) => {
            end += length;
            return end;
          });
          const next = this.choose(gatherRows(hidden, indices(last, hidden)));
          for (const [i, row] of active.entries()) row.cached += inputs[i]!.length;
          return next;
        }),
      );
    } catch (error) {
      if (codeOf(error) !== 'ERR_LIBMOE_OUT_OF_MEMORY' || active.length === 1) throw error;
      return undefined;
    }
  }

  /** @param hidden `[rows, dModel]` of the last positions */
  private choose(hidden: Tensor): (number | undefined)[] {
    const { language, never = [] } = this.network;
    const { logProbability, greedy } = tokenLogProbabilities(
      hidden,
      language.outputWeight,
      language.output?.bias,
      indices(Array(this.active.length).fill(0), hidden),
    );
    const finite = logProbability.toArray().map((value) => !Number.isNaN(value));
    const picks = greedy.toArray();
    return this.active.map(({ index, random }, i) => {
      if (!finite[i]) return undefined;
      if (random === undefined && !never.includes(picks[i]!)) return picks[i]!;
      const logits = scope(() => language.logits(gatherRows(hidden, indices([i], hidden))).toArray());
      for (const token of never) if (token < logits.length) logits[token] = Number.NEGATIVE_INFINITY;
      const { temperature, topP, topK } = this.requests[index]!.generation;
      return sampleToken(logits, { temperature, ...(topP && { topP }), ...(topK && { topK }) }, () =>
        random!.random(),
      ).token;
    });
  }

  private take(next: readonly (number | undefined)[], emit: EmitText): void {
    const rows = this.active.splice(0);
    for (const [i, row] of rows.entries()) {
      const ended = this.ended(row, next[i]);
      if (ended === undefined) this.active.push(row);
      else {
        this.cache.free(row.sequence);
        this.tap.finish(row.index);
        emit(row.index, ended);
      }
    }
  }

  /** Adds a token to a row; the answer when that ends it. */
  private ended(row: Row, token: number | undefined): GeneratedText | undefined {
    const { until } = this.requests[row.index]!.generation;
    if (token === undefined) return { text: this.text(row), tokens: row.made.length, ended: 'not_finite' };
    if (this.limits.endTokens.has(token))
      return { text: this.text(row), tokens: row.made.length, ended: 'eos' };
    row.made.push(token);
    const full = row.made.length >= row.most;
    if (!full && until.length === 0) return undefined;
    // All of it anew: a stop string may lie across tokens, and what a token says can depend on those before it.
    const text = this.text(row);
    const stop = earliest(text, until);
    if (stop >= 0) return { text: text.slice(0, stop), tokens: row.made.length, ended: 'stop' };
    return full ? { text, tokens: row.made.length, ended: 'length' } : undefined;
  }

  private text({ made }: Row): string {
    const { decode, name } = this.tokenizer;
    if (decode === undefined)
      return fail('ERR_LIBMOE_TOKENIZER', `tokenizer ${name} has no decode, which generation needs`);
    return decode.call(this.tokenizer, made);
  }

  /** Memory ran out: half of the rows, those that came last, begin anew later. */
  private shrink(): void {
    const kept = Math.ceil(this.active.length / 2);
    this.most = kept;
    for (const row of this.active.splice(kept).reverse()) {
      this.cache.free(row.sequence);
      this.tap.forget(row.index);
      this.waiting.push(row.index);
    }
  }
}

/** Where the first of the stop strings begins; −1: none is there. */
export function earliest(text: string, until: readonly string[]): number {
  let first = -1;
  for (const stop of until) {
    const at = stop === '' ? -1 : text.indexOf(stop);
    if (at >= 0 && (first < 0 || at < first)) first = at;
  }
  return first;
}

/** Of the draws of a request: what it asks decides, not where it stands. */
function seedOf({ context, generation, images = [] }: GenerationRequest): bigint {
  const { seed, repeat } = generation;
  const said = JSON.stringify([seed, repeat, context, images.map(({ sha256 }) => sha256)]);
  return BigInt(`0x${createHash('sha256').update(said).digest('hex').slice(0, 32)}`);
}

function indices(values: readonly number[], like: Tensor): Tensor {
  return tensor([...values], [values.length], { dtype: 'i32', device: like.device });
}
