import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-chain-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (...names: string[]): string => path.join(folder, ...names);

/** Runs a command that must succeed, and returns the one object that it prints. */
async function json(...args: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await libmoe([...args, '--json'], { cwd: folder });
  expect(stderr, args.join(' ')).not.toMatch(/ERR_/);
  expect(code, args.join(' ')).toBe(0);
  return JSON.parse(stdout) as Record<string, unknown>;
}
/** What people see of it. */
async function words(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await libmoe(args, { cwd: folder });
  expect(code, stderr).toBe(0);
  return stdout;
}

const animals = 'cat dog fox hen cow'.split(' ');
const sentences = Array.from(
  { length: 60 },
  (_, i) => `the ${animals[i % 5]} saw the ${animals[(i * 3 + 1) % 5]} and ran ${i % 7} times`,
);
writeFileSync(at('one.txt'), sentences.slice(0, 30).join('\n'));
writeFileSync(at('two.txt'), sentences.slice(30).join('\n'));
writeFileSync(at('held.txt'), 'the hen saw the cow and the cow saw the hen');
writeFileSync(
  at('recipe.yaml'),
  `name: tiny
tokenizer: tok
data:
  train: { files: [one.txt, two.txt] }
  heldOut: { animals: { files: held.txt } }
  sequenceLength: 16
  batchSequences: 4
  cache: cache
model: { dModel: 16, layers: 2, heads: 2, feedForward: { hidden: 16 }, maxPositions: 64 }
training: { steps: 4 }
`,
);
writeFileSync(
  at('lines.yaml'),
  'task: lines\ndataset_path: json\ndataset_kwargs: { data_files: lines.jsonl }\noutput_type: loglikelihood_rolling\ndoc_to_target: text\n',
);
writeFileSync(
  at('choices.yaml'),
  'task: choices\ndataset_path: json\ndataset_kwargs: { data_files: lines.jsonl }\noutput_type: multiple_choice\ndoc_to_text: text\ndoc_to_choice: [times, hen]\ndoc_to_target: 0\nmetric_list: [{ metric: acc }]\n',
);
writeFileSync(
  at('lines.jsonl'),
  Array.from({ length: 500 }, (_, i) => JSON.stringify({ text: `${sentences[i % 60]}, ${i}` })).join('\n'),
);

describe('every command of the way from a text to a report', () => {
  it('tokenizer, data, train, upcycle, eval, generate, report', async () => {
    const trained = await json(
      'tokenizer',
      'train',
      '--input',
      'one.txt',
      'two.txt',
      '--vocab',
      '50',
      '--out',
      'tok',
    );
    expect(trained).toMatchObject({ vocabularySize: 50 });

    const prepared = await json('data', 'prepare', 'recipe.yaml');
    expect(prepared).toMatchObject({ vocabularySize: 50, documents: 2 });
    const shards = readdirSync(at('cache'))[0]!;
    expect(await json('data', 'show', at('cache', shards))).toMatchObject({
      documents: 2,
      tokens: prepared.tokens,
    });
    expect(await words('data', 'show', at('cache', shards))).toMatch(/documents +2\n/);

    const run = await json('train', 'recipe.yaml', '--out', 'dense');
    expect(run).toMatchObject({ name: 'tiny', training: { step: 4, completed: true } });

    const upcycled = await json(
      'upcycle',
      '--from',
      'dense',
      '--out',
      'moe',
      '--experts',
      '4',
      '--top-k',
      '2',
    );
    expect(upcycled).toMatchObject({ out: 'moe', layers: [0, 1] });
    expect(existsSync(at('moe', 'tokenizer.json'))).toBe(true);
    expect(
      await words('upcycle', '--from', 'dense', '--out', 'moe-2', '--experts', '2', '--top-k', '1'),
    ).toMatch(/copied into every expert[\s\S]*parameters: /);

    const [dense, moe] = await Promise.all(
      ['dense', 'moe'].map((model) =>
        json('eval', '--model', model, '--tasks', 'lines.yaml', '--limit', '20'),
      ),
    );
    const bits = (results: unknown) =>
      (results as { results: { lines: Record<string, number> } }).results.lines['bits_per_byte,none']!;
    // An upcycled model computes what the dense one does.
    expect(bits(moe)).toBeCloseTo(bits(dense), 4);
    expect((await json('eval', '--tasks', 'list')).tasks).toContain('piqa');
    expect(await words('eval', '--model', 'moe', '--tasks', 'lines.yaml', '--limit', '2')).toMatch(
      /bits_per_byte/,
    );

    const said = await json('generate', '--model', 'moe', '--prompt', 'the cat', '--max-tokens', '5');
    expect(said.text).toMatch(/^the cat/);
    expect((said.ids as number[]).length).toBe((said.promptTokens as number) + 5);
    expect(await words('generate', '--model', 'moe', '--prompt', 'the cat', '--max-tokens', '5')).toBe(
      `${said.text}\n`,
    );

    const report = await json('report', 'dense', '--out', 'report.html');
    expect(report.file).toMatch(/report\.html$/);
    expect(readFileSync(at('report.html'), 'utf8')).toMatch(/<svg/);
  }, 120_000);

  it('an evaluation that Ctrl-C stops says so, and the same command continues it', async () => {
    const command = [
      'eval',
      '--model',
      'moe',
      '--tasks',
      'choices.yaml',
      '--token-budget',
      '64',
      '--out',
      'results',
    ];
    const journal = at('results', 'journal.jsonl');
    const stopped = await libmoe(command, {
      cwd: folder,
      during: (child) => {
        const wait = async () => {
          while (child.exitCode === null && !(existsSync(journal) && readFileSync(journal).length > 0))
            await setTimeout(5);
          child.kill('SIGINT');
        };
        void wait();
      },
    });
    expect(stopped.stderr).toMatch(/^ERR_LIBMOE_STOPPED: stopped; the same command continues/m);
    expect(stopped.code).toBe(130);
    expect(existsSync(at('results', 'results.json'))).toBe(false);
    const { libmoe: facts } = (await json(...command)) as { libmoe: { requests: Record<string, number> } };
    expect(facts.requests.from_journal).toBeGreaterThan(0);
    expect(facts.requests.from_journal).toBeLessThan(facts.requests.total!);
  }, 120_000);
});
