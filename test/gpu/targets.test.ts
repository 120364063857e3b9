import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { kernelTimes, type StageResult, table, targets } from '../../scripts/gpu-targets.mjs';

const hopper = { name: 'NVIDIA H200', computeCapability: '9.0' };
const figure = (rows: ReturnType<typeof targets>, target: string, layer: string) =>
  rows.find((r) => r.target.startsWith(target) && r.layer === layer);

const bench = (kernels: number, results: object[]): StageResult => ({
  device: hopper,
  kernels,
  bench: { results },
});

describe('the targets of the GPU kernels', () => {
  it('have no figure where no result answers them', () => {
    const rows = targets([{ device: hopper, kernels: 90 }]);
    expect(rows.length).toBeGreaterThan(50);
    expect(rows.filter((r) => 'value' in r || 'met' in r)).toEqual([]);
    expect(table(rows)).not.toMatch(/met|NaN|undefined/i);
  });

  it('are met or not by what was measured, with the kernels that were meant', () => {
    const forward = {
      name: 'grouped_ffn/Qwen3/bf16/experts/forward/uniform',
      gflops: 400_000,
      median: 6e-3,
      peers: { grouped_mm: { ratio: 2.3 }, products: { ratio: 0.6, median: 4e-3 }, triton: { error: 'no' } },
    };
    const train = {
      name: 'grouped_ffn/Qwen3/bf16/layer/train/uniform',
      peers: {
        grouped_mm: { ratio: 2 },
        triton: { ratio: 1.1 },
        products: { ratio: 0.5 },
        sort_loop: { ratio: 5 },
      },
    };
    const saved = {
      name: 'grouped_ffn/Qwen3/bf16/experts/saved/uniform',
      savedBytes: 30,
      peers: { by_hand: { savedBytes: 100 } },
    };
    const routing = {
      name: 'routing/Qwen3/bf16/recorded/uniform',
      gigabytes: 2000,
      baseline: { ratio: 0.05 },
    };
    const peaks = {
      mmaSyncTflops: 600,
      copyGigabytes: 4200,
      combine: [{ name: 'Qwen3', orderedSeconds: 5e-4, atomicSeconds: 4e-4 }],
    };
    const rows = targets([
      { ...bench(90, [forward, train, saved, routing]), peaks },
      bench(80, [{ ...forward, gflops: 420_000 }]),
      {
        ...bench(90, []),
        profiles: {
          [forward.name]: [
            { name: 'void layout_kernel', nanoseconds: 1e3 },
            { name: 'void sm90::product_kernel<A>', nanoseconds: 3e6 },
            { name: 'void sm90::product_kernel<B>', nanoseconds: 2e6 },
            { name: 'void combine_kernel', nanoseconds: 4e5 },
          ],
        },
      },
    ]);
    expect(figure(rows, 'experts forward against torch', 'Qwen3')).toMatchObject({ value: 2.3, met: true });
    expect(figure(rows, 'experts forward, share of cuBLAS', 'Qwen3')).toMatchObject({
      value: 0.6,
      met: false,
    });
    expect(figure(rows, 'layer forward and backward', 'Qwen3')).toMatchObject({
      value: 1.1,
      met: false,
      note: 'triton',
    });
    expect(figure(rows, 'grouped products', 'Qwen3')).toMatchObject({ value: 0.8, met: true });
    expect(figure(rows, 'experts forward with mma.sync, share', 'Qwen3')).toMatchObject({
      value: 0.7,
      met: true,
    });
    expect(figure(rows, 'experts forward with mma.sync against', 'Qwen3')).not.toHaveProperty('value');
    expect(figure(rows, 'bytes kept', 'Qwen3')).toMatchObject({ value: 0.3, met: true });
    expect(figure(rows, 'router, statistics and sort, share', 'Qwen3')).toMatchObject({
      value: 0.05,
      met: true,
    });
    expect(figure(rows, 'router, statistics and sort, times', 'Qwen3')).toMatchObject({
      value: 2.1,
      met: false,
    });
    expect(figure(rows, 'cost of a fixed order', 'Qwen3')!.value).toBeCloseTo(1 / 60, 12);
    expect(figure(rows, 'experts forward against torch', 'OLMoE')).not.toHaveProperty('met');
  });

  it('read kernel times as ncu prints them', () => {
    const csv =
      '==PROF== Connected\n"ID","Kernel Name","gpu__time_duration.sum"\n"","","us"\n"0","void a<int, 2>(float *, ""x"")","1,234.5"\n"1","b","2"\n';
    expect(kernelTimes(csv)).toEqual([
      { name: 'void a<int, 2>(float *, ""x"")', nanoseconds: 1234500 },
      { name: 'b', nanoseconds: 2000 },
    ]);
    expect(kernelTimes('==ERROR== no permission\n')).toEqual([]);
  });
});

describe('scripts/verify-on-gpu record', () => {
  it('refuses what is no result', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-record-test-'));
    try {
      writeFileSync(path.join(folder, 'x.tar'), 'no tar');
      const record = () =>
        execFileSync('bash', [path.resolve('scripts/verify-on-gpu'), 'record', path.join(folder, 'x.tar')], {
          stdio: 'pipe',
        });
      expect(record).toThrow(/Command failed/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
