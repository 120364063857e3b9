import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { runDemo } from '../../ts/experiment/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { traces } from './tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-demo-'));
afterAll(() => rmSync(folder, { recursive: true }));
setThreads(1); // fastest at this size, above all on a busy machine
const json = (...parts: string[]) => JSON.parse(readFileSync(path.join(folder, ...parts), 'utf8'));

describe('the demo', () => {
  const out = path.join(folder, 'demo');
  const demo = (seed?: number) => runDemo({ out, smoke: true, status: null, ...(seed && { seed }) });

  it('trains, upcycles, evaluates, judges and reports; called again it has nothing left to do', async () => {
    const { runs, verdicts, report } = await demo();
    expect(runs.map(({ name }) => name)).toEqual(['dense', 'moe', 'dense-continued']);
    for (const run of runs) {
      expect(run.tokens).toBe(6 * 4 * 32);
      expect(run.flops).toBeGreaterThan(0);
      expect(run.seconds).toBeGreaterThan(0);
      expect(Object.keys(run.tasks).sort()).toEqual(['held-out', 'late-years', 'word-order']);
      expect(run.bitsPerByte).toBeGreaterThan(1);
      expect(run.bitsPerByte).toBeLessThan(8);
    }
    const [dense, moe] = runs;
    expect(moe!.parameters).toBeGreaterThan(3 * dense!.parameters);
    expect(moe!.activeParameters).toBeLessThan(2 * dense!.parameters);
    expect(verdicts).toHaveLength(2);
    for (const verdict of verdicts) {
      expect(verdict).toMatch(/\bmoe\b.*paired bootstrap/);
      expect(verdict).toContain('dense-continued');
    }
    const html = readFileSync(report, 'utf8');
    expect(html).toContain('<svg');
    for (const { name } of runs) expect(html).toContain(name);

    const before = json('demo', 'moe', 'summary.json');
    const again = await demo();
    expect(again.runs).toEqual(runs);
    expect(json('demo', 'moe', 'summary.json')).toEqual(before);
  }, 240_000);

  it('refuses a folder with a demo of another seed and leaves it as it is', async () => {
    const before = traces(out);
    expect(await demo(7).catch((error: Error) => error.message)).toMatch(
      /^ERR_LIBMOE_STATE: .*another recipe: seed was 42, is 7\. .*--out/,
    );
    expect(traces(out)).toEqual(before);
  });

  it('never deletes what somebody keeps under the same names', async () => {
    const mine = path.join(folder, 'mine');
    mkdirSync(path.join(mine, 'dense'), { recursive: true });
    writeFileSync(path.join(mine, 'dense', 'recipe.yaml'), 'flour, water, salt\n');
    writeFileSync(path.join(mine, 'dense', 'thesis.tex'), 'years of work\n');
    const before = traces(mine);
    const code = await runDemo({ out: mine, smoke: true, status: null }).catch(codeOf);
    expect(code).toBe('ERR_LIBMOE_STATE');
    expect(traces(mine)).toEqual(before);
  });

  it('stops at a signal', async () => {
    const stopped = path.join(folder, 'stopped');
    const options = { out: stopped, smoke: true, status: null, signal: AbortSignal.abort() };
    expect(await runDemo(options).catch(codeOf)).toBe('ERR_LIBMOE_STOPPED');
    expect(existsSync(stopped)).toBe(false);
  });
});
