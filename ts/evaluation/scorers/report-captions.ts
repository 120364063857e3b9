import { fail } from '../../native/index.ts';
import { bootstrapStandardError, mean, meanStandardError } from '../statistics.ts';
import { bleu, bleuCounts } from './caption-bleu.ts';
import { ciderD } from './caption-cider.ts';
import type { CaptionPair } from './caption-ngram.ts';
import type { ReportedDocument } from './report.ts';
import { groupsOf, meanError, type Special, type Statistic } from './report-statistics.ts';

/** Numbers of a whole corpus of captions. */
export function captionScore(
  documents: readonly ReportedDocument[],
  { within, ...block }: Special<'caption'>,
): Statistic {
  if (within !== undefined) {
    const values = groupsOf(documents, within).map(([, members]) => captionScore(members, block).value);
    return { value: mean(values), count: values.length, error: meanStandardError(values) };
  }
  const corpus = documents.map(({ score }): CaptionPair => {
    const pair = score.detail?.caption as CaptionPair | undefined;
    return (
      pair ??
      fail('ERR_LIBMOE_CONFIG', 'use: caption needs a scorer of captions: score: { use: caption_ngram }')
    );
  });
  const count = corpus.length;
  if (block.part === 'cider') {
    const values = ciderD(corpus);
    return { value: mean(values), count, error: meanError(values, documents, block.clusters) };
  }
  const order = Number(block.part.slice(-1)) - 1;
  const counts = corpus.map(bleuCounts);
  const of = (chosen: Iterable<(typeof counts)[number]>): number => bleu(chosen)[order]!;
  return {
    value: count === 0 ? Number.NaN : of(counts),
    count,
    // As many as lm-eval takes for BLEU.
    error: (resamples) =>
      bootstrapStandardError(
        count,
        (drawn) => of(Array.from(drawn, (i) => counts[i]!)),
        Math.min(100, resamples),
      ),
  };
}
