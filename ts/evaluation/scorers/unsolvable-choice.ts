import { z } from 'zod';
import { parseRobustChoice } from './choice-robust.ts';
import { optionalColumn, textColumn } from './columns.ts';
import { registerScorer, targetTexts } from './scorer.ts';

const options = z.strictObject({
  /** The answer is absent (`aad`), all options are incompatible (`iasd`), or image and question are (`ivqd`). */
  kind: z.enum(['aad', 'iasd', 'ivqd']),
  /** The prompt itself offers `F` as the way to refuse. */
  instruction: z.boolean().default(false),
  columns: z.array(z.string()).min(1).default(['A', 'B', 'C', 'D', 'E']),
});
type Options = z.output<typeof options>;

const LETTERS = [...'ABCDEFG'];

/** The letter that the whole answer is or begins with, unless another one stands before a mark anywhere. */
function leading(answer: string, valid: readonly string[]): string | null {
  const found = valid.filter((letter) => {
    if (answer === letter) return true;
    if (![`${letter})`, `${letter}.`, `${letter},`, `(${letter})`].some((start) => answer.startsWith(start)))
      return false;
    return !LETTERS.some(
      (other) => other !== letter && ['.', ')', ','].some((mark) => answer.includes(other + mark)),
    );
  });
  return found.length === 1 ? found[0]! : null;
}

/** The letters that the matcher of the original gives to what is not offered: the hidden right answer, and a refusal. */
function refusals(shown: readonly string[], { kind, instruction }: Options): string[] {
  const free = [...'CDEF'].find((letter) => !shown.includes(letter));
  const offered = instruction ? ['F'] : [];
  if (free === undefined) return offered;
  if (kind === 'ivqd') return [free, ...offered];
  const next = kind === 'iasd' && instruction && free === 'E' ? 'G' : LETTERS[LETTERS.indexOf(free) + 1]!;
  return [free, next, ...offered];
}

/**
 * MM-UPD (Miyai et al. 2024, arXiv 2403.20331) without its judge: multiple choice whose right answer may be to refuse. Rows with `type: upd` are right with the
 * target's letter or with a letter that stands for a refusal; of `type: standard` with the target's alone. Metric `acc`.
 */
registerScorer('unsolvable_choice', {
  options,
  score: (response, { doc, target }, given, mode) => {
    const gold = targetTexts(target)[0] ?? '';
    const texts = given.columns.map((name) => optionalColumn(doc, name));
    const isShown = (text: unknown): boolean =>
      text !== null && text !== undefined && !['', 'nan', 'none'].includes(String(text).toLowerCase());
    const shown = given.columns.flatMap((_, i) => (isShown(texts[i]) ? [LETTERS[i]!] : []));
    const offered = given.instruction ? [...shown, 'F'] : shown;
    const refused = refusals(shown, given);
    const read = (valid: readonly string[]): string | null =>
      mode === 'fixed'
        ? parseRobustChoice(response, valid, texts.filter(isShown).map(String))
        : leading(response, valid);
    const first = read(offered);
    if (first !== null) return { values: { acc: Number(first === gold) }, parsed: first };
    const second = read([...new Set([...shown, ...refused])]);
    const unsolvable = textColumn(doc, 'type') !== 'standard';
    const right = second !== null && (second === gold || (unsolvable && refused.includes(second)));
    return { values: { acc: Number(right) }, parsed: second };
  },
});
