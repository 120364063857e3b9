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
// Words that no noun phrase begins with: before one of them an "A" is a letter, not an article.
const articleUse =
  '(?<=[Aa])\\s+(?!(?:or|and|because|since|as|is|are|was|were|but|due|if|for|in|on|with|to|from|by|of|the|has|would|seems|appears|will|can)(?!\\p{L}))\\p{Ll}';
const anyCase = (words: string): string => words.replace(/[a-z]/g, (c) => `[${c}${c.toUpperCase()}]`);
const announcers = [
  ...['answer~is', 'answer_:', 'option', 'choice'].map((words) =>
    anyCase(words).replace('~', '\\s+').replace('_', '\\s*'),
  ),
  '答案是',
  '\\\\boxed',
].join('|');
const startsArticle = new RegExp(`^A${articleUse}`, 'u');
const patterns = new Map<string, Patterns>();

function patternsFor(letters: string): Patterns {
  let made = patterns.get(letters);
  if (made === undefined) {
    const upper = `[${letters}]`;
    const both = `[${letters}${letters.toLowerCase()}]`;
    // A small letter counts only where it can be no article: in brackets, or with a mark or nothing after it.
    const named = `(?:[([{]\\s*(${both})\\s*[)\\]}]|(${both})(?=\\s*(?:[.):,;!*]|$|\\n))|(${upper})(?![\\p{L}\\p{N}_'’])(?!${articleUse}))`;
    made = {
      whole: new RegExp(`^[([{*"'\`\\s]*(${both})[)\\]}*"'\`.:\\s]*$`, 'u'),
      announced: new RegExp(
        `(?:${announcers})(?:\\s+is)?[\\s:：*_{"'\`$]*(?:\\\\text\\s*)?(?:[Oo]ption\\s+|[Cc]hoice\\s+)?[\\s*_{"'\`]*${named}`,
        'gu',
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
    said = (match[1] ?? match[2] ?? match[3]!).toUpperCase();
  }
  if (said !== undefined) return said;

  const first = leading.exec(text)?.[1];
  if (first !== undefined) return first;

  const inBrackets = [...text.matchAll(bracketed)].at(-1)?.[1];
  if (inBrackets !== undefined) return inBrackets;

  const capitals = new Set<string>();
  for (const match of text.matchAll(standalone)) {
    const article = match[1] === 'A' && startsArticle.test(text.slice(match.index));
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
