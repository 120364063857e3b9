import type { ScorerMode } from '../metrics.ts';
import { mean } from '../statistics.ts';
import { bleu, bleuCounts } from './caption-bleu.ts';
import { ciderD } from './caption-cider.ts';
import type { CaptionPair } from './caption-ngram.ts';
import { keyReader } from './columns.ts';
import { chosenDocuments, type ReportedDocument, statistic } from './report.ts';
import { captionScore } from './report-captions.ts';
import { blockIn, type ReportBlock } from './report-schema.ts';
import { groupsOf, mmeScore, type Special, unitDocuments } from './report-statistics.ts';

/** A number of a report as what it is made of, for tests that leave documents out. */
export interface ReportRows {
  /** Documents, or one for each unit, that the number is made of. */
  rows: ReportedDocument[];
  /** Of each row, what it is not to be parted from: its image, its passage. */
  pieces: string[];
  /** The value of each row where the number is their mean; null where a row does not count. */
  values?: (number | null)[];
  /** The number is no mean of all values but of each stratum's: their sum, or their mean. */
  strata?: { of: readonly string[]; together: 'sum' | 'mean' };
  /** What each row adds, to see whether two runs differ there. */
  facts: unknown[];
  /** The number of some of the rows. */
  of(kept: (row: number) => boolean): number;
}

/**
 * What the number of a block is made of.
 * @param place for messages
 * @throws as reportNumbers does
 */
export function reportRows(
  written: ReportBlock,
  documents: readonly ReportedDocument[],
  mode: ScorerMode,
  place: string,
): ReportRows {
  const block = blockIn(written, mode);
  const { scale } = block;
  const special = 'use' in block ? block.use : undefined;
  const chosen = chosenDocuments(documents, block, place);
  const rows = special === 'group_consistency' ? unitDocuments(chosen, block as never) : chosen;
  if ('use' in block && block.use === 'mme') return mmeRows(chosen, block);
  const read = block.clusters === undefined ? undefined : keyReader(block.clusters);
  const base = {
    rows,
    pieces: rows.map(({ doc, score }, i) => read?.(doc, score.detail).join('\u0000') ?? `${i}`),
    of: (kept: (row: number) => boolean) =>
      statistic(
        rows.filter((_, i) => kept(i)),
        block,
        mode,
      ).value * scale,
  };
  if ('use' in block && block.use === 'caption' && block.within !== undefined)
    return captionRows(chosen, block);
  if ('use' in block && block.use === 'caption') {
    const captions = rows.map(({ score }) => score.detail?.caption as CaptionPair);
    const facts = captions.map(({ candidate }) => candidate);
    // Weights of words are those of the whole set: a caption's value does not hang on which others are left out.
    if (block.part === 'cider') return { ...base, facts, values: ciderD(captions).map((x) => x * scale) };
    const counts = captions.map(bleuCounts);
    const order = Number(block.part.slice(-1)) - 1;
    return { ...base, facts, of: (kept) => bleu(counts.filter((_, i) => kept(i)))[order]! * scale };
  }
  if ('use' in block && block.use === 'confusion')
    return { ...base, facts: rows.map(({ score }) => [score.detail?.answer, score.missing]) };
  const { of } = block as { of: string };
  const values = rows.map(({ score }) => score.values[of] ?? null);
  const isMean = special === 'group_consistency' || ('agg' in block && block.agg === 'mean');
  return {
    ...base,
    facts: values,
    ...(isMean && { values: values.map((value) => (value === null ? null : value * scale)) }),
  };
}

/** The mean over groups of captions, each a corpus of its own: a group is one row, and never parted. */
function captionRows(
  documents: readonly ReportedDocument[],
  { within, ...block }: Special<'caption'>,
): ReportRows {
  const groups = groupsOf(documents, within!);
  const values = groups.map(([, members]) => captionScore(members, block).value * block.scale);
  return {
    rows: groups.map(([, members]) => members[0]!),
    pieces: groups.map(([name]) => name),
    values,
    facts: groups.map(([, members]) =>
      members.map(({ score }) => (score.detail!.caption as CaptionPair).candidate),
    ),
    of: (kept) => mean(values.filter((_, i) => kept(i))),
  };
}

/** MME's sums are of categories' means over images: the number of an image alone is what it adds to its category. */
function mmeRows(
  documents: readonly ReportedDocument[],
  block: Extract<ReportBlock, { use: 'mme' }>,
): ReportRows {
  const images = groupsOf(documents, block.category).flatMap(([category, rows]) =>
    groupsOf(rows, block.unit).flatMap(([, image]) => {
      const { value, count } = mmeScore(image, block);
      return count === 0 ? [] : [{ category, row: image[0]!, value: value * block.scale }];
    }),
  );
  const values = images.map(({ value }) => value);
  return {
    rows: images.map(({ row }) => row),
    pieces: images.map((_, i) => `${i}`),
    values,
    strata: {
      of: images.map(({ category }) => category),
      together: block.part === 'percent' ? 'mean' : 'sum',
    },
    facts: values,
    of: () => Number.NaN,
  };
}
