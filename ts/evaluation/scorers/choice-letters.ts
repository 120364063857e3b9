import { punctuation, pythonClasses, splitWords, strip, stripOf } from '../python-text.ts';
import type { Row } from '../task.ts';
import { vqaPunctuation } from './vqa-normalise.ts';

/** What a rule sees of a multiple-choice question. */
export interface AskedChoice {
  /** `A`, `B`, … as far as there are options. */
  letters: readonly string[];
  /** Texts of the options, in the order of the letters; empty where the record has none. */
  texts: readonly string[];
  /** The letter of the right option, or the target as it stands where that names no letter. */
  gold: string;
  /** The target as it stands. */
  target: string;
  doc: Row;
  caseSensitive: boolean;
}

/** What was read, and whether it is right. Some originals compare in ways of their own. */
export interface ChoiceReading {
  parsed: string | null;
  right: boolean;
}

/** How one benchmark reads a letter out of a response. */
export type ChoiceRule = (response: string, asked: AskedChoice) => ChoiceReading;

/** A rule that reads a letter and compares it with the right one. */
export function reads(parse: (response: string, asked: AskedChoice) => string | null): ChoiceRule {
  return (response, asked) => {
    const parsed = parse(response, asked);
    return { parsed, right: parsed !== null && parsed === asked.gold };
  };
}

/** Equality of lower-cased texts without ASCII punctuation. */
function sameWords(a: string, b: string): boolean {
  return a.toLowerCase().replace(punctuation, '') === b.toLowerCase().replace(punctuation, '');
}

/** AI2D: a capital with a period leads; else the whole response is compared, without case and punctuation. */
export const leadDot: ChoiceRule = (response, { gold }) => {
  const letter = /^([A-Z])\./.exec(strip(response))?.[1];
  const text = letter ?? response;
  const bare = text.toUpperCase().replace(punctuation, '');
  return { parsed: /^[A-Z]$/.test(bare) ? bare : null, right: sameWords(text, gold) };
};

/** ScienceQA: exactly the letter, or `X.` at the start. */
export const scienceQa = reads((response, { letters }) => {
  if (letters.includes(response)) return response;
  return /^\p{Lu}\./u.test(response) ? [...response][0]! : null;
});

/** SEED-Bench: the first character, whatever follows. */
export const firstCharacter = reads((response, { caseSensitive, letters }) => {
  const first = [...response][0];
  if (first === undefined) return null;
  const letter = caseSensitive ? first : first.toUpperCase();
  return letters.includes(letter) ? letter : null;
});

/** PerceptionTest: the bare letter and nothing else. */
export const exactLetter = reads((response, { letters }) => (letters.includes(response) ? response : null));

const interleaveOption = /^([A-E])\.\s*[^\n]+$/i;
const standaloneLetter = new RegExp(`${pythonClasses.boundary}([A-E])${pythonClasses.boundary}`, 'iu');

function interleaveText(raw: string): string {
  const option = interleaveOption.exec(strip(raw))?.[1];
  if (option !== undefined) return option.toUpperCase();
  let text = vqaPunctuation(strip(raw.replace(/[\n\t]/g, ' ')));
  for (const mark of ["'", '"', ')', '(']) text = stripOf(text, mark);
  text = strip(text).toLowerCase();
  return standaloneLetter.exec(text)?.[1]?.toUpperCase() ?? text;
}

/** LLaVA-Interleave: `X. text`, else the first letter that stands alone (an article "a" too), else the cleaned text; the gold likewise. */
export const interleave: ChoiceRule = (response, { target }) => {
  const text = interleaveText(response);
  return { parsed: /^[A-E]$/.test(text) ? text : null, right: text === interleaveText(target) };
};

/** MMStar: four places where the letter may stand, each compared with the gold; "Answer: C" so counts as A. */
export const mmStar: ChoiceRule = (response, { gold, letters }) => {
  const text = strip(response.toLowerCase()).replaceAll('\n', ' ');
  const read = [
    text.startsWith('(') ? text[1] : undefined,
    text.startsWith('option ') ? text[7] : undefined,
    text.startsWith('the answer is ') ? text[14] : undefined,
    text[0],
  ];
  const right = read.includes(gold.toLowerCase());
  const first = read.map((c) => c?.toUpperCase()).find((c) => c !== undefined && letters.includes(c));
  return { parsed: right ? gold : (first ?? null), right };
};

const VIDEO_MME_PHRASES = [
  'The best answer is',
  'The correct answer is',
  'The answer is',
  'The answer',
  // Two commas are missing in the original's list, so these never occur and the phrases stay.
  'The best option isThe correct option is',
  'Best answer:Best option:',
];
const REAL_WORLD_PHRASES = [
  'The best answer is',
  'The correct answer is',
  'The answer is',
  'The answer',
  'The best option is',
  'The correct option is',
  'Best answer:',
  'Best option:',
];

/** Video-MME: the first A–D anywhere, after some phrases are taken out. */
export const afterPrefixAD = reads((response) => {
  let text = strip(response);
  for (const phrase of VIDEO_MME_PHRASES) text = text.replaceAll(phrase, '');
  return /[ABCD]/.exec(text)?.[0] ?? null;
});

/** MME-RealWorld: the first A–E; without one, the marker such as `(A)` that contains the whole response, so "" gives A. */
export const afterPrefixAE = reads((response, { letters }) => {
  let text = strip(response);
  for (const phrase of REAL_WORLD_PHRASES) text = text.replaceAll(phrase, '');
  const letter = /[ABCDE]/.exec(text)?.[0];
  if (letter !== undefined) return letter;
  if (splitWords(text).length > 10) return null;
  return letters.find((name) => `(${name})`.toLowerCase().includes(text.toLowerCase())) ?? null;
});

/** MLVU: the character before the first `)`. */
export const beforeParenthesis: ChoiceRule = (response, { gold, letters }) => {
  const at = response.indexOf(')');
  const text = at > 0 ? response[at - 1]! : response;
  return { parsed: letters.includes(text) ? text : null, right: text === gold };
};

/** EgoSchema: the whole option, its text, or its letter. */
export const optionOrLetter = reads((response, { letters, texts }) => {
  const at = letters.findIndex(
    (letter, i) => response === `${letter}. ${texts[i]}` || response === texts[i] || response === letter,
  );
  return at < 0 ? null : letters[at]!;
});

/** TempCompass: the whole gold, or a letter alone or before `.` or `)`. */
export const tempCompass: ChoiceRule = (response, { target }) => {
  const wanted = target[0];
  if (response === target) return { parsed: wanted ?? null, right: true };
  const letter = /^([A-D])(?:$|[.)])/.exec(response)?.[1] ?? null;
  return { parsed: letter, right: letter !== null && letter === wanted };
};

/**
 * TempCompass's caption matching: options are the question's later lines, `Sentence A: text` or `Option 1: text`. The whole line, its text
 * (also behind `) `), its name or the name's last word, with or without periods.
 */
export const captionMatching: ChoiceRule = (response, { doc, target }) => {
  const lines = typeof doc.question === 'string' ? doc.question.split('\n').slice(1) : [];
  const options = lines.map((line) => {
    const [name = '', text = ''] = line.split(': ');
    return { line, text, name, bare: name.replace(/Sentence |Option |Caption /g, '') };
  });
  const behind = response.split(') ')[1];
  const plain = response.replaceAll('.', '');
  const ways = [
    ...options.map(({ line }) => [line, line === response] as const),
    ...options.map(({ text }) => [text, text === response || text === behind] as const),
    ...[...options.map(({ name }) => name), ...options.map(({ bare }) => bare)].map(
      (name) => [name, name === response || name === plain] as const,
    ),
  ];
  // A later way of naming an option counts before an earlier one, as in the original.
  const parsed = ways.findLast(([, fits]) => fits)?.[0] ?? null;
  const [name = '', text = ''] = target.split(': ');
  const right = [target, target.split(':')[0], text, splitWords(name)[1]];
  return { parsed, right: parsed !== null && right.includes(parsed) };
};

/** VITATECS: one of the two texts is contained; else a letter in its usual dress. `(A)` can never be right in the original. */
export const vitatecs: ChoiceRule = (response, { letters, texts, gold }) => {
  const contained = texts.filter((text) =>
    response.toLowerCase().includes((text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase()),
  );
  if (contained.length === 1) {
    const letter = letters[texts.indexOf(contained[0]!)]!;
    return { parsed: letter, right: letter === gold };
  }
  const plain = /^([AB])(?:$|[.)])/.exec(response)?.[1];
  if (plain !== undefined) return { parsed: plain, right: plain === gold };
  return { parsed: /^\(([AB])\)/.exec(response)?.[1] ?? null, right: false };
};

const optionLine = new RegExp(`${pythonClasses.boundary}[A-Z]\\.\\s+([^\\n]*)`, 'gu');
const NOT_WORD_OR_SPACE = /[^\p{L}\p{N}_\s]/gu;

/** RealWorldQA: options are read from the question; the first that occurs in the response gives its letter. */
export const realWorldQa: ChoiceRule = (response, { doc, target }) => {
  const question = typeof doc.question === 'string' ? doc.question : '';
  const options = [...question.matchAll(optionLine)].map(([, text]) => strip(text!));
  const cleaned = strip(response.replace(NOT_WORD_OR_SPACE, ''));
  const found = options
    .map((text, i) => ({ at: cleaned.indexOf(text), i, text }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at || a.i - b.i)[0];
  // A text that stands in the list twice has the letter of its last place.
  const letter =
    found === undefined || found.text === ''
      ? undefined
      : String.fromCharCode(65 + options.lastIndexOf(found.text));
  const answer = strip(stripOf(strip(letter ?? cleaned), '.')).toLowerCase();
  return {
    parsed: letter ?? (cleaned === '' ? null : cleaned),
    right: answer === strip(target.toLowerCase()),
  };
};
