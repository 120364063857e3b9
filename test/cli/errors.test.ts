import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeTokenizer } from '../../ts/data/index.ts';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
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

// A checkpoint that is in order, one cut off in the middle of its weights, and one without a tokenizer.
const checkpoint = path.join(folder, 'model');
const torn = path.join(folder, 'torn');
const mute = path.join(folder, 'mute');
beforeAll(async () => {
  using small = new LanguageModel(
    { vocabularySize: 290, dModel: 8, layers: 2, heads: 2, feedForward: { hidden: 8 } },
    { seed: 1 },
  );
  await saveModel(small, mute);
  await saveModel(small, checkpoint, {
    extra: async (to) => void writeTokenizer(to, await smallTokenizer()),
  });
  cpSync(checkpoint, torn, { recursive: true });
  const weights = path.join(torn, 'model.safetensors');
  truncateSync(weights, statSync(weights).size / 2);
});
const text = file('a.txt', 'the cat sat on the mat\n'.repeat(40));
/** A recipe that would train, with changes: whatever goes wrong then is the change's fault. */
const trainable = (name: string, changes: string, data: string = text): string =>
  file(
    `${name}.yaml`,
    `name: x\ntokenizer: ${checkpoint}\ndata: { train: { files: ${data} }, sequenceLength: 8, batchSequences: 2 }\ntraining: { steps: 1 }\n${changes}`,
  );
const runs = mkdtempSync(path.join(tmpdir(), 'libmoe-runs-'));
afterAll(() => rmSync(runs, { recursive: true }));
const out = ['--out', path.join(runs, 'run')];
const upcycle = (...more: string[]) => [
  'upcycle',
  '--from',
  checkpoint,
  '--out',
  path.join(folder, 'u'),
  '--experts',
  '4',
  '--top-k',
  '2',
  ...more,
];
const evaluation = (tasks: string, ...more: string[]) => [
  'eval',
  '--model',
  checkpoint,
  '--tasks',
  tasks,
  ...more,
];
const held = file(
  'held.yaml',
  `task: held\ndataset_path: text\ndataset_kwargs: { data_files: ${text} }\noutput_type: loglikelihood_rolling\ndoc_to_target: text\n`,
);

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
  ['a folder for a recipe', ['train', folder], /^ERR_LIBMOE_FILE: cannot read .*it is a folder/],
  [
    'misspelt key in a union',
    ['train', trainable('betta', model), '--set', 'training.optimizer={ name: adamw, betta1: 1 }'],
    /^ERR_LIBMOE_RECIPE: .*"training\.optimizer\.betta1", did you mean "beta1"/,
  ],
  [
    'device of another kind',
    ['train', trainable('tpu', model), '--device', 'tpu'],
    /^ERR_LIBMOE_RECIPE: .*device/,
  ],
  [
    'missing training text',
    ['train', trainable('nowhere', model, 'no.txt'), ...out],
    /^ERR_LIBMOE_FILE: .*no\.txt/m,
  ],
  [
    'broken training data',
    ['train', trainable('broken', model, file('broken.jsonl', '{"text": "a"}\n{"text": \n')), ...out],
    /^ERR_LIBMOE_DATA: .*broken\.jsonl:2/m,
  ],
  [
    'training data of another kind',
    ['train', trainable('parquet', model, file('no.parquet', 'PAR2')), ...out],
    /^ERR_LIBMOE_DATA: .*no\.parquet is not a whole parquet file/m,
  ],
  [
    'start from a truncated checkpoint',
    ['train', trainable('torn', `start: { checkpoint: ${torn} }\n`), ...out],
    /^ERR_LIBMOE_\w+: .*model\.safetensors/m,
  ],
  ['layers that make no sense', upcycle('--layers', 'every:x'), /^ERR_LIBMOE_ARGUMENT: --layers/],
  ['layers that are not there', upcycle('--layers', '1,7'), /^ERR_LIBMOE_CONFIG: .*layer 7/],
  ['unknown router', upcycle('--router', 'smo'), /^ERR_LIBMOE_CONFIG: .*"smo", did you mean "smoe"/],
  ['too many choices', upcycle('--top-k', '5'), /^ERR_LIBMOE_CONFIG: .*topK 5/],
  ['a missing tokenizer', upcycle('--tokenizer', 'no.bin'), /^ERR_LIBMOE_FILE: .*no\.bin/],
  [
    'a truncated checkpoint',
    ['generate', '--model', torn, '--prompt', 'a'],
    /^ERR_LIBMOE_\w+: .*model\.safetensors/,
  ],
  [
    'no tokenizer anywhere',
    ['generate', '--model', mute, '--prompt', 'a'],
    /^ERR_LIBMOE_FILE: .*tokenizer\.json/,
  ],
  [
    'no tokens',
    ['generate', '--model', 'no', '--prompt', 'a', '--max-tokens', '-3'],
    /^ERR_LIBMOE_ARGUMENT: --max-tokens/,
  ],
  [
    'cold',
    ['generate', '--model', checkpoint, '--prompt', 'a', '--temperature', '-1'],
    /^ERR_LIBMOE_ARGUMENT: temp/,
  ],
  [
    'bad limit',
    evaluation(held, '--limit', 'few'),
    /^ERR_LIBMOE_ARGUMENT: --limit expects a number, got "few"/,
  ],
  ['limit of nothing', evaluation(held, '--limit', '0'), /^ERR_LIBMOE_ARGUMENT: limit must be/],
  ['bad batch size', evaluation(held, '--batch-size', '0'), /^ERR_LIBMOE_ARGUMENT: --batch-size/],
  ['unknown task', evaluation('pica'), /^ERR_LIBMOE_CONFIG: no task "pica", did you mean "piqa"/],
  ['missing task file', evaluation('no.yaml'), /^ERR_LIBMOE_FILE: .*no\.yaml/],
  ['missing evaluation data', evaluation('piqa'), /^ERR_LIBMOE_DATA: there is no bundle of baber\/piqa/],
  [
    'misspelt key of a task',
    evaluation(file('typo-task.yaml', 'task: t\noutput_tipe: loglikelihood\n')),
    /^ERR_LIBMOE_CONFIG: .*"output_tipe", did you mean "output_type"/,
  ],
  [
    'one name to compare',
    ['report', folder, '--out', path.join(folder, 'r.html'), '--compare', 'moe'],
    /^ERR_LIBMOE_ARGUMENT: --compare expects two names/,
  ],
  [
    'more ids than the text gives',
    ['tokenizer', 'train', '--input', text, '--vocab', '9000', '--out', path.join(folder, 'tok')],
    /^ERR_LIBMOE_TOKENIZER/,
  ],
  ['no shards', ['data', 'show', folder], /^ERR_LIBMOE_FILE/],
  ['a folder for a script', ['run', folder], /^ERR_LIBMOE_FILE: expected a \.ts/],
  ['bad CUDA mode', ['build', '--cuda', 'maybe'], /^ERR_LIBMOE_ARGUMENT: --cuda expects AUTO, ON, OFF, got/],
  [
    'bench files that are not JSON',
    ['bench', '--compare', file('a.json', '{'), file('b.json', '{}')],
    /^ERR_LIBMOE_FILE: .*a\.json:1:2 is not valid JSON/,
  ],
  [
    'bench files of another kind',
    ['bench', '--compare', file('c.json', '{}'), file('b.json', '{}')],
    /^ERR_LIBMOE_FILE: .*c\.json is not a result file/,
  ],
  ['bad seed', ['demo', '--seed', 'x'], /^ERR_LIBMOE_ARGUMENT: --seed/],
  [
    'a recipe whose name leaves runs/',
    ['train', file('up.yaml', minimal.replace('name: x', 'name: ..') + model)],
    /^ERR_LIBMOE_RECIPE: .*name: .*it names a folder/,
  ],
  [
    'a sweep into a file',
    ['sweep', path.join(root, 'recipes/sweeps/stories260k-routers.yaml'), '--out', text],
    /^ERR_LIBMOE_FILE: cannot make the folder .*a\.txt/,
  ],
  ['a demo into a file', ['demo', '--smoke', '--out', text], /^ERR_LIBMOE_FILE: cannot make the folder/],
  [
    'a card without memory',
    ['plan', path.join(root, 'recipes/demo/moe.yaml'), '--gpu-memory=-5'],
    /^ERR_LIBMOE_ARGUMENT: .*more than 0 GiB/,
  ],
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

describe('--out ""', () => {
  const commands: [string, string[]][] = [
    ['upcycle', ['--from', checkpoint, '--experts', '4', '--top-k', '2']],
    ['train', [file('empty-out.yaml', minimal + model)]],
    ['data', ['prepare', file('empty-out.yaml', minimal + model)]],
    ['sweep', ['sweep.yaml']],
    ['demo', ['--smoke']],
    ['eval', ['--model', checkpoint, '--tasks', held]],
    ['logits', ['--model', checkpoint, '--tokens', text]],
    ['report', [folder]],
    ['tokenizer', ['train', '--input', text, '--vocab', '300']],
    ['bench', []],
  ];
  it.each(commands)('%s refuses it and touches nothing', async (name, args) => {
    const place = mkdtempSync(path.join(tmpdir(), 'libmoe-empty-out-'));
    writeFileSync(path.join(place, 'thesis.tex'), 'years');
    const { code, stderr } = await libmoe([name, ...args, '--out', ''], { cwd: place });
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^ERR_LIBMOE_ARGUMENT: --out is empty/)]);
    expect(readdirSync(place)).toEqual(['thesis.tex']);
    rmSync(place, { recursive: true });
  });
});

describe('the commands that need no binary', () => {
  it('inspect, and help with an example, work with an unusable engine', async () => {
    const env = { LIBMOE_CPU: 'vax' };
    expect((await libmoe(['--help'], { env })).code).toBe(0);
    for (const command of [
      ...'demo train upcycle eval generate logits plan report run inspect build bench'
        .split(' ')
        .map((name) => [name]),
      ['tokenizer', 'train'],
      ['data', 'prepare'],
      ['data', 'show'],
    ]) {
      const name = command.join(' ');
      const { code, stdout } = await libmoe([...command, '--help'], { env });
      expect(code, name).toBe(0);
      expect(stdout, name).toMatch(/^Usage: libmoe /);
      expect(stdout, name).toMatch(/\nExamples?: /);
      expect(stdout, name).toMatch(/--json/);
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
    for (const args of [
      ['--verbose', 'train', 'no.yaml'],
      ['train', 'no.yaml', '--verbose'],
      ['data', 'show', 'no', '--verbose'],
    ]) {
      const { code, stderr } = await libmoe(args);
      expect(code, args.join(' ')).toBe(2);
      expect(stderr, args.join(' ')).toMatch(/\n {4}at /);
    }
  });

  it('build heeds LIBMOE_CUDA', async () => {
    const { code, stdout, stderr } = await libmoe(['build', '--json'], { env: { LIBMOE_CUDA: 'maybe' } });
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^ERR_LIBMOE_ARGUMENT: LIBMOE_CUDA .* expects AUTO, ON or OFF, got "maybe"/);
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

  it('--json prints one object, and what the script prints goes to stderr', async () => {
    const script = file('talks.mjs', "console.log('hello');\nprocess.exitCode = 3;\n");
    const { code, stdout, stderr } = await libmoe(['run', '--json', script]);
    expect([code, stderr]).toEqual([3, 'hello\n']);
    expect(JSON.parse(stdout)).toMatchObject({ script, exitCode: 3 });
  });

  it('shows where a script went wrong', async () => {
    const script = file('wrong.mjs', '\nundefined.x;\n');
    const { code, stderr } = await libmoe(['run', script]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^TypeError: .*\n {4}at .*wrong\.mjs:2/);
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
