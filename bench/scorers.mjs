#!/usr/bin/env node
// Answers per second of processor time (other programs on the machine disturb it less than the clock's) of every scorer of written answers: over the made-up records of the task files, and, where the length of texts decides, over made texts as long as the benchmark's. After `npm run build:ts`:
//   node bench/scorers.mjs [--seconds 0.4] [--only anls,captions] [--out FILE]
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { processRows } from '../dist/evaluation/document-steps.js';
import { listTasks, MersenneTwister, resolveTask } from '../dist/evaluation/index.js';
import { QuestionMaker } from '../dist/evaluation/question.js';
import { scoreBlockOf } from '../dist/evaluation/response-scoring.js';
import { reportNumbers, reportSchema, taskScorer } from '../dist/evaluation/scorers/index.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '0.4' },
    only: { type: 'string' },
    out: { type: 'string' },
  },
});
const only = values.only?.split(',');
const random = new MersenneTwister(1);
const results = {};

/** Processor time of this process, all its threads, in milliseconds. */
function processorTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

/** Items per second of `run`, which does `count` of them: the best of three. */
async function rate(name, count, run) {
  if (only && !only.includes(name.split(':')[0])) return;
  const milliseconds = 1e3 * Number(values.seconds);
  const passes = async (most) => {
    const start = processorTime();
    let done = 0;
    while (processorTime() - start < most) {
      await run();
      done += count;
    }
    return (1e3 * done) / (processorTime() - start);
  };
  await passes(milliseconds / 2);
  const rates = [];
  for (let i = 0; i < 3; i++) rates.push(await passes(milliseconds));
  results[name] = Math.max(...rates);
  console.log(`${name.padEnd(44)} ${Math.round(results[name]).toLocaleString('en').padStart(12)} /s`);
}

const known =
  'a the of on in man woman dog cat street red blue with two people sitting standing next to table large small white black riding horse holding train bus field grass'.split(
    ' ',
  );
const word = () =>
  random.random() < 0.7
    ? random.choice(known)
    : Array.from({ length: 2 + random.below(7) }, () => 'etaoinshrdlu'[random.below(12)]).join('');
const words = (least, most) => Array.from({ length: least + random.below(most - least + 1) }, word).join(' ');
/** A text with a share of its characters changed. */
const changed = (text, share) =>
  [...text].map((c) => (random.random() < share ? 'etaoin'[random.below(6)] : c)).join('');
const many = (make) => Array.from({ length: 1000 }, (_, i) => make(i));
const question = (target, doc = {}) => ({ doc, target, choices: [] });
const scoring = (block, mode, items) => {
  const scorer = taskScorer('bench', block, mode);
  return () => {
    for (const [i, [response, asked]] of items.entries()) scorer.score(response, asked, i);
  };
};

// The records of the task files.
const records = new Map();
for (const { name } of listTasks()) {
  let task;
  try {
    task = resolveTask(name);
  } catch {
    continue; // a group
  }
  if (task.output_type !== 'generate_until') continue;
  const block = scoreBlockOf(task);
  const maker = new QuestionMaker({ ...task, num_fewshot: 0 });
  for (const mode of ['libmoe', 'fixed']) {
    const scorer = taskScorer(name, block, mode);
    for (const example of task.examples ?? []) {
      if (example.response === undefined || block.use === 'llm_judge') continue;
      const [doc = example.doc] = processRows([example.doc], task.process_docs, name);
      const { target, choices } = maker.make(doc, 0);
      const list = records.get(`${block.use}:${mode}`) ?? [];
      records.set(`${block.use}:${mode}`, list);
      list.push(() => scorer.score(example.response, { doc, target, choices }, 0));
    }
  }
}
for (const [name, list] of [...records].sort())
  await rate(`${name}, ${list.length} records`, list.length, () => {
    for (const score of list) score();
  });

// Texts as long as those of the benchmarks.
const documents = many(() => Array.from({ length: 3 }, () => words(1, 5)));
for (const [what, response] of [
  ['near', (golds) => changed(golds[1], 0.1)],
  ['far', () => words(1, 5)],
  ['a sentence', (golds) => `${words(4, 8)} ${golds[0]}`],
])
  await rate(
    `anls:${what}, 3 golds of 1 to 5 words`,
    1000,
    scoring(
      { use: 'anls' },
      'libmoe',
      documents.map((golds) => [response(golds), question(golds)]),
    ),
  );
const lines = many(() => words(30, 60));
await rate(
  'edit_similarity:30 to 60 words',
  1000,
  scoring(
    { use: 'edit_similarity' },
    'libmoe',
    lines.map((gold) => [changed(gold, 0.2), question(gold)]),
  ),
);
await rate(
  'rouge_l_f:10 to 20 words',
  1000,
  scoring(
    { use: 'rouge_l_f' },
    'libmoe',
    many(() => [`${words(5, 10)}. ${words(5, 10)}.`, question(`${words(5, 10)}. ${words(5, 10)}.`)]),
  ),
);
const captions = many(() => [words(8, 12), question(Array.from({ length: 5 }, () => words(8, 12)))]);
await rate(
  'caption_ngram:5 references of 8 to 12 words',
  1000,
  scoring({ use: 'caption_ngram' }, 'libmoe', captions),
);
const scorer = taskScorer('bench', { use: 'caption_ngram' }, 'libmoe');
const scored = captions.map(([response, asked], docId) => ({
  ...asked,
  docId,
  response,
  score: scorer.score(response, asked, docId),
}));
for (const part of ['bleu_4', 'cider'])
  await rate(`captions:${part} of 1000 images, 5 references`, 1000, () =>
    reportNumbers(reportSchema.parse({ x: { use: 'caption', part } }), scored, 'libmoe', 0),
  );
if (values.out)
  writeFileSync(values.out, `${JSON.stringify({ processor: cpus()[0].model, results }, null, 2)}\n`);
