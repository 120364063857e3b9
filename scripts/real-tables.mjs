#!/usr/bin/env node
// Prints the tables of docs/real-evaluations.md out of what `eval --out` wrote:
//   node scripts/real-tables.mjs DATA NAME=FOLDER …     (DATA: the folder that holds lm_eval, for the figures that others published)
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [data, ...given] = process.argv.slice(2);
const runs = given.map((pair) => pair.split('='));
if (runs.length === 0 || runs.some(([, folder]) => folder === undefined)) {
  console.error('usage: node scripts/real-tables.mjs DATA NAME=FOLDER …   (FOLDER: what eval --out wrote)');
  process.exit(2);
}
const results = runs.map(([, folder]) => {
  const { results, groups } = JSON.parse(readFileSync(join(folder, 'results.json'), 'utf8'));
  return { ...results, ...groups };
});

/** Per cent with its standard error, of what there is; a dash otherwise. */
function cell(result, metric) {
  const value = result?.[`${metric},none`];
  if (value === undefined) return '–';
  const error = result[`${metric}_stderr,none`];
  return `${(100 * value).toFixed(1)}${typeof error === 'number' ? ` ± ${(100 * error).toFixed(1)}` : ''}`;
}
const row = (cells) => `| ${cells.join(' | ')} |`;
function table(head, left, rows) {
  const ruler = head.map((_, i) => (i < left ? '---' : '---:'));
  console.log([head, ruler, ...rows].map(row).join('\n'), '\n');
}

const benchmarks = [
  ['BLiMP', 'blimp', 'acc', '50'],
  ['LAMBADA', 'lambada_openai', 'acc', '0'],
  ['PIQA', 'piqa', 'acc', '50'],
  ['PIQA', 'piqa', 'acc_norm', '50'],
  ['HellaSwag-1000', 'hellaswag_1000', 'acc', '25'],
  ['HellaSwag-1000', 'hellaswag_1000', 'acc_norm', '25'],
  ['ARC easy', 'arc_easy', 'acc', '25'],
  ['ARC easy', 'arc_easy', 'acc_norm', '25'],
  ['ARC challenge', 'arc_challenge', 'acc', '25'],
  ['ARC challenge', 'arc_challenge', 'acc_norm', '25'],
  ['WinoGrande', 'winogrande', 'acc', '50'],
  ['OpenBookQA', 'openbookqa', 'acc', '25'],
  ['OpenBookQA', 'openbookqa', 'acc_norm', '25'],
  ['Social IQa', 'social_iqa', 'acc', '33.3'],
  ['CommonsenseQA', 'commonsense_qa', 'acc', '20'],
  ['BoolQ', 'boolq', 'acc', '50'],
  ['MMLU', 'mmlu', 'acc', '25'],
];
table(
  ['benchmark', 'number', 'by chance', ...runs.map(([name]) => name)],
  2,
  benchmarks.map(([title, task, metric, chance]) => [
    title,
    metric,
    chance,
    ...results.map((all) => cell(all[task], metric)),
  ]),
);

const own = Object.keys(results[0]).filter((task) => task.startsWith('lm.'));
if (own.length > 0)
  table(
    ["LibMoE's manner", 'number', runs[0][0]],
    2,
    own.flatMap((task) =>
      ['acc_sum', 'acc_token', 'last_word', 'last_token']
        .filter((metric) => `${metric},none` in results[0][task])
        .map((metric) => [`\`${task}\``, metric, cell(results[0][task], metric)]),
    ),
  );

const lines = (file) =>
  readFileSync(join(data, 'lm_eval/blimp', file), 'utf8')
    .trim()
    .split('\n');
const published = lines('models_summary.jsonl')
  .map((line) => JSON.parse(line))
  .filter(({ UID }) => UID !== 'overall'); // means by phenomenon
const people = new Map(
  lines('human_validation_summary.csv')
    .slice(1)
    .map((line) => [line.split(',')[0].replaceAll('"', ''), Number(line.split(',')[2])]),
);
const percent = (x) => (x === undefined ? '–' : (100 * x).toFixed(1));
table(
  ['paradigm of BLiMP', ...runs.map(([name]) => name), '5-gram', 'LSTM', 'Transformer-XL', 'GPT-2', 'people'],
  1,
  published.map(({ UID, ngram, lstm, txl, gpt2 }) => [
    UID.replaceAll('_', ' '),
    ...results.map((all) => percent(all[`blimp_${UID}`]?.['acc,none'])),
    ...[ngram, lstm, txl, gpt2, people.get(UID)].map(percent),
  ]),
);
