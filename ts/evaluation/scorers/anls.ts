import { z } from 'zod';
import { codePoints, splitWords, strip } from '../python-text.ts';
import { levenshtein } from './levenshtein.ts';
import { registerScorer, targetTexts } from './scorer.ts';

const options = z.strictObject({
  /** Similarities below it count as zero. */
  threshold: z.number().min(0).max(1).default(0.5),
  /** `words` also joins runs of white space (DocVQA); `trimmed` does not (MP-DocVQA). */
  normalise: z.enum(['words', 'trimmed']).default('words'),
  /** Right in the sense of `acc` from this similarity on; ConBench takes 0.4. */
  right_from: z.number().min(0).max(1).optional(),
});

/**
 * Average normalised Levenshtein similarity of one answer (Biten et al. 2019, arXiv 1905.13648): the best over the golds.
 * As in the original the distance of cleaned texts is divided by the length of the raw ones.
 */
export function anls(
  response: string,
  golds: readonly string[],
  { threshold = 0.5, trimmed = false } = {},
): number {
  const clean = (text: string): string =>
    trimmed ? strip(text).toLowerCase() : splitWords(text.toLowerCase()).join(' ');
  const said = clean(response);
  const own = codePoints(response.toUpperCase());
  let least = 1;
  for (const gold of golds) {
    const length = Math.max(own, codePoints(gold.toUpperCase()));
    const wanted = clean(gold);
    // Lengths that differ too much leave no similarity above the threshold, whatever the letters.
    const apart = Math.abs(codePoints(said) - codePoints(wanted));
    const distance =
      length === 0 ? 0 : apart > length * (1 - threshold) + 1e-9 ? 1 : levenshtein(said, wanted) / length;
    if (distance < least) least = distance;
  }
  const similarity = 1 - least;
  return similarity < threshold ? 0 : similarity;
}

/** Metrics `anls`, and `exact_match` of the cleaned texts (MP-DocVQA's accuracy); with `right_from` also `acc`. */
registerScorer('anls', {
  options,
  score: (response, { target }, { threshold, normalise, right_from: rightFrom }) => {
    const golds = targetTexts(target);
    const value = anls(response, golds, { threshold, trimmed: normalise === 'trimmed' });
    const said = strip(response).toLowerCase();
    const equal = golds.some((gold) => strip(gold).toLowerCase() === said);
    return {
      values: {
        anls: value,
        exact_match: Number(equal),
        ...(rightFrom !== undefined && { acc: Number(equal || value >= rightFrom) }),
      },
      parsed: response === '' ? null : response,
    };
  },
});
