import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Results } from '../../ts/evaluation/index.ts';
import * as api from '../../ts/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-eval-cli-'));
const at = (...names: string[]) => path.join(folder, ...names);
afterAll(() => rmSync(folder, { recursive: true }));

beforeAll(async () => {
  using model = new api.LanguageModel(
    { vocabularySize: 290, dModel: 16, layers: 1, heads: 2, feedForward: { hidden: 16 }, init: { std: 0.3 } },
    { seed: 2 },
  );
  await api.saveModel(model, at('model'), {
    extra: async (into) => {
      api.data.writeTokenizer(into, await smallTokenizer());
      writeFileSync(
        path.join(into, 'chat_template.jinja'),
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[answer]",
      );
    },
  });
  const rows = Array.from({ length: 7 }, (_, i) => ({ q: `the cat ${i}`, a: ['yes', 'no'][i % 2] }));
  writeFileSync(at('rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  writeFileSync(
    at('asked.yaml'),
    'dataset_path: json\ndataset_kwargs: { data_files: rows.jsonl }\ntest_split: test\noutput_type: generate_until\ndoc_to_text: "{{q}}?"\ndoc_to_target: a\nscore: { use: yes_no, profile: pope }\n',
  );
});
const run = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await libmoe(args, { cwd: folder });
  expect(code, stderr).toBe(0);
  return stdout;
};
const asked = [
  'eval',
  '--model',
  'model',
  '--tasks',
  'asked.yaml',
  '--gen-kwargs',
  'max_new_tokens=5,until=zz',
];

describe('eval', () => {
  it('asks for texts in conversations with examples, and rescore scores them again', async () => {
    const chat = ['--num-fewshot', '1', '--apply-chat-template', '--system-instruction', 'Be brief.'];
    const which = ['--samples', '{"asked": [4, 2]}', '--scorer', 'both', '--out', 'out', '--json'];
    const results = JSON.parse(await run(...asked, ...chat, ...which)) as Results;
    expect(results['n-samples'].asked).toEqual({ original: 7, effective: 2 });
    expect(results['n-shot'].asked).toBe(1);
    expect(results.config).toMatchObject({
      gen_kwargs: { max_new_tokens: 5, until: 'zz' },
      system_instruction: 'Be brief.',
    });
    expect(Object.keys(results.libmoe.fixed_results!)).toEqual(['asked']);
    const lines = readFileSync(at('out', 'samples_asked.jsonl'), 'utf8').trim().split('\n');
    const samples = lines.map((line) => JSON.parse(line));
    expect(samples.map(({ doc_id: id }) => id)).toEqual([2, 4]);
    expect(samples[1].arguments.gen_args_0.arg_0).toMatch(
      /^\[system\] Be brief\.\n\[user\] the cat \d\? (yes|no)\n\nthe cat 4\?\n\[answer\]$/,
    );
    expect(samples[0].libmoe.tokens[0]).toBeLessThanOrEqual(5);
    const again = JSON.parse(await run('rescore', 'out', '--scorer', 'fixed', '--json')) as Results;
    expect(again.results).toEqual(results.libmoe.fixed_results);
    expect(await run('rescore', 'out', '--scorer', 'libmoe', '--out', 'other')).toMatch(/unparsed_rate/);
  }, 60_000);

  it('takes a share of each task, rounded up, and prints a table', async () => {
    expect(await run(...asked, '--limit', '0.2', '--batch-size', '2', '--token-budget', '64')).toMatch(
      /\|asked *\|/,
    );
    const results = JSON.parse(await run(...asked, '--limit', '0.2', '--json')) as Results;
    expect(results['n-samples'].asked!.effective).toBe(2);
  }, 60_000);

  it('keeps where experts were chosen beside the answers', async () => {
    await run(
      'eval',
      '--model',
      'model',
      '--tasks',
      'asked.yaml',
      '--limit',
      '2',
      '--out',
      'routed',
      '--routing',
    );
    const lines = readFileSync(at('routed', 'routing.requests.jsonl'), 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line).for?.[0].doc_id).toSorted()).toEqual([0, 1, undefined]);
    const { code, stderr } = await libmoe(
      ['eval', '--model', 'model', '--tasks', 'asked.yaml', '--routing'],
      {
        cwd: folder,
      },
    );
    expect([code, stderr]).toEqual([2, expect.stringContaining('--routing goes with --out')]);
  });

  it('warns of numbers that stand for the whole data set alone', async () => {
    const keys =
      'dataset_path: json\ndataset_kwargs: { data_files: rows.jsonl }\ntest_split: test\noutput_type: generate_until\ndoc_to_text: "{{q}}?"\n';
    writeFileSync(
      at('shown.yaml'),
      `${keys}doc_to_target: a\nscore: { use: caption_ngram }\nreport: { CIDEr: { use: caption, part: cider } }\n`,
    );
    const settings = ['--gen-kwargs', 'max_new_tokens=3', '--limit', '2', '--json'];
    const args = ['eval', '--model', 'model', '--tasks', 'shown.yaml', ...settings];
    const { code, stdout, stderr } = await libmoe(args, { cwd: folder });
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/^warning: shown: CIDEr is of 2 of 7 images/m);
    expect((JSON.parse(stdout) as Results).libmoe.warnings!.shown).toHaveLength(1);
  }, 60_000);

  it('lists tasks with what they ask and where their documents are', async () => {
    expect(await run('eval', '--tasks', 'list')).toMatch(/piqa +multiple_choice +baber\/piqa/);
  });

  it.each<[string, string[], RegExp]>([
    ['samples that are none', ['--samples', '[1]'], /^ERR_LIBMOE_FILE: --samples/],
    ['samples of nothing', ['--samples', '{"asked": ["a"]}'], /^ERR_LIBMOE_ARGUMENT: --samples expects/],
    ['samples beyond the end', ['--samples', '{"asked": [7]}'], /^ERR_LIBMOE_ARGUMENT: .*from 0 to 6, got 7/],
    ['samples of another task', ['--samples', '{"other": [0]}'], /^ERR_LIBMOE_ARGUMENT: .*other/],
    ['settings without a value', ['--gen-kwargs', 'seed'], /^ERR_LIBMOE_ARGUMENT: --gen-kwargs/],
    ['an unknown setting', ['--gen-kwargs', 'max_tokens=3'], /^ERR_LIBMOE_CONFIG: .*max_new_tokens/],
    ['turns without a template', ['--fewshot-as-multiturn'], /^ERR_LIBMOE_ARGUMENT: --fewshot-as-multiturn/],
    ['a template for a text model', ['--template', 'phi35'], /^ERR_LIBMOE_ARGUMENT: .*sees no images/],
    ['more examples than rows', ['--num-fewshot', '7'], /^ERR_LIBMOE_DATA: .*there are 7 rows/],
    ['half an example', ['--num-fewshot', '0.5'], /^ERR_LIBMOE_ARGUMENT: numFewshot/],
  ])('refuses %s', async (_, more, message) => {
    const { code, stderr } = await libmoe([...asked, ...more], { cwd: folder });
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(code).toBe(2);
  });

  it('has nothing to score again where nothing was finished', async () => {
    const { code, stderr } = await libmoe(['rescore', 'model'], { cwd: folder });
    expect(stderr).toMatch(/^ERR_LIBMOE_FILE/);
    expect(code).toBe(2);
  });
});
