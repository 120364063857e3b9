import { describe, expect, it } from 'vitest';
import { libmoeLabels } from '../../../ts/data/conversations/libmoe-labels.ts';
import { lengthGrouped, modalityGrouped } from '../../../ts/data/conversations/order.ts';
import { conversationsOf, conversationTemplate } from '../../../ts/data/index.ts';
import { goldenFile, phiTokenizer } from './golden-tokenizer.ts';
import { record } from './made-up.ts';

interface Golden {
  labels: {
    tokenizer: string;
    template: string;
    context: number;
    turns: string[];
    ids: number[];
    learned: number[];
  }[];
  orders: {
    words: number[];
    batchSamples: number;
    groups: number;
    draws: Record<string, number[]>;
    length: number[];
    modality: number[];
  }[];
}
// Made from spec/algorithms.md §5.3 by test/golden/conversations/make.py
const golden = goldenFile('golden.json') as Golden;
const tokenizers = { bos: phiTokenizer({ bos: true }), none: phiTokenizer({ bos: false }) };

describe("LibMoE's label masking", () => {
  for (const template of ['phi35', 'phi3', 'plain'])
    it(`${template}: ids and labels, with and without BOS, cut or ignored`, async () => {
      const cases = golden.labels.filter((each) => each.template === template);
      expect(cases.length).toBeGreaterThanOrEqual(10);
      for (const { tokenizer, context, turns, ids, learned } of cases) {
        const marked = turns.some((turn) => turn.includes('<image>'));
        const data = conversationsOf([record(turns, marked ? 'a.png' : undefined)], { compat: 'libmoe' });
        const made = conversationTemplate(template);
        const segments = made.render(await data.read(0));
        if (typeof segments === 'string') throw new Error(segments);
        const prompt = segments.map(({ text }) => text).join('');
        const got = libmoeLabels(prompt, tokenizers[tokenizer as 'bos' | 'none'], context, made.rounds);
        expect(got.ids.map((id) => (id === -1 ? -200 : id))).toEqual(ids);
        const places = Array.from(got.learned.keys()).filter((i) => got.learned[i] && got.ids[i] !== -1);
        expect({ turns, context, places }).toEqual({ turns, context, places: learned });
        if (got.ignored) expect(learned).toEqual([]);
      }
    });
});

describe('grouped orders', () => {
  it('are those of the specification, given the same random permutations', () => {
    for (const { words, batchSamples, groups, draws, length, modality } of golden.orders) {
      const grouping = { batchSamples, groups };
      const draw = (_: number, part: string) => Int32Array.from(draws[part]!);
      expect(Array.from(lengthGrouped(Int32Array.from(words, Math.abs), grouping, draw, ''))).toEqual(length);
      expect(Array.from(modalityGrouped(Int32Array.from(words), grouping, draw))).toEqual(modality);
    }
  });
});
