import { splitWords, strip } from '../python-text.ts';

// The 21 marks in the order of the evaluation server of VQA.
const MARKS = [
  ';',
  '/',
  '[',
  ']',
  '"',
  '{',
  '}',
  '(',
  ')',
  '=',
  '+',
  '\\',
  '_',
  '-',
  '>',
  '<',
  '@',
  '`',
  ',',
  '?',
  '!',
];
const ANY_MARK = /[;/[\]"{}()=+\\_\-><@`,?!]/;
const COMMA_IN_NUMBER = /\p{Nd},\p{Nd}/u;
const PERIOD = /\.(?!\p{Nd})/gu;

const NUMBERS: Readonly<Record<string, string>> = {
  none: '0',
  zero: '0',
  one: '1',
  two: '2',
  three: '3',
  four: '4',
  five: '5',
  six: '6',
  seven: '7',
  eight: '8',
  nine: '9',
  ten: '10',
};

const SINGLE =
  "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's I'm I've " +
  "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't " +
  "somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd " +
  "they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd " +
  "who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've";
const SEVERAL =
  "couldn't've hadn't've mightn't've shouldn't've wouldn't've he'd've I'd've it'd've she'd've somebody'd've someone'd've " +
  "something'd've there'd've they'd've we'd've who'd've you'd've y'all'll y'all'd've 'ow's'at";

/** Words without their apostrophe → with it. Keys with capitals never match lower-cased text, as in the original. */
export const contractions: ReadonlyMap<string, string> = new Map([
  ...SINGLE.split(' ').map((word): [string, string] => [word.replace("'", ''), word]),
  // One key for every apostrophe that may be missing.
  ...SEVERAL.split(' ').flatMap((word) =>
    [...word.matchAll(/'/g)].map(({ index }): [string, string] => [
      word.slice(0, index) + word.slice(index + 1),
      word,
    ]),
  ),
  ["let's", "let's"],
  ["she's", "she's"],
  ["somebody'd", 'somebodyd'],
]);

/** Marks become nothing or a space, by where else in the text they stand; the first 32 periods that no digit follows go. */
export function vqaPunctuation(text: string): string {
  let out = text;
  if (ANY_MARK.test(text)) {
    const commaInNumber = COMMA_IN_NUMBER.test(text);
    for (const mark of MARKS) {
      if (!text.includes(mark)) continue;
      const deleted = commaInNumber || text.includes(`${mark} `) || text.includes(` ${mark}`);
      out = out.replaceAll(mark, deleted ? '' : ' ');
    }
  }
  if (!out.includes('.')) return out;
  let left = 32;
  return out.replace(PERIOD, (period) => (left-- > 0 ? '' : period));
}

/** Number words to digits, no articles, contractions with their apostrophes, single spaces. */
export function vqaWords(text: string): string {
  const kept: string[] = [];
  for (const raw of splitWords(text.toLowerCase())) {
    const word = Object.hasOwn(NUMBERS, raw) ? NUMBERS[raw]! : raw;
    if (word !== 'a' && word !== 'an' && word !== 'the') kept.push(contractions.get(word) ?? word);
  }
  return kept.join(' ');
}

/** The answer normaliser of TextVQA: the family of the VQA evaluation server (Antol et al. 2015; Singh et al. 2019). */
export function vqaNormalise(answer: string): string {
  let text = answer.toLowerCase();
  if (/[,?']/.test(text)) text = text.replace(/[,?]/g, '').replaceAll("'s", " 's");
  text = strip(strip(text).replace(/[\n\t]/g, ' '));
  return vqaWords(vqaPunctuation(text));
}
