import { ForwardContext } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { noGrad, scope, type Tensor } from '../../tensor/index.ts';
import { uniform } from '../../tensor/random.ts';
import { KvCache } from './kv-cache.ts';
import type { LanguageModel } from './model.ts';
import { type InsertedRows, packSequences, rowsOf } from './packed-batch.ts';

/** How the next token is drawn from its probabilities. */
export interface SamplingOptions {
  /** 0 (default): always the most probable token. */
  temperature?: number;
  /** Sample among this many most probable tokens only. */
  topK?: number;
  /** Sample among the fewest tokens whose probabilities reach this sum (Holtzman et al. 2019, arXiv 1904.09751). */
  topP?: number;
  /** The random number of the nth new token depends on the seed and n alone. Default 0. */
  seed?: number;
}

/** How long {@link generate} goes on, and how it samples. */
export interface GenerateOptions extends SamplingOptions {
  /** Default 128; never past the model's maxPositions. */
  maxTokens?: number;
  /** Ends before yielding one of these. */
  stop?: readonly number[];
  /** Rows in the place of embeddings of the prompt, such as the features of images; the caller's to free afterwards. */
  inserted?: InsertedRows;
  /** Say with each token which experts the model used. Default false. */
  routing?: boolean;
  signal?: AbortSignal;
}

/** A token that {@link generate} yields. */
export interface GeneratedToken {
  token: number;
  /** ln of the model's own probability of the token, before temperature and cuts. */
  logProbability: number;
  /** With `routing`: what every MoE layer did at the position that the token was chosen from. */
  routing?: TokenRouting[];
}

/** Where a MoE layer sent one position. */
export interface TokenRouting {
  layer: string;
  /** Outputs of the router in its order, those without computation after the experts; −1: none. */
  experts: number[];
  weights: number[];
}

function checkOptions({ temperature = 0, topK, topP, maxTokens = 0 }: GenerateOptions): void {
  if (!(Number.isInteger(maxTokens) && maxTokens >= 0)) {
    fail('ERR_LIBMOE_ARGUMENT', `maxTokens must be a whole number, 0 or more, got ${maxTokens}`);
  }
  if (!(temperature >= 0) || !Number.isFinite(temperature)) {
    fail('ERR_LIBMOE_ARGUMENT', `temperature must be 0 or more, got ${temperature}`);
  }
  if (topK !== undefined && !(Number.isInteger(topK) && topK > 0)) {
    fail('ERR_LIBMOE_ARGUMENT', `topK must be a positive integer, got ${topK}`);
  }
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    fail('ERR_LIBMOE_ARGUMENT', `topP must be in (0, 1], got ${topP}`);
  }
}

/**
 * Chooses a token from the logits of one position.
 * @param random uniform in [0, 1), asked for only when temperature > 0
 * @throws ERR_LIBMOE_NOT_FINITE when a logit is NaN or all are −∞
 */
export function sampleToken(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  random: () => number,
): GeneratedToken {
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    if (Number.isNaN(logits[i]!)) fail('ERR_LIBMOE_NOT_FINITE', `the logit of token ${i} is not a number`);
    if (logits[i]! > logits[best]!) best = i;
  }
  const highest = logits[best]!;
  if (!Number.isFinite(highest)) fail('ERR_LIBMOE_NOT_FINITE', `the highest logit is ${highest}`);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp(logits[i]! - highest);
  const logTotal = highest + Math.log(total);
  const chosen = (token: number): GeneratedToken => ({ token, logProbability: logits[token]! - logTotal });
  const { temperature = 0, topK, topP } = options;
  if (temperature === 0) return chosen(best);

  let candidates = Array.from({ length: logits.length }, (_, token) => ({
    token,
    weight: Math.exp((logits[token]! - highest) / temperature),
  }));
  if (topK !== undefined || topP !== undefined) {
    candidates.sort((a, b) => b.weight - a.weight || a.token - b.token);
    if (topK !== undefined) candidates = candidates.slice(0, topK);
    if (topP !== undefined) {
      const goal = topP * candidates.reduce((sum, { weight }) => sum + weight, 0);
      let sum = 0;
      const last = candidates.findIndex(({ weight }) => {
        sum += weight;
        return sum >= goal;
      });
      candidates = candidates.slice(0, last < 0 ? candidates.length : last + 1);
    }
  }
  let left = random() * candidates.reduce((sum, { weight }) => sum + weight, 0);
  for (const { token, weight } of candidates) {
    left -= weight;
    if (left < 0) return chosen(token);
  }
  return chosen(candidates.at(-1)!.token);
}

/**
 * Continues a prompt token by token, yielding each as it is made. Deterministic: greedy, or by the seed.
 * @throws ERR_LIBMOE_DATA for an empty prompt or unknown ids, ERR_LIBMOE_ARGUMENT for a prompt as long as maxPositions
 */
export async function* generate(
  model: LanguageModel,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, void> {
  checkOptions(options);
  const { maxTokens = 128, stop = [], seed = 0, signal } = options;
  const room = model.config.maxPositions - prompt.length;
  if (room < 1) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `the prompt has ${prompt.length} tokens, the model sees ${model.config.maxPositions}: cut it`,
    );
  }
  const wasTraining = model.training;
  using cache = new KvCache(model.config, { dtype: model.dtype, device: model.device });
  const sequence = cache.add();
  const ids = Array.from(prompt);
  let input: readonly number[] = ids;
  try {
    model.eval();
    for (let made = 0; made < Math.min(maxTokens, room + 1); made++) {
      using context = new ForwardContext({ trace: options.routing ?? false });
      // Only the prompt has inserted rows; it is there whole or not at all.
      const inserted = input === ids ? options.inserted : undefined;
      const logits = lastLogits(model, input, cache, sequence, context, inserted);
      const next = sampleToken(logits, options, () => randomAt(seed, made));
      if (stop.includes(next.token)) return;
      yield options.routing ? { ...next, routing: lastRouting(context) } : next;
      // One turn of the event loop per token: signals and timers live.
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted) return;
      ids.push(next.token);
      input = [next.token];
      if (model.outgrowsCache(ids.length - 1, ids.length)) {
        cache.truncate(sequence, 0);
        input = ids;
      }
    }
  } finally {
    model.train(wasTraining);
  }
}

/** Runs more tokens of a cached sequence and returns the logits after the last of them, `[vocabulary]`. */
export function lastLogits(
  model: LanguageModel,
  ids: ArrayLike<number>,
  cache: KvCache,
  sequence: number,
  context?: ForwardContext,
  inserted?: InsertedRows,
): ArrayLike<number> {
  return noGrad(() =>
    scope(() => {
      const batch = { ...packSequences([ids]), ...(inserted && { inserted }) };
      const hidden = model.forward(batch, context, cache.at([sequence]));
      return model.logits(rowsOf(hidden, [ids.length - 1])).toArray();
    }),
  );
}

/** What the layers of a traced pass did with its last token. */
function lastRouting(context: ForwardContext): TokenRouting[] {
  return context.records.map(({ layer, trace }) => {
    const last = (t: Tensor): number[] => t.toArray().slice(-t.shape[1]!);
    return { layer, experts: trace ? last(trace.choices) : [], weights: trace ? last(trace.weights) : [] };
  });
}

function randomAt(seed: number, index: number): number {
  using draw = uniform([1], { seed, stream: index, low: 0, high: 1, device: 'cpu' });
  return draw.item();
}
