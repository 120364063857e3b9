import { describeJson, isJsonObject } from '../../storage/json.ts';

/** What stands for an image in a text. */
export const imageMark = '<image>';

/** How a conversation is read: as its author meant it, or as LibMoE's preprocessing does (spec/algorithms.md §5.3). */
export type ConversationCompat = 'fixed' | 'libmoe';

/** One turn. */
export interface Turn {
  role: 'system' | 'user' | 'assistant';
  /** With `<image>` where an image stands. */
  text: string;
}

/** A checked conversation: an optional system turn, then questions and answers in turns, the last an answer. */
export interface Conversation {
  turns: Turn[];
  /** Paths as written in the record, one per mark. */
  images: string[];
  /** Images without a mark, which `compat: 'libmoe'` sends through the tower and then drops. */
  unplaced: string[];
}

const roles: Record<string, Turn['role']> = {
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  system: 'system',
};

/** A record of a LLaVA file as a conversation, or the reason why it is none. */
export function readConversation(record: unknown, compat: ConversationCompat): Conversation | string {
  if (!isJsonObject(record)) return `expected an object, got ${describeJson(record)}`;
  const { conversations } = record;
  if (!Array.isArray(conversations))
    return `"conversations" must be a list of turns, got ${describeJson(conversations)}`;
  const turns: Turn[] = [];
  for (const [i, turn] of conversations.entries()) {
    const { from, value } = isJsonObject(turn) ? turn : {};
    const role = typeof from === 'string' && Object.hasOwn(roles, from) ? roles[from] : undefined;
    if (role === undefined)
      return `turn ${i + 1} must be "from" one of ${Object.keys(roles).join(', ')}, got ${JSON.stringify(from)}`;
    if (typeof value !== 'string')
      return `turn ${i + 1} must have a string in "value", got ${describeJson(value)}`;
    if (value.trim() === '') return `turn ${i + 1} (${from}) is empty`;
    turns.push({ role, text: value });
  }
  // The original drops a first turn that nobody asked for.
  if (compat === 'libmoe' && turns.length > 0 && turns[0]!.role !== 'user') turns.shift();
  if (turns.length === 0) return 'the conversation has no turns';
  const mistake = roleMistake(turns);
  if (mistake !== undefined) return mistake;
  const images = imagesOf(record.image ?? record.images);
  if (typeof images === 'string') return images;
  return compat === 'libmoe' ? asLibmoe(turns, images) : asMeant(turns, images);
}

function roleMistake(turns: readonly Turn[]): string | undefined {
  const first = turns[0]!.role === 'system' ? 1 : 0;
  for (let i = first; i < turns.length; ++i) {
    const expected = (i - first) % 2 === 0 ? 'user' : 'assistant';
    const got = turns[i]!.role;
    if (got !== expected) return `turn ${i + 1} must be from the ${expected}, got one from the ${got}`;
  }
  if (turns.at(-1)!.role !== 'assistant') return 'the last turn must be an answer, got a question';
  return undefined;
}

function imagesOf(value: unknown): string[] | string {
  if (value === undefined || value === null) return [];
  const list = Array.isArray(value) ? value : [value];
  const wrong = list.find((each) => typeof each !== 'string' || each === '');
  if (wrong !== undefined) return `"image" must be a path or a list of paths, got ${JSON.stringify(wrong)}`;
  return list as string[];
}

/** Every image at its mark, any number of them. */
function asMeant(turns: Turn[], images: string[]): Conversation | string {
  let marks = 0;
  for (const [i, { role, text }] of turns.entries()) {
    const here = marksIn(text);
    if (here > 0 && role !== 'user') return `turn ${i + 1} is from the ${role} and holds ${imageMark}`;
    marks += here;
  }
  return marks === images.length ? { turns, images, unplaced: [] } : countMistake(marks, images.length);
}

/** One mark per turn that has any, in front of its text. */
function asLibmoe(turns: Turn[], images: string[]): Conversation | string {
  let marks = 0;
  const moved = turns.map((turn) => {
    if (marksIn(turn.text) === 0) return turn;
    marks += 1;
    const rest = turn.text.replaceAll(imageMark, '').trim();
    return { ...turn, text: `${imageMark}\n${rest}`.trim() };
  });
  if (marks > images.length) return countMistake(marks, images.length);
  return { turns: moved, images: images.slice(0, marks), unplaced: images.slice(marks) };
}

const marksIn = (text: string): number => text.split(imageMark).length - 1;

const countMistake = (marks: number, images: number): string =>
  `the text has ${marks} ${imageMark} for ${images} ${images === 1 ? 'image' : 'images'}`;

/**
 * How long the length-grouped orders take a record to be: words between blanks in all its turns, as Python splits them; 0 for what has no
 * turns.
 */
export function wordsIn(record: unknown): number {
  const { conversations } = isJsonObject(record) ? record : {};
  let words = 0;
  for (const turn of Array.isArray(conversations) ? conversations : []) {
    const value = isJsonObject(turn) ? turn.value : undefined;
    if (typeof value === 'string') words += countWords(value);
  }
  return words;
}

function countWords(text: string): number {
  let words = 0;
  let blank = true;
  for (let i = 0; i < text.length; ++i) {
    const here = isBlank(text.charCodeAt(i));
    if (blank && !here) words += 1;
    blank = here;
  }
  return words;
}

/** White space of Python's str.split. */
function isBlank(code: number): boolean {
  if (code <= 0x20) return code === 0x20 || (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x1f);
  if (code < 0x1680) return code === 0x85 || code === 0xa0;
  return (
    code === 0x1680 ||
    (code >= 0x2000 && code <= 0x200a) ||
    code === 0x2028 ||
    code === 0x2029 ||
    code === 0x202f ||
    code === 0x205f ||
    code === 0x3000
  );
}
