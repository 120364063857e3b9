import { z } from 'zod';
import { quoted } from '../data/word-encoder.ts';
import { fail } from '../native/index.ts';
import { findAll, pythonRegex } from './python-regex.ts';
import { strip } from './python-text.ts';
import { mostFrequent } from './statistics.ts';

/** lm-eval's fallback of its regex filters. */
const invalid = '[invalid]';

const step = z.discriminatedUnion('function', [
  z.strictObject({ function: z.literal('take_first') }),
  z.strictObject({ function: z.literal('take_first_k'), k: z.int().positive() }),
  z.strictObject({ function: z.literal('majority_vote') }),
  z.strictObject({ function: z.literal('remove_whitespace') }),
  z.strictObject({ function: z.literal('strip') }),
  z.strictObject({ function: z.literal('lowercase') }),
  z.strictObject({ function: z.literal('uppercase') }),
  z.strictObject({ function: z.literal('remove_thinking') }),
  z.strictObject({
    function: z.literal('regex'),
    regex_pattern: z.string(),
    group_select: z.int().default(0),
    fallback: z.string().default(invalid),
  }),
  z.strictObject({
    function: z.literal('map'),
    mapping_dict: z.record(z.string(), z.string()),
    default_value: z.string().default(invalid),
  }),
  z.strictObject({
    function: z.literal('multi_choice_regex'),
    regex_pattern: z.string(),
    group_select: z.int().default(0),
    fallback: z.string().default(invalid),
    ignore_case: z.boolean().default(false),
    ignore_punctuation: z.boolean().default(false),
    regexes_to_ignore: z.array(z.string()).default([]),
  }),
]);
type Step = z.output<typeof step>;

/** The key `filter_list`: named pipelines; a metric's key in the results carries the name. */
export const filterListSchema = z
  .array(z.strictObject({ name: z.string(), filter: z.array(step).min(1) }))
  .min(1);

/** A named pipeline over the responses to one question. */
export interface ResponseFilter {
  name: string;
  /** The responses in their order to those that are scored: the first one counts. */
  apply(responses: readonly string[], choices: readonly string[]): string[];
}

/** The pipelines of a task; without any the first response as it is, under the name `none`. @throws ERR_LIBMOE_CONFIG for a pattern that is none */
export function responseFilters(
  list: z.output<typeof filterListSchema> | undefined,
  task: string,
): ResponseFilter[] {
  if (list === undefined) return [{ name: 'none', apply: (responses) => responses.slice(0, 1) }];
  return list.map(({ name, filter }) => {
    const stages = filter.map((one) => stage(one, task));
    return {
      name,
      apply: (responses, choices) =>
        stages.reduce<string[]>((left, run) => run(left, choices), [...responses]),
    };
  });
}

type Stage = (responses: string[], choices: readonly string[]) => string[];

const each =
  (change: (text: string) => string): Stage =>
  (responses) =>
    responses.map(change);

function stage(one: Step, task: string): Stage {
  switch (one.function) {
    case 'take_first':
      return (responses) => responses.slice(0, 1);
    case 'take_first_k':
      return (responses) =>
        responses.length >= one.k
          ? responses.slice(0, one.k)
          : fail(
              'ERR_LIBMOE_CONFIG',
              `task ${task}: take_first_k needs ${one.k} responses, there are ${responses.length}: set repeats`,
            );
    case 'majority_vote':
      return (responses) => {
        const counts = new Map<string, number>();
        for (const text of responses) counts.set(text, (counts.get(text) ?? 0) + 1);
        return [mostFrequent(counts) ?? ''];
      };
    // One space only, as lm-eval does it.
    case 'remove_whitespace':
      return each((text) => (text.startsWith(' ') ? text.slice(1) : text));
    case 'strip':
      return each((text) => strip(text));
    case 'lowercase':
      return each((text) => text.toLowerCase());
    case 'uppercase':
      return each((text) => text.toUpperCase());
    // What a reasoning model thinks before it answers; a thought without an end is all thought.
    case 'remove_thinking':
      return each((text) => text.replace(/<think>[\s\S]*?(?:<\/think>|$)/gu, ''));
    case 'regex':
      return each(picker(one, task));
    case 'map':
      return each((text) => one.mapping_dict[text] ?? one.default_value);
    case 'multi_choice_regex':
      return multipleChoice(one, task);
  }
}

/** The chosen match of a pattern; of several groups the first that holds something. Undefined without a match. */
function pick(pattern: RegExp, text: string, select: number): string | undefined {
  const found = findAll(pattern, text);
  if (found.length === 0) return undefined;
  const match = found.at(select);
  if (match === undefined) return undefined;
  const chosen = typeof match === 'string' ? match : match.find((group) => group !== '');
  return chosen === undefined ? undefined : strip(chosen);
}

function picker(one: Extract<Step, { function: 'regex' }>, task: string): (text: string) => string {
  const pattern = compiled(one.regex_pattern, task);
  return (text) => pick(pattern, text, one.group_select) ?? one.fallback;
}

/** Answers to lettered choices, as lm-eval looks for them: the pattern, else a choice's own text, else a letter behind a colon. */
function multipleChoice(one: Extract<Step, { function: 'multi_choice_regex' }>, task: string): Stage {
  const pattern = compiled(one.regex_pattern, task);
  const ignored = one.regexes_to_ignore.map((source) => compiled(source, task, 'g'));
  const plain = (text: string): string => {
    let left = text;
    for (const each of ignored) left = left.replace(each, '');
    if (one.ignore_case) left = left.toLowerCase();
    return one.ignore_punctuation ? left.replace(/\p{P}/gu, '') : left;
  };
  return (responses, choices) => {
    if (choices.length === 0)
      fail('ERR_LIBMOE_CONFIG', `task ${task}: multi_choice_regex needs the choices: set doc_to_choice`);
    const letters = choices.map((_, i) => String.fromCharCode(65 + i));
    const texts = choices.map((choice) => plain(strip(choice)));
    // Longest first: a choice that begins like another must not hide it.
    const byText = texts.toSorted((a, b) => b.length - a.length).map(quoted);
    const choice = new RegExp(byText.join('|'), 'u');
    const letter = new RegExp(`:[\\s]*(${letters.join('|')})`, 'u');
    return responses.map((response) => {
      const direct = pick(pattern, response, one.group_select);
      if (direct) return direct;
      const text = pick(choice, plain(response), one.group_select);
      if (text) {
        const at = texts.lastIndexOf(text);
        return at < 0 ? text : `(${letters[at]})`;
      }
      const behind = pick(letter, response, one.group_select);
      return behind ? `(${behind})` : one.fallback;
    });
  };
}

function compiled(source: string, task: string, flags = ''): RegExp {
  try {
    return pythonRegex(source, flags);
  } catch (cause) {
    return fail(
      'ERR_LIBMOE_CONFIG',
      `task ${task}: ${(cause as Error).message.replace(/^ERR_\w+: /, '')}`,
      cause,
    );
  }
}
