import { z } from 'zod';
import { codePoints, strip } from '../python-text.ts';
import { levenshtein } from './levenshtein.ts';
import { registerScorer, targetTexts } from './scorer.ts';

/** 1 − edits / length of the gold, at least 0: the tree edit distance of documents with one field (Kim et al. 2021, arXiv 2111.15664). */
export function editSimilarity(response: string, gold: string): number {
  const length = codePoints(gold);
  if (length === 0) return Number(response === '');
  return Math.max(0, 1 - levenshtein(response, gold) / length);
}

/**
 * SynthDoG as lmms-eval scores it: the answer is lower-cased, the gold is not, and the field's name counts as one edit in `1 + length`, since the answer's
 * stands under another name.
 */
function renamedSimilarity(response: string, gold: string): number {
  if (response === '' || gold === '') return Number(response === gold);
  return Math.max(0, 1 - (1 + levenshtein(response.toLowerCase(), gold)) / (1 + codePoints(gold)));
}

/** Documents with one field: the text between tags such as `<s_text_sequence>`, or all of it. Metric `edit_similarity`. */
registerScorer('edit_similarity', {
  options: z.strictObject({ profile: z.enum(['donut', 'synthdog']).default('donut') }),
  score: (response, { target }, { profile }, mode) => {
    if (profile === 'synthdog' && mode === 'libmoe')
      return {
        values: {
          edit_similarity: Math.max(
            ...targetTexts(target).map((gold) => renamedSimilarity(response, strip(gold))),
          ),
        },
        parsed: response === '' ? null : response.toLowerCase(),
      };
    const said = strip(response.replace(/<\/?s_[^<>]*>|<\/?s>|<sep\/>/g, ''));
    return {
      values: {
        edit_similarity: Math.max(...targetTexts(target).map((gold) => editSimilarity(said, strip(gold)))),
      },
      parsed: said === '' ? null : said,
    };
  },
});
