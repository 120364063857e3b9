#!/usr/bin/env node
// What keeping the routing of every token costs an evaluation: PIQA by log-likelihood and by written answers, plain and with `routing`, in turn. After `npm run build:ts`, with the
// bundles of docs/real-evaluations.md and an upcycled checkpoint:
//   node bench/evaluation-routing.mjs --model MOE --data bundles [--limit 300] [--rounds 7] [--new-tokens 32] [--out FILE]
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { evaluate } from '../dist/evaluation/index.js';
import { loadModel } from '../dist/models/language/index.js';
import { native } from '../dist/native/index.js';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    limit: { type: 'string', default: '300' },
    rounds: { type: 'string', default: '7' },
    threads: { type: 'string', default: '2' },
    'new-tokens': { type: 'string', default: '32' },
    out: { type: 'string' },
  },
});
const threads = Number(values.threads);
native().setThreads(threads);
const model = await loadModel(values.model);
const tasks = {
  'log-likelihood': 'piqa',
  generation: {
    task: 'piqa_written',
    dataset_path: 'baber/piqa',
    validation_split: 'validation',
    output_type: 'generate_until',
    doc_to_text: 'Question: {{goal}}\nAnswer:',
    doc_to_target: 'sol1',
    generation_kwargs: { until: [], max_new_tokens: Number(values['new-tokens']) },
  },
};
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-routing-cost-'));
const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
let runs = 0;

/** Seconds from the first question to the last answer, of all processors in that time, and of the whole evaluation. */
async function timed(task, routing) {
  const out = path.join(folder, String(runs++));
  const start = performance.now();
  const options = { limit: Number(values.limit), bootstrapResamples: 100, dataFolder: values.data };
  const steps = evaluate(model, { tasks: [task], out, routing, ...options });
  let asked;
  let requests;
  for (let step = await steps.next(); ; step = await steps.next()) {
    if (step.done) break;
    const { stage, done, total } = step.value;
    if (stage !== 'score') continue;
    asked ??= { at: performance.now(), cpu: process.cpuUsage() };
    requests = total;
    if (done < total) continue;
    asked.end = performance.now();
    asked.cpu = process.cpuUsage(asked.cpu);
  }
  const bytes = routing ? statSync(path.join(out, 'routing.records')).size : 0;
  const whole = (performance.now() - start) / 1e3;
  rmSync(out, { recursive: true });
  const cpu = (asked.cpu.user + asked.cpu.system) / 1e6;
  return { asking: (asked.end - asked.at) / 1e3, cpu, whole, requests, bytes };
}

try {
  const results = { threads, processor: cpus()[0].model, limit: Number(values.limit), kinds: {} };
  for (const [kind, task] of Object.entries(tasks)) {
    await timed(task, false);
    await timed(task, true);
    const rounds = [];
    for (let round = 0; round < Number(values.rounds); round += 1) {
      // Whichever comes first may find the machine warmer.
      const first = round % 2 === 1;
      const one = await timed(task, first);
      const other = await timed(task, !first);
      rounds.push(first ? { routed: one, plain: other } : { plain: one, routed: other });
    }
    const of = (which, what) => median(rounds.map((round) => round[which][what]));
    const over = (what) => median(rounds.map(({ plain, routed }) => routed[what] / plain[what] - 1));
    const { requests, bytes } = rounds[0].routed;
    results.kinds[kind] = {
      requests,
      bytes,
      asking: over('asking'),
      cpu: over('cpu'),
      whole: over('whole'),
      rounds,
    };
    const percent = (x) => `${(100 * x).toFixed(1)} %`;
    console.log(
      `${kind}: ${requests} requests, plain ${of('plain', 'asking').toFixed(3)} s, with routing ${of('routed', 'asking').toFixed(3)} s: ` +
        `${percent(over('asking'))} more while asking (${percent(over('cpu'))} of processor time), ${percent(over('whole'))} of the whole run; ${(bytes / 2 ** 20).toFixed(1)} MiB of records`,
    );
  }
  if (values.out) writeFileSync(values.out, `${JSON.stringify(results, null, 2)}\n`);
} finally {
  model.dispose();
  rmSync(folder, { recursive: true });
}
