// The scorers' definitions, written down without a thought of time.
import type { BleuCounts } from '../../../ts/evaluation/scorers/caption-bleu.ts';
import type { CaptionPair } from '../../../ts/evaluation/scorers/caption-ngram.ts';

export function plainLevenshtein(a: string, b: string): number {
  if (a === b) return 0;
  const x = [...a];
  const y = [...b];
  if (x.length === 0 || y.length === 0) return Math.max(x.length, y.length);
  const row = Uint32Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    let diagonal = row[0]!;
    row[0] = i;
    const at = x[i - 1];
    for (let j = 1; j <= y.length; j++) {
      const above = row[j]!;
      const replaced = diagonal + (at === y[j - 1] ? 0 : 1);
      const shorter = Math.min(above, row[j - 1]!) + 1;
      row[j] = Math.min(replaced, shorter);
      diagonal = above;
    }
  }
  return row[y.length]!;
}

function ngrams(tokens: readonly string[]): Map<string, number>[] {
  return Array.from({ length: 4 }, (_, k) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + k < tokens.length; i++) {
      const gram = k === 0 ? tokens[i]! : tokens.slice(i, i + k + 1).join('\u0000');
      counts.set(gram, (counts.get(gram) ?? 0) + 1);
    }
    return counts;
  });
}

export function plainBleuCounts({ candidate, references }: CaptionPair): BleuCounts {
  const most = Array.from({ length: 4 }, () => new Map<string, number>());
  for (const reference of references)
    for (const [k, counts] of ngrams(reference).entries())
      for (const [gram, count] of counts) if (count > (most[k]!.get(gram) ?? 0)) most[k]!.set(gram, count);
  const own = ngrams(candidate);
  const lengths = references.map((reference) => reference.length);
  const closest = lengths.sort(
    (a, b) => Math.abs(a - candidate.length) - Math.abs(b - candidate.length) || a - b,
  )[0];
  return {
    length: candidate.length,
    referenceLength: closest ?? 0,
    guesses: own.map((_, k) => Math.max(0, candidate.length - k)),
    correct: own.map((counts, k) => {
      let sum = 0;
      for (const [gram, count] of counts) sum += Math.min(count, most[k]!.get(gram) ?? 0);
      return sum;
    }),
  };
}

function longestCommon(a: readonly string[], b: readonly string[]): number {
  const row = new Uint32Array(b.length + 1);
  for (const token of a) {
    let diagonal = 0;
    for (let j = 1; j <= b.length; j++) {
      const above = row[j]!;
      row[j] = token === b[j - 1] ? diagonal + 1 : Math.max(above, row[j - 1]!);
      diagonal = above;
    }
  }
  return row[b.length]!;
}

export function plainRougeL({ candidate, references }: CaptionPair): number {
  let precision = 0;
  let recall = 0;
  for (const reference of references) {
    const common = longestCommon(candidate, reference);
    if (candidate.length > 0) precision = Math.max(precision, common / candidate.length);
    if (reference.length > 0) recall = Math.max(recall, common / reference.length);
  }
  const beta2 = 1.2 * 1.2;
  return precision === 0 || recall === 0
    ? 0
    : ((1 + beta2) * precision * recall) / (recall + beta2 * precision);
}

interface Weighted {
  weights: Map<string, number>[];
  norms: number[];
  length: number;
}

export function plainCiderD(corpus: readonly CaptionPair[]): number[] {
  const frequency = new Map<string, number>();
  const grams = corpus.map(({ candidate, references }) => ({
    candidate: ngrams(candidate),
    references: references.map(ngrams),
  }));
  for (const { references } of grams) {
    const seen = new Set(references.flatMap((orders) => orders.flatMap((counts) => [...counts.keys()])));
    for (const gram of seen) frequency.set(gram, (frequency.get(gram) ?? 0) + 1);
  }
  const images = Math.log(corpus.length);
  const weigh = (orders: Map<string, number>[]): Weighted => {
    const weights = orders.map(
      (counts) =>
        new Map(
          [...counts].map(([gram, count]): [string, number] => [
            gram,
            count * (images - Math.log(Math.max(1, frequency.get(gram) ?? 0))),
          ]),
        ),
    );
    const norms = weights.map((map) => Math.sqrt([...map.values()].reduce((sum, w) => sum + w * w, 0)));
    // The original takes the number of bigrams for the length.
    return { weights, norms, length: [...orders[1]!.values()].reduce((sum, count) => sum + count, 0) };
  };
  return grams.map(({ candidate, references }) => {
    const own = weigh(candidate);
    let sum = 0;
    for (const reference of references.map(weigh)) {
      const penalty = Math.exp(-((own.length - reference.length) ** 2) / (2 * 6 ** 2));
      for (let k = 0; k < 4; k++) {
        let dot = 0;
        for (const [gram, weight] of own.weights[k]!) {
          const other = reference.weights[k]!.get(gram) ?? 0;
          dot += Math.min(weight, other) * other;
        }
        const norm = own.norms[k]! * reference.norms[k]!;
        sum += ((norm === 0 ? dot : dot / norm) * penalty) / 4;
      }
    }
    return references.length === 0 ? 0 : (10 * sum) / references.length;
  });
}

const SPLIT: Readonly<Record<string, readonly string[]>> = {
  cannot: ['can', 'not'],
  gonna: ['gon', 'na'],
  gotta: ['got', 'ta'],
  wanna: ['wan', 'na'],
  lemme: ['lem', 'me'],
  gimme: ['gim', 'me'],
};
const ABBREVIATION =
  /^(?:(?:\p{L}\.)+\p{L}?\.?|(?:mr|mrs|ms|dr|st|jr|sr|vs|prof|etc|no|inc|ltd|co|corp|ave|mt)\.)$/u;
// A number, a word with inner hyphens, periods, slashes or apostrophes, or any other character alone.
const PIECE =
  /[+-]?\p{Nd}+(?:[.,:/]\p{Nd}+)*(?:\p{L}[\p{L}\p{N}-]*)?|[\p{L}\p{N}_]+(?:[-./'&@][\p{L}\p{N}_]+)*\.?|\.{3}|-{2,}|'[\p{L}]+|\S/gu;
const FANCY = /[’‘“”–—…]/;
const CONTRACTION = /^(.+?)(n't|'(?:s|re|ve|ll|d|m))$/;
const PUNCTUATION = /^(?:''|'|``|`|"|[()[\]{}.?!,:;]|-+|\.\.\.)$/;

export function plainTokens(text: string): string[] {
  const lower = text.toLowerCase();
  const plain = FANCY.test(lower)
    ? lower.replace(/[’‘]/g, "'").replace(/[“”]/g, '"').replace(/[–—]/g, '--').replaceAll('…', '...')
    : lower;
  const tokens: string[] = [];
  for (const [piece] of plain.matchAll(PIECE)) {
    if (PUNCTUATION.test(piece)) continue;
    const word = piece.endsWith('.') && !ABBREVIATION.test(piece) ? piece.replace(/\.+$/, '') : piece;
    if (word === '') continue;
    const known = Object.hasOwn(SPLIT, word) ? SPLIT[word] : undefined;
    const contraction = word.includes("'") ? CONTRACTION.exec(word) : null;
    if (known !== undefined) tokens.push(...known);
    else if (contraction !== null) tokens.push(contraction[1]!, contraction[2]!);
    else tokens.push(word);
  }
  return tokens;
}

function plainCommonWords(a: readonly string[], b: readonly string[]): string[] {
  const table = Array.from({ length: a.length + 1 }, () => Array<number>(b.length + 1).fill(0));
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++)
      table[i]![j] =
        a[i - 1] === b[j - 1] ? table[i - 1]![j - 1]! + 1 : Math.max(table[i - 1]![j]!, table[i]![j - 1]!);
  const words: string[] = [];
  let [i, j] = [a.length, b.length];
  while (i > 0 && j > 0)
    if (a[i - 1] === b[j - 1]) {
      words.push(a[i - 1]!);
      i -= 1;
      j -= 1;
    } else if (table[i - 1]![j]! > table[i]![j - 1]!) i -= 1;
    else j -= 1;
  return words;
}

export function plainRougeLF(response: string, gold: string): number {
  const [said, wanted] = [response, gold].map((text) =>
    text.split('.').map((part) => part.split(/\s+/).filter((word) => word !== '')),
  ) as [string[][], string[][]];
  const saidWords = new Set(said.flat());
  const wantedWords = new Set(wanted.flat());
  if (saidWords.size === 0 || wantedWords.size === 0) return 0;
  const union = new Set(wanted.flatMap((a) => said.flatMap((b) => plainCommonWords(a, b))));
  const recall = union.size / wantedWords.size;
  const precision = union.size / saidWords.size;
  return (2 * precision * recall) / (precision + recall + 1e-8);
}
