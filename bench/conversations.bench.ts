import { conversationTemplate, SampleMaker, tokenizerFromJson, trainTokenizer } from '../ts/data/index.ts';
import type { BenchCase } from './case.ts';

const count = 200;
const turns = 6;
const specials = ['<|system|>', '<|user|>', '<|assistant|>', '<|end|>'];
const words =
  'what is in the picture a red mat two white cats and one dog that ran to its chair where are they now on the left of it'.split(
    ' ',
  );

/** Text that is always the same and repeats itself no more than talk does. */
const sentence = (seed: number, length: number): string =>
  Array.from({ length }, (_, i) => words[(seed * 31 + i * i * 7 + i * 3) % words.length]).join(' ');

const conversations = Array.from({ length: count }, (_, c) => ({
  turns: Array.from({ length: turns }, (_, t) => ({
    role: t % 2 === 0 ? ('user' as const) : ('assistant' as const),
    text: sentence(c * turns + t, 10 + ((c + t) % 40)),
  })),
  images: [],
  unplaced: [],
}));
const characters = conversations
  .flatMap((each) => each.turns)
  .reduce((sum, { text }) => sum + text.length, 0);

const { json, config } = await trainTokenizer([words.join(' ').repeat(4)], {
  vocabularySize: 360,
  byteFallback: true,
  specialTokens: specials,
});
const tokenizer = tokenizerFromJson(json, config);
const made = (): SampleMaker =>
  new SampleMaker({
    tokenizer,
    template: conversationTemplate('phi35'),
    context: 2048,
    tokensPerImage: 1,
    imageTokenId: 0,
    compat: 'fixed',
  });

/** Template, ids, labels and targets of conversations in memory: what the loader does beside reading and images. */
function samples(): number {
  const maker = made();
  return conversations.reduce((sum, conversation) => {
    const encoded = maker.encode(conversation);
    if (typeof encoded === 'string') throw new Error(encoded);
    return sum + maker.expand(encoded, []).ids.length;
  }, 0);
}

const tokens = samples();

/** The bytes are those of the text and of ids and targets: divide the time by the tokens of the name for tokens per second. */
export const cases: BenchCase[] = [
  {
    name: `conversations/encode/${count}x${turns}turns/${tokens}tokens`,
    flops: 0,
    bytes: characters + 8 * tokens,
    setup: () => ({ run: () => void samples(), dispose: () => {} }),
  },
];
