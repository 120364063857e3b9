import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string): string => {
  writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
};
const recipe = (changes: string): string => file('recipe.yaml', changes);
const minimal =
  'name: x\ntokenizer: tok\ndata: { train: { files: a.txt }, sequenceLength: 8, batchSequences: 2 }\ntraining: { steps: 1 }\n';
const model = 'model: { dModel: 8, layers: 1, heads: 2, feedForward: { hidden: 8 } }\n';

// What was typed, and what the one line on stderr must say.
const wrong: [string, string[], RegExp][] = [
  ['unknown command', ['trian'], /^ERR_LIBMOE_ARGUMENT: unknown command 'trian'/],
  ['missing argument', ['train'], /^ERR_LIBMOE_ARGUMENT: missing required argument 'recipe'/],
  ['unknown option', ['inspect', '--jsn'], /^ERR_LIBMOE_ARGUMENT: unknown option '--jsn'/],
  ['missing recipe', ['train', 'no.yaml'], /^ERR_LIBMOE_FILE: no such recipe: .*no\.yaml/],
  ['broken YAML', ['train', recipe('a: [')], /^ERR_LIBMOE_RECIPE/],
  ['a list for a recipe', ['train', file('list.yaml', '- 1')], /^ERR_LIBMOE_RECIPE: .*list\.yaml/],
  [
    'misspelt key',
    ['train', file('typo.yaml', minimal + model.replace('layers', 'layer'))],
    /^ERR_LIBMOE_RECIPE: .*"model\.layer".*"layers"/,
  ],
  [
    'no model and no start',
    ['train', file('none.yaml', minimal)],
    /^ERR_LIBMOE_RECIPE: .*either "model".*or "start"/,
  ],
  [
    'steps of zero',
    ['train', file('good.yaml', minimal + model), '--steps', '0'],
    /^ERR_LIBMOE_ARGUMENT: --steps/,
  ],
  [
    'bad --set',
    ['train', file('good.yaml', minimal + model), '--set', 'training'],
    /^ERR_LIBMOE_RECIPE: --set/,
  ],
  [
    'unsupported device',
    ['train', file('good.yaml', minimal + model), '--device', 'cuda:0'],
    /^ERR_LIBMOE_DEVICE/,
  ],
  [
    'more choices than experts',
    [
      'train',
      file('good.yaml', minimal + model),
      '--set',
      'model.moe={experts: 8, topK: 9, expert: {hidden: 8}}',
      '--out',
      path.join(folder, 'r0'),
    ],
    /^ERR_LIBMOE_RECIPE: .*topK 9 is more than the 8 experts/,
  ],
  [
    'missing tokenizer',
    ['train', file('good.yaml', minimal + model), '--out', path.join(folder, 'r1')],
    /^ERR_LIBMOE_FILE/,
  ],
  [
    'missing corpus',
    ['tokenizer', 'train', '--input', 'no.txt', '--vocab', '300', '--out', path.join(folder, 'tok')],
    /^ERR_LIBMOE_FILE/,
  ],
  [
    'missing checkpoint',
    ['upcycle', '--from', 'no', '--out', path.join(folder, 'u'), '--experts', '4', '--top-k', '2'],
    /^ERR_LIBMOE_FILE/,
  ],
  [
    'existing target',
    ['upcycle', '--from', 'no', '--out', folder, '--experts', '4', '--top-k', '2'],
    /^ERR_LIBMOE_FILE: .* exists/,
  ],
  ['missing option', ['upcycle', '--from', 'no'], /^ERR_LIBMOE_ARGUMENT: required option '--out/],
  ['eval without a model', ['eval', '--tasks', 'x'], /^ERR_LIBMOE_ARGUMENT: eval expects --model/],
  ['eval of nothing', ['eval', '--model', 'no', '--tasks', 'x'], /^ERR_LIBMOE_FILE/],
  [
    'bad scorer',
    ['eval', '--model', 'no', '--tasks', 'x', '--scorer', 'y'],
    /^ERR_LIBMOE_ARGUMENT: .*Allowed choices are libmoe, fixed/,
  ],
  ['generate from nothing', ['generate', '--model', 'no', '--prompt', 'a'], /^ERR_LIBMOE_FILE/],
  [
    'report on nothing',
    ['report', path.join(folder, 'none'), '--out', path.join(folder, 'r.html')],
    /^ERR_LIBMOE_FILE/,
  ],
  ['no script', ['run', 'no.ts'], /^ERR_LIBMOE_FILE: no such script/],
  ['vision demo', ['demo', '--vision'], /^ERR_LIBMOE_UNSUPPORTED/],
  ['bad seed', ['demo', '--seed', 'x'], /^ERR_LIBMOE_ARGUMENT: --seed/],
  ['bench files missing', ['bench', '--compare', 'a.json', 'b.json'], /^ERR_LIBMOE_FILE/],
];

describe('wrong input ends in one clear line and exit code 2', () => {
  it.each(wrong)('%s', async (_, args, message) => {
    const before = readdirSync(folder).sort();
    const { code, stdout, stderr } = await libmoe(args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(stdout).toBe('');
    expect(code).toBe(2);
    // Nothing half-written, not even a run folder.
    expect(readdirSync(folder).filter((name) => !before.includes(name))).toEqual([]);
  });
});

describe('the commands that need no binary', () => {
  it('help and inspect work with an unusable engine', async () => {
    const env = { LIBMOE_CPU: 'vax' };
    expect((await libmoe(['--help'], { env })).code).toBe(0);
    for (const command of 'train demo upcycle eval generate report tokenizer data run inspect build bench'.split(
      ' ',
    )) {
      const { code, stdout } = await libmoe([command, '--help'], { env });
      expect(code, command).toBe(0);
      expect(stdout, command).toMatch(/^Usage: libmoe /);
    }
    const { code, stdout } = await libmoe(['inspect', '--json'], { env });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).binary.error).toMatch(/LIBMOE_CPU expects avx512, avx2 or portable/);
  }, 120_000);

  it('inspect --json has the promised keys', async () => {
    const { stdout } = await libmoe(['inspect', '--json']);
    expect(Object.keys(JSON.parse(stdout))).toEqual(
      expect.arrayContaining(['version', 'node', 'cpu', 'devices', 'cuda', 'nccl', 'mpi', 'binary']),
    );
  });

  it('--verbose shows the stack', async () => {
    const { code, stderr } = await libmoe(['--verbose', 'train', 'no.yaml']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/\n {4}at /);
  });
});

describe('run', () => {
  it('executes TypeScript that imports libmoe, wherever it lies', async () => {
    const script = file(
      'script.ts',
      "import { tensor, ops, scope } from 'libmoe';\nenum E { a = 2 }\nusing x = tensor([1, E.a]);\nconsole.log(scope(() => ops.sum(x).item()), process.argv.slice(2).join());\n",
    );
    const { code, stdout, stderr } = await libmoe(['run', script, '--flag', 'v']);
    expect(stderr).toBe('');
    expect([code, stdout]).toEqual([0, '3 --flag,v\n']);
  });

  it('shows the same program in the README and in the install test', async () => {
    const { readFileSync } = await import('node:fs');
    const program = readFileSync(path.join(root, 'test/install/train.ts'), 'utf8');
    const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
    expect(readme).toContain(program);
    expect(readme).toContain('npm ci && npm test');
    expect(readme).toContain('npm ci && npx libmoe demo');
  });
});
