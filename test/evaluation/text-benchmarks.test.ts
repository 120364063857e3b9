import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadDocuments } from '../../ts/evaluation/dataset.ts';
import { documentStepsSchema, processRows } from '../../ts/evaluation/document-steps.ts';
import { chooseTasks, resolveTask } from '../../ts/evaluation/index.ts';
import { readPythonList, showPythonList } from '../../ts/evaluation/scorers/python-literal.ts';
import { tasksOfGroup } from '../../ts/evaluation/task-groups.ts';

type Asked = { prompt: string | string[]; choices: string[]; gold?: number };
const golden = JSON.parse(
  readFileSync(new URL('../golden/text-tasks/golden.json', import.meta.url), 'utf8'),
) as Record<string, Asked[]>;

describe("the records of tasks in lm-eval's manner are asked as lm-eval 0.4.13 asks them", () => {
  it.each(Object.entries(golden))('%s', (name, asked) => {
    const subject = / about ([a-z ]+)\.\n\n/u;
    const examples = resolveTask(name).examples!.map(({ prompt, choices, gold }) => ({
      // The records of MMLU are of several subjects; lm-eval's file names its own.
      prompt:
        typeof prompt === 'string' ? prompt.replace(subject, ' about high school chemistry.\n\n') : prompt,
      choices,
      ...(gold !== undefined && { gold }),
    }));
    expect(examples).toEqual(asked);
  });
});

describe('groups', () => {
  const members = (name: string): string[] => tasksOfGroup(chooseTasks([name]).groups[0]!);
  it('have the 67 paradigms of BLiMP and the 57 subjects of MMLU', () => {
    expect(new Set(members('blimp')).size).toBe(67);
    expect(new Set(members('mmlu')).size).toBe(57);
    expect(members('mmlu_stem').length).toBe(19);
    for (const name of [...members('blimp'), ...members('mmlu')]) {
      const { task, dataset_name: config } = resolveTask(name);
      expect(task.endsWith(`_${config}`)).toBe(true);
    }
  });
  it('weigh documents alike in MMLU, tasks alike in BLiMP, ARC, RACE and CBT', () => {
    const weighted = (name: string) => {
      const { aggregates } = chooseTasks([name]).groups[0]!;
      return Array.isArray(aggregates) && aggregates.every((each) => each.weight_by_size);
    };
    expect(['mmlu', 'blimp', 'arc', 'lm.arc', 'lm.race', 'lm.cbt'].map(weighted)).toEqual([
      true,
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});

describe('steps of benchmarks', () => {
  const rowsOf = (name: string, rows: Record<string, unknown>[]) => {
    const task = resolveTask(name);
    return processRows(rows, task.process_docs, task.task);
  };
  const arc = (options: number) => ({
    question: 'q',
    answerKey: 'A',
    choices: { text: Array(options).fill('x'), label: ['A', 'B', 'C', 'D', 'E'].slice(0, options) },
  });
  it('LibMoE leaves out questions of ARC without four options, and of CBT without ten', () => {
    expect(rowsOf('lm.arc_easy', [arc(3), arc(4), arc(5)]).length).toBe(1);
    const cbt = { sentences: ['a'], question: 'b XXXXX', answer: 'x', options: ['x'] };
    expect(() => rowsOf('lm.cbt_NE', [cbt])).toThrow('leaves none of the 1 rows');
  });
  it("LibMoE's cleaning of HellaSwag takes out a backslash with a mark after it, and no brackets", () => {
    const row = { activity_label: 'A', ctx_a: '[step] b\\.c', ctx_b: '', endings: ['x  y'], label: '0' };
    expect(rowsOf('lm.hellaswag', [row])[0]).toMatchObject({ query: 'A: [step] bc', choices: ['x y'] });
    expect(rowsOf('hellaswag', [row])[0]).toMatchObject({ query: 'A: b\\.c', choices: ['x y'] });
  });
  it('order the captions of VITATECS as Python does for each of its 100 seeds', () => {
    // ''.join('A' if (random.seed(i), random.random())[1] > 0.5 else 'B' for i in range(100))
    const golds =
      'ABABBAABBBABBBBABABAABAAABAABAABBAAABAABBBABBBABABBBAAABABABBBABBBBBAAABBBABBAABBABBABABBBBBBAAABBBB';
    const seeds = Array.from({ length: 100 }, (_, i) => i);
    // The code points of "é " + the last character sum up to the seed modulo 100.
    const captions = seeds.map((seed) => `\u00e9 ${String.fromCodePoint(300 + ((seed + 35) % 100))}`);
    const made = rowsOf(
      'vitatecs_type',
      captions.map((caption) => ({ caption, counterfactual: '' })),
    );
    expect(made.map(({ gold }) => gold).join('')).toBe(golds);
    const row = { caption: 'a DOG runs', counterfactual: 'a dog sits.' };
    expect(rowsOf('vitatecs_type', [row])[0]).toMatchObject({
      option_a: 'A dog sits.',
      option_b: 'A dog runs.',
      gold: 'B',
    });
  });
  it.each<[string, string, Record<string, unknown>, string]>([
    ['a missing column', 'hellaswag', { activity_label: 'a' }, '"ctx_a" must hold a text'],
    [
      'endings of another kind',
      'hellaswag',
      { activity_label: 'a', ctx_a: '', ctx_b: '', endings: 'x' },
      'list of texts',
    ],
    ['problems that are no list', 'race', { article: 'a', problems: 'x' }, 'a list of problems'],
    [
      'a problem without an answer',
      'race',
      { article: 'a', problems: "[{'question': 'q'}]" },
      'answer A to D',
    ],
    [
      'a question without a gap',
      'lm.cbt_V',
      { options: Array(10).fill('x'), question: 'q', sentences: [] },
      'XXXXX',
    ],
  ])('name %s', (_, name, row, message) => {
    expect(() => rowsOf(name, [row])).toThrow('ERR_LIBMOE_DATA');
    expect(() => rowsOf(name, [row])).toThrow(message);
  });
});

describe('rows of a data set', () => {
  const texts = ['a1', 'b', 'a2'].map((text) => ({ key: text[0]!, text }));
  const kept = (step: Record<string, unknown>): string[] =>
    processRows(texts, documentStepsSchema.parse(step), 'toy').map(({ text }) => text as string);
  it('are told apart by a column, in their order', () => {
    expect(kept({ function: 'unique', column: 'key' })).toEqual(['a1', 'b']);
  });
  it('are chosen by a pattern of Python', () => {
    expect(kept({ function: 'where', column: 'text', matches: '(?i)^A\\d$' })).toEqual(['a1', 'a2']);
    expect(() => kept({ function: 'where', column: 'text', matches: '(' })).toThrow('regular expression');
  });
});

describe('labels in a file of their own', () => {
  const folder = mkdtempSync(join(tmpdir(), 'libmoe-labels-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const piqa = (labels: string) => {
    writeFileSync(join(folder, 'valid.jsonl'), '{"goal": "a"}\n{"goal": "b"}\n');
    writeFileSync(join(folder, 'labels.lst'), labels);
    const kwargs = { data_files: 'valid.jsonl', labels: 'labels.lst' };
    return loadDocuments(
      resolveTask({ task: 'lm.piqa', dataset_path: 'json', dataset_kwargs: kwargs }),
      folder,
    );
  };
  it('become the column label', async () => {
    const rows = [
      { goal: 'a', label: '1' },
      { goal: 'b', label: '0' },
    ];
    expect((await piqa('1\n0\n')).rows).toEqual(rows);
    expect((await piqa('1\r\n0')).rows).toEqual(rows);
  });
  it('must be as many as rows', async () => {
    await expect(piqa('1\n0\n1\n')).rejects.toThrow('3 labels for 2 rows');
  });
});

describe("Python's lists", () => {
  // As Python 3.11 displays them.
  it.each<[unknown[], string]>([
    [['a', "b's", 'c"d', `e'f"g`], `['a', "b's", 'c"d', 'e\\'f"g']`],
    [
      ['\\', '\n\t\r', '\x00\x7f', '\xa0', '\u200b', '\u{e0001}', 'é', '😀'],
      "['\\\\', '\\n\\t\\r', '\\x00\\x7f', '\\xa0', '\\u200b', '\\U000e0001', 'é', '😀']",
    ],
    [[1, -2, true, false, null, ['x']], "[1, -2, True, False, None, ['x']]"],
    [[], '[]'],
  ])('%j', (values, shown) => {
    expect(showPythonList(values)).toBe(shown);
    expect(readPythonList(shown)).toEqual(values);
  });
  it('have dictionaries in them', () => {
    expect(readPythonList("[{'a': ['x'], \"b\": {}}, 1]")).toEqual([{ a: ['x'], b: {} }, 1]);
    expect(readPythonList("[{'a' 1}]")).toBeUndefined();
    expect(readPythonList("[{'a': }]")).toBeUndefined();
    expect(showPythonList([{ a: 1 }])).toBeUndefined();
  });
});
