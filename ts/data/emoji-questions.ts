import { fail } from '../native/index.ts';
import { type EmojiArtist, type EmojiThing, emojiFile } from './emoji.ts';
import { permutation } from './shuffle.ts';

/** What is asked of a drawing: its name, its category, and whether it is this or that, once with yes and once with no for an answer. */
export const emojiQuestionKinds = ['name', 'category', 'yesNo'] as const;
/** One of {@link emojiQuestionKinds}. */
export type EmojiQuestionKind = (typeof emojiQuestionKinds)[number];

/** A question about a drawing, with the answers to choose from. */
export interface EmojiQuestion {
  /** Relative to the folder of the drawings. */
  image: string;
  question: string;
  choices: string[];
  /** Which of the choices is right. */
  answer: number;
  category: string;
}

const spoken = (category: string): string => category.toLowerCase().replace('&', 'and');

/**
 * Questions about an artist's drawings. Wrong names are drawn, from the seed, half of them from the category of the thing and half from all things, the
 * first of them for yes/no questions from its category (as POPE's adversarial questions are hard by likeness, Li et al. 2023, arXiv 2305.10355).
 * @param choices names to choose from, the right one among them @param variant which of the artist's drawings of each thing is shown
 * @throws ERR_LIBMOE_ARGUMENT when there are fewer things than choices
 */
export function emojiQuestions(
  things: readonly EmojiThing[],
  artist: EmojiArtist,
  kind: EmojiQuestionKind,
  { choices = 8, seed = 0, variant = 0 }: { choices?: number; seed?: number; variant?: number } = {},
): EmojiQuestion[] {
  const needed = kind === 'name' ? choices : kind === 'yesNo' ? 2 : 1;
  const named = new Set(things.map(({ name }) => name)).size;
  if (named < needed)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `emoji questions of kind "${kind}"${kind === 'name' ? ` with ${choices} choices` : ''} need things of at least ${needed} names, there are ${named}: take more (first, categories)${kind === 'name' ? ', or fewer choices' : ''}`,
    );
  const categories = [...new Set(things.map(({ category }) => category))];
  return things.flatMap((thing, i): EmojiQuestion[] => {
    const { name, category } = thing;
    const base = { image: emojiFile(artist, thing, variant), category };
    if (kind === 'category') {
      const answer = categories.indexOf(category);
      return [{ ...base, question: 'What kind of thing is this?', choices: categories.map(spoken), answer }];
    }
    const order = Array.from(
      permutation(things.length, seed, i, `emoji/${artist}/${kind}`),
      (at) => things[at]!,
    );
    const others = order.filter((other) => other.name !== name);
    const like = others.filter((other) => other.category === category);
    if (kind === 'yesNo') {
      const ask = (what: string, answer: number): EmojiQuestion => ({
        ...base,
        question: `Is this a picture of: ${what}?`,
        choices: ['yes', 'no'],
        answer,
      });
      return [ask(name, 0), ask((like[0] ?? others[0])!.name, 1)];
    }
    const near = like.slice(0, (choices - 1) >> 1);
    const all = [...near, ...others].map((other) => other.name);
    const names = [...new Set(all)].slice(0, choices - 1);
    const answer = i % choices;
    names.splice(answer, 0, name);
    return [{ ...base, question: 'What is this?', choices: names, answer }];
  });
}

/** Questions as records in LLaVA's format. */
export const conversationsOfQuestions = (questions: readonly EmojiQuestion[]): unknown[] =>
  questions.map(({ image, question, choices, answer }) => ({
    image,
    conversations: [
      { from: 'human', value: `<image>\n${question}` },
      { from: 'gpt', value: choices[answer] },
    ],
  }));
