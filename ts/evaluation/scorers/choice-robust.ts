import { splitWords, strip } from '../python-text.ts';
import { reads } from './choice-letters.ts';

/** The answer without a model's `<think>…</think>`; a thought that never ends leaves nothing. */
export function withoutThoughts(response: string): string {
  const closed = response.lastIndexOf('</think>');
  const answer = closed < 0 ? response : response.slice(closed + '</think>'.length);
  const open = answer.indexOf('<think>');
  return strip(open < 0 ? answer : answer.slice(0, open));
}

interface Patterns {
  whole: RegExp;
  announced: RegExp;
  leading: RegExp;
  bracketed: RegExp;
  standalone: RegExp;
}
const patterns = new Map<string, Patterns>();

function patternsFor(letters: string): Patterns {
  let made = patterns.get(letters);
  if (made === undefined) {
    const upper = `[${letters}]`;
    const both = `[${letters}${letters.toLowerCase()}]`;
    // A small letter counts only where it can be no article: in brackets, or with a mark or nothing after it.
    const named = `(?:[([{]\\s*(${both})\\s*[)\\]}]|(${upper})(?![\\p{L}\\p{N}_'’])(?!\\s+\\p{Ll})|(${both})(?=\\s*(?:[.):,;!*]|$|\\n)))`;
    made = {
      whole: new RegExp(`^[([{*"'\`\\s]*(${both})[)\\]}*"'\`.:\\s]*$`, 'u'),
      announced: new RegExp(
        `(?:answer\\s+is|答案是|answer\\s*:|option|choice|\\\\boxed)(?:\\s+is)?[\\s:：*_{"'\`$]*(?:\\\\text\\s*)?(?:option\\s+|choice\\s+)?[\\s*_{"'\`]*${named}`,
        'giu',
      ),
      leading: new RegExp(`^[*_"'\`]*(${upper})[*_"'\`]*\\s*(?:[.):,]|\\n|$)`, 'u'),
      bracketed: new RegExp(`[([]\\s*(${upper})\\s*[)\\]]`, 'gu'),
      standalone: new RegExp(`(?<![\\p{L}\\p{N}_'’])(${upper})(?![\\p{L}\\p{N}_'’])`, 'gu'),
    };
    patterns.set(letters, made);
  }
  return made;
}

/**
 * Reads a letter the way a careful person would: the whole text, an announced answer (the last one), a leading letter,
 * the last bracketed one, the only one that stands alone and is no article, at last an option's text. Null beats a guess.
 */
export function parseRobustChoice(
  response: string,
  letters: readonly string[],
  texts: readonly string[],
): string | null {
  const text = withoutThoughts(response);
  if (text === '' || letters.length === 0) return null;
  const { whole, announced, leading, bracketed, standalone } = patternsFor(letters.join(''));
  const alone = whole.exec(text)?.[1];
  if (alone !== undefined) return alone.toUpperCase();

  let said: string | undefined;
  for (const match of text.matchAll(announced)) {
    const letter = match[1] ?? match[2] ?? match[3]!;
    // With the flag i the class of capitals takes small letters too: "the answer is a dog".
    if (match[2] !== undefined && letter !== letter.toUpperCase()) continue;
    said = letter.toUpperCase();
  }
  if (said !== undefined) return said;

  const first = leading.exec(text)?.[1];
  if (first !== undefined) return first;

  const inBrackets = [...text.matchAll(bracketed)].at(-1)?.[1];
  if (inBrackets !== undefined) return inBrackets;

  const capitals = new Set<string>();
  for (const match of text.matchAll(standalone)) {
    const article = match[1] === 'A' && /^\s+\p{Ll}/u.test(text.slice(match.index + 1));
    if (!article) capitals.add(match[1]!);
  }
  if (capitals.size === 1) return [...capitals][0]!;

  return byText(text, letters, texts);
}

function byText(response: string, letters: readonly string[], texts: readonly string[]): string | null {
  const plain = (s: string): string =>
    splitWords(s.toLowerCase())
      .join(' ')
      .replace(/[.!?]+$/, '');
  const said = plain(response);
  const options = texts.map(plain);
  const same = options.flatMap((text, i) => (text === said ? [i] : []));
  if (same.length === 1) return letters[same[0]!] ?? null;
  // Whole words only, and a text inside a longer one that is there too does not count for itself.
  const contained = options.flatMap((text, i) => (text !== '' && hasWords(said, text) ? [i] : []));
  const longest = contained.filter(
    (i) =>
      !contained.some((j) => j !== i && options[j]! !== options[i]! && options[j]!.includes(options[i]!)),
  );
  return longest.length === 1 ? (letters[longest[0]!] ?? null) : null;
}

function hasWords(text: string, words: string): boolean {
  const isWord = (c: string | undefined): boolean => c !== undefined && /[\p{L}\p{N}_]/u.test(c);
  for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + 1))
    if (
      !(isWord(text[at - 1]) && isWord(words[0])) &&
      !(isWord(text[at + words.length]) && isWord(words.at(-1)))
    )
      return true;
  return false;
}

/** See {@link parseRobustChoice}. */
export const robust = reads((response, { letters, texts }) => parseRobustChoice(response, letters, texts));
