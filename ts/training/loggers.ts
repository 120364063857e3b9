import { existsSync } from 'node:fs';
import { EventWriter, Journal, truncateJournal } from '../storage/index.ts';
import type { Callback } from './callbacks.ts';

/**
 * One line per step into a JSONL file (contracts: `metrics.jsonl`). A resumed run first cuts what was logged after its checkpoint, so
 * that the file is the one of an undisturbed run.
 */
export function metricsLogger(path: string): Callback {
  let journal: Journal | undefined;
  return {
    name: 'metrics',
    onStart(run) {
      if (existsSync(path)) truncateJournal(path, (entry) => Number(entry.step) <= run.step);
      // A crash of the process loses no line; a power cut what came after the last checkpoint, which is then repeated.
      journal = new Journal(path, { syncEvery: 100 });
    },
    onStep({ routing, ...report }) {
      journal?.append({ ...report, moe: routing });
    },
    onCheckpoint() {
      journal?.sync();
    },
    close() {
      journal?.close();
      journal = undefined;
    },
  };
}

/** Curves for TensorBoard, in a new event file of `folder` per start. */
export function tensorboardLogger(folder: string): Callback {
  let writer: EventWriter | undefined;
  return {
    name: 'tensorboard',
    onStart(run) {
      writer = new EventWriter(folder, run.step > 0 ? { resumeAt: run.step + 1 } : {});
    },
    onStep(report) {
      const { step, routing, evaluation = {}, ...numbers } = report;
      const values: Record<string, number> = {};
      for (const [name, value] of Object.entries(numbers)) values[`train/${name}`] = value;
      for (const [name, value] of Object.entries(evaluation)) values[`evaluation/${name}`] = value;
      for (const [layer, { counts, entropy, margin, dropped }] of Object.entries(routing)) {
        const total = counts.reduce((a, b) => a + b, 0);
        Object.assign(values, {
          [`moe/${layer}/entropy`]: entropy,
          [`moe/${layer}/margin`]: margin,
          [`moe/${layer}/dropped`]: dropped,
          [`moe/${layer}/largestShare`]: total > 0 ? Math.max(...counts) / total : 0,
        });
      }
      writer?.scalars(step, values);
    },
    onCheckpoint() {
      writer?.sync();
    },
    close() {
      writer?.close();
      writer = undefined;
    },
  };
}
