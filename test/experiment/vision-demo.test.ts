import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { runVisionDemo } from '../../ts/experiment/index.ts';
import { RecordReader } from '../../ts/storage/index.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';

leaveToCollector();
const folder = temporaryFolder();

it('the vision demo trains a tower and three stages, evaluates, reports, and has nothing left to do when called again', async () => {
  const options = { out: join(folder, 'demo'), smoke: true, status: null };
  const { runs, chance, report } = await runVisionDemo(options);
  expect(runs.map(({ name }) => name)).toEqual(['prefinetune', 'moe', 'dense-continued']);
  expect(runs[1]!.parameters).toBeGreaterThan(runs[0]!.parameters);
  for (const { tasks } of runs) expect(Object.keys(tasks)).toEqual(['emoji-name']);
  expect(chance['emoji-name']).toBeCloseTo(1 / 8, 12);
  expect(existsSync(report) && readFileSync(report, 'utf8')).toContain('emoji-name');
  const records = new RecordReader(join(options.out, 'moe', 'routing', 'categories.records'));
  const blocks = [...records.blocks()];
  expect(blocks.map(({ attributes }) => `${attributes.layer} ${attributes.category}`)).toEqual(
    ['vision.0', 'vision.1', 'projector'].map((layer) => `${layer} Activities`),
  );
  // Four patches of each of twelve drawings, of which each is sent to two of four experts.
  expect(blocks.map(({ rows }) => rows)).toEqual([48, 48, 48]);
  expect(new Set(records.column(blocks[0]!, 'experts')).size).toBeGreaterThan(1);
  records.close();
  expect(readFileSync(report, 'utf8')).toContain('moe: load of the experts by category of the image');
  const weights = join(
    options.out,
    'moe',
    'checkpoints',
    readFileSync(join(options.out, 'moe', 'checkpoints', 'latest'), 'utf8').trim(),
    'config.json',
  );
  const before = statSync(weights).mtimeMs;
  const again = await runVisionDemo(options);
  expect(again.runs.map(({ tasks }) => tasks)).toEqual(runs.map(({ tasks }) => tasks));
  expect(statSync(weights).mtimeMs).toBe(before);
}, 240_000);
