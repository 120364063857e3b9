// Writes docs/tasks.md: which of LibMoE's tasks are here, with how many passing examples, and why the others are not.
// node scripts/task-coverage.mjs [--check]   after npm run build: the tasks are checked by what dist/ does.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const page = path.join(root, 'docs/tasks.md');

/** LibMoE's tasks and the reasons for those that are not here. */
export function libmoeTasks() {
  return JSON.parse(readFileSync(path.join(root, 'test/evaluation/libmoe-tasks.json'), 'utf8'));
}

/**
 * The page as text.
 * @param {{ resolveTask(name: string): object, taskNames(): string[], checkExamples(task: object): Promise<string[]> }} evaluation
 */
export async function coveragePage(evaluation) {
  const { tasks, reasons } = libmoeTasks();
  const names = new Set(evaluation.taskNames());
  const why = ({ task, class: kind, video }) => {
    const reason = reasons.find((one) =>
      one.matches ? new RegExp(one.matches).test(task) : one.class === kind,
    );
    return `${video ? 'video: ' : ''}${reason?.why ?? 'not written yet'}`;
  };
  const here = [];
  const absent = new Map();
  for (const entry of tasks) {
    const found = names.has(entry.task) ? evaluation.resolveTask(entry.task) : undefined;
    const wrong = found === undefined ? [] : await evaluation.checkExamples(found);
    const count = found?.examples?.length ?? 0;
    if (found === undefined || wrong.length > 0 || count === 0) {
      const reason =
        found === undefined
          ? why(entry)
          : count === 0
            ? 'its file has no examples'
            : 'its examples do not pass';
      absent.set(reason, [...(absent.get(reason) ?? []), entry.task]);
    } else here.push({ ...entry, found, count });
  }
  const unavailable = here.filter(({ found }) => found.requires !== undefined);
  const classes = [...new Set(tasks.map((entry) => entry.class))];
  const of = (list, kind) => list.filter((entry) => entry.class === kind).length;
  const data = ({ dataset_path: id, dataset_name: config, test_split: split }) =>
    [id, config, split].filter(Boolean).join(' · ');
  return `${[
    "# Tasks of LibMoE's evaluation",
    '',
    '<!-- Written by scripts/task-coverage.mjs from the task files and test/evaluation/libmoe-tasks.json. Do not edit. -->',
    '',
    `${here.length} of LibMoE's ${tasks.length} leaf tasks have a task file here whose made-up records pass (prompt, images, what is read out, scores)${
      unavailable.length === 0
        ? ''
        : `; ${unavailable.length} of them ask about videos and are refused when they are to be run`
    }. The 13 text benchmarks are not among the ${tasks.length}. Data are not in the package: [bundles](data.md#bundles-data-sets-for-evaluation).`,
    '',
    '| scored by | here | of |',
    '| --- | ---: | ---: |',
    ...classes.map((kind) => `| ${kind} | ${of(here, kind)} | ${of(tasks, kind)} |`),
    '',
    '## Here',
    '',
    '| task | data: id · config · split | scorer | examples |',
    '| --- | --- | --- | ---: |',
    ...here.map(
      ({ task, found, count }) =>
        `| \`${task}\`${found.requires === undefined ? '' : ' (video: unavailable)'} | ${data(found)} | ${
          found.score === undefined ? found.output_type : `\`${found.score.use}\``
        } | ${count} |`,
    ),
    '',
    'Captions have BLEU, ROUGE-L and CIDEr; METEOR needs WordNet.',
    '',
    '## Not here',
    '',
    ...[...absent].map(
      ([reason, list]) => `* ${reason} (${list.length}): ${list.map((name) => `\`${name}\``).join(', ')}`,
    ),
  ].join('\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = await coveragePage(await import('../dist/evaluation/index.js'));
  if (process.argv.includes('--check')) {
    if (readFileSync(page, 'utf8') !== text) {
      console.error('docs/tasks.md is not up to date: node scripts/task-coverage.mjs');
      process.exitCode = 1;
    }
  } else writeFileSync(page, text);
}
