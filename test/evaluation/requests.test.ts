import { describe, expect, it } from 'vitest';
import { defineTask, type Task, type TaskInput } from '../../ts/evaluation/index.ts';
import { encodePair, windowsOf } from '../../ts/evaluation/requests.ts';
import { byteTokenizer, pieceTokenizer } from './fake-model.ts';

function taskWith(pair: TaskInput['pair'], more: Partial<TaskInput> = {}): Task {
  return defineTask({
    task: 't',
    documents: [{ text: 'x' }],
    output_type: 'loglikelihood',
    doc_to_target: 'text',
    pair,
    ...more,
  });
}
const bytes = (text: string): number[] => [...Buffer.from(text)];

describe('a pair of texts as tokens', () => {
  it('moves white space to the continuation and puts one BOS', () => {
    const { request, ...facts } = encodePair(
      { context: 'ab \n', continuation: ' cd' },
      taskWith({}),
      byteTokenizer,
    );
    expect(request.context).toEqual([256, ...bytes('ab')]);
    expect(request.continuation).toEqual(bytes(' \n cd'));
    expect(facts).toEqual({ boundaryMerged: false, bosAdded: true, templateHasBos: false });
  });
  it('adds no BOS where the template has it', () => {
    const { request, ...facts } = encodePair(
      { context: '<s>a', continuation: 'b' },
      taskWith({}),
      byteTokenizer,
    );
    expect(request.context).toEqual(bytes('<s>a'));
    expect(facts).toMatchObject({ bosAdded: false, templateHasBos: true });
  });
  it('never leaves a continuation empty when the join merges tokens (mount + ain)', () => {
    const tokenizer = pieceTokenizer(['mountain', 'mount', 'ain'], { eos: 9 });
    const { request, boundaryMerged } = encodePair(
      { context: 'mount', continuation: 'ain' },
      taskWith({}),
      tokenizer,
    );
    expect(boundaryMerged).toBe(true);
    expect(request).toMatchObject({ context: [9], continuation: [0] });
  });
  it('cuts at the longest common prefix', () => {
    const tokenizer = pieceTokenizer(['the ', 'mountain', 'mount', 'ain', ' is'], { eos: 9 });
    const { request, boundaryMerged } = encodePair(
      { context: 'the mount', continuation: 'ain is' },
      taskWith({}),
      tokenizer,
    );
    expect(boundaryMerged).toBe(true);
    expect(request).toMatchObject({ context: [0], continuation: [1, 4] });
  });
  it('separate: LibMoE encodes both alone, white space stays', () => {
    const tokenizer = pieceTokenizer(['mountain', 'mount', 'ain']);
    const pair = { context: 'mount', continuation: 'ain' };
    const { request } = encodePair(pair, taskWith({ mode: 'separate', bos: 'never' }), tokenizer);
    expect(request).toMatchObject({ context: [1], continuation: [2] });
  });
  it('an empty context is BOS, else EOS, else refused; without BOS the first token goes unscored', () => {
    const pair = { context: '', continuation: 'abc' };
    expect(encodePair(pair, taskWith({}), byteTokenizer).request.context).toEqual([256]);
    const plain = pieceTokenizer(['a', 'b', 'c'], { eos: 7 });
    expect(encodePair(pair, taskWith({}), plain).request).toMatchObject({
      context: [7],
      continuation: [0, 1, 2],
    });
    expect(encodePair(pair, taskWith({ bos: 'never' }), plain).request).toMatchObject({
      context: [0],
      continuation: [1, 2],
    });
    expect(() => encodePair(pair, taskWith({}), pieceTokenizer(['a']))).toThrow('ERR_LIBMOE_TOKENIZER');
    expect(() => encodePair(pair, taskWith({ bos: 'always' }), plain)).toThrow('has no BOS');
  });
  it('uses a continuation that begins with the prefix token as its own context', () => {
    const tokenizer = pieceTokenizer(['a', 'b'], { eos: 0 });
    expect(encodePair({ context: '', continuation: 'ab' }, taskWith({}), tokenizer).request).toMatchObject({
      context: [0],
      continuation: [1],
    });
  });
  it('whole: the context is scored too, from its second token on (CBT, BLiMP)', () => {
    const tokenizer = pieceTokenizer(['a', 'b', 'c']);
    const task = taskWith({ mode: 'separate', bos: 'never', score: 'whole' });
    expect(encodePair({ context: 'ab', continuation: 'c' }, task, tokenizer).request).toMatchObject({
      context: [0],
      continuation: [1, 2],
    });
    const withBos = taskWith({ mode: 'separate', score: 'whole' });
    expect(encodePair({ context: 'a', continuation: 'b' }, withBos, byteTokenizer).request).toMatchObject({
      context: [256],
      continuation: bytes('ab'),
    });
  });
  it('refuses an empty continuation', () => {
    expect(() => encodePair({ context: 'a', continuation: '' }, taskWith({}), byteTokenizer)).toThrow(
      'nothing to score',
    );
    const task = taskWith({ bos: 'never' });
    expect(() => encodePair({ context: '', continuation: 'a' }, task, byteTokenizer)).toThrow(
      'nothing before it',
    );
  });
});

describe('windows', () => {
  const numbers = (from: number, to: number): number[] =>
    Array.from({ length: to - from }, (_, i) => from + i);
  const request = (context: number, continuation: number) =>
    ({
      kind: 'loglikelihood_rolling',
      context: numbers(0, context),
      continuation: numbers(context, context + continuation),
    }) as const;

  it('one when all fits, its last token not an input', () => {
    expect(windowsOf(request(3, 2), 8)).toEqual([
      { input: [0, 1, 2, 3], targets: [3, 4], start: 0, seen: 0 },
    ]);
  });
  it('cuts the context on the left', () => {
    expect(windowsOf(request(6, 2), 4)).toEqual([
      { input: [3, 4, 5, 6], targets: [6, 7], start: 3, seen: 0 },
    ]);
  });
  it('rolls: disjoint targets, each window as full as it can be (lm-eval)', () => {
    expect(windowsOf(request(1, 10), 4)).toEqual([
      { input: [0, 1, 2, 3], targets: [1, 2, 3, 4], start: 0, seen: 0 },
      { input: [4, 5, 6, 7], targets: [5, 6, 7, 8], start: 4, seen: 4 },
      { input: [6, 7, 8, 9], targets: [9, 10], start: 6, seen: 8 },
    ]);
  });
  it('covers every target once for any length', () => {
    for (let maxLength = 1; maxLength < 9; maxLength++)
      for (let n = 1; n < 30; n++) {
        const windows = windowsOf(request(1, n), maxLength);
        expect(windows.flatMap(({ targets }) => targets)).toEqual(numbers(1, n + 1));
        for (const { input, targets } of windows) {
          expect(input.length).toBeLessThanOrEqual(maxLength);
          expect(input.at(-1)).toBe(targets.at(-1)! - 1);
          expect(input.length).toBeGreaterThanOrEqual(targets.length);
        }
      }
  });
});
