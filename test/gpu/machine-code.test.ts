import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { binaryPath } from '../../ts/native/index.ts';
import { needed } from './elf.ts';
import { entries, type Kernel, kernelsIn, kernelsOf } from './kernels.ts';

const root = path.resolve(import.meta.dirname, '../..');
const golden = (name: string) => readFileSync(path.join(root, 'test/golden/machine-code', name));

describe('the reader of machine code', () => {
  it('finds in a cubin for sm_80 what nvdisasm prints', () => {
    const [kernel, ...rest] = kernelsOf(golden('instructions_80.cubin'), 80);
    expect(rest).toEqual([]);
    expect(kernel).toEqual({
      name: '_Z3k80PjPK5uint4',
      architecture: 80,
      registers: 32,
      stack: 400,
      instructions: { LDGSTS: 2, LDSM: 2, HMMA: 2, DMMA: 1, STL: 25, LDL: 1 },
    });
  });

  it('unpacks a fat binary for sm_90a', () => {
    const [entry, ...rest] = entries(golden('instructions_90a.fatbin'));
    expect(rest).toEqual([]);
    expect(entry).toMatchObject({ ptx: false, architecture: 90 });
    const found = kernelsOf(entry!.bytes, 90).sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(found.map((k) => [k.name, k.stack, k.instructions])).toEqual([
      ['_Z3k90PjPK5uint4iPKv', 0, { UBLKCP: 2, UTMALDG: 1, UTMASTG: 1, HGMMA: 2 }],
      ['_Z4k90rPj', 0, { HGMMA: 1 }],
    ]);
    expect(found.every((k) => k.registers > 8)).toBe(true);
  });

  it('refuses what is no ELF file', () => {
    expect(() => kernelsOf(Buffer.from('PTX'), 80)).toThrow(/not a 64-bit ELF/);
  });
});

it.skipIf(process.platform !== 'linux')('the shipped binary asks the loader for libc alone', () => {
  const libc = [
    'libc.so.6',
    'libm.so.6',
    'libpthread.so.0',
    'libdl.so.2',
    'librt.so.1',
    'ld-linux-x86-64.so.2',
  ];
  const others = needed(readFileSync(binaryPath())).filter((name) => !libc.includes(name));
  expect(others).toEqual([]);
});

/**
 * Kernels that keep something in local memory, with the reason. A spill is time lost on every use; a slow path of a mathematical function that saves the
 * registers of its caller is not.
 */
const mayUseStack: readonly [kernel: RegExp, reason: string][] = [
  [
    /cuda10map_kernel.*GradientILNS_5UnaryE3E/,
    'gradient of sqrt: the path for subnormal divisors calls a function',
  ],
  [
    /simt6kernelIdNS0_13SlopeEpilogueIdE/,
    'gradient of the activation in f64, which only serves gradient checks',
  ],
];

interface Compiled {
  source: string;
  kernels: Kernel[];
}

/** What the build of this checkout made of each .cu file, or why nothing can be said. */
function compiled(): Compiled[] | string {
  const build = path.join(root, '.cmake/Release/CMakeFiles');
  const sources = readdirSync(path.join(root, 'cuda'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.cu'))
    .map((name) => path.join('cuda', name))
    .sort();
  const objects = sources.map((source) => {
    const generation = path.basename(path.dirname(source));
    const target = generation === 'cuda' ? 'libmoe_cuda' : `libmoe_cuda_${generation}`;
    return { source, object: path.join(build, `${target}.dir`, `${source}.o`) };
  });
  const missing = objects.filter(({ object }) => !existsSync(object));
  if (missing.length === objects.length) return 'this checkout was built without nvcc';
  const old = objects.filter(
    ({ source, object }) =>
      !existsSync(object) || statSync(object).mtimeMs < statSync(path.join(root, source)).mtimeMs,
  );
  if (old.length > 0)
    return `the build is older than ${old.map((o) => o.source).join(', ')}: run node scripts/build-native.mjs`;
  return objects.map(({ source, object }) => ({ source, kernels: kernelsIn(readFileSync(object)) }));
}

const build = compiled();
if (typeof build === 'string') console.log(`machine code of the kernels: not looked at, ${build}`);
const files = typeof build === 'string' ? [] : build;

describe.skipIf(typeof build === 'string')('the machine code of the kernels', () => {
  const folder = (name: string) => files.filter((f) => path.dirname(f.source) === name);
  const has = (kernel: Kernel, ...names: string[]) => names.some((name) => kernel.instructions[name]);

  it('uses no local memory', () => {
    const wrong = files.flatMap(({ source, kernels }) =>
      kernels
        .filter(
          (k) => (k.stack > 0 || has(k, 'LDL', 'STL')) && !mayUseStack.some(([name]) => name.test(k.name)),
        )
        .map((k) => `${source} sm_${k.architecture}: ${k.name} has ${k.stack} bytes of stack`),
    );
    expect(wrong).toEqual([]);
  });

  it.skipIf(folder('cuda/sm80').length === 0)('of cuda/sm80 is mma.sync fed by cp.async and ldmatrix', () => {
    const without = folder('cuda/sm80').filter(
      ({ kernels }) =>
        kernels.length > 0 && !kernels.some((k) => has(k, 'HMMA') && has(k, 'LDSM') && has(k, 'LDGSTS')),
    );
    expect(without.map((f) => f.source)).toEqual([]);
  });

  it.skipIf(folder('cuda/sm90').length === 0)('of cuda/sm90 is wgmma fed by bulk copies', () => {
    const kernels = folder('cuda/sm90').flatMap((f) => f.kernels);
    const without = folder('cuda/sm90').filter(
      (f) => f.kernels.length > 0 && !f.kernels.some((k) => has(k, 'HGMMA') && has(k, 'UTMALDG', 'UBLKCP')),
    );
    expect(without.map((f) => f.source)).toEqual([]);
    expect(kernels.filter((k) => k.architecture !== 90)).toEqual([]);
  });

  // Warp groups that hand registers over (cuda/sm90/product.h) count on 168 a thread; with fewer at launch the multipliers would wait for ever.
  it.skipIf(folder('cuda/sm90').length === 0)('is launched with the registers that are handed over', () => {
    const handing = files.flatMap((f) => f.kernels).filter((k) => has(k, 'USETMAXREG'));
    expect(handing.length).toBeGreaterThan(0);
    expect(handing.filter((k) => k.registers !== 168).map((k) => `${k.name}: ${k.registers}`)).toEqual([]);
  });
});
