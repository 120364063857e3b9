import { z } from 'zod';
import { registerScorer, targetTexts } from './scorer.ts';

const sentences = (text: string): string[][] =>
  text
    .split('.')
    .filter((part) => part !== '')
    .map((part) => part.split(/\s+/).filter((word) => word !== ''));

/** Words of one longest common subsequence. */
function commonWords(a: readonly string[], b: readonly string[]): string[] {
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++)
      table[i * width + j] =
        a[i - 1] === b[j - 1]
          ? table[(i - 1) * width + j - 1]! + 1
          : Math.max(table[(i - 1) * width + j]!, table[i * width + j - 1]!);
  const words: string[] = [];
  let [i, j] = [a.length, b.length];
  while (i > 0 && j > 0) {
    if (a[i - 1] === b[j - 1]) {
      words.push(a[i - 1]!);
      i -= 1;
      j -= 1;
    } else if (table[(i - 1) * width + j]! > table[i * width + j - 1]!) i -= 1;
    else j -= 1;
  }
  return words;
}

/**
 * F of ROUGE-L between texts of several sentences, on sets of words: the union over sentence pairs of their common
 * words, over the words of either text (the `rouge` package that LLaVA-Interleave's scores come from).
 */
export function rougeLF(response: string, gold: string): number {
  const [said, wanted] = [sentences(response), sentences(gold)];
  const saidWords = new Set(said.flat());
  const wantedWords = new Set(wanted.flat());
  if (saidWords.size === 0 || wantedWords.size === 0) return 0;
  const union = new Set<string>();
  for (const reference of wanted)
    for (const sentence of said) for (const word of commonWords(reference, sentence)) union.add(word);
  const recall = union.size / wantedWords.size;
  const precision = union.size / saidWords.size;
  return (2 * precision * recall) / (precision + recall + 1e-8);
}

/** Open questions of LLaVA-Interleave; only the first 512 characters of a response count. Metric `rouge_l`. */
registerScorer('rouge_l_f', {
  options: z.strictObject({}),
  score: (response, { target }) => {
    const said = [...response].slice(0, 512).join('');
    return {
      values: { rouge_l: Math.max(...targetTexts(target).map((gold) => rougeLF(said, gold))) },
      parsed: response === '' ? null : response,
    };
  },
});
