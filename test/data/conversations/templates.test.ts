import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SegmentEncoder } from '../../../ts/data/conversations/encoding.ts';
import {
  type Conversation,
  type ConversationTemplate,
  conversationsOf,
  conversationTemplate,
  jinjaTemplate,
  loadTokenizer,
  type Tokenizer,
  templateNames,
  tokenizerFromJson,
} from '../../../ts/data/index.ts';
import { developmentData } from '../../development-data.ts';
import { smallTokenizer } from '../../evaluation/small-tokenizer.ts';
import { phiTokenizer } from './golden-tokenizer.ts';
import { record } from './made-up.ts';

const chat = JSON.parse(
  readFileSync(path.resolve(import.meta.dirname, '../../golden/chat-template/cases.json'), 'utf8'),
) as { special: Record<string, string>; templates: Record<string, string> };
const jinja = (name: string): ConversationTemplate =>
  jinjaTemplate({ template: chat.templates[name]!, specialTokens: chat.special }, name);

const { json, config } = await smallTokenizer();
const tokenizers = new Map<string, Tokenizer>([
  ['phi', phiTokenizer({ bos: false })],
  ['phi with BOS', phiTokenizer({ bos: true })],
  ['phi with <image>', phiTokenizer({ bos: true, imageMark: true })],
  ['our own', tokenizerFromJson(json, config)],
]);
const real = {
  llama: 'tokenizers/hf/llama2.tokenizer.json',
  neox: 'tokenizers/hf/gpt-neox-20b-pii-special.tokenizer.json',
};
for (const [name, file] of Object.entries(real)) {
  const data = developmentData(file);
  if (data !== undefined) tokenizers.set(name, loadTokenizer(path.join(data, file)));
}

/** Texts of learned stretches, and of everything that is text, ids put back into words. */
function decoded(tokenizer: Tokenizer, { ids, learned }: { ids: number[]; learned: boolean[] }) {
  const stretches: { learned: boolean; ids: number[] }[] = [];
  for (const [i, id] of ids.entries()) {
    if (id === -1 || stretches.at(-1)?.learned !== learned[i])
      stretches.push({ learned: learned[i]!, ids: [] });
    if (id !== -1) stretches.at(-1)!.ids.push(id);
  }
  const write = (stretch: { ids: number[] }) => tokenizer.decode(stretch.ids, { skipSpecialTokens: false });
  return {
    answers: stretches.filter((stretch) => stretch.learned).map(write),
    questions: stretches.filter((stretch) => !stretch.learned && stretch.ids.length > 0).map(write),
  };
}

const letters = fc.string({
  unit: fc.constantFrom(...'abc ,.\n\t(é漢🐈<|>[]s/#1'),
  minLength: 1,
  maxLength: 12,
});
const words = fc.array(fc.constantFrom('cat', 'the dog', 'Yes', 'mat.', 'is it?', '\n'), {
  minLength: 1,
  maxLength: 5,
});
const text = fc
  .oneof(
    letters,
    words.map((list) => list.join(' ')),
  )
  .filter((each) => each.trim() !== '');
const turns = fc.array(fc.tuple(text, text, fc.nat(2)), { minLength: 1, maxLength: 4 });

async function conversation(
  list: readonly [string, string, number][],
  always: boolean,
): Promise<Conversation> {
  const images: string[] = [];
  const written = list.flatMap(([question, answer, marks], i) => {
    const count = always && i === 0 ? Math.max(1, marks) : marks;
    for (let k = 0; k < count; ++k) images.push(`${images.length}.png`);
    // One in front, one behind.
    return [`${count > 0 ? '<image>' : ''}${question}${count > 1 ? '<image>' : ''}`, answer];
  });
  return conversationsOf([record(written, images)]).read(0);
}

const templates = new Map<string, ConversationTemplate>([
  ...templateNames.map((name) => [name, conversationTemplate(name)] as const),
  ...['chatml', 'chatml-default-system', 'brackets', 'turns', 'tags'].map(
    (name) => [`jinja ${name}`, jinja(name)] as const,
  ),
]);
/** Blanks are not kept by every tokenizer: some drop those after special tokens or at the beginning, or join several. */
const bare = (each: string): string => each.replace(/\s+/g, '').normalize('NFKC');

describe('ids and labels', () => {
  for (const [kind, tokenizer] of tokenizers)
    for (const [name, template] of templates)
      it(`${name}, ${kind} tokenizer: what is learned reads as the answers and what ends them`, async () => {
        const encoder = new SegmentEncoder(tokenizer);
        await fc.assert(
          fc.asyncProperty(turns, async (given) => {
            const list = name === 'plain' ? given.slice(0, 1) : given;
            const shown = await conversation(list, name === 'plain');
            const segments = template.render(shown);
            if (typeof segments === 'string') throw new Error(segments);
            const encoded = encoder.encode(segments, { addBos: !template.writesBos });
            const { answers, questions } = decoded(tokenizer, encoded);
            const expected = segments.filter(({ learned }) => learned).map((segment) => segment.text);
            expect(answers.length).toBe(expected.length);
            expect(list.every(([, answer], i) => expected[i]!.includes(answer.trim()))).toBe(true);
            expect(answers.map(bare)).toEqual(expected.map(bare));
            // A byte-level tokenizer keeps everything.
            if (kind === 'neox') expect(answers).toEqual(expected);
            const asked = segments
              .filter(({ learned }) => !learned)
              .map((segment) => segment.text.replaceAll('<image>', ''));
            expect(bare(questions.join('')).replace(/^<s>/, '')).toBe(
              bare(asked.join('')).replace(/^<s>/, ''),
            );
            expect(encoded.ids.filter((id) => id === -1).length).toBe(shown.images.length);
          }),
          { numRuns: 25 },
        );
      });

  it('are those of the whole text where no token reaches across a border', async () => {
    const plainWords = fc.array(fc.constantFrom('cat', 'the dog', 'Yes', 'mat.', 'is it?'), {
      minLength: 1,
      maxLength: 5,
    });
    const simple = fc.tuple(
      plainWords.map((list) => list.join(' ')),
      plainWords.map((list) => list.join(' ')),
      fc.constant(0),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(simple, { minLength: 1, maxLength: 3 }), async (list) => {
        for (const kind of ['phi', 'our own', 'llama', 'neox'])
          for (const name of ['phi35', 'phi3', 'chatml', 'vicuna', 'llama-2', 'mistral'] as const) {
            const tokenizer = tokenizers.get(kind);
            const segments = templates.get(name)!.render(await conversation(list, false));
            // Of a terminator that is spelled out, a token may reach into the next question.
            if (!tokenizer || typeof segments === 'string' || (kind === 'neox' && /llama|mistral/.test(name)))
              continue;
            const { ids } = new SegmentEncoder(tokenizer).encode(segments, { addBos: false });
            expect(ids).toEqual(
              Array.from(tokenizer.encode(segments.map((segment) => segment.text).join(''))),
            );
          }
      }),
      { numRuns: 15 },
    );
  });

  it('begin with BOS where the tokenizer does, and encode after <image> as the tokenizer would', async () => {
    const shown = await conversationsOf([record(['what <image>is it?', 'cat'], 'a.png')]).read(0);
    const segments = templates.get('phi3')!.render(shown);
    if (typeof segments === 'string') throw new Error(segments);
    const encode = (kind: string) =>
      new SegmentEncoder(tokenizers.get(kind)!).encode(segments, { addBos: true }).ids;
    const whole = tokenizers.get('phi with <image>')!;
    const text = segments.map((segment) => segment.text).join('');
    expect(encode('phi')[0]).toBe(tokenizers.get('phi')!.tokenToId('<|user|>'));
    expect(encode('phi with BOS')[0]).toBe(1);
    expect(encode('phi with <image>').map((id) => (id === -1 ? whole.tokenToId('<image>') : id))).toEqual([
      1,
      ...whole.encode(text),
    ]);
  });
});

describe('templates', () => {
  const write = async (
    name: string,
    turns: string[],
    options: { system?: string; own?: string; eos?: string } = {},
  ) => {
    const { own, ...rest } = options;
    const made = record(turns) as { conversations: object[] };
    if (own !== undefined) made.conversations.unshift({ from: 'system', value: own });
    const segments = conversationTemplate(name, rest).render(await conversationsOf([made]).read(0));
    return typeof segments === 'string'
      ? segments
      : segments.map((each) => (each.learned ? `{${each.text}}` : each.text)).join('');
  };
  const two = ['Q', 'A', 'R', 'B'];

  it('write what the models were trained on', async () => {
    expect(await write('phi35', two)).toBe(
      '<|system|>\nYou are a helpful assistant.<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\n{A<|end|>\n}<|user|>\nR<|end|>\n<|assistant|>\n{B<|end|>\n}',
    );
    expect(await write('phi3', ['Q', 'A'])).toBe('<|user|>\nQ<|end|>\n<|assistant|>\n{A<|end|>\n}');
    expect(await write('smollm', ['Q', 'A'], { own: 'S' })).toBe(
      '<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n{A<|im_end|>\n}',
    );
    expect(await write('v1', two, { system: 'S.' })).toBe(
      'S. USER: Q ASSISTANT:{ A</s>}USER: R ASSISTANT:{ B</s>}',
    );
    expect(await write('v1', two, { system: '', eos: '<e>' })).toBe(
      'USER: Q ASSISTANT:{ A<e>}USER: R ASSISTANT:{ B<e>}',
    );
    expect(await write('llama_2', two, { own: 'S' })).toBe(
      '[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]{ A </s>}<s>[INST] R [/INST]{ B </s>}',
    );
    expect(await write('mistral', two)).toBe('[INST] Q [/INST]{ A </s>}[INST] R [/INST]{ B </s>}');
    const caption = await conversationsOf([record(['Describe.\n<image>', 'A cat.'], 'a.png')]).read(0);
    expect(conversationTemplate('plain').render(caption)).toEqual([
      { text: '<image>', learned: false },
      { text: 'A cat.\n', learned: true },
    ]);
  });

  it('say what they cannot write', async () => {
    expect(await write('mistral', two, { own: 'S' })).toBe(
      'the template mistral has no place for a system turn',
    );
    expect(await write('plain', two)).toMatch(/takes images and one caption, got 4 turns and 0 images/);
    expect(() => conversationTemplate('mistral', { system: 'S' })).toThrow(
      /ERR_LIBMOE_ARGUMENT.*no place for a system text/,
    );
    expect(() => conversationTemplate('phi4')).toThrow(
      /ERR_LIBMOE_ARGUMENT: a template is one of phi35, .* got "phi4"/,
    );
    const forgetful = jinjaTemplate({ template: '{{ messages[-1].content }}', specialTokens: {} });
    expect(forgetful.render(await conversationsOf([record(two)]).read(0))).toMatch(
      /does not write turn 2 behind what it writes before it/,
    );
  });
});
