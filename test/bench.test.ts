import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { differences, disagreement } from '../bench/agreement.ts';
import { input, mixed, sampled } from '../bench/inputs.ts';
import { type BenchFile, bench, cases, compare } from '../bench/run.ts';
import { ticksOf } from '../bench/stolen-time.ts';
import { libmoe } from './cli/libmoe.ts';

describe('bench', () => {
  it('names every case once, with a floor', async () => {
    const all = await cases();
    expect(new Set(all.map((c) => c.name)).size).toBe(all.length);
    expect(all.filter((c) => !(c.bytes > 0 && c.flops >= 0)).map((c) => c.name)).toEqual([]);
  });

  it('runs as a command', async () => {
    const { code, stdout, stderr } = await libmoe(
      'bench permutation/plan-4096 --rounds 1 --threads 1 --json'.split(' '),
    );
    expect({ code, stderr: stderr.includes('ERR_') }).toEqual({ code: 0, stderr: false });
    expect((JSON.parse(stdout) as BenchFile).results.map((r) => r.name)).toEqual([
      expect.stringContaining('plan-4096'),
    ]);
  }, 240_000);

  it('writes machine, floor and spread as JSON, which --compare reads', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-bench-'));
    try {
      const json = path.join(folder, 'new', 'results.json');
      const lines: string[] = [];
      const log = (line: string) => void lines.push(line);
      await bench({ filters: ['permutation/plan-4096'], rounds: 2, threads: 2, json, log });
      const file = JSON.parse(readFileSync(json, 'utf8')) as BenchFile;
      expect(file.machine).toMatchObject({
        threads: 2,
        instructionSet: expect.stringMatching(/./),
        cores: expect.any(Number),
      });
      const [result, ...rest] = file.results;
      expect(rest).toEqual([]);
      expect(result).toMatchObject({ bytes: 98304, flops: 0, samples: 2, peers: {} });
      expect(result!.stolen).toBeGreaterThanOrEqual(0);
      expect(result!.stolen).toBeLessThan(1);
      expect(result!.p10).toBeGreaterThan(0);
      expect(result!.p10).toBeLessThanOrEqual(result!.median);
      expect(result!.median).toBeLessThanOrEqual(result!.p90);
      expect(lines.join('\n')).toContain(result!.name);
      expect(compare(json, json)).toEqual([
        { name: result!.name, a: result!.median, b: result!.median, ratio: 1 },
      ]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('reads the time that the host took from the sum over processors', () => {
    const text = 'cpu  100 20 30 5000 400 1 2 60 0 0\ncpu0 50 10 15 2500 200 1 1 30 0 0\n';
    expect(ticksOf(text)).toEqual({ ran: 153, stolen: 60 });
  });

  it('sees results that differ, are missing or are no numbers', () => {
    const ours = { out: [1, -2, 3, 4] };
    expect(disagreement(ours, { out: [1, -2, 3, 4.0001] }, 1e-3)).toBeUndefined();
    expect(disagreement(ours, { out: [1, -2, 3, 4.1] }, 1e-3)).toMatch(/out by 0\.018/);
    expect(disagreement(ours, { out: [1, -2, 3, Number.NaN] }, 1e-3)).toMatch(/out/);
    expect(disagreement({ out: [Number.NaN] }, { out: [1] }, 1e-3)).toMatch(/out/);
    expect(disagreement(ours, { out: [1, -2] }, 1e-3)).toMatch(/out/);
    expect(disagreement(ours, {}, 1e-3)).toMatch(/out/);
    expect(disagreement({ ...ours, more: [1] }, ours, 1e-3)).toMatch(/more/);
    expect(differences({ out: [0, 0] }, { out: [0, 0] })).toEqual({ out: 0 });
  });

  it('makes inputs of known values and samples all of a tensor', () => {
    // The same figures come from bench/peers/inputs.py.
    expect([mixed(0, 1), mixed(1, 1), mixed(123456, 7)]).toEqual([33350994, 2672842292, 3531801129]);
    using x = input({ shape: [3], seed: 1, scale: 2 }, 'f32');
    expect(Array.from(x.toArray(), (v) => Math.abs(v) <= 3.4)).toEqual([true, true, true]);
    expect(sampled(x)).toEqual(x.toArray());
    using big = input({ shape: [100, 100], seed: 1 }, 'bf16');
    const places = Array.from({ length: 4096 }, (_, j) => (j * 1000003) % 10000);
    const all = big.toArray();
    expect(sampled(big)).toEqual(places.map((p) => all[p]));
  });
});
