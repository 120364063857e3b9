import { z } from 'zod';
import { fail } from '../../native/index.ts';
import type { ScorerMode } from '../metrics.ts';
import { strip } from '../python-text.ts';
import type { AskedChoice, ChoiceRule } from './choice-letters.ts';
import * as letters from './choice-letters.ts';
import { cmmmu, iiBench, mmBench, mmmu } from './choice-options.ts';
import { robust } from './choice-robust.ts';
import { column, optionalColumn } from './columns.ts';
import { readPythonList } from './python-literal.ts';
import { registerScorer, type ScorerQuestion } from './scorer.ts';

const rules = {
  lead_dot: letters.leadDot,
  sqa: letters.scienceQa,
  first_char: letters.firstCharacter,
  letter_exact: letters.exactLetter,
  interleave: letters.interleave,
  mmstar: letters.mmStar,
  after_prefix_AD: letters.afterPrefixAD,
  after_prefix_AE: letters.afterPrefixAE,
  before_paren: letters.beforeParenthesis,
  mmmu,
  mmbench: mmBench,
  cmmmu,
  ii_bench: iiBench,
  option_or_letter: letters.optionOrLetter,
  tempcompass: letters.tempCompass,
  caption_matching: letters.captionMatching,
  vitatecs: letters.vitatecs,
  realworldqa: letters.realWorldQa,
  robust,
} satisfies Record<string, ChoiceRule>;

const profiles = Object.keys(rules) as (keyof typeof rules)[];

const options = z.strictObject({
  /** Whose way of reading; `fixed` scores use `robust` in its place, but for benchmarks with several right letters. */
  profile: z.enum(profiles as [keyof typeof rules]).default('robust'),
  /** `A-E` or `ABCDE`; default: as many as there are options, else A to E. */
  letters: z
    .string()
    .regex(/^(?:[A-Z]-[A-Z]|[A-Z]+)$/, 'must be letters such as ABCD or A-D')
    .optional(),
  /** Columns with one option each. Default: doc_to_choice. */
  columns: z.array(z.string()).min(1).optional(),
  /** A column with the list of options, also as the text of a Python list. */
  options: z.string().optional(),
  /** Leaves out options that are null, empty or the text "nan"; the letters of the others stay. */
  skip_missing: z.boolean().default(false),
  /** What the target is. `auto`: an index if it is a number, a letter if it is one, else an option's text. */
  gold: z.enum(['auto', 'letter', 'index', 'text']).default('auto'),
  case_sensitive: z.boolean().default(false),
  /**
   * Seed of the random letter that the original takes where it can read none. Only drawn where that is asked for (`--legacy-random-fallback`) and not
   * by `fixed` scores; the answer counts as unparsed all the same.
   */
  legacy_guess: z.int().nonnegative().optional(),
});
type Options = z.output<typeof options>;

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
const ranges = new Map<string, readonly string[]>();

function lettersOf(source: string): readonly string[] {
  let made = ranges.get(source);
  if (made === undefined) {
    const [from, to] = source.split('-');
    made =
      to === undefined ? [...source] : [...ALPHABET.slice(ALPHABET.indexOf(from!), ALPHABET.indexOf(to) + 1)];
    ranges.set(source, made);
  }
  return made;
}

const isMissing = (value: unknown): boolean =>
  value === null || value === undefined || value === '' || value === 'nan' || Number.isNaN(value);

function optionTexts({ doc, choices }: ScorerQuestion, given: Options): unknown[] {
  if (given.columns !== undefined)
    return given.columns.map((name) =>
      given.skip_missing ? (optionalColumn(doc, name) ?? null) : column(doc, name),
    );
  if (given.options === undefined) return [...choices];
  const value = column(doc, given.options);
  const list = typeof value === 'string' ? readPythonList(value) : value;
  return Array.isArray(list)
    ? list
    : fail(
        'ERR_LIBMOE_DATA',
        `column "${given.options}" must hold a list of options, got ${JSON.stringify(value)}`,
      );
}

function goldLetter(
  target: string | number,
  names: readonly string[],
  texts: readonly string[],
  kind: Options['gold'],
): string {
  const text = String(target);
  const byIndex = (): string =>
    names[Number(text)] ??
    fail('ERR_LIBMOE_DATA', `the target must be the index of one of ${names.length} options, got ${text}`);
  if (kind === 'index') return byIndex();
  if (kind === 'letter') return text;
  const byText = names[texts.indexOf(text)];
  if (kind === 'text')
    return byText ?? fail('ERR_LIBMOE_DATA', `the target must be one of the options, got "${text}"`);
  if (typeof target === 'number' || (/^\d+$/.test(text) && byText === undefined)) return byIndex();
  if (/^[A-Za-z]$/.test(text)) return text.toUpperCase();
  return byText ?? /^\(?([A-Z])[.)]/.exec(text)?.[1] ?? text;
}

function asked(question: ScorerQuestion, given: Options): AskedChoice {
  const raw = optionTexts(question, given);
  const all =
    given.letters !== undefined
      ? lettersOf(given.letters)
      : raw.length > 0
        ? lettersOf(`A-${ALPHABET[raw.length - 1] ?? 'Z'}`)
        : lettersOf('A-E');
  let names: readonly string[] = all;
  let texts = raw.map(String);
  if (given.skip_missing) {
    const kept = raw.flatMap((value, i) => (isMissing(value) ? [] : [i]));
    texts = kept.map((i) => String(raw[i]));
    names = kept.map((i) => all[i] ?? ALPHABET[i]!);
  }
  const target = Array.isArray(question.target) ? question.target[0] : question.target;
  if (target === undefined) return fail('ERR_LIBMOE_DATA', 'the target is an empty list');
  return {
    letters: names,
    texts,
    gold: goldLetter(
      target,
      given.skip_missing ? all : names,
      given.skip_missing ? raw.map(String) : texts,
      given.gold,
    ),
    target: String(target),
    doc: question.doc,
    caseSensitive: given.case_sensitive,
  };
}

function ruleFor(profile: Options['profile'], mode: ScorerMode): ChoiceRule {
  // Several right letters, and options that the question alone names: what `robust` cannot read.
  const own = profile === 'cmmmu' || profile === 'caption_matching';
  return mode === 'fixed' && !own ? rules.robust : rules[profile];
}

/** Multiple choice answered in words: reads the letter as the benchmark named by `profile` does. Metric `acc`. */
registerScorer('parse_choice', {
  options,
  score: (response, question, given, mode) => {
    const choice = asked(question, given);
    const { parsed, right } = ruleFor(given.profile, mode)(
      mode === 'fixed' ? strip(response) : response,
      choice,
    );
    const seed = mode === 'libmoe' && parsed === null ? given.legacy_guess : undefined;
    const guessed = seed === undefined ? undefined : question.guess?.(choice.letters, seed);
    return {
      values: { acc: Number(guessed === undefined ? right : guessed === choice.gold) },
      parsed,
      detail: { gold: choice.gold, ...(guessed !== undefined && { guessed }) },
    };
  },
});
