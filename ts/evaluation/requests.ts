import { fail } from '../native/index.ts';
import type { EvalTokenizer, Generation, GenerationRequest, TokenRequest } from './model.ts';
import { stripEnd } from './python-text.ts';
import type { TextPair } from './question.ts';
import type { Task } from './task.ts';

/** A request with what happened while its texts became tokens. */
export interface EncodedPair {
  request: TokenRequest;
  /** The cut between context and continuation fell inside a token. */
  boundaryMerged: boolean;
  /** BOS was put before the context by us. */
  bosAdded: boolean;
  /** The context's text begins with BOS already. */
  templateHasBos: boolean;
}

/**
 * Turns a pair of texts into tokens after the task's `pair` rules: lm-eval's or LibMoE's.
 *
 * joint: trailing white space moves from the context to the continuation, both are encoded together and cut at the
 * context's token count; where the join changes a token before the cut, the cut moves back to the longest common prefix
 * and is reported, so that a continuation is never empty.
 * separate: both are encoded alone and concatenated (LibMoE).
 *
 * @throws ERR_LIBMOE_DATA for an empty continuation, ERR_LIBMOE_TOKENIZER when nothing can stand before an empty context
 */
export function encodePair(
  pair: TextPair,
  task: Pick<Task, 'pair' | 'output_type'>,
  tokenizer: EvalTokenizer,
): EncodedPair {
  if (pair.continuation === '') fail('ERR_LIBMOE_DATA', 'nothing to score: the continuation is empty');
  const { mode, bos, score } = task.pair;
  const kind = task.output_type === 'loglikelihood_rolling' ? 'loglikelihood_rolling' : 'loglikelihood';
  const { templateHasBos, bosAdded, start } = beginning(pair.context, bos, tokenizer);

  let { context, continuation, boundaryMerged } =
    mode === 'joint' && pair.context !== '' ? joint(pair, tokenizer) : separate(pair, tokenizer);
  if (continuation.length === 0)
    fail(
      'ERR_LIBMOE_DATA',
      `nothing to score: the continuation ${JSON.stringify(pair.continuation)} has no tokens`,
    );
  context = [...start, ...context];

  if (score === 'whole') {
    continuation = [...context, ...continuation];
    context = [];
    if (bosAdded) [context, continuation] = [start, continuation.slice(1)];
  }
  if (context.length === 0) {
    const prefix = bos === 'never' ? undefined : (tokenizer.bos ?? tokenizer.eos);
    if (prefix === undefined && bos !== 'never')
      fail(
        'ERR_LIBMOE_TOKENIZER',
        `tokenizer ${tokenizer.name} has neither BOS nor EOS to stand before a text: set pair.bos to never, which leaves the first token unscored`,
      );
    if (prefix !== undefined && continuation[0] !== prefix) context = [prefix];
    else {
      context = continuation.slice(0, 1);
      continuation = continuation.slice(1);
      if (continuation.length === 0)
        fail(
          'ERR_LIBMOE_DATA',
          `nothing to score: ${JSON.stringify(pair.continuation)} is one token with nothing before it`,
        );
    }
  }
  return { request: { kind, context, continuation }, boundaryMerged, bosAdded, templateHasBos };
}

/** A prompt to be continued in writing, with what happened while it became tokens. */
export interface EncodedPrompt {
  request: GenerationRequest;
  bosAdded: boolean;
  templateHasBos: boolean;
}

/**
 * Turns a prompt into tokens, with exactly one BOS after the rules of `pair.bos`; an empty one is BOS, else EOS.
 * @throws ERR_LIBMOE_TOKENIZER when nothing can stand for an empty prompt
 */
export function encodePrompt(
  prompt: string,
  task: Pick<Task, 'pair'>,
  tokenizer: EvalTokenizer,
  generation: Generation,
): EncodedPrompt {
  const { templateHasBos, bosAdded, start } = beginning(prompt, task.pair.bos, tokenizer);
  const tokens = prompt === '' ? [] : tokenizer.encode(prompt);
  const context = [...start, ...tokens];
  if (context.length === 0) {
    const only = tokenizer.bos ?? tokenizer.eos;
    if (only === undefined)
      fail(
        'ERR_LIBMOE_TOKENIZER',
        `tokenizer ${tokenizer.name} has neither BOS nor EOS to begin a text with`,
      );
    context.push(only as number);
  }
  return { request: { kind: 'generate_until', context, generation }, bosAdded, templateHasBos };
}

/** Whether and how a text begins with BOS. */
function beginning(
  text: string,
  bos: Task['pair']['bos'],
  tokenizer: EvalTokenizer,
): { templateHasBos: boolean; bosAdded: boolean; start: number[] } {
  const { bosText } = tokenizer;
  const templateHasBos = bosText !== undefined && bosText !== '' && text.startsWith(bosText);
  const bosAdded = bos !== 'never' && !templateHasBos && (bos === 'always' || tokenizer.addsBos);
  if (bosAdded && tokenizer.bos === undefined)
    fail('ERR_LIBMOE_TOKENIZER', `tokenizer ${tokenizer.name} has no BOS token: set pair.bos to never`);
  return { templateHasBos, bosAdded, start: bosAdded ? [tokenizer.bos as number] : [] };
}

interface Cut {
  context: readonly number[];
  continuation: readonly number[];
  boundaryMerged: boolean;
}

function separate(pair: TextPair, tokenizer: EvalTokenizer): Cut {
  return {
    context: pair.context === '' ? [] : tokenizer.encode(pair.context),
    continuation: tokenizer.encode(pair.continuation),
    boundaryMerged: false,
  };
}

function joint(pair: TextPair, tokenizer: EvalTokenizer): Cut {
  const head = stripEnd(pair.context);
  const tail = pair.context.slice(head.length) + pair.continuation;
  const whole = tokenizer.encode(head + tail);
  const context = head === '' ? [] : tokenizer.encode(head);
  let cut = 0;
  while (cut < context.length && cut < whole.length - 1 && whole[cut] === context[cut]) cut++;
  return {
    context: whole.slice(0, cut),
    continuation: whole.slice(cut),
    boundaryMerged: cut !== context.length,
  };
}

/** One forward pass over `input`, of which the last `scored` positions count against `targets`. */
export interface Window {
  /** At most maxLength tokens. */
  input: readonly number[];
  /** As many as scored positions: the tokens that follow them. */
  targets: readonly number[];
  /** Position of the first input token in context and continuation. */
  start: number;
  /** Positions before this one were input of an earlier window. */
  seen: number;
}

/**
 * Cuts a request into windows of at most `maxLength` input tokens. One window, its context cut on the left, when the
 * continuation fits; else disjoint targets, each later window conditioned on as many earlier tokens as fit (lm-eval's rolling windows).
 */
export function windowsOf(request: TokenRequest, maxLength: number): Window[] {
  if (!Number.isInteger(maxLength) || maxLength < 1)
    fail('ERR_LIBMOE_ARGUMENT', `maxLength must be a positive integer, got ${maxLength}`);
  const all = [...request.context, ...request.continuation];
  const windows: Window[] = [];
  let done = request.context.length;
  while (done < all.length) {
    const end = Math.min(done + maxLength, all.length);
    const start = Math.max(0, end - 1 - maxLength);
    windows.push({
      input: all.slice(start, end - 1),
      targets: all.slice(done, end),
      start,
      seen: windows.length === 0 ? 0 : done - 1,
    });
    done = end;
  }
  return windows;
}
