import { z } from 'zod';
import type { ScorerMode } from '../metrics.ts';
import { pyFloat } from '../python-number.ts';
import { strip } from '../python-text.ts';
import { registerScorer, targetTexts } from './scorer.ts';

const options = z.strictObject({ tolerance: z.number().nonnegative().default(0.05) });

/** A number or a percentage; null where it is neither. */
function numberOf(text: string): number | null {
  if (!text.endsWith('%')) return pyFloat(text);
  const value = pyFloat(text.replace(/%+$/, ''));
  return value === null ? null : value / 100;
}

/** Without currency signs, thousands separators, a final period and the words after a number. */
function cleaned(text: string): string {
  const bare = strip(text)
    .replace(/[$€£]/g, '')
    .replace(/(?<=\d),(?=\d{3}(?!\d))/g, '')
    .replace(/\.$/, '');
  return strip(bare)
    .replace(/^([+-]?[\d.]+)\s*percent$/i, '$1%')
    .replace(/^([+-]?(?:\d+\.?\d*|\.\d+)%?)\s+\p{L}[\p{L}\s.]*$/u, '$1');
}

/** ChartQA's relaxed accuracy (Masry et al. 2022, arXiv 2203.10244): 5 % off for numbers, equality for everything else. */
export function relaxedMatch(
  response: string,
  gold: string,
  tolerance = 0.05,
  mode: ScorerMode = 'libmoe',
): boolean {
  const [said, wanted] = mode === 'fixed' ? [cleaned(response), cleaned(gold)] : [response, gold];
  const p = numberOf(said);
  const g = numberOf(wanted);
  // A gold of zero has no relative error, and NaN is a number that Python takes for true.
  if (p !== null && g !== null && g !== 0) return Math.abs(p - g) / Math.abs(g) <= tolerance;
  return said.toLowerCase() === wanted.toLowerCase();
}

/** Metric `relaxed`. */
registerScorer('relaxed_accuracy', {
  options,
  score: (response, { target }, { tolerance }, mode) => {
    const golds = targetTexts(target);
    const right = golds.some((gold) => relaxedMatch(response, gold, tolerance, mode));
    return { values: { relaxed: Number(right) }, parsed: mode === 'fixed' ? cleaned(response) : response };
  },
});
