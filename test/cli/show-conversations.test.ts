import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-show-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = path.join(folder, 'some.json');
const record = (question: string, answer: string, image?: string) => ({
  ...(image && { image }),
  conversations: [
    { from: 'human', value: question },
    { from: 'gpt', value: answer },
  ],
});
writeFileSync(
  file,
  JSON.stringify([
    record('who?', 'me'),
    record('what?', ''),
    record('<image>\nwhat is it?', 'a cat', 'a.png'),
  ]),
);
const tokenizer = ['--tokenizer', path.join(root, 'test/golden/conversations/tokenizer.json')];

it('data show: what a file of conversations holds, and a record as the model sees it', async () => {
  const counted = await libmoe(['data', 'show', file, '--json']);
  expect([counted.code, JSON.parse(counted.stdout)]).toEqual([
    0,
    {
      file,
      conversations: 2,
      withImages: 1,
      leftOut: 1,
      words: { fewest: 2, median: 6, most: 6 },
      reasons: [`${file}, record 2: turn 2 (gpt) is empty`],
    },
  ]);
  const shown = await libmoe(['data', 'show', file, ...tokenizer, '--template', 'phi3', '--record', '2']);
  expect(shown.code).toBe(0);
  expect(shown.stdout).toMatch(/some\.json, record 3: 2\d\d tokens, 3 of them learned/);
  expect(shown.stdout).toMatch(/<\|user\|><image>\s+what is it\?<\|end\|><\|assistant\|>«a cat<\|end\|>»/);
  const args = [...tokenizer, '--template', 'phi3', '--record', '2', '--tokens-per-image', '4', '--json'];
  const { record } = JSON.parse((await libmoe(['data', 'show', file, ...args])).stdout) as {
    record: {
      tokens: number;
      learnedTokens: number;
      images: string[];
      stretches: { learned: boolean; tokens: number }[];
    };
  };
  expect(record).toMatchObject({ learnedTokens: 3, images: ['a.png'], cut: false });
  expect(record.stretches.reduce((sum, { tokens }) => sum + tokens, 3)).toBe(record.tokens);
  expect(record.stretches.filter(({ learned }) => learned).map(({ tokens }) => tokens)).toEqual([3]);
}, 120_000);

it('data show refuses what is not there', async () => {
  const refused: [string[], RegExp][] = [
    [[...tokenizer, '--template', 'phi3', '--record', '3'], /^ERR_LIBMOE_ARGUMENT: --record must lie in 1…2/],
    [[...tokenizer, '--template', 'gpt'], /^ERR_LIBMOE_ARGUMENT: a template is one of phi35/],
    [['--compat', 'both'], /^ERR_LIBMOE_ARGUMENT: --compat must be fixed or libmoe/],
  ];
  for (const [args, message] of refused) {
    const { code, stdout, stderr } = await libmoe(['data', 'show', file, ...args]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr.split('\n').find((line) => line.startsWith('ERR'))).toMatch(message);
  }
}, 120_000);
