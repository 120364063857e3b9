import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { evaluate, heldOutTextTask, MersenneTwister, type TaskInput } from '../../ts/evaluation/index.ts';
import { bigram, FakeModel } from '../evaluation/fake-model.ts';

const random = new MersenneTwister(5);
const words =
  'the of and to in that we our people country year peace nation shall with great congress government for all'.split(
    ' ',
  );
const text = (count: number): string => Array.from({ length: count }, () => random.choice(words)).join(' ');
const heldOut = heldOutTextTask(
  'held-out-text',
  Array.from({ length: 24 }, (_, i) => ({ id: `doc-${i}`, text: text(60 + random.below(80)) })),
  'Held-out text',
);
const choices: TaskInput = {
  task: 'word-order',
  task_alias: 'Word order',
  documents: Array.from({ length: 120 }, () => {
    const good = text(8);
    return { good, bad: good.split(' ').reverse().join(' ') };
  }),
  output_type: 'multiple_choice',
  doc_to_choice: '{{[good, bad]}}',
  doc_to_target: 0,
  metric_list: [{ metric: 'acc' }, { metric: 'acc_norm' }],
  metadata: { version: 1 },
};

/** A model that is better than the fake one by `gain` nats per byte, a little more or less from byte to byte. */
function model(name: string, gain: number): FakeModel {
  return new FakeModel({
    fingerprint: name,
    logProbability: (previous, next) =>
      Math.min(
        -0.01,
        bigram(previous, next) / 4.2 + gain + 0.02 * Math.sin(previous * 3.1 + next + gain * 90),
      ),
  });
}

export interface SampleRun {
  name: string;
  gain: number;
  from: number;
  to: number;
  experts?: number;
  layers?: readonly number[];
}

/** Writes a run folder as training, evaluation and experiment leave it, with made-up numbers. */
export async function writeSampleRun(
  root: string,
  { name, gain, from, to, experts, layers = [0, 1, 2, 3] }: SampleRun,
): Promise<string> {
  const folder = join(root, name);
  mkdirSync(folder, { recursive: true });
  const steps = 300;
  const noise = new MersenneTwister(name.length);
  const lines = Array.from({ length: steps }, (_, i) => {
    const share = i / steps;
    const crossEntropy = to + (from - to) * Math.exp(-6 * share) + 0.12 * (noise.random() - 0.5);
    const moe = Object.fromEntries(
      layers.map((layer) => [
        String(layer),
        {
          counts: Array.from({ length: experts ?? 0 }, (_, e) =>
            Math.round(256 + 190 * (1 - share * 0.4) * Math.sin(e * 1.9 + layer) + 30 * noise.random()),
          ),
          entropy:
            Math.log(experts ?? 1) * (0.97 - 0.25 * share - 0.04 * layer * share) + 0.01 * noise.random(),
          margin: 0.02 + 0.1 * share + 0.03 * layer * share + 0.01 * noise.random(),
          dropped: 0,
        },
      ]),
    );
    return JSON.stringify({
      step: i + 1,
      tokens: (i + 1) * 4096,
      loss: crossEntropy + 0.01,
      crossEntropy,
      learningRate: 1e-3,
      ...(experts === undefined ? {} : { moe }),
    });
  });
  writeFileSync(join(folder, 'metrics.jsonl'), `${lines.join('\n')}\n`);
  writeFileSync(join(folder, 'recipe.yaml'), `name: ${name}\nmodel:\n  dModel: 128\n  layers: 4\n`);
  writeFileSync(
    join(folder, 'environment.json'),
    JSON.stringify({
      node: process.version,
      cpu: 'AVX-512, 2 cores',
      seed: 7,
      commit: '0123abc',
      command: `libmoe train recipes/demo/${name}.yaml`,
    }),
  );
  writeFileSync(
    join(folder, 'summary.json'),
    JSON.stringify({
      model: experts === undefined ? 'dense, 4 × 128' : `MoE ${experts} × top 2, 4 × 128`,
      parameters: experts === undefined ? 1_310_720 : 3_407_872,
      activeParameters: experts === undefined ? 1_310_720 : 1_705_984,
      tokens: steps * 4096,
      flops: 1.31e6 * 6 * steps * 4096,
      seconds: experts === undefined ? 41.3 : 66.8,
    }),
  );
  for (const [label, behind] of [
    ['step-000150', 0.1],
    ['final', 0],
  ] as const) {
    const run = evaluate(model(`${name}-${label}`, gain - behind), {
      tasks: [heldOut, choices],
      out: join(folder, 'eval', label),
      bootstrapResamples: 1000,
    });
    for (let step = await run.next(); !step.done; step = await run.next());
  }
  return folder;
}

/** The three runs of the demo. */
export async function writeSampleRuns(root: string): Promise<string[]> {
  return [
    await writeSampleRun(root, { name: 'dense-base', gain: 0, from: 6.2, to: 3.3 }),
    await writeSampleRun(root, { name: 'moe', gain: 0.06, from: 3.3, to: 2.9, experts: 8 }),
    await writeSampleRun(root, { name: 'dense-continued', gain: 0.04, from: 3.3, to: 3.0 }),
  ];
}
