#!/usr/bin/env node
// Makes the bundles that docs/real-evaluations.md asks questions from, out of the folder of development data:
//   node scripts/real-evaluations.mjs DATA OUT
// Files that hold prompts instead of a data set's own columns are taken apart first, so that every task asks in its own form.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [data, out] = process.argv.slice(2);
if (data === undefined || out === undefined) {
  console.error('usage: node scripts/real-evaluations.mjs DATA OUT   (DATA: the folder that holds lm_eval)');
  process.exit(2);
}
const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'libmoe-real-evaluations-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));

const afterQuestion = (query) => query.replace(/^Question: /, '');
const lettered = ({ choices, gold }) => ({
  choices: { text: choices, label: choices.map((_, i) => 'ABCDEFGH'[i]) },
  answerKey: 'ABCDEFGH'[gold],
});

/** Rows of llm-foundry's files with the columns of the hub. */
const columns = {
  arc: (row, i) => ({ id: String(i), question: afterQuestion(row.query), ...lettered(row) }),
  openbookqa: (row, i) => ({ id: String(i), question_stem: row.query, ...lettered(row) }),
  lambada: ({ context, continuation }) => ({ text: `${context} ${continuation}` }),
  boolq: ({ query, gold }, idx) => {
    const [, passage, question] = /^Passage: (.*)\nQuestion: (.*)\?\s*$/s.exec(query) ?? [];
    if (passage === undefined) throw new Error(`boolq.jsonl:${idx + 1} is not "Passage: …\\nQuestion: …?"`);
    return { question, passage, idx, label: gold };
  },
};

function converted(name, file, change) {
  const rows = readFileSync(join(data, 'lm_eval/llm-foundry', file), 'utf8')
    .split('\n')
    .filter(Boolean);
  const path = join(work, `${name}.jsonl`);
  writeFileSync(path, rows.map((row, i) => `${JSON.stringify(change(JSON.parse(row), i))}\n`).join(''));
  return path;
}

const arrow = (name) => join(data, 'lm_eval/hf_arrow', `${name}_validation.arrow`);

/** Id of the hub, sources, and what `data import` is told of them. */
const bundles = () => [
  ['nyu-mll/blimp', [join(data, 'lm_eval/blimp/BLiMP.zip')], ['{config}/train=data/{config}.jsonl']],
  ['cais/mmlu', [join(data, 'lm_eval/mmlu/mmlu_dev_val_test.zip')], [], 'mmlu'],
  ['baber/piqa', [arrow('piqa_plain_text')], ['validation=*.arrow']],
  ['lighteval/siqa', [arrow('social_i_qa_none')], ['validation=*.arrow']],
  ['tau/commonsense_qa', [arrow('tau_commonsense_qa_none')], ['validation=*.arrow']],
  ['allenai/winogrande', [arrow('winogrande_winogrande_xl')], ['winogrande_xl/validation=*.arrow']],
  [
    'allenai/ai2_arc',
    [
      converted('ARC-Easy', 'arc_easy.jsonl', columns.arc),
      converted('ARC-Challenge', 'arc_challenge.jsonl', columns.arc),
    ],
    ['{config}/test={config}.jsonl'],
  ],
  [
    'allenai/openbookqa',
    [converted('openbookqa', 'openbook_qa.jsonl', columns.openbookqa)],
    ['main/test=*.jsonl'],
  ],
  ['aps/super_glue', [converted('boolq', 'boolq.jsonl', columns.boolq)], ['boolq/validation=*.jsonl']],
  [
    'EleutherAI/lambada_openai',
    [converted('lambada', 'lambada_openai.jsonl', columns.lambada)],
    ['default/test=*.jsonl'],
  ],
];

if (!existsSync(cli)) {
  console.error(`${cli} is not there: npm run build:ts`);
  process.exit(2);
}
mkdirSync(out, { recursive: true });
for (const [id, sources, splits, layout] of bundles()) {
  const options = splits.flatMap((split) => ['--split', split]);
  if (layout !== undefined) options.push('--layout', layout);
  execFileSync(
    process.execPath,
    [cli, 'data', 'import', ...sources, '--id', id, '--out', out, '--replace', ...options],
    {
      stdio: 'inherit',
    },
  );
}
// Its rows are cleaned already, so it is the data file of the tasks hellaswag_1000 and lm.hellaswag_1000.
const hellaSwag = readFileSync(join(data, 'lm_eval/hellaswag/hellaswag_val_1000.jsonl'));
writeFileSync(join(out, 'hellaswag_val_1000.jsonl'), hellaSwag);
