import { z } from 'zod';
import { registerScorer, targetTexts } from './scorer.ts';
import { isBlank } from './white-space.ts';

/** Sentences of a text, each up to a period, their words as numbers from 0. */
function sentences(text: string, numbers: Map<string, number>): number[][] {
  const all: number[][] = [];
  let words: number[] = [];
  for (let i = 0; i <= text.length; i++) {
    const from = i;
    while (i < text.length && text.charCodeAt(i) !== PERIOD && !isBlank(text.charCodeAt(i))) i++;
    if (from < i) {
      const word = text.slice(from, i);
      let number = numbers.get(word);
      if (number === undefined) {
        number = numbers.size;
        numbers.set(word, number);
      }
      words.push(number);
    }
    if (words.length > 0 && (i >= text.length || text.charCodeAt(i) === PERIOD)) {
      all.push(words);
      words = [];
    }
  }
  return all;
}
const PERIOD = 46;

/** The table of `markCommon`, kept for the next pair of sentences. */
let table = new Uint32Array(1024);

/** Marks the words of one longest common subsequence. */
function markCommon(a: readonly number[], b: readonly number[], marks: Uint8Array): void {
  const width = b.length + 1;
  if (table.length < (a.length + 1) * width) table = new Uint32Array(2 * (a.length + 1) * width);
  table.fill(0, 0, width);
  for (let i = 1; i <= a.length; i++) {
    const word = a[i - 1]!;
    const row = i * width;
    table[row] = 0;
    for (let j = 1; j <= b.length; j++)
      table[row + j] =
        word === b[j - 1]
          ? table[row - width + j - 1]! + 1
          : Math.max(table[row - width + j]!, table[row + j - 1]!);
  }
  let [i, j] = [a.length, b.length];
  while (i > 0 && j > 0) {
    if (a[i - 1] === b[j - 1]) {
      marks[a[i - 1]!] = 1;
      i -= 1;
      j -= 1;
    } else if (table[(i - 1) * width + j]! > table[i * width + j - 1]!) i -= 1;
    else j -= 1;
  }
}

/**
 * F of ROUGE-L between texts of several sentences, on sets of words: the union over sentence pairs of their common
 * words, over the words of either text (the `rouge` package that LLaVA-Interleave's scores come from).
 */
export function rougeLF(response: string, gold: string): number {
  const numbers = new Map<string, number>();
  const wanted = sentences(gold, numbers);
  const wantedWords = numbers.size;
  const said = sentences(response, numbers);
  if (said.length === 0 || wanted.length === 0) return 0;
  const inSaid = new Uint8Array(numbers.size);
  for (const sentence of said) for (const word of sentence) inSaid[word] = 1;
  const common = new Uint8Array(wantedWords);
  for (const reference of wanted) for (const sentence of said) markCommon(reference, sentence, common);
  const union = count(common);
  const recall = union / wantedWords;
  const precision = union / count(inSaid);
  return (2 * precision * recall) / (precision + recall + 1e-8);
}

function count(marks: Uint8Array): number {
  let sum = 0;
  for (const mark of marks) sum += mark;
  return sum;
}

/** Open questions of LLaVA-Interleave; only the first 512 characters of a response count. Metric `rouge_l`. */
registerScorer('rouge_l_f', {
  options: z.strictObject({}),
  score: (response, { target }) => {
    const said = response.length <= 512 ? response : [...response].slice(0, 512).join('');
    return {
      values: { rouge_l: Math.max(...targetTexts(target).map((gold) => rougeLF(said, gold))) },
      parsed: response === '' ? null : response,
    };
  },
});
