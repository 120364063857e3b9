import { MersenneTwister } from './mersenne.ts';
import { clusteredStandardError, exactSum, mean, meanStandardError } from './statistics.ts';
import { studentTwoSided } from './student.ts';

/** How sure a difference between two runs on the same documents is. */
export interface PairedError {
  /** Of the difference; undefined where there is too little to tell. */
  standardError?: number;
  /** Independent pieces (documents, images, groups of them) less one. */
  degrees: number;
}

/** Of a difference of means: the standard error of the mean of the differences, by clusters where rows share an image or passage. */
export function pairedMeanError(differences: readonly number[], clusters?: readonly string[]): PairedError {
  const pieces = clusters === undefined ? differences.length : new Set(clusters).size;
  if (pieces < 2) return { degrees: 0 };
  const standardError =
    clusters === undefined ? meanStandardError(differences) : clusteredStandardError(differences, clusters);
  return { standardError, degrees: pieces - 1 };
}

/** Of a difference of sums, or means, of the means of strata: their errors together. */
export function pairedStrataError(
  differences: readonly number[],
  strata: readonly string[],
  together: 'sum' | 'mean',
): PairedError {
  const names = [...new Set(strata)];
  const errors = names.map((name) => meanStandardError(differences.filter((_, i) => strata[i] === name)));
  const sum = Math.sqrt(exactSum(errors.map((error) => error * error)));
  const standardError = together === 'sum' ? sum : sum / names.length;
  return {
    // Of a stratum of one nothing is known.
    ...(Number.isFinite(standardError) && { standardError }),
    degrees: differences.length - names.length,
  };
}

/** More pieces than this are left out in groups. */
const mostGroups = 200;

/**
 * Of a difference of any numbers: the delete-a-group jackknife (Shao & Wu 1989). Every group of pieces is left out once, from both runs
 * alike, so what is common to both cancels; no piece ever counts twice, as it would in a bootstrap, where the two halves of a unit would
 * no longer be two. Pieces are dealt into at most 200 groups by a seeded shuffle.
 * @param pieces of each row, the piece it belongs to: rows of one image or passage stay together
 * @param difference the difference of the two runs' numbers over the rows that are kept
 */
export function jackknifeError(
  pieces: readonly string[],
  difference: (kept: (row: number) => boolean) => number,
): PairedError {
  const names = [...new Set(pieces)];
  new MersenneTwister(1234).shuffle(names);
  const count = Math.min(mostGroups, names.length);
  if (count < 2) return { degrees: 0 };
  const groupOf = new Map(names.map((name, i) => [name, i % count]));
  const groups = pieces.map((piece) => groupOf.get(piece)!);
  const without = Array.from({ length: count }, (_, group) => difference((row) => groups[row] !== group));
  const centre = mean(without);
  const spread = exactSum(without.map((x) => (x - centre) ** 2));
  const standardError = Math.sqrt(((count - 1) / count) * spread);
  return { ...(Number.isFinite(standardError) && { standardError }), degrees: count - 1 };
}

/** Two-sided p value of a difference by Student's distribution; 1 where nothing differs, undefined where the error says nothing. */
export function pairedP(difference: number, { standardError, degrees }: PairedError): number | undefined {
  if (standardError === undefined || !Number.isFinite(difference)) return undefined;
  if (standardError > 0) return studentTwoSided(difference / standardError, degrees);
  return difference === 0 ? 1 : undefined;
}
