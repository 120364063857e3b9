import type { EvalTokenizer, TokenScore } from './model.ts';
import { codePoints } from './python-text.ts';

/** How well the model foresaw the last word of a text, all words before it given: LAMBADA as LibMoE scores it. */
export interface LastWord {
  /** Whether the word stands at the end of what the model predicts, however cut into tokens: as the original finds it, and repaired. */
  right: readonly [libmoe: number, fixed: number];
  /** Whether the last token of the word is the model's first choice. */
  lastToken: number;
  /** Mean cross entropy of the word's tokens in nats. */
  loss: number;
}

const lastWordOf = (text: string): string => text.slice(text.lastIndexOf(' ') + 1);
const lastOf = (list: readonly number[], count: number): readonly number[] =>
  list.slice(Math.max(0, list.length - count));
const tokensOf = (word: string, tokenizer: EvalTokenizer): readonly number[] => tokenizer.encode(` ${word}`);

/** How many of the last tokens of a text {@link lastWordFrom} has to know of: one per character of the word, or all tokens of the word. */
export function lastWordTokens(text: string, tokenizer: EvalTokenizer): number {
  const word = lastWordOf(text);
  return Math.max(1, codePoints(word), tokensOf(word, tokenizer).length);
}

/**
 * The original looks at as many predicted tokens as the word has characters, which is enough for any way to cut it. Where the text is shorter than that it
 * looks at the wrong end and finds nothing; repaired, it looks at all there is.
 * @param continuation the scored tokens of the text @param last what the model gave for the last of them
 */
export function lastWordFrom(
  text: string,
  continuation: readonly number[],
  { logProbabilities, firstChoices }: NonNullable<TokenScore['last']>,
  tokenizer: EvalTokenizer,
): LastWord {
  const word = lastWordOf(text);
  const characters = codePoints(word);
  const own = tokensOf(word, tokenizer);
  const predicted = tokenizer.decode?.(lastOf(firstChoices, characters)) ?? '';
  const found = Number(lastWordOf(predicted) === word);
  const losses = lastOf(logProbabilities, own.length);
  return {
    right: [characters > continuation.length ? 0 : found, found],
    lastToken: Number(firstChoices.at(-1) === own.at(-1)),
    loss: -losses.reduce((sum, value) => sum + value, 0) / losses.length,
  };
}
