import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readJournal } from '../../ts/storage/index.ts';
import {
  type Callback,
  metricsLogger,
  type Run,
  type StepReport,
  statusLine,
  tensorboardLogger,
} from '../../ts/training/index.ts';
import { temporaryFolder } from '../storage/temporary.ts';

const root = temporaryFolder();
const runAt = (step: number): Run => ({
  step,
  totalSteps: 1000,
  tokens: step * 100,
  out: undefined,
  stop() {},
  finish() {},
  requestCheckpoint() {},
});
const report = (step: number): StepReport => ({
  step,
  tokens: step * 100,
  loss: 3.25,
  crossEntropy: 3,
  balanceLoss: 1,
  routerZLoss: 0.5,
  learningRate: 1e-3,
  gradNorm: 0.75,
  tokensPerSecond: 12345,
  routing: { 'blocks.0.moe': { counts: [60, 40], entropy: 0.6, margin: 0.1, dropped: 2 } },
  seconds: 0.01,
});

async function log(callback: Callback, from: number, steps: number[]): Promise<void> {
  await callback.onStart?.(runAt(from));
  for (const step of steps) await callback.onStep?.(report(step), runAt(step));
  await callback.onCheckpoint?.(runAt(steps.at(-1)!));
  callback.close?.();
}

describe('metricsLogger', () => {
  it('writes the keys of the contract', async () => {
    const path = join(root, 'metrics.jsonl');
    await log(metricsLogger(path), 0, [1]);
    expect(Object.keys(readJournal(path)[0]!)).toEqual(
      expect.arrayContaining(
        'step tokens loss crossEntropy balanceLoss routerZLoss learningRate gradNorm tokensPerSecond moe'.split(
          ' ',
        ),
      ),
    );
    expect(readJournal(path)[0]!.moe).toEqual(report(1).routing);
  });
});

describe('tensorboardLogger', () => {
  it('writes a file per start, with losses and per-layer curves', async () => {
    const folder = join(root, 'events');
    await log(tensorboardLogger(folder), 0, [1, 2]);
    await log(tensorboardLogger(folder), 1, [2]);
    const files = readdirSync(folder);
    expect(files).toHaveLength(2);
    const text = readFileSync(join(folder, files[0]!), 'latin1');
    for (const tag of [
      'train/loss',
      'train/gradNorm',
      'moe/blocks.0.moe/entropy',
      'moe/blocks.0.moe/largestShare',
    ]) {
      expect(text).toContain(tag);
    }
  });
});

describe('statusLine', () => {
  function lines(isTTY: boolean, times: number[]): string {
    let text = '';
    let i = 0;
    const write = (part: string) => {
      text += part;
    };
    const output = { isTTY, columns: 70, write };
    const callback = statusLine({ output, now: () => times[i++]!, label: 'demo' });
    callback.onStart?.(runAt(0));
    for (const step of times.slice(1).map((_, k) => k + 1)) callback.onStep?.(report(step), runAt(step));
    callback.close?.();
    return text;
  }

  it('rewrites one line on a terminal, and ends it', () => {
    const text = lines(true, [0, 1, 1.01, 2]);
    expect(text).toBe(
      '\r\x1b[Kdemo    1/1000  loss 3.2500  12.3k tokens/s  ETA 16:39' +
        '\r\x1b[Kdemo    3/1000  loss 3.2500  12.3k tokens/s  ETA 11:05\n',
    );
  });

  it('writes a plain line now and then elsewhere', () => {
    const text = lines(false, [0, 1, 2, 12]);
    expect(text.split('\n')).toEqual([
      expect.stringContaining('1/1000'),
      expect.stringContaining('3/1000'),
      '',
    ]);
    expect(text).not.toContain('\r');
  });
});
