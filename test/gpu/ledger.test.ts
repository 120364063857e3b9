import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  familyOf,
  faults,
  features,
  fingerprint,
  type Ledger,
  type Result,
  readLedger,
  recorded,
  sources,
  state,
  table,
  testsOf,
} from '../../scripts/gpu-ledger.mjs';

const root = path.resolve(import.meta.dirname, '../..');

describe('cuda/VERIFIED.json', () => {
  const ledger = readLedger();

  it('has an entry for every CUDA source, and evidence for every claim', () => {
    expect(faults(ledger)).toEqual([]);
    const stale = sources().filter((source) => state(source, ledger) === 'stale');
    if (stale.length > 0) console.log(`changed since they ran on a GPU: ${stale.join(', ')}`);
    console.log(
      `${sources().filter((s) => state(s, ledger) === 'verified').length} of ${sources().length} CUDA sources verified on a GPU`,
    );
  });

  it('is what FEATURES.md says, where it has the table', () => {
    const text = readFileSync(path.join(root, 'FEATURES.md'), 'utf8');
    // A source that has changed since must no longer be called verified: node scripts/gpu-ledger.mjs refresh
    expect(features(text, ledger) ?? text).toBe(text);
  });

  it('claims only what a log of a run on a GPU says', () => {
    for (const [source, entry] of Object.entries(ledger.files)) {
      if (entry.passed.length === 0) continue;
      const log = JSON.parse(readFileSync(path.join(root, entry.log!), 'utf8')) as Result;
      expect(log.device.emulated).toBe(false);
      expect(log.sources[source]).toEqual({ sha256: entry.sha256, depends: entry.depends });
    }
  });
});

/** A checkout with two families and a header. */
function checkout(use: (folder: string) => void): void {
  const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-ledger-'));
  const write = (file: string, text: string) => {
    mkdirSync(path.join(folder, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(folder, file), text);
  };
  try {
    cpSync(path.join(root, 'CMakeLists.txt'), path.join(folder, 'CMakeLists.txt'));
    write('test/device-files.json', '{"gemm": ["test/ops/gemm.test.ts"], "norm": ["test/ops/norm.test.ts"]}');
    write('native/ops/gemm.h', '// contract');
    write('cuda/core/tile.h', '// tile');
    write('cuda/gemm.cu', '#include "ops/gemm.h"\n#include "cuda/core/tile.h"\n');
    write('cuda/norm.cu', '// norm');
    write('cuda/sm80/gemm_tiles.cu', '#include "cuda/core/tile.h"\n');
    write('cuda/sm90/gemm_tiles.cu', '// wgmma');
    use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function ran(folder: string, change: Partial<Result> = {}): Result {
  return {
    commit: 'abc',
    date: '2026-12-01T10:00:00.000Z',
    device: { name: 'NVIDIA H200', driver: '580.1', emulated: false },
    sources: Object.fromEntries(sources(folder).map((s) => [s, fingerprint(s, folder)])),
    runs: [
      {
        name: 'tests, sm_90a kernels',
        kernels: 90,
        files: { 'test/ops/gemm.test.ts': 'passed', 'test/ops/norm.test.ts': 'failed' },
      },
      { name: 'tests, sm_80 kernels as PTX', kernels: 80, files: { 'test/ops/gemm.test.ts': 'passed' } },
    ],
    ...change,
  };
}

describe('the ledger', () => {
  const empty: Ledger = { files: {} };

  it('records what passed all tests of its family, with the kernels that ran', () => {
    checkout((folder) => {
      const { files } = recorded(empty, ran(folder), 'log.json', folder);
      expect(Object.fromEntries(Object.entries(files).map(([s, e]) => [s, e.passed]))).toEqual({
        'cuda/gemm.cu': ['tests, sm_80 kernels as PTX', 'tests, sm_90a kernels'],
        'cuda/sm80/gemm_tiles.cu': ['tests, sm_80 kernels as PTX'],
        'cuda/sm90/gemm_tiles.cu': ['tests, sm_90a kernels'],
      });
      expect(files['cuda/gemm.cu']).toMatchObject({
        device: 'NVIDIA H200',
        driver: '580.1',
        log: 'log.json',
      });
      expect(familyOf('cuda/core/tile.h', folder)).toBeUndefined();
      expect(testsOf('cuda/core/tile.h', folder)).toHaveLength(2);
    });
  });

  it('takes a file that had nothing to say for what serves all families, not for its own', () => {
    checkout((folder) => {
      const run = (norm: string) => ({
        name: 'tests',
        kernels: 90,
        files: { 'test/ops/gemm.test.ts': 'passed', 'test/ops/norm.test.ts': norm },
      });
      const passed = (norm: string) =>
        Object.keys(recorded(empty, ran(folder, { runs: [run(norm)] }), 'log.json', folder).files);
      expect(passed('skipped')).toEqual(['cuda/core/tile.h', 'cuda/gemm.cu', 'cuda/sm90/gemm_tiles.cu']);
      expect(passed('failed')).toEqual(['cuda/gemm.cu', 'cuda/sm90/gemm_tiles.cu']);
    });
  });

  it('calls a source stale once it, what it includes or a flag has changed', () => {
    checkout((folder) => {
      const ledger = recorded(empty, ran(folder), 'log.json', folder);
      const now = () => sources(folder).map((s) => state(s, ledger, folder));
      // core/tile.h, gemm.cu, norm.cu, sm80, sm90
      expect(now()).toEqual(['not yet run', 'verified', 'not yet run', 'verified', 'verified']);
      expect(table(ledger, folder)).toContain(
        '| `cuda/sm80/gemm_tiles.cu` | tests, sm_80 kernels as PTX on NVIDIA H200, 2026-12-01 |',
      );
      writeFileSync(path.join(folder, 'cuda/core/tile.h'), '// another tile');
      expect(now()).toEqual(['not yet run', 'stale', 'not yet run', 'stale', 'verified']);
      const cmake = readFileSync(path.join(folder, 'CMakeLists.txt'), 'utf8');
      writeFileSync(path.join(folder, 'CMakeLists.txt'), cmake.replace('-std=c++20', '-std=c++20 -O1'));
      expect(now()).toEqual(['not yet run', 'stale', 'not yet run', 'stale', 'stale']);
      expect(table(ledger, folder)).not.toContain('H200');
      // The run was of the other version: it cannot be recorded for this one.
      expect(recorded(empty, { ...ran(folder), sources: {} }, 'log.json', folder).files).toEqual({});
    });
  });

  it('takes no emulated device for a GPU, and no claim without evidence', () => {
    checkout((folder) => {
      const device = { name: 'emulated sm_80', driver: '', emulated: true };
      expect(() => recorded(empty, ran(folder, { device }), 'log.json', folder)).toThrow(/is no GPU/);
      const claim: Ledger = {
        files: { 'cuda/norm.cu': { passed: ['tests'] }, 'cuda/gone.cu': { passed: [] } },
      };
      const wrong = faults(claim, folder).join('\n');
      expect(wrong).toMatch(/cuda\/gone.cu has an entry, but no longer exists/);
      expect(wrong).toMatch(/cuda\/gemm.cu has no entry/);
      expect(wrong).toMatch(/cuda\/norm.cu claims to have passed tests without saying where/);
    });
  });

  it('puts its table between the markers', () => {
    checkout((folder) => {
      const text = 'a\n<!-- gpu:begin -->\nold\n<!-- gpu:end -->\nb\n';
      expect(features(text, empty, folder)).toBe(
        `a\n<!-- gpu:begin -->\n${table(empty, folder)}\n<!-- gpu:end -->\nb\n`,
      );
      expect(features('no markers', empty, folder)).toBeUndefined();
    });
  });
});
